"""Score nuclei whose images are stored at other pixel sizes; prints one JSON line.

Run ``UNETKIT_TEST_DATA=... python tests/benchmarks/magnification.py``: a network of width 16 learns
from 32 images of BBBC039 in 300 steps, or ``--model`` names one that did, and the other eight are
predicted as they are, at twice and at half their size with the true pixel size, as tile-predict
does it and, as a control, as if all pixels had one size. The truth has the size of the images.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.storage.datasets import DatasetWriter

# ruff: noqa: T201 - a benchmark prints

MICROMETRES = 0.65
TRAINED = 32
# What is asked of SEG, beside that of the images as they are.
WANTED = {"twice": 0.02, "half": 0.04}


def blocks(pixels):
    """Return blocks of two by two pixels, (Y, X, 4)."""
    high, wide = (side // 2 for side in pixels.shape)
    cut = pixels[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2)
    return cut.transpose(0, 2, 1, 3).reshape(high, wide, 4)


def halved(image, labels):
    """Return means of an image, and of labels those that are most frequent."""
    four = blocks(labels)
    counts = (four[..., np.newaxis] == four[..., np.newaxis, :]).sum(axis=-1)
    most = np.take_along_axis(four, counts.argmax(axis=-1)[..., np.newaxis], -1)[..., 0]
    return np.rint(blocks(image).mean(axis=-1)).astype(image.dtype), most


def doubled(image, labels):
    """Return an image interpolated by Pillow, and labels whose pixels are repeated."""
    picture = Image.fromarray(image.astype(np.float32))
    large = picture.resize((2 * image.shape[1], 2 * image.shape[0]), Image.Resampling.BICUBIC)
    pixels = np.clip(np.rint(np.asarray(large)), 0, 65535).astype(image.dtype)
    return pixels, labels.repeat(2, 0).repeat(2, 1)


MADE = {"native": (lambda *pair: pair, 1), "twice": (doubled, 0.5), "half": (halved, 2)}


def lay(folder, data, names, *, change, size):
    """Store images with their truth and pixel size."""
    writer = DatasetWriter(str(folder))
    for name in names:
        image = tifffile.imread(data / "images" / f"{name}.tif")
        labels = np.asarray(Image.open(data / "masks" / f"{name}.png")).astype(np.uint16)
        pixels, truth = change(image, labels)
        sizes = dict.fromkeys("yx", size * MICROMETRES)
        writer.add(name, pixels, axes="yx", labels=truth, pixel_size=sizes)
    writer.finish()
    return str(folder)


def measured(stored, model, folder):
    """Return SEG of each way to predict, and how long it took."""
    asked = {name: (name, {}) for name in MADE}
    asked |= {f"{name} as it is": (name, {"no_rescale": True}) for name in WANTED}
    asked |= {f"native, scale {scale}": ("native", {"scale": scale}) for scale in (0.75, 0.5)}
    found = {}
    for number, (what, (name, options)) in enumerate(asked.items()):
        made = str(folder / f"{number}.zarr")
        told = {"device": "cpu", "precision": "float32", **options}
        seconds = tile_predict(stored[name], model=model, output=made, **told).seconds
        scores = evaluate(made, truth=stored[name], bootstrap=0).to_dict()["overall"]
        found[what] = {"seg": round(scores["seg"], 4), "seconds": round(seconds, 1)}
    return found


def main():
    """Print what is found, and whether it is what is wanted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a model file; left out, one is trained")
    model = parser.parse_args().model
    data = Path(os.environ["UNETKIT_TEST_DATA"], "bbbc039_nuclei")
    names = sorted(path.stem for path in (data / "images").iterdir())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if model is None:
            plain, size = MADE["native"]
            learnt = lay(folder / "t.zarr", data, names[:TRAINED], change=plain, size=size)
            model = str(folder / "model.safetensors")
            train(learnt, output=model, options=("width=16", "depth=3"), steps=300)
        stored = {
            name: lay(folder / f"{name}.zarr", data, names[TRAINED:], change=change, size=size)
            for name, (change, size) in MADE.items()
        }
        found = measured(stored, model, folder)
    native = found["native"]["seg"]
    kept = {name: found[name]["seg"] >= native - most for name, most in WANTED.items()}
    print(json.dumps({"found": found, "within": kept}))


if __name__ == "__main__":
    main()
