"""Time the border weights against distance transforms, one thread each; prints one JSON line.

Run ``python tests/benchmarks/weights.py``; with ``--large SIDE`` it also weighs a stored plane of
that many pixels a side, with cells in one corner, and reports peak memory and time per pixel beside
those of a small plane with the same share of cells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from unetkit.arrays.weight_map import border_weight

# ruff: noqa: T201 - threads are set before anything is imported, and a benchmark prints


for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ[f"{name}_NUM_THREADS"] = "1"


ROUNDS = 3
# Transforms that are timed; the naive map needs one a cell, all of them alike.
SAMPLED = 10
# Pixels a side: long enough that opening and publishing do not count.
SMALL = 10_240
FULL = 8192
BLOCK = 1024


def cells(size, count):
    """Draw about `count` discs of differing size on a grid, close to one another."""
    side = round(count**0.5)
    pitch = size / side
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-0.1, 0.1, (2, side, side)) * pitch
    radii = rng.uniform(0.35, 0.47, (side, side)) * pitch
    at = np.arange(size, dtype=np.float32)
    cell = np.minimum((at / pitch).astype(int), side - 1)
    place = np.ix_(cell, cell)
    dy = (at - (cell + 0.5) * pitch)[:, None] - shifts[0][place]
    dx = (at - (cell + 0.5) * pitch)[None, :] - shifts[1][place]
    numbers = cell[:, None] * side + cell[None, :] + 1
    return np.where(dy**2 + dx**2 < radii[place] ** 2, numbers, 0).astype(np.uint32)


def fastest(*functions):
    """Time functions in turn and return the fastest round of each, in seconds."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for number, function in enumerate(functions):
            began = time.perf_counter()
            function()
            times[number].append(time.perf_counter() - began)
    return [min(found) for found in times]


def naive(labels):
    """Make one distance transform for each of a few cells."""
    for number in range(1, SAMPLED + 1):
        distance_transform_edt(labels != number)


def large(side):
    """Weigh a large stored plane that holds cells in one corner alone, and a small one like it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        # The first run compiles; what it needs is what full tiles need.
        for name, length, part in (("full", FULL, 1), ("small", SMALL, 10), ("large", side, 10)):
            place = plane(f"{folder}/{name}.zarr", length, part=part)
            # In a process of its own, so that memory is that of the weights alone.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[name] = pool.submit(weigh, place, length).result()
    small, big = found["small"], found["large"]
    memory = found["full"]["peak_mib"]
    return {
        "side": side,
        "small_side": SMALL,
        "peak_mib_of_a_small_plane_full_of_cells": round(memory, 1),
        "small": {name: round(value, 1) for name, value in small.items()},
        "large": {name: round(value, 1) for name, value in big.items()},
        "times_the_small_one_a_pixel": {
            name: round(big[name] / small[name], 2)
            for name in ("nanoseconds_a_pixel", "processor_nanoseconds_a_pixel")
        },
        "met": {
            "within_20_percent_a_pixel": big["nanoseconds_a_pixel"]
            <= 1.2 * small["nanoseconds_a_pixel"],
            "memory_flat": big["peak_mib"] <= 1.1 * memory,
        },
    }


def weigh(place, length):
    """Weigh a stored plane on one thread, and say what it took."""
    from unetkit.commands.weights.command import weights

    read(place, 1)  # imports are no part of it
    began = time.perf_counter()
    read(place)
    reading = time.perf_counter() - began
    began, worked = time.perf_counter(), time.process_time()
    weights(place, scheduler="sync")
    each = 1e9 / length**2
    return {
        "nanoseconds_a_pixel": (time.perf_counter() - began) * each,
        "processor_nanoseconds_a_pixel": (time.process_time() - worked) * each,
        "reading_once_nanoseconds_a_pixel": reading * each,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def plane(place, length, *, part):
    """Store a plane with a corner, this part of each side in whole tiles, that is full of cells."""
    from unetkit.geometry.tiles import cover
    from unetkit.storage.image_writer import create_image, create_labels

    create_image(place, shape=(length, length), axes="yx", dtype=np.uint8)
    array = create_labels(
        place, "instances", shape=(length, length), axes="yx", dtype=np.uint32, chunk=512
    )
    block = cells(BLOCK, BLOCK**2 // 839)
    corner = max(1, round(length / part / BLOCK)) * BLOCK
    for number, tile in enumerate(cover(corner, corner, tile=BLOCK)):
        array.write(0, tile.y0, tile.x0, np.where(block > 0, block + number * block.max(), 0))
    return place


def read(place, most=None):
    """Read all labels once, in squares."""
    from unetkit.geometry.tiles import cover
    from unetkit.storage.images import open_image

    array = open_image(place).labels["instances"]
    for tile in islice(cover(array.height, array.width, tile=1024), most):
        array.read(0, tile.y0, tile.y1, tile.x0, tile.x1)


def main():
    """Time everything and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, metavar="SIDE")
    side = parser.parse_args().large
    border_weight(cells(64, 4))
    small, big = cells(1024, 400), cells(4096, 20_000)
    ours, one = fastest(lambda: border_weight(small), lambda: naive(small))
    whole, transform = fastest(lambda: border_weight(big), lambda: distance_transform_edt(big == 0))
    counts = (100, 1000, 10_000, 100_000)
    by_count = fastest(*(partial(border_weight, cells(2048, n)) for n in counts))
    sizes = (1024, 2048, 4096)
    by_size = fastest(*(partial(border_weight, cells(n, n * n // 839)) for n in sizes))
    result: dict[str, Any] = {
        "benchmark": "weights",
        "machine": platform.processor() or platform.machine(),
        "milliseconds_1024_400": round(ours * 1e3, 1),
        "times_faster_than_one_transform_a_cell": round(one / SAMPLED * 400 / ours),
        "milliseconds_4096_20000": round(whole * 1e3),
        "one_transform_4096": round(transform * 1e3),
        "share_of_one_transform": round(whole / transform, 2),
        "nanoseconds_a_pixel_by_cells": {
            str(n): round(t / 2048**2 * 1e9, 1) for n, t in zip(counts, by_count, strict=True)
        },
        "nanoseconds_a_pixel_by_size": {
            str(n): round(t / n**2 * 1e9, 1) for n, t in zip(sizes, by_size, strict=True)
        },
    }
    result["met"] = {
        "times_faster_than_one_transform_a_cell": one / SAMPLED * 400 / ours >= 300,
        "share_of_one_transform": whole < transform,
    }
    if side:
        result["large"] = large(side)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
