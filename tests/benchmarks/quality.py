"""How good networks become in a given time on real microscopy; one JSON line a run, restartable.

Run ``python tests/benchmarks/quality.py DATA WORK`` with the folder of annotated microscopy and a
folder to work in. Left alone it trains ten minutes on each of four data sets, ours and a plain
U-Net of segmentation-models-pytorch, and puts Otsu's threshold and the paper's numbers beside them;
``--candidates`` compares recipes in two minutes each, ``--ablations`` switches elastic deformation
and weights off in three minutes each, for three seeds. Runs that `WORK/runs.jsonl` has already are
not made again. Of what was run, a Markdown table is printed at the end, and with ``--write FILE``
put between its marks in a file.
"""

import argparse
import json
import platform
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import segmentation_models_pytorch as smp
import tifffile
import torch
from measuring import sampler, whole
from PIL import Image
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label

from unetkit.arrays.instances import instances
from unetkit.arrays.normalization import fit
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.geometry.sizes import SizeContract
from unetkit.models import hardware
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import score_instances
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.training.block_cache import BlockCache
from unetkit.training.recipes import RECIPES

# ruff: noqa: T201 - a benchmark prints


# What stands in the paper: SEG of its two cell sets, whose hidden truth was another; its Rand error
# of EM is another measure on other slices.
PAPER = {"hela": {"seg": 0.7756}, "u373": {"seg": 0.9203}, "em": {}, "bbbc039": {}}
SCORES = ("seg", "average_precision_50", "adapted_rand_error")
# The truth of the first two lacks cells, so that only what is asked of those that it has is fair.
MAIN = {"hela": "seg", "u373": "seg", "em": "adapted_rand_error", "bbbc039": "average_precision_50"}
# A width that a machine without a GPU trains in minutes; the recipe is the default one.
OURS = {"options": ("width=16",)}


def candidate(batch, tile, *numbers, norm, dropout):
    """Say all that candidates differ in, whatever the default recipe came to be."""
    frozen = () if any(number.startswith("frozen=") for number in numbers) else ("frozen=0",)
    return {
        "options": (f"norm={norm}", f"dropout={dropout}"),
        "recipe_set": (f"batch={batch}", f"tile={tile}", *numbers, *frozen),
    }


# Drop-out changes the spread of values when training, and the statistics with it: hence the last.
CANDIDATES = {
    "2 x 164": candidate(2, 164, norm="none", dropout="0.5"),
    "1 x 324": candidate(1, 324, norm="none", dropout="0.5"),
    "2 x 164, batch norm": candidate(2, 164, norm="batch", dropout="0.5"),
    "2 x 164, batch norm, rate 3e-3": candidate(
        2, 164, "learning_rate=3e-3", norm="batch", dropout="0.5"
    ),
    "1 x 324, batch norm": candidate(1, 324, norm="batch", dropout="0.5"),
    "1 x 484, batch norm": candidate(1, 484, norm="batch", dropout="0.5"),
    "2 x 164, batch norm, no drop-out": candidate(2, 164, norm="batch", dropout="0"),
    "2 x 324, batch norm, no drop-out": candidate(2, 324, norm="batch", dropout="0"),
    "1 x 324, batch norm, no drop-out": candidate(1, 324, norm="batch", dropout="0"),
    "1 x 324, batch norm frozen for the last quarter, no drop-out": candidate(
        1, 324, "frozen=0.25", norm="batch", dropout="0"
    ),
    "1 x 324, batch norm frozen for the second half, no drop-out": candidate(
        1, 324, "frozen=0.5", norm="batch", dropout="0"
    ),
}
ABLATIONS = {
    "elastic deformation": ("em", {"recipe_set": ("elastic=1",)}),
    "no elastic deformation": ("em", {"recipe_set": ("elastic=0",)}),
    "border weights": ("hela", {"loss": "unet"}),
    "no weights": ("hela", {"loss": "ce"}),
}


@dataclass(frozen=True)
class Data:
    """A data set, parted into what is learned from and what is scored."""

    name: str
    train: str
    test: str


def read(path):
    return tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))


def pairs(folder, names):
    found = []
    for name in names:
        (image,) = folder.glob(f"images/{name}.*")
        found.append((name, image, folder / "masks" / f"{name}.png"))
    return found


