"""Time the border weights against distance transforms, one thread each; prints one JSON line.

Run ``python tests/benchmarks/weights.py``; with ``--large SIDE`` it also weighs a stored plane of
that many pixels a side, with cells in one corner, and reports peak memory and time per pixel beside
those of a small plane with the same share of cells.
"""

import argparse
import json
import platform
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context

import measuring
import numpy as np
from measuring import fastest, labelled_plane, on_one_thread, took
from scipy.ndimage import distance_transform_edt

from unetkit.arrays.weight_map import border_weight

# ruff: noqa: T201 - a benchmark prints


# Transforms that are timed; the naive map needs one a cell, all of them alike.
SAMPLED = 10
# Pixels a side: long enough that opening and publishing do not count.
SMALL = 10_240
FULL = 8192
BLOCK = 1024


# Discs of differing size, close to one another.
cells = partial(measuring.cells, radii=(0.35, 0.47))


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
    reading, _ = took(lambda: read(place))
    seconds, worked = took(lambda: weights(place, scheduler="sync"))
    each = 1e9 / length**2
    return {
        "nanoseconds_a_pixel": seconds * each,
        "processor_nanoseconds_a_pixel": worked * each,
        "reading_once_nanoseconds_a_pixel": reading * each,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def plane(place, length, *, part):
    """Store a plane with a corner, this part of each side in whole tiles, that is full of cells."""
    from unetkit.geometry.tiles import cover

    array = labelled_plane(place, length)
    block = cells(BLOCK, BLOCK**2 // 839)
    corner = max(1, round(length / part / BLOCK)) * BLOCK
    for number, tile in enumerate(cover(corner, corner, tile=BLOCK)):
        array.write(0, tile.y0, tile.x0, np.where(block > 0, block + number * block.max(), 0))
    return place


def read(place, most=None):
    from unetkit.geometry.tiles import cover
    from unetkit.storage.images import open_image

    array = open_image(place).labels["instances"]
    for tile in islice(cover(array.height, array.width, tile=1024), most):
        array.read(0, tile.y0, tile.y1, tile.x0, tile.x1)


def a_pixel(names, times, sides):
    """Divide times by the pixels of planes, in nanoseconds."""
    rows = zip(names, times, sides, strict=True)
    return {str(name): round(seconds / side**2 * 1e9, 1) for name, seconds, side in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, metavar="SIDE")
    side = parser.parse_args().large
    on_one_thread()
    border_weight(cells(64, 4))
    small, big = cells(1024, 400), cells(4096, 20_000)
    ours, one = fastest(lambda: border_weight(small), lambda: naive(small))
    whole, transform = fastest(lambda: border_weight(big), lambda: distance_transform_edt(big == 0))
    counts = (100, 1000, 10_000, 100_000)
    by_count = fastest(*(partial(border_weight, cells(2048, n)) for n in counts))
    sizes = (1024, 2048, 4096)
    by_size = fastest(*(partial(border_weight, cells(n, n * n // 839)) for n in sizes))
    result = {
        "benchmark": "weights",
        "machine": platform.processor() or platform.machine(),
        "milliseconds_1024_400": round(ours * 1e3, 1),
        "times_faster_than_one_transform_a_cell": round(one / SAMPLED * 400 / ours),
        "milliseconds_4096_20000": round(whole * 1e3),
        "one_transform_4096": round(transform * 1e3),
        "share_of_one_transform": round(whole / transform, 2),
        "nanoseconds_a_pixel_by_cells": a_pixel(counts, by_count, [2048] * len(counts)),
        "nanoseconds_a_pixel_by_size": a_pixel(sizes, by_size, sizes),
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
