"""Time training against a plain MONAI loop in one run; the last line is JSON.

Run ``python tests/benchmarks/train.py`` with the extra ``bench`` installed. The classic network of
width 32 sees inputs of 700 pixels, of which 512 are labelled, four a step. The peer's network has
the same layers, padded, so that it reads 512 pixels for 512 labelled ones, and no normalization
layers that would slow it down; it runs in float32 as in the tutorials, and as an expert runs it, in
bfloat16 and ``channels_last``. Each part works in a process of its own, as its users have it.
``--peer-python`` names another interpreter for the peer; ``--quick`` makes everything small, to try
the script.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from measuring import apart, padded, sampler, whole

from unetkit.models import hardware, unet
from unetkit.training.recipes import RECIPES

# ruff: noqa: T201 - a benchmark prints


IMAGES, SIDE = 8, 1024
LABELLED, BATCH, WIDTH = 512, 4, 32
QUICK = {"labelled": 100, "width": 4, "steps": 3}


def cells(folder):
    """Store a dataset of noisy discs with their border weights."""
    from unetkit.commands.weights.command import weights
    from unetkit.storage.datasets import DatasetWriter

    path = f"{folder}/data.zarr"
    writer = DatasetWriter(path)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(IMAGES):
        rng = np.random.default_rng(number)
        labels = np.zeros((SIDE, SIDE), np.uint16)
        for cell, (row, column) in enumerate(rng.integers(0, SIDE, (150, 2)), start=1):
            near = np.s_[max(row - 30, 0) : row + 30, max(column - 30, 0) : column + 30]
            labels[near][(y[near] - row) ** 2 + (x[near] - column) ** 2 < 600] = cell
        image = 90 * (labels > 0) + rng.integers(0, 100, labels.shape)
        writer.add(f"s{number}", image.astype(np.uint8), axes="yx", labels=labels)
    writer.finish()
    weights(path)
    return path


class Clock:
    """Adds up the seconds inside some functions."""

    def __init__(self):
        self.inside = 0.0

    def around(self, function):
        def timed(*arguments, **named):
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.inside += time.perf_counter() - began

        return timed


def ours(wish):
    """Train for some steps; return labelled pixels a second, and the share that is overhead."""
    from unetkit.training.block_cache import BUDGET, BlockCache
    from unetkit.training.trainer import Trainer

    hardware.tune_allocator()
    torch.manual_seed(0)
    network = unet.build(in_channels=1, classes=2, width=wish["width"])
    recipe = replace(RECIPES["default"], tile=wish["labelled"], batch=BATCH)
    precision = wish["precision"]
    if precision == "auto":
        precision = hardware.low_precision(torch.device("cpu")) or "float32"
    # Decoded: image, target and weights of every pixel.
    content = IMAGES * SIDE**2 * (1 + 1 + 4)
    drawn = sampler(
        wish["data"],
        contract=network.contract,
        recipe=recipe,
        cache=BlockCache(content // 10 if wish["small_cache"] else BUDGET),
        seed=0,
    )
    trainer = Trainer(network, recipe, precision=precision)
    clock = Clock()
    hardware.forward = clock.around(hardware.forward)
    torch.Tensor.backward = clock.around(torch.Tensor.backward)
    trainer._optimizer.step = clock.around(trainer._optimizer.step)
    with drawn.batches(workers=hardware.thread_count()) as batches:
        for _ in range(2):
            trainer.learn(next(batches), rate=1e-4)
        clock.inside, began = 0.0, time.perf_counter()
        for _ in range(wish["steps"]):
            trainer.learn(next(batches), rate=1e-4)
        seconds = time.perf_counter() - began
    return {
        "input": drawn.size,
        "precision": precision,
        "pixels_per_second": wish["steps"] * BATCH * wish["labelled"] ** 2 / seconds,
        "seconds_a_step": seconds / wish["steps"],
        "outside_share": 1 - clock.inside / seconds,
    }


def peer(wish):
    """Train for some steps as MONAI's tutorials do; return labelled pixels a second."""
    from monai import transforms
    from monai.data import CacheDataset, DataLoader

    from unetkit.storage.datasets import open_dataset

    torch.manual_seed(0)
    network = padded(unet.build(in_channels=1, classes=2, width=wish["width"]))
    low = wish["precision"] == "bfloat16"
    order = torch.channels_last if low else torch.contiguous_format
    network = network.to(memory_format=order)
    side = wish["labelled"] // 16 * 16
    keys, modes = ("image", "label"), ("bilinear", "nearest")
    items = []
    for sample in open_dataset(wish["data"]).samples:
        image = whole(sample.data).astype(np.float32)
        label = whole(sample.labels())[None]
        items.append({"image": image, "label": (label > 0).astype(np.float32)})
    changes = transforms.Compose(
        [
            transforms.ScaleIntensityRangePercentilesd("image", 1, 99.8, 0, 1),
            transforms.RandSpatialCropd(keys, (side, side), random_size=False),
            transforms.RandFlipd(keys, prob=0.5, spatial_axis=0),
            transforms.RandRotated(keys, range_x=np.pi, prob=0.3, mode=modes),
            transforms.Rand2DElasticd(
                keys, spacing=(side // 2,) * 2, magnitude_range=(5, 10), prob=0.5, mode=modes
            ),
        ]
    )
    # As many items as there are steps to make, so that workers are started once.
    steps = wish["steps"] + 2
    repeated = (items * (steps * BATCH // len(items) + 1))[: steps * BATCH]
    data = CacheDataset(repeated, changes, cache_rate=1.0, num_workers=2, progress=False)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    loss_function = torch.nn.CrossEntropyLoss()
    began = 0.0
    for number, batch in enumerate(loader):
        if number == 2:
            began = time.perf_counter()
        image, label = batch["image"].as_tensor(), batch["label"].as_tensor()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = network(image.contiguous(memory_format=order))
        loss_function(logits.float(), label[:, 0].long()).backward()
        optimizer.step()
    seconds = time.perf_counter() - began
    return {
        "side": side,
        "pixels_per_second": wish["steps"] * BATCH * side**2 / seconds,
        "seconds_a_step": seconds / wish["steps"],
    }


def compare(wish, *, rounds, python):
    """Time us and the peer in turn; return the ratios of the best rates."""
    runs = {
        "auto": ("ours", {"precision": "auto"}),
        "float32": ("ours", {"precision": "float32"}),
        "small_cache": ("ours", {"precision": "auto", "small_cache": True}),
        "monai": ("peer", {"precision": "float32"}),
        "monai_bfloat16": ("peer", {"precision": "bfloat16"}),
    }
    found = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        data = cells(folder)
        for _ in range(rounds):
            for name, (part, change) in runs.items():
                own = {"small_cache": False, **wish, **change, "data": data}
                where = python if part == "peer" else sys.executable
                asked = ("--part", part, "--wish", json.dumps(own))
                shown = (part, {k: v for k, v in own.items() if k != "data"})
                found[name].append(apart(__file__, *asked, python=where, shown=shown))
    best = {n: max(many, key=lambda one: one["pixels_per_second"]) for n, many in found.items()}
    rate = {name: one["pixels_per_second"] for name, one in best.items()}
    return {
        "threads": hardware.thread_count(),
        "bfloat16_in_hardware": hardware.low_precision(torch.device("cpu")) == "bfloat16",
        "precision": best["auto"]["precision"],
        "input": best["auto"]["input"],
        **{f"pixels_per_second_{name}": value for name, value in rate.items()},
        "ratio_auto": rate["auto"] / rate["monai"],
        "ratio_float32": rate["float32"] / rate["monai"],
        "ratio_bfloat16": rate["auto"] / rate["monai_bfloat16"],
        "outside_share_auto": best["auto"]["outside_share"],
        "outside_share_float32": best["float32"]["outside_share"],
        "small_cache_slowdown": 1 - rate["small_cache"] / rate["auto"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["ours", "peer"])
    parser.add_argument("--wish", type=json.loads)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    given = parser.parse_args()
    if given.part:
        print(json.dumps({"ours": ours, "peer": peer}[given.part](given.wish)))
        return
    usual = {"labelled": LABELLED, "width": WIDTH, "steps": given.steps}
    wish = QUICK if given.quick else usual
    print(json.dumps(compare(wish, rounds=given.rounds, python=given.peer_python)))


if __name__ == "__main__":
    main()
