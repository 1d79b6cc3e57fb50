"""How good networks become in a given time on real microscopy; one JSON line a run, restartable.

Run ``python tests/benchmarks/quality.py DATA WORK`` with the folder of annotated microscopy and a
folder to work in. Left alone it trains ten minutes on each of six data sets, ours, a plain U-Net of
segmentation-models-pytorch and, in an environment that it makes in WORK, StarDist, and puts Otsu's
threshold and the paper's numbers beside them. ``--candidates`` compares recipes in two minutes
each, ``--ablations`` switches elastic deformation and weights off in three minutes each,
``--targets`` compares targets of instances, on parts of what is learned from alone; ``--seeds``
says how often. Each of our networks decides four times: as fitted, by default, by components and
by a watershed. Runs that `WORK/runs.jsonl` has already are not made again. Of what was run, a
Markdown table is printed at the end, and with ``--write FILE`` put between its marks in a file.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
import venv
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
from unetkit.arrays.meanings import has_threshold, target_names
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
PAPER = {"hela": {"seg": 0.7756}, "u373": {"seg": 0.9203}}
SCORES = ("seg", "average_precision_50", "average_precision", "adapted_rand_error")
# The truth of the first two lacks cells, so that only what is asked of those that it has is fair.
MAIN = {"hela": "seg", "u373": "seg", "em": "adapted_rand_error"}
COUNTED = "average_precision_50"
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


TARGETS = ("foreground", "foreground+boundary", "foreground+distance")
# How one network's probabilities become objects.
DECISIONS = {
    "fitted": {},
    "default": {"threshold": 0.5, "min_size": 0, "grow": 1, "separate": "components"},
    "components": {"separate": "components"},
    "watershed": {"separate": "watershed"},
}
# The wheel of StarDist was compiled with NumPy 1 and does not say so.
PEERS = {"stardist": ("stardist==0.9.1", "tensorflow-cpu==2.21.0", "numpy==1.26.4", "tifffile")}


@dataclass(frozen=True)
class Data:
    """A data set, parted into what is learned from and what is scored."""

    name: str
    train: str
    test: str


def read(path):
    """Read a page of grey values; colours become grey by the weights of Rec. 601."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    image = Image.open(path)
    return np.asarray(image.convert("L") if image.mode in ("RGB", "RGBA") else image)


def pairs(folder, names):
    found = []
    for name in names:
        (image,) = folder.glob(f"images/{name}.*")
        found.append((name, image, folder / "masks" / f"{name}.png"))
    return found


def everything(folder):
    return pairs(folder, sorted(path.stem for path in (folder / "images").iterdir()))


def by_turns(listed, turn=5):
    """Put every fifth aside, so that each kind of image is on both sides."""
    return [p for k, p in enumerate(listed) if k % turn != turn - 1], listed[turn - 1 :: turn]


def parts(data, name):
    """List what is learned from and what is scored: never the same frames, slices or images.

    What is chosen is chosen on ``choice of NAME``, a part of what NAME learns from: what NAME is
    scored on is not seen by it. Frames between the parts of a sequence are left out.
    """
    if name.startswith("choice of "):
        name = name.removeprefix("choice of ")
        learned, _ = parts(data, name)
        if name == "hela":
            return learned[13:], learned[:8:2]
        if name == "u373":
            return learned[:40], learned[46::2]
        cut = {"em": 12, "bbbc039": 24, "usiigaci": 6}
        return (
            by_turns(learned) if name == "dsb2018" else (learned[: cut[name]], learned[cut[name] :])
        )
    if name == "hela":
        silver = pairs(data / "dic_hela" / "seq01_st", [f"t{k:03d}" for k in range(45, 84)])
        gold = [f"01_t{k:03d}" for k in (2, 5, 21, 31, 33, 34)]
        return silver, pairs(data / "dic_hela", gold)
    if name == "u373":
        silver = pairs(data / "phc_u373" / "seq01_st", [f"t{k:03d}" for k in range(60)])
        return silver, [p for p in everything(data / "phc_u373") if int(p[0][-3:]) > 60]
    if name == "dsb2018":
        return by_turns(everything(data / "dsb2018_mixed"))
    folder, cut = {
        "em": ("isbi2012_em", 16),
        "bbbc039": ("bbbc039_nuclei", 32),
        "usiigaci": ("usiigaci_phase", 8),
    }[name]
    listed = everything(data / folder)
    return listed[:cut], listed[cut:]


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


