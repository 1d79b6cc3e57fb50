"""A process that runs one command after another in forks of itself, and files of each kind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SYNC = "--scheduler sync"
TRAIN = (
    "train data.zarr --set depth=1 --set width=2 --recipe-set tile=32 --recipe-set batch=2"
    " --recipe-set learning_rate=0.05 --device cpu --precision exact --workers 0"
)
PREDICT = f"tile-predict slide.zarr --tile 16 --precision float32 --device cpu {SYNC}"
# What the files are made with, and what else the forks shall find loaded.
MAKE = (
    "import images data.zarr --labels masks",
    "import images bare.zarr --labels masks",
    "import images/one.png slide.zarr",
    "import wide.png wide.zarr --labels wide-mask.png",
    f"weights data.zarr {SYNC}",
    f"{TRAIN} --steps 8",
    f"tile-predict data.zarr --tile 32 --precision exact --device cpu -o seen.zarr"
    f" --threshold 0.4 {SYNC}",
)
WARM = (
    f"{PREDICT} -o warm.zarr",
    f"weights wide.zarr {SYNC}",
    f"eval seen.zarr data.zarr {SYNC}",
    f"measure seen.zarr data.zarr --csv warm.csv {SYNC}",
    "export seen.zarr --to geojson -o warm.geojson",
    "augment data.zarr warm-more.zarr --copies 1",
    "models export model.safetensors -o warm.pt2",
    "import tiled.tif warm-drawn.zarr --labels drawn.geojson",
    "tune model.safetensors data.zarr -o warm.safetensors --device cpu",
)
# What is stopped half-way, and before which change on the disk.
STOPPED = {
    PREDICT: 60,
    f"weights wide.zarr --overwrite {SYNC}": 15,
    f"eval seen.zarr data.zarr --resume {SYNC}": 14,
    f"{TRAIN} --steps 20 -o begun.safetensors": 100,
}


class Forks:
    """Asks the process for one command after another."""

    def __init__(self, process):
        self._process = process

    def __call__(self, folder, command, *, seconds=60, **more):
        """Run a command in a folder; return how it ended, what it said and what it took."""
        asked = {"folder": str(folder), "command": command, "seconds": seconds, **more}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def picture(seed, shape):
    """Draw squares on noise, some of which touch, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for number, (y, x) in enumerate(np.ndindex(shape[0] // 12, shape[1] // 12), start=1):
        labels[12 * y + 1 : 12 * y + 11, 12 * x + 1 : 12 * x + 13] = number % 250 + 1
    return (60 + 100 * (labels > 0) + rng.integers(0, 20, shape)).astype(np.uint8), labels


def draw(folder):
    """Store the images that everything is made from."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number, name in enumerate(("one", "two", "three")):
        image, labels = picture(number, (40, 44))
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{name}.png")
    image, labels = picture(9, (24, 1040))
    Image.fromarray(image).save(folder / "wide.png")
    Image.fromarray(labels).save(folder / "wide-mask.png")
    image = image[:, :40]
    Image.fromarray(image).save(folder / "grey.jpg")
    Image.fromarray(image).convert("P").save(folder / "palette.png")
    tifffile.imwrite(folder / "tiled.tif", image, compression="zlib", tile=(16, 16))
    tifffile.imwrite(folder / "stack.ome.tif", image[None].repeat(2, 0), metadata={"axes": "CYX"})
    outline(folder, image.shape)
    lay_older(folder / "old.zarr", image)


def outline(folder, shape):
    """Draw two objects around, as three programs store that."""
    height, width = shape
    corners = ((2, 2, 12, 10), (20, 4, 31, 15))
    rings = [[[x, y], [x1, y], [x1, y1], [x, y1], [x, y]] for x, y, x1, y1 in corners]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in rings]
    features = [{"type": "Feature", "geometry": one, "properties": {}} for one in shapes]
    drawn = {"type": "FeatureCollection", "features": features}
    (folder / "drawn.geojson").write_text(json.dumps(drawn))
    known = {"id": 1, "file_name": "tiled.tif", "height": height, "width": width}
    runs = {"size": [height, width], "counts": [5, 10, height * width - 15]}
    parts = ([[number for point in rings[0][:4] for number in point]], runs)
    listed = [
        {"id": number, "image_id": 1, "category_id": 1, "segmentation": part}
        for number, part in enumerate(parts)
    ]
    coco = {"images": [known], "annotations": listed, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "drawn.json").write_text(json.dumps(coco))
    polygons = "".join(
        f'<polygon label="cell" points="{";".join(f"{x},{y}" for x, y in ring[:4])}"/>'
        for ring in rings
    )
    image = f'<image id="0" name="tiled.tif" width="{width}" height="{height}">{polygons}</image>'
    (folder / "drawn.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")


def lay_older(folder, image):
    """Lay out an image as OME-Zarr 0.4, in version 2 of Zarr."""
    import zarr

    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    group.create_array("0", shape=image.shape, chunks=(16, 16), dtype="u1")[:] = image
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    datasets = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
    ]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


@pytest.fixture(scope="session")
def forks():
    """Return what runs commands in forks of one process."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory of a fork is measured on Linux only")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryFile() as told:
        words = [sys.executable, str(Path(__file__).with_name("forks.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(words, stderr=told, env=environment, **streams) as process:
            yield Forks(process)
            process.stdin.close()


@pytest.fixture(scope="session")
def seeds(forks, tmp_path_factory):
    """Return a folder with files of each kind, whole and in the making."""
    folder = tmp_path_factory.mktemp("seeds")
    draw(folder)
    for command in (*MAKE, *WARM):
        assert forks(folder, command, warm=True)["code"] == 0, command
    for command, step in STOPPED.items():
        done = forks(folder, command, step=step, signal=signal.SIGTERM)
        assert done["code"] == 128 + signal.SIGTERM, (command, done)
    return folder


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """Return a folder for what is made and removed many times; where there is one, in memory."""
    if os.access("/dev/shm", os.W_OK):
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="unetkit-") as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("disk")
