"""Train StarDist on a folder for a given time, and predict; run by `quality.py` in its environment.

FOLDER holds `train/images`, `train/labels` and `test/images` with TIFFs of the same names; label
images go to `found`. Its numbers are those of its example notebook: 32 rays on a grid of two
pixels, its own network, optimizer, loss and patches of 256, flips, quarter turns and changes of
brightness, percentiles 1 and 99.8, a fifth of the images held out for the rate and the thresholds.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import tensorflow
import tifffile
from csbdeep.utils import normalize
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

# ruff: noqa: T201 - a benchmark prints


class StopsInTime(tensorflow.keras.callbacks.Callback):
    """End the training after the step in which its time is over."""

    def __init__(self, end):
        super().__init__()
        self.end, self.steps = end, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.model.stop_training = time.monotonic() > self.end


def augmented(rng):
    def change(image, labels):
        turns, flip = rng.integers(4), rng.random() < 0.5
        image, labels = (np.rot90(array, turns) for array in (image, labels))
        if flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return image + 0.02 * rng.normal(0, 1) * rng.normal(0, 1, image.shape), labels

    return change


def files(folder):
    return sorted(folder.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    tensorflow.keras.utils.set_random_seed(given.seed)
    rng = np.random.default_rng(given.seed)
    images, labels = (
        [read(path) for path in files(given.folder / "train" / kind)]
        for kind, read in (("images", scaled), ("labels", filled))
    )
    # Patches are at most as large as the smallest image; a multiple of what the network halves.
    side = min(256, *(extent // 16 * 16 for image in images for extent in image.shape))
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_patch_size=(side, side),
        train_epochs=400,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name="model", basedir=str(given.folder / "stardist"))
    held = sorted(rng.permutation(len(images))[: max(1, len(images) // 5)])
    kept = [k for k in range(len(images)) if k not in held]
    began = time.monotonic()
    stops = StopsInTime(began + given.seconds)
    model.prepare_for_training()
    model.callbacks.append(stops)
    model.train(
        [images[k] for k in kept],
        [labels[k] for k in kept],
        validation_data=([images[k] for k in held], [labels[k] for k in held]),
        augmenter=augmented(rng),
        seed=given.seed,
    )
    trained = time.monotonic() - began
    # The best epoch's weights where one was completed, as its users have it.
    model.optimize_thresholds([images[k] for k in held], [labels[k] for k in held])
    (given.folder / "found").mkdir()
    for path in files(given.folder / "test" / "images"):
        found, _ = model.predict_instances(scaled(path))
        tifffile.imwrite(given.folder / "found" / path.name, found.astype(np.uint16))
    told = {"steps": stops.steps, "precision": "float32", "trained": round(trained, 1)}
    print(json.dumps({**told, "decision": str(model.thresholds)}))


def scaled(path):
    return normalize(tifffile.imread(path).astype(np.float32), 1, 99.8)


def filled(path):
    return fill_label_holes(tifffile.imread(path))


if __name__ == "__main__":
    main()