def scored(data, found, least):
    """Score one label image for each image that is held out, all together.

    Objects below `least` pixels count for no method. Images whose names share what is before the
    last `_` are of one kind; where there are several kinds, each has its average precision.
    """
    samples = open_dataset(data.test).samples
    tables = [
        from_labels(whole(sample.labels()), large(labels, least).astype(np.uint32))
        for sample, labels in zip(samples, found, strict=True)
    ]
    kinds = [sample.name.rpartition("_")[0] for sample in samples]
    scores = _pooled(tables)
    if data.name.endswith("dsb2018"):
        scores["kinds"] = {
            kind: _pooled([t for t, own in zip(tables, kinds, strict=True) if own == kind])[COUNTED]
            for kind in sorted(set(kinds))
        }
    return scores


def large(labels, least):
    """Drop objects of fewer pixels."""
    areas = np.bincount(labels.ravel())
    return np.where(areas[labels] >= least, labels, 0)


def _pooled(tables):
    scores = score_instances(pool(tables))
    at = scores.average_precision_at or {}
    return {
        "seg": scores.seg,
        "average_precision_50": at.get("0.50"),
        "average_precision": scores.average_precision,
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


def ours(data, work, *, seed, least=0, seconds=None, steps=None, **settings):
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
        **({"steps": steps} if steps else {"time_budget": f"{seconds}s"}),
        seed=seed,
        **settings,
    )
    found, target = {}, settings.get("target", "foreground")
    for tta in ("rotations", "none"):
        output = str(folder / f"{tta}.zarr")
        for name, decision in DECISIONS.items() if tta == "none" else [("rotations", {})]:
            if not has_threshold(target, classes=len(target_names(target))):
                decision = {k: v for k, v in decision.items() if k != "threshold"}
            tile_predict(data.test, model=model, output=output, tta=tta, overwrite=True, **decision)
            labels = [whole(sample.labels()) for sample in open_dataset(output).samples]
            found[name] = scored(data, labels, least)
    return {
        **found.pop("fitted"),
        **found,
        "decision": str(report.decision) if report.decision else None,
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
    labels = [_found(network, whole(s.data)) for s in open_dataset(data.test).samples]
    return {
        **scored(data, labels, least),
        "steps": step,
        "precision": precision,
        "trained": trained,
    }


def _found(network, image):
    """Predict a whole image at once, and number its objects."""
    normalized = fit(lambda: [image]).apply(image)
    height, width = image.shape[1:]
    padding = [(0, 0), (0, -height % 32), (0, -width % 32)]
    padded = torch.from_numpy(np.pad(normalized, padding, mode="reflect"))[None]
    with torch.inference_mode():
        logits = network(padded)[0, :, :height, :width]
    return instances(logits.argmax(dim=0).numpy().astype(np.uint8), "foreground")


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
    return scored(data, [instances(mask, "foreground") for mask in found], least)


def peer(name):
    """Return a method that runs in an environment of its own, by a script beside this one."""

    def run(data, work, *, seconds, seed, least=0):
        python = environment(name, work)
        folder = work / "now"
        shutil.rmtree(folder, ignore_errors=True)
        for part, url in (("train", data.train), ("test", data.test)):
            for kind in ("images", "labels"):
                (folder / part / kind).mkdir(parents=True)
            for sample in open_dataset(url).samples:
                file = f"{sample.name}.tif"
                tifffile.imwrite(folder / part / "images" / file, whole(sample.data)[0])
                labels = whole(sample.labels()).astype(np.uint16)
                tifffile.imwrite(folder / part / "labels" / file, labels)
        script = Path(__file__).parent / "peers" / f"{name}.py"
        words = [python, "-P", script, folder, "--seconds", seconds, "--seed", seed]
        printed = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE).stdout
        found = [
            tifffile.imread(folder / "found" / f"{sample.name}.tif")
            for sample in open_dataset(data.test).samples
        ]
        return {**scored(data, found, least), **json.loads(printed.splitlines()[-1])}

    return run


