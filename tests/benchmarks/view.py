"""How soon a large prediction is seen, and what memory that takes.

    python tests/benchmarks/view.py FOLDER [SIDE]

FOLDER takes an image of SIDE pixels a side (50,000), a pattern of blobs side by side, and a
prediction of it, 7 GiB in all, which are written if they aren't there; remove it afterwards.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from scipy import ndimage

from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.pyramids import add_pyramid

# ruff: noqa: T201 - a benchmark prints

TILE, ROUNDS = 1024, 5


def fill(array, tile):
    """Write a pattern side by side; `tile` gives it by the number of its place."""
    number = 0
    for y in range(0, array.height, TILE):
        for x in range(0, array.width, TILE):
            block = tile(number)[..., : array.height - y, : array.width - x]
            array.write(0, y, x, block)
            number += 1


def write(folder, side):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((TILE, TILE)), 4, mode="wrap")
    grey = ((noise - noise.min()) / np.ptp(noise) * 255).astype("u1")
    labels, count = ndimage.label(grey > 150)
    same = {"axes": "yx", "dtype": "u1", "pixel_size": {"y": 0.25, "x": 0.25}}
    image = create_image(f"{folder}/slide.zarr", shape=(side, side), **same)
    fill(image, lambda _: grey[None])
    add_pyramid(f"{folder}/slide.zarr")
    place = f"{folder}/slide.prediction.zarr"
    same |= {"axes": "cyx", "channel_names": ("background", "foreground")}
    told = {"prediction": {"source": "slide.zarr"}}
    made = create_image(place, shape=(2, side, side), attributes=told, **same)
    fill(made, lambda _: np.stack([255 - grey, grey]))
    both = {"shape": (side, side), "axes": "yx"}
    fill(create_labels(place, "classes", dtype="u1", **both), lambda _: (labels > 0).astype("u1"))
    instances = create_labels(place, "instances", dtype="u4", **both)
    fill(instances, lambda k: np.where(labels, labels + k * count, 0).astype("u4"))
    add_pyramid(place)


def memory(process):
    """Return what the command holds, and what its browser does, without what processes share."""
    own, browser = process.memory_info().rss, 0
    for child in process.children(recursive=True):
        try:
            browser += child.memory_full_info().pss
        except psutil.Error:
            continue
    return own, browser


def watched(words):
    """Run a command; return its seconds, and the peaks of memory in MiB.

    They are the command's, its browser's, and that of both at one time.
    """
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        seen, peaks = psutil.Process(process.pid), np.zeros(3)
        while process.poll() is None:
            try:
                now = memory(seen)
                peaks = np.maximum(peaks, [*now, sum(now)])
            except psutil.Error:
                break
            time.sleep(0.05)
        process.wait()
        if process.returncode:
            sys.exit(f"exit code {process.returncode}")
    return time.perf_counter() - began, *(peaks / 2**20)


def main(folder, side=50_000):
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not Path(folder, "slide.prediction.zarr").exists():
        write(folder, int(side))
    words = [sys.executable, "-m", "unetkit", "view", f"{folder}/slide.prediction.zarr", "-q"]
    links = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            links.append(time.perf_counter() - began)
            process.terminate()
    found = [watched([*words, "--png", f"{folder}/a.png", "--overwrite"]) for _ in range(ROUNDS)]
    seconds, own, browser, both = zip(*found, strict=True)
    print(f"link after {min(links):.2f} s, picture after {min(seconds):.2f} s (lowest of {ROUNDS})")
    print(
        f"memory at the most: {max(own):.0f} MiB, {max(browser):.0f} MiB of the browser,"
        f" both at one time {max(both):.0f} MiB ({max(both) * 2**20 / 1e6:.0f} MB)"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
