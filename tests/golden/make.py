"""Makes ``golden.tar.xz`` in an empty folder, with the unetkit whose files are to be kept.

    OMP_NUM_THREADS=1 python make.py

Those of 6e0e096, eaadf8f and b4d2d8f made the archives beside this file. Every name in them is
relative to the folder, and all files are of the same second, since the time of a chunk tells
whether it was written anew.
"""

import json
import os
import shutil
import signal
import tarfile
import zlib
from importlib.metadata import version
from pathlib import Path

TIME = 1_700_000_000
SERIAL = {"scheduler": "sync"}
PREDICT = {"output": "slide.prediction.zarr", "tile": 16, "precision": "exact", "device": "cpu"}
TRAIN = {
    "options": ("depth=1", "width=2"),
    "recipe_set": ("tile=60", "learning_rate=0.05", "averaging=0"),
    "steps": 40,
    "device": "cpu",
    "precision": "exact",
    "workers": 0,
}


class Stopping:
    """Sends this process SIGTERM after some parts of a stage."""

    def __init__(self, stage, parts):
        self.stage, self.parts, self.now = stage, parts, ""

    def start(self, what, *, total):
        """Notice the stage."""
        self.now = what

    def advance(self, parts=1, *, status=""):
        """Count."""
        if self.stage in self.now:
            self.parts -= parts
            if self.parts == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def note(self, text):
        """Ignore it."""


def picture(seed, shape):
    """Draw squares on noise, some of which touch, and their labels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for number, (y, x) in enumerate(np.ndindex(shape[0] // 12, shape[1] // 12), start=1):
        if rng.random() < 0.7:
            labels[12 * y + 1 : 12 * y + 11, 12 * x + 1 : 12 * x + 13] = number % 250 + 1
    grain = rng.integers(0, 5, (shape[0] // 4, shape[1] // 4)).repeat(4, 0).repeat(4, 1)
    image = 60 + 100 * (labels > 0) + 8 * grain
    return image.astype(np.uint8), labels


def checksum(array):
    """Return the checksum of the first plane of a stored array."""
    return zlib.crc32(array.read(0, 0, array.height, 0, array.width).tobytes())


def stopped(function, *arguments, stage, parts, **more):
    """Run a function until it is stopped in the middle of a stage."""
    from unetkit.errors import StoppedError

    try:
        function(*arguments, progress=Stopping(stage, parts), **more)
    except StoppedError:
        return
    raise SystemExit(f"{function.__name__} was not stopped")


def pack(archive):
    """Put all of the working folder into one archive."""

    def plain(info):
        info.uid, info.gid, info.uname, info.gname = 0, 0, "", ""
        return info

    names = sorted(path.name for path in Path().iterdir())
    with tarfile.open(archive, "w:xz") as file:
        for name in names:
            file.add(name, filter=plain)


def settle():
    """Give all files the time that they will have when they are unpacked."""
    for path in Path().rglob("*"):
        os.utime(path, (TIME, TIME))


def main():
    """Make everything, in the order in which one thing needs the other."""
    from PIL import Image

    import unetkit
    from unetkit.training.sampler import TILES

    for folder in ("images", "masks"):
        Path(folder).mkdir()
    for number in range(4):
        image, labels = picture(number, (64, 60))
        Image.fromarray(image).save(f"images/s{number}.png")
        Image.fromarray(labels).save(f"masks/s{number}.png")
    image, labels = picture(9, (24, 1100))
    Image.fromarray(image).save("wide.png")
    Image.fromarray(labels).save("wide-mask.png")
    unetkit.import_images("images", "data.zarr", labels="masks")
    unetkit.import_images("images/s3.png", "slide.zarr")
    unetkit.import_images("wide.png", "wide.zarr", labels="wide-mask.png")
    unetkit.weights("data.zarr", **SERIAL)
    settle()

    unetkit.train("data.zarr", **TRAIN)
    for end in ("safetensors", "log.jsonl"):
        Path(f"model.{end}").rename(f"whole.{end}")
    Path("model.training.html").unlink()
    stopped(unetkit.train, "data.zarr", stage="train", parts=23, **TRAIN)
    Path("whole.safetensors").rename("model.safetensors")
    settle()

    unetkit.tile_predict("slide.zarr", **PREDICT, **SERIAL)
    Path("slide.prediction.zarr").rename("whole.zarr")
    stopped(unetkit.tile_predict, "slide.zarr", stage="", parts=7, **PREDICT, **SERIAL)
    unetkit.tile_predict(
        "data.zarr", tile=32, precision="exact", device="cpu", output="seen.zarr", **SERIAL
    )
    settle()

    unetkit.weights("wide.zarr", **SERIAL)
    Path("wide.zarr/wide/weights").rename("weights")
    stopped(unetkit.weights, "wide.zarr", stage="weigh", parts=1, **SERIAL)

    report = unetkit.evaluate("seen.zarr", "data.zarr", **SERIAL).to_dict()
    stopped(unetkit.evaluate, "seen.zarr", "data.zarr", stage="", parts=2, resume=True, **SERIAL)
    made = {name: version(name) for name in ("unetkit", "torch", "numpy", "zarr", "numcodecs")}
    data = {
        sample.name: checksum(sample.data) for sample in unetkit.open_dataset("data.zarr").samples
    }
    known = {"versions": made, "tiles": TILES, "eval": report, "data": data}
    Path("whole.json").write_text(json.dumps(known))
    for name in ("images", "masks", "wide.png", "wide-mask.png"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    settle()
    pack("golden.tar.xz")


if __name__ == "__main__":
    main()