def environment(name, work):
    """Make an environment that holds a peer, or find it again; return its Python."""
    folder = work / "environments" / name
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", *PEERS[name]]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (folder / "made").touch()
    return python


METHODS = {"unetkit": ours, "smp resnet18": plain, "otsu": otsu, "stardist": peer("stardist")}


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
        print(f"{kind}: {what}, {data.name}, {how}", file=sys.stderr, flush=True)
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

    def table(self, kind, budget):
        """Lay out all runs of a kind and a time as Markdown, those of several seeds together."""
        rows = [r for r in self.rows if r["kind"] == kind and budget.items() <= r.items()]
        lines = [
            "| data | what | runs | SEG | AP 0.5 | mean AP | adapted Rand error |",
            "|---|---|---|---|---|---|---|",
        ]
        found = dict.fromkeys((row["data"], row["what"]) for row in rows)
        for data, what in sorted(found, key=lambda pair: pair[0]):
            same = [row for row in rows if (row["data"], row["what"]) == (data, what)]
            lines.append(_line(data, what, same))
            for name in ("rotations", *DECISIONS):
                if name in same[0] and kind in ("quality", "targets"):
                    told = "`--tta rotations`" if name == "rotations" else f"decided by {name}"
                    lines.append(_line(data, f"{what}, {told}", [row[name] for row in same]))
            for name in same[0].get("kinds", ()):
                only = [{COUNTED: row["kinds"][name]} for row in same]
                lines.append(_line(data, f"{what}, {name} alone", only))
        if kind == "quality":
            lines += [
                f"| {data} | the paper, other truth | | {values['seg']:.3f} | | | |"
                for data, values in PAPER.items()
                if any(row["data"] == data for row in rows)
            ]
        return lines


def _line(data, what, rows):
    cells = [_cell([row.get(score) for row in rows]) for score in SCORES]
    return f"| {data} | {what} | {len(rows)} | {' | '.join(cells)} |"


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
    parser.add_argument("--steps", type=int, help="of ours instead of a time: for a busy machine")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="hela,u373,em,bbbc039,dsb2018,usiigaci", help="data sets")
    parser.add_argument("--methods", default=",".join(METHODS))
    for kind in KINDS:
        parser.add_argument(f"--{kind}", action="store_true")
    parser.add_argument("--write", type=Path, help="a Markdown file that takes the table")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    kind = next((kind for kind in KINDS if getattr(given, kind)), "quality")
    usual, list_runs = KINDS.get(kind, (600.0, quality_runs))
    budget = {"steps": given.steps} if given.steps else {"seconds": given.seconds or usual}
    runs = Runs(given.work)
    for seed in range(given.seeds):
        for what, method, name, how in list_runs(given.only.split(",")):
            if method not in given.methods.split(","):
                continue
            data = prepare(given.data, given.work, name)
            told = {"seed": seed, "least": speck(data), **budget, **how}
            runs.make(kind, what, method, data, given.work, **told)
    table = "\n".join(runs.table(kind, budget))
    print(table)
    if given.write is not None:
        write(given.write, kind, table)
    best = {name: MAIN.get(name, COUNTED) for name in given.only.split(",")}
    print(json.dumps({"benchmark": "quality", "kind": kind, **budget, "main": best}))


def quality_runs(sets):
    return [(method, method, name, {}) for name in sets for method in METHODS]


def candidate_runs(sets):
    return [
        (what, "unetkit", f"choice of {name}", how)
        for what, how in CANDIDATES.items()
        for name in sets
        if name in ("hela", "em")
    ]


def ablation_runs(sets):
    return [(what, "unetkit", name, how) for what, (name, how) in ABLATIONS.items() if name in sets]


def target_runs(sets):
    return [
        (target, "unetkit", f"choice of {name}", {"target": target})
        for name in sets
        if name != "em"  # its membranes are what a boundary is
        for target in TARGETS
    ]


KINDS = {
    "candidates": (120.0, candidate_runs),
    "ablations": (180.0, ablation_runs),
    "targets": (120.0, target_runs),
}


if __name__ == "__main__":
    main()