def parts(data, name):
    """List what is learned from and what is scored: never the same frames, slices or images.

    Recipes are chosen on parts of the training images alone: what `hela` and `em` are scored on is
    not seen by ``choice of hela`` and ``choice of em``.
    """
    if name == "choice of hela":
        silver = data / "dic_hela" / "seq01_st"
        parted = (range(58, 84), range(45, 53, 2))
        learned, scored = ([f"t{k:03d}" for k in frames] for frames in parted)
        return pairs(silver, learned), pairs(silver, scored)
    if name == "choice of em":
        learned, _ = parts(data, "em")
        return learned[:12], learned[12:]
    if name == "hela":
        silver = pairs(data / "dic_hela" / "seq01_st", [f"t{k:03d}" for k in range(45, 84)])
        gold = [f"01_t{k:03d}" for k in (2, 5, 21, 31, 33, 34)]
        return silver, pairs(data / "dic_hela", gold)
    if name == "u373":
        silver = pairs(data / "phc_u373" / "seq01_st", [f"t{k:03d}" for k in range(60)])
        later = sorted(p.stem for p in (data / "phc_u373" / "images").iterdir())
        return silver, pairs(data / "phc_u373", [n for n in later if int(n[-3:]) > 60])
    folder = data / {"em": "isbi2012_em", "bbbc039": "bbbc039_nuclei"}[name]
    names = sorted(path.stem for path in (folder / "images").iterdir())
    cut = {"em": 16, "bbbc039": 32}[name]
    return pairs(folder, names[:cut]), pairs(folder, names[cut:])


def prepare(data, work, name):
    found = Data(name, str(work / f"{name}.train.zarr"), str(work / f"{name}.test.zarr"))
    for place, listed in zip((found.train, found.test), parts(data, name), strict=True):
        if Path(place).exists():
            continue
        partial = Path(f"{place}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        writer = DatasetWriter(str(partial))
        for stem, image, mask in listed:
            labels = read(mask)
            if name.endswith("em"):
                # Cells are what membranes part.
                labels = label(labels > 0, connectivity=1)
            writer.add(stem, read(image), axes="yx", labels=labels.astype(np.uint16))
        writer.finish()
        partial.rename(place)
    return found


def scored(data, found):
    """Score one label image for each image that is held out, all together."""
    truths = [whole(sample.labels()) for sample in open_dataset(data.test).samples]
    tables = [
        from_labels(truth, labels.astype(np.uint32))
        for truth, labels in zip(truths, found, strict=True)
    ]
    scores = score_instances(pool(tables))
    at = scores.average_precision_at or {}
    return {
        "seg": scores.seg,
        "average_precision_50": at.get("0.50"),
        "adapted_rand_error": scores.adapted_rand_error,
    }


def speck(data):
    """Return the pixels below which no method's objects count: a tenth of what is usual."""
    areas = [
        np.bincount(whole(sample.labels()).ravel())[1:]
        for sample in open_dataset(data.train).samples
    ]
    found = np.concatenate(areas)
    return int(np.median(found[found > 0]) / 10)


def ours(data, work, *, seconds, seed, least=0, **settings):
    """Train as a user would, predict by the tiler, and read the instances back."""
    folder = work / "now"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = str(folder / "model.safetensors")
    # Options that are named twice: the later one counts.
    options = dict(text.split("=") for text in (*OURS["options"], *settings.pop("options", ())))
    report = train(
        data.train,
        output=model,
        options=[f"{key}={value}" for key, value in options.items()],
        time_budget=f"{seconds}s",
        seed=seed,
        **settings,
    )
    found = {}
    for tta in ("none", "rotations"):
        output = str(folder / f"{tta}.zarr")
        tile_predict(data.test, model=model, output=output, tta=tta, min_size=least)
        labels = [whole(sample.labels()) for sample in open_dataset(output).samples]
        found[tta] = scored(data, labels)
    return {
        **found["none"],
        "rotations": found["rotations"],
        "steps": report.steps,
        "precision": report.precision,
        "trained": report.seconds,
    }


def plain(data, work, *, seconds, seed, least=0):
    """Train a plain U-Net with a ResNet-18 encoder in a plain loop for the same time.

    Padded tiles of 256 pixels, four a step, changed as ours are; Adam with a cosine, cross-entropy
    plus Dice, in the precision that ours has. Nothing is held out: the last network is taken.
    """
    began = time.monotonic()
    hardware.tune_allocator()
    torch.manual_seed(seed)
    drawn = sampler(
        data.train,
        contract=SizeContract(step=32, minimum=32),
        recipe=replace(RECIPES["default"], batch=4, tile=256),
        cache=BlockCache(),
        seed=seed,
    )
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2)
    precision = hardware.low_precision(torch.device("cpu")) or "float32"
    dice = smp.losses.DiceLoss("multiclass")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    step = 0
    with drawn.batches(workers=hardware.thread_count()) as batches:
        while (passed := (time.monotonic() - began) / seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + np.cos(np.pi * passed))
            batch = next(batches)
            target = torch.from_numpy(batch.targets)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            logits = hardware.forward(network, torch.from_numpy(batch.images), precision=precision)
            loss = torch.nn.functional.cross_entropy(logits, target) + dice(logits, target)
            loss.backward()
            optimizer.step()
            step += 1
    trained = round(time.monotonic() - began, 1)
    network.eval()
    labels = [_found(network, whole(s.data), least) for s in open_dataset(data.test).samples]
    return {**scored(data, labels), "steps": step, "precision": precision, "trained": trained}


