"""Time a prediction with its objects against MONAI and scikit-image; the last line is JSON.

Run ``python tests/benchmarks/mosaic.py DATA`` with the folder of annotated microscopy and the extra
``bench``. The fields of BBBC039 are laid side by side to 4160 x 5568 pixels, a network of width 32
learns a few minutes on eight of them, and both sides go from the stored image to stored
probabilities and numbered objects: ours with classes, smaller levels, checksums and a journal, the
peer's by a padded network of the same weights under bfloat16 and ``channels_last``,
`sliding_window_inference`, `skimage.measure.label`, `expand_labels` and plain zarr. ``--model``
takes a network that was trained before.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from measuring import apart, padded
from PIL import Image

from unetkit.models import hardware, model_file
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image

# ruff: noqa: T201 - a benchmark prints


ROWS, COLUMNS, LEARNED = 8, 8, 8


def store(data, folder, steps):
    """Store the mosaic, and train a network unless there is one."""
    images = sorted(Path(data, "bbbc039_nuclei", "images").glob("*.tif"))
    fields = [tifffile.imread(path) for path in images]
    height, width = fields[0].shape
    mosaic = create_image(
        f"{folder}/mosaic.zarr", shape=(ROWS * height, COLUMNS * width), axes="yx", dtype="u2"
    )
    # There are fewer fields than places; the first come again.
    places = [fields[number % len(fields)] for number in range(ROWS * COLUMNS)]
    rows = [np.concatenate(places[n : n + COLUMNS], axis=1) for n in range(0, len(places), COLUMNS)]
    mosaic.write(0, 0, 0, np.concatenate(rows)[None])
    warm = create_image(f"{folder}/warm.zarr", shape=(256, 256), axes="yx", dtype="u2")
    warm.write(0, 0, 0, np.random.default_rng(0).integers(0, 4096, (1, 256, 256), np.uint16))
    if steps:
        from unetkit.commands.train.command import train

        writer = DatasetWriter(f"{folder}/data.zarr")
        for path, field in zip(images[:LEARNED], fields, strict=False):
            mask = np.asarray(Image.open(path.parents[1] / "masks" / f"{path.stem}.png"))
            writer.add(path.stem, field, axes="yx", labels=mask.astype(np.uint16))
        writer.finish()
        model = f"{folder}/model.safetensors"
        train(f"{folder}/data.zarr", output=model, options=("width=32",), steps=steps)


def ours(folder, model):
    """Predict as the command does; return seconds, objects and the peak of memory."""
    from unetkit.commands.tile_predict.command import tile_predict

    hardware.tune_allocator()
    tile_predict(f"{folder}/warm.zarr", model=model, overwrite=True)
    began = time.perf_counter()
    report = tile_predict(f"{folder}/mosaic.zarr", model=model, overwrite=True)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "objects": report.objects, "precision": report.precision}


def peer(folder, model):
    """Do the same with other libraries."""
    import zarr
    from monai.inferers import sliding_window_inference
    from skimage.measure import label
    from skimage.segmentation import expand_labels

    loaded = model_file.load(model)
    module = padded(loaded.module.eval()).to(memory_format=torch.channels_last)
    stored = zarr.open_group(f"{folder}/mosaic.zarr", mode="r")["0"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        module(torch.rand(1, 1, 512, 512).to(memory_format=torch.channels_last))
        began = time.perf_counter()
        pixels = np.asarray(stored[...]).reshape(stored.shape[-2:]).astype(np.float32)
        low, high = np.percentile(pixels, (1, 99.8))
        scaled = ((pixels - low) / (high - low)).astype(np.float32)
        image = torch.from_numpy(scaled)[None, None]
        logits = sliding_window_inference(
            image.to(memory_format=torch.channels_last), 512, 1, module, 0.25, mode="gaussian"
        )
        probabilities = torch.softmax(logits.float(), 1)[0].numpy()
        labels = label(probabilities[1] >= 0.5, connectivity=1)
        labels = expand_labels(labels, 1).astype(np.uint32)
        group = zarr.open_group(f"{folder}/peer.zarr", mode="w")
        kept = np.rint(probabilities * 255).astype(np.uint8)
        group.create_array("0", data=kept, chunks=(2, 512, 512))
        group.create_array("labels", data=labels, chunks=(512, 512))
    return {"seconds": time.perf_counter() - began, "objects": int(labels.max())}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of annotated microscopy")
    parser.add_argument("--model", help="a network that was trained before")
    parser.add_argument("--steps", type=int, default=150, help="how long one is trained else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["ours", "peer"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        found = {"ours": ours, "peer": peer}[given.part](given.data, given.model)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found | {"peak_bytes": peak}))
        return
    runs = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        store(given.data, folder, 0 if given.model else given.steps)
        model = given.model or f"{folder}/model.safetensors"
        for _ in range(given.rounds):
            for part, found in runs.items():
                found.append(
                    apart(__file__, folder, "--part", part, "--model", model, shown=(part,))
                )
    best = {part: min(found, key=lambda one: one["seconds"]) for part, found in runs.items()}
    ratio = best["peer"]["seconds"] / best["ours"]["seconds"]
    print(json.dumps({"threads": hardware.thread_count(), "ratio_mosaic": ratio, **best}))


if __name__ == "__main__":
    sys.exit(main())
