"""Whether a learning curve from 2 to 8 images foretells the score at 16 on BBBC039.

Run ``python tests/benchmarks/curve.py DATA WORK --draws 10`` with the folder of annotated
microscopy (its part ``bbbc039_nuclei``) and a folder to work in, which must not be there yet. For
each draw `curve` gets 20 images, of which it holds 4 out and learns from 2, 4, 8 and 16 in several
orders. A curve through the scores of up to 8 then says what one training on 16 will reach, with its
interval of 95 %, and the score that the first order reached there is looked for in it. One JSON
object is printed for each draw, and one with how often it was there.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unetkit.commands.train.curve import curve
from unetkit.scores.learning_curve import LearningCurve
from unetkit.storage.datasets import DatasetWriter

# ruff: noqa: T201 - a benchmark prints

IMAGES, ASKED = 20, 16
RUN = {"options": ("width=8", "depth=3"), "device": "cpu", "recipe_set": ("tile=164",)}


def store(path, data, names):
    """Make a dataset of some images."""
    writer = DatasetWriter(path)
    for name in names:
        image = tifffile.imread(data / "images" / f"{name}.tif")
        labels = np.asarray(Image.open(data / "masks" / f"{name}.png")).astype(np.uint16)
        writer.add(name, image, axes="yx", labels=labels)
    writer.finish()
    return path


def one(data, work, draw, told):
    """Let a curve foretell a score, and say what it was."""
    names = sorted(path.stem for path in (data / "images").glob("*.tif"))
    chosen = np.random.default_rng([draw, IMAGES]).permutation(names)[:IMAGES]
    place = store(f"{work}/draw{draw}.zarr", data, chosen)
    found = curve(place, output=f"{work}/draw{draw}.html", seed=draw, **told, **RUN)
    few = [training for training in found.trainings if training.size < ASKED]
    line = LearningCurve([t.size for t in few], [t.score for t in few], seed=draw)
    guess = line.predict(ASKED)
    score = next(t.score for t in found.trainings if t.size == ASKED)
    row = {"draw": draw, "score": score, "foretold": guess.score, "low": guess.low}
    row |= {"high": guess.high, "inside": guess.low <= score <= guess.high}
    print(json.dumps(row | {"seconds": found.seconds}), flush=True)
    return row["inside"]


def main():
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--orders", type=int, default=2, help="in which images are added")
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    args = parser.parse_args()
    Path(args.work).mkdir(parents=True)
    told = {"draws": args.orders, "steps": args.steps}
    data = args.data / "bbbc039_nuclei"
    inside = [one(data, args.work, draw, told) for draw in range(args.draws)]
    print(json.dumps({"draws": args.draws, "inside": sum(inside)}))


if __name__ == "__main__":
    main()