def _found(network, image, least):
    """Predict a whole image at once, and number its objects."""
    normalized = fit(lambda: [image]).apply(image)
    height, width = image.shape[1:]
    padding = [(0, 0), (0, -height % 32), (0, -width % 32)]
    padded = torch.from_numpy(np.pad(normalized, padding, mode="reflect"))[None]
    with torch.inference_mode():
        logits = network(padded)[0, :, :height, :width]
    return instances(logits.argmax(dim=0).numpy().astype(np.uint8), "foreground", min_size=least)


def otsu(data, work, *, seconds, seed, least=0):
    """Smooth a little and cut at Otsu's threshold, on the side that suits the training images."""

    def cut(sample):
        smooth = gaussian(whole(sample.data)[0].astype(float), 1)
        return smooth > threshold_otsu(smooth)

    agree = [
        fmean((cut(sample) == (whole(sample.labels()) > 0)).ravel())
        for sample in open_dataset(data.train).samples[:8]
    ]
    dark = fmean(agree) < 0.5
    found = [(cut(sample) != dark).astype(np.uint8) for sample in open_dataset(data.test).samples]
    return scored(data, [instances(mask, "foreground", min_size=least) for mask in found])


METHODS = {"unetkit": ours, "smp resnet18": plain, "otsu": otsu}


class Runs:
    """What was run already, one line each."""

    def __init__(self, work):
        self._path = work / "runs.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def make(self, kind, what, method, data, work, **how):
        own = json.loads(json.dumps({"data": data.name, **how}))
        key = {"kind": kind, "what": what, **own}
        if any(key.items() <= row.items() for row in self.rows):
            return
        began = time.monotonic()
        found = METHODS[method](data, work, **how)
        row = {
            **key,
            **found,
            "took": round(time.monotonic() - began, 1),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
        }
        self.rows.append(row)
        with self._path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def table(self, kind, seconds):
        """Lay out all runs of a kind and a time as Markdown, those of several seeds together."""
        rows = [row for row in self.rows if row["kind"] == kind and row["seconds"] == seconds]
        lines = ["| data | what | SEG | AP 0.5 | adapted Rand error |", "|---|---|---|---|---|"]
        found = dict.fromkeys((row["data"], row["what"]) for row in rows)
        for data, what in sorted(found, key=lambda pair: pair[0]):
            same = [row for row in rows if (row["data"], row["what"]) == (data, what)]
            cells = [_cell([row[score] for row in same]) for score in SCORES]
            lines.append(f"| {data} | {what} | {' | '.join(cells)} |")
            if kind == "quality" and (turned := [r["rotations"] for r in same if "rotations" in r]):
                cells = [_cell([row[score] for row in turned]) for score in SCORES]
                lines.append(f"| {data} | {what}, `--tta rotations` | {' | '.join(cells)} |")
        if kind == "quality":
            lines += [
                f"| {data} | the paper, other truth | {values['seg']:.3f} | | |"
                for data, values in PAPER.items()
                if values and any(row["data"] == data for row in rows)
            ]
        return lines


def _cell(values):
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{spread}"


def write(path, kind, table):
    """Put a table between its marks in a file, at the end where there are none yet."""
    first, last = f"<!-- {kind} -->", f"<!-- end of {kind} -->"
    text = path.read_text() if path.exists() else ""
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    gap = "" if rest or not text else "\n"
    path.write_text(f"{before}{gap}{first}\n{table}\n{last}{after or chr(10)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, help="of each run, instead of the usual time")
    parser.add_argument("--only", default="hela,u373,em,bbbc039", help="data sets")
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--write", type=Path, help="a Markdown file that takes the table")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    sets = given.only.split(",")
    if given.candidates:
        sets = [f"choice of {name}" for name in sets if name in ("hela", "em")]
    data = {name: prepare(given.data, given.work, name) for name in sets}
    runs = Runs(given.work)
    kind = "candidates" if given.candidates else "ablations" if given.ablations else "quality"
    seconds = given.seconds or {"candidates": 120.0, "ablations": 180.0, "quality": 600.0}[kind]

    def make(what, method, name, seed=0, **how):
        runs.make(kind, what, method, data[name], given.work, seconds=seconds, seed=seed, **how)

    if given.candidates:
        for what, how in CANDIDATES.items():
            for name in sets:
                make(what, "unetkit", name, **how)
    elif given.ablations:
        for what, (name, how) in ABLATIONS.items():
            for seed in range(3):
                if name in sets:
                    make(what, "unetkit", name, seed, least=speck(data[name]), **how)
    else:
        for name in sets:
            least = speck(data[name])
            for method in METHODS:
                make(method, method, name, least=least)
    table = "\n".join(runs.table(kind, seconds))
    print(table)
    if given.write is not None:
        write(given.write, kind, table)
    best = {name: MAIN[name.split()[-1]] for name in sets}
    print(json.dumps({"benchmark": "quality", "kind": kind, "seconds": seconds, "main": best}))


if __name__ == "__main__":
    main()
