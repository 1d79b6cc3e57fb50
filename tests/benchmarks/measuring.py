"""What the benchmarks share: clocks, processes, drawn cells, and what both sides train on.

What is heavy is loaded where it is used, so that no peak of memory counts it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# ruff: noqa: T201 - a benchmark prints


ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def on_one_thread():
    """Start the script anew with one thread a library; they ask for it while they are loaded."""
    if not ONE_THREAD.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)


def fastest(*functions, rounds=3, warm=0, calls=1):
    """Time functions in turn, and return the fastest call of each in seconds.

    The first `warm` rounds, in which something may compile, do not count. The first of several
    calls in a turn finds the caches full of another's arrays.
    """
    times = [[] for _ in functions]
    for _ in range(warm + rounds):
        for found, function in zip(times, functions, strict=True):
            found += [took(function)[0] for _ in range(calls)]
    return [min(found[warm * calls :]) for found in times]


def took(function):
    """Return the seconds that a function takes, and those of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - began, time.process_time() - worked


def apart(script, *arguments, python=sys.executable, root=None, shown=()):
    """Run a part of a script in a process of its own; return what it printed last.

    `root` is another checkout whose package it uses.
    """
    places = [str(root or Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [python, script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
    )
    found = json.loads(run.stdout.splitlines()[-1])
    print(*(shown or arguments), found, flush=True)
    return found


def cells(size, count, *, seed=0, radii=(0.4, 0.4)):
    """Draw about `count` discs on a grid, each a little off its place; radii by its pitch."""
    side = round(count**0.5)
    pitch = size / side
    rng = np.random.default_rng(seed)
    shifts = rng.uniform(-0.1, 0.1, (2, side, side)) * pitch
    radii = rng.uniform(*radii, (side, side)) * pitch
    at = np.arange(size, dtype=np.float32)
    cell = np.minimum((at / pitch).astype(int), side - 1)
    place = np.ix_(cell, cell)
    dy = (at - (cell + 0.5) * pitch)[:, None] - shifts[0][place]
    dx = (at - (cell + 0.5) * pitch)[None, :] - shifts[1][place]
    numbers = cell[:, None] * side + cell[None, :] + 1
    return np.where(dy**2 + dx**2 < radii[place] ** 2, numbers, 0).astype(np.uint32)


def labelled_plane(url, side):
    """Store a plane without content, and return its labels to be written."""
    from unetkit.storage.image_writer import create_image, create_labels

    plane = {"shape": (side, side), "axes": "yx"}
    create_image(url, **plane, dtype=np.uint8)
    return create_labels(url, "instances", **plane, dtype=np.uint32, chunk=512)


def whole(array):
    return array.read(0, 0, array.height, 0, array.width)


def padded(network):
    """Pad the convolutions of a classic network, as peers have them."""
    import torch

    from unetkit.geometry.sizes import SizeContract

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.padding = (1, 1)
    network.contract = SizeContract(step=16, minimum=16, halo=96)
    return network


def sampler(url, **how):
    """Draw from all that a dataset has, normalized by percentiles."""
    from unetkit.commands.train.plan import choose_task
    from unetkit.commands.train.samples import training_samples
    from unetkit.progress import SILENT
    from unetkit.storage.datasets import open_dataset
    from unetkit.training.sampler import Sampler
    from unetkit.training.split import Region

    task = choose_task(open_dataset(url), None, SILENT)
    regions = [Region(s.name, 0, 0, s.data.height, s.data.width) for s in task.samples]
    known = training_samples(
        task,
        [region.sample for region in regions],
        balance=0.0,
        normalization="percentile",
        nonfinite="error",
        progress=SILENT,
    )
    return Sampler(known, regions, **how)
