"""What 30 corrected objects of another kind of image teach a model, and what it unlearns.

Run ``python tests/benchmarks/corrections.py DATA WORK`` with the folder of annotated microscopy
(its part ``dsb2018_mixed``) and a folder to work in, which must not be there yet. A model learns
some kinds (`--old`), one of nuclei in fluorescence where none is named, predicts the two images of
another `--kind`, histology where none is named, that hold the most objects, and is given the truth
of one window of each, with 15 objects each, as a labels layer and as GeoJSON, which must become
the same bytes. Then it trains on, for the time that is given, on both kinds mixed (`--mix`),
and on the corrections alone (`--mix 1`), which is the control. All are scored on images that no
training saw. One JSON object is printed for each network and kind.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.import_images.corrections import correct
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.storage.datasets import DatasetWriter, open_dataset

# ruff: noqa: T201 - a benchmark prints

OLD, NEW = ("fluo256",), "he256x320"
# Objects in each of the two windows.
OBJECTS = 15
# Of fewer images than have an interval, the quarters are scored as images of their own.
FEWEST = 5
SCORE = "average_precision_50"
MODEL = ("depth=3", "width=8")
# Small tiles, of which many are seen in two minutes.
RECIPE = ("tile=164",)


def stems(data, kinds):
    """List the images of some kinds, evenly mixed."""
    found = [path.stem for path in sorted((data / "images").iterdir())]
    return [stem for stem in found if stem.rsplit("_", 1)[0] in kinds]


def read(data, stem):
    """Read an image as its mean over the colours, (Y, X), and its instances."""
    image = np.asarray(Image.open(data / "images" / f"{stem}.png").convert("RGB"))
    labels = np.asarray(Image.open(data / "masks" / f"{stem}.png"))
    return np.rint(image.mean(axis=2)).astype(np.uint8), labels


def store(path, data, chosen, *, cut=1):
    """Make a dataset of some images, or of their parts, `cut` a side."""
    writer = DatasetWriter(str(path))
    for stem in chosen:
        image, labels = read(data, stem)
        for y, x in np.ndindex(cut, cut):
            high, wide = (side // cut for side in labels.shape)
            part = slice(y * high, (y + 1) * high), slice(x * wide, (x + 1) * wide)
            name = stem if cut == 1 else f"{stem}-{y}{x}"
            writer.add(name, image[part], axes="yx", labels=labels[part])
    writer.finish()
    return str(path)


def parts(scored):
    """Say in how many parts a side images are scored, so that there is an interval."""
    return 1 if len(scored) >= FEWEST else 2


def window(labels, count):
    """Grow a box from the middle until so many objects lie in it, at least in part."""
    high, wide = labels.shape
    for side in range(8, max(high, wide), 4):
        y0, x0 = max(0, (high - side) // 2), max(0, (wide - side) // 2)
        box = y0, min(high, y0 + side), x0, min(wide, x0 + side)
        if len(np.unique(labels[box[0] : box[1], box[2] : box[3]])) - 1 >= count:
            return box
    raise ValueError(f"the image must hold {count} objects, got fewer; choose another")


def corrected(work, data, chosen):
    """Correct a window of each of two predictions by both roads, and return what came of it."""
    objects = 0
    for number, stem in enumerate(chosen):
        place = f"{work}/new.prediction.zarr/{stem}"
        truth = read(data, stem)[1]
        y0, y1, x0, x1 = box = window(truth, OBJECTS)
        layer = np.asarray(open_dataset(place).samples[0].labels("instances")).astype(np.uint32)
        # Outside of the window stays what was predicted; an object of both is that of the truth.
        inside = np.unique(truth[y0:y1, x0:x1])
        drawn = np.isin(truth, inside[inside > 0])
        hole = np.zeros(layer.shape, bool)
        hole[y0:y1, x0:x1] = True
        layer[hole | drawn] = 0
        layer[drawn] = truth[drawn] + layer.max() + 1
        zarr.save_array(f"{work}/{stem}.layer.zarr", layer)
        traced = DatasetWriter(f"{work}/{stem}.traced.zarr")
        traced.add(stem, np.zeros(layer.shape, np.uint8), axes="yx", labels=layer)
        traced.finish()
        shapes = f"{work}/{stem}.geojson"
        export_prediction(f"{work}/{stem}.traced.zarr/{stem}", to="geojson", output=shapes)
        judged = [f"{y0}:{y1},{x0}:{x1}"]
        for road, edited in (("layer", f"{work}/{stem}.layer.zarr"), ("shapes", shapes)):
            out = f"{work}/corrections-{road}.zarr"
            told = correct(place, edited=edited, judged=judged, output=out, append=number > 0)
        objects += told.objects
        print(json.dumps({"image": stem, "window": box, "objects": told.objects}))
    roads = [
        {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        for root in (Path(work, "corrections-layer.zarr"), Path(work, "corrections-shapes.zarr"))
    ]
    print(json.dumps({"corrected_objects": objects, "same_bytes": roads[0] == roads[1]}))
    return f"{work}/corrections-layer.zarr"


def score(work, name, model):
    """Score a model on the images of both kinds that no training saw."""
    for kind in ("old", "new"):
        out = f"{work}/{name}.{kind}.prediction.zarr"
        tile_predict(f"{work}/{kind}-test.zarr", model=[model], output=out, device="cpu")
    return {kind: f"{work}/{name}.{kind}.prediction.zarr" for kind in ("old", "new")}


def told(work, name, predictions, before=None):
    """Say what a model scores, with an interval, and how that differs from before."""
    for kind, prediction in predictions.items():
        truth = f"{work}/{kind}-test.zarr"
        found = evaluate(prediction, truth)
        row = {
            "network": name,
            "kind": kind,
            "images": len(found.samples),
            "ap50": found.overall.average_precision_at["0.50"],
            "interval": found.certainty.intervals.get(SCORE),
        }
        if before is not None:
            pair = evaluate(prediction, before[kind], truth=truth)
            for one in pair.comparisons:
                if one.score == SCORE:
                    row |= {"change": one.difference, "change_interval": one.interval}
        print(json.dumps(row), flush=True)


def main():
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work")
    parser.add_argument("--budget", default="2m", help="of each training")
    parser.add_argument("--steps", type=int, help="of each training, in the place of its budget")
    parser.add_argument("--old", nargs="+", default=OLD, help="kinds of what is learned first")
    parser.add_argument("--kind", default=NEW, help="of the new images, such as fluo360")
    parser.add_argument("--mix", type=float, default=0.5, help="share of new tiles, mixed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data, work = args.data / "dsb2018_mixed", args.work
    Path(work).mkdir(parents=True)
    old, new = stems(data, args.old), stems(data, (args.kind,))
    chosen = sorted(new, key=lambda stem: -len(np.unique(read(data, stem)[1])))[:2]
    store(f"{work}/old.zarr", data, [stem for n, stem in enumerate(old) if n % 3])
    store(f"{work}/old-test.zarr", data, old[::3], cut=parts(old[::3]))
    store(f"{work}/new.zarr", data, chosen)
    others = [stem for stem in new if stem not in chosen]
    store(f"{work}/new-test.zarr", data, others, cut=parts(others))
    length = {"time_budget": args.budget} if args.steps is None else {"steps": args.steps}
    run = {"options": MODEL, "recipe_set": RECIPE, "seed": args.seed, "device": "cpu", **length}
    first = f"{work}/first.safetensors"
    train(f"{work}/old.zarr", output=first, **run)
    before = score(work, "first", first)
    told(work, "first", before)
    tile_predict(f"{work}/new.zarr", model=[first], device="cpu")
    corrections = corrected(work, data, chosen)
    for name, mix in (("mixed", args.mix), ("alone", 1.0)):
        out = f"{work}/{name}.safetensors"
        again = {**run, "options": ()}
        report = train(f"{work}/old.zarr", corrections, init=first, mix=mix, output=out, **again)
        print(
            json.dumps(
                {
                    "network": name,
                    "steps": report.steps,
                    "best": report.best_step,
                    "held_out": report.comparison["sides"],
                }
            )
        )
        told(work, name, score(work, name, out), before)


if __name__ == "__main__":
    main()
