"""Time a prediction against MONAI's sliding window in one run; the last line is JSON.

Run ``python tests/benchmarks/tile_predict.py`` with the extra ``bench`` installed. The peer has
the same channels, padded; each works in a process of its own, as its users have it.
``--sparse SIDE`` instead starts on a plane of that many pixels a side and stops after 50 tiles.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import zlib
from functools import partial
from itertools import product
from pathlib import Path

import measuring
import numpy as np
import torch
from measuring import fastest, padded, took
from torch.utils.flop_counter import FlopCounterMode

from unetkit.models import hardware, model_file, model_header, unet
from unetkit.storage.atomic import write_bytes
from unetkit.storage.image_writer import create_image
from unetkit.storage.journal import FOLDER, LINES, Journal

# ruff: noqa: T201 - a benchmark prints


SIDE, WIDTH = 2048, 32
PEERS = ("float32", "bfloat16", "tuned")
WORKERS = {"local:2": {}, "processes": {"workers": 2}}


def network():
    """Return the network that is timed, with the same weights every time."""
    torch.manual_seed(0)
    made = unet.build(in_channels=1, classes=2, width=WIDTH).eval()
    with torch.no_grad():
        # Fresh weights decide nothing, so that any rounding would flip labels; trained ones do.
        made.head.bias[0] += 20
    return made


def store(folder, side):
    model, image = f"{folder}/model.safetensors", f"{folder}/{side}.zarr"
    made = network()
    header = model_header.ModelHeader(
        model="unet",
        options={"width": WIDTH},
        in_channels=1,
        class_names=("background", "foreground"),
        target="foreground",
        contract=made.contract,
        normalization="percentile",
        channels=None,
    )
    write_bytes(model, model_file.to_bytes(made, header))
    data = create_image(image, shape=(side, side), axes="yx", dtype="u2")
    noise = np.random.default_rng(0)
    for y in range(0, side, 512):
        data.write(0, y, 0, noise.integers(0, 4096, (1, min(512, side - y), side), np.uint16))
    return model, image


def peer(overlap, side, how):
    """Return the seconds that MONAI takes for a padded network of the same channels.

    In float32 as its users have it, or as an expert runs it: bfloat16, ``channels_last``, and the
    heap set as ours where `how` says so.
    """
    from monai.inferers import sliding_window_inference

    if how == "tuned":
        hardware.tune_allocator()
    module, asked = padded(network()), {"overlap": overlap, "mode": "gaussian"}
    image, precision = torch.rand(1, 1, side, side), contextlib.nullcontext()
    if how != "float32":
        module = module.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
        precision = torch.autocast("cpu", torch.bfloat16)
    with torch.inference_mode(), precision:
        module(image[..., :512, :512])
        return {
            "seconds": took(lambda: sliding_window_inference(image, 512, 1, module, **asked))[0]
        }


class Watch:
    """A progress that remembers when the first stage began and when each tile of it was done."""

    def __init__(self, *, stop_after=None):
        self.began, self.left = 0.0, stop_after
        self.stages, self.done = [], []

    def start(self, what, *, total):
        self.began = self.began or time.perf_counter()
        self.stages.append(what)

    def advance(self, parts=1, *, status=""):
        if len(self.stages) == 1:
            self.done.append(time.perf_counter())
            if len(self.done) == self.left:
                os.kill(os.getpid(), signal.SIGTERM)

    def note(self, text):
        pass


def ours(side, options):
    """Return the seconds that `tile_predict` takes, and what of it the network takes."""
    from unetkit.commands.tile_predict.command import tile_predict

    # What is stored below starts threads, which on the command line come after it.
    hardware.tune_allocator()
    real, spent = hardware.forward, []

    def forward(*arguments, **named):
        began = time.perf_counter()
        try:
            return real(*arguments, **named)
        finally:
            spent.append((began, time.perf_counter() - began))

    hardware.forward = forward
    with tempfile.TemporaryDirectory() as folder:
        model, image = store(folder, side)
        # Compiled kernels and libraries that load late would count as time of the first run. Memory
        # that a large tile takes for the first time does count, so that this takes a small one.
        small = create_image(f"{folder}/small.zarr", shape=(256, 256), axes="yx", dtype="u2")
        small.write(0, 0, 0, np.random.default_rng(0).integers(0, 4096, (1, 256, 256), np.uint16))
        # In several tiles, since a single one is predicted without Dask.
        warm = options | {"scheduler": "threads", "tile": 128}
        tile_predict(f"{folder}/small.zarr", model=model, **warm)
        watch, began = Watch(), time.perf_counter()
        report = tile_predict(image, model=model, progress=watch, **options)
        seconds = time.perf_counter() - began
    steady = watch.done[-1] - watch.done[1] if len(watch.done) > 2 else None
    return {
        "seconds": seconds,
        "network_share": sum(t for start, t in spent if start > began) / seconds,
        # Without what the plan runs the network for.
        "network_share_in_tiles": sum(t for start, t in spent if start > watch.began) / seconds,
        "plan_seconds": watch.began - began,
        "expected_seconds": report.expected_seconds,
        "tile": report.tile,
        "precision": report.precision,
        "tile_seconds": steady and steady / (len(watch.done) - 2),
        "matrix_rate": matrix_rate(report.precision),
    }


def matrix_rate(precision):
    kind = torch.float32 if precision in ("exact", "float32") else getattr(torch, precision)
    a = torch.rand(2048, 2048).to(kind)
    return 2 * 2048**3 / fastest(lambda: a @ a, rounds=5)[0]


def operations(side):
    """Count the floating-point operations of one pass over the whole image."""
    module = network().to("meta")
    size = module.contract.legal(side + 2 * module.contract.need)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.empty(1, 1, size, size, device="meta"))
    return float(counter.get_total_flops())


def sparse(side):
    """Predict the first 50 tiles of an image that is nearly all background."""
    from unetkit.commands.tile_predict.command import tile_predict
    from unetkit.errors import StoppedError

    with tempfile.TemporaryDirectory() as folder:
        model, _ = store(folder, 512)
        data = create_image(f"{folder}/sparse.zarr", shape=(side, side), axes="yx", dtype="u2")
        noise = np.random.default_rng(0).integers(0, 4096, (1, 1024, 1024), np.uint16)
        data.write(0, 1024, 1024, noise)
        watch, began = Watch(stop_after=50), time.perf_counter()
        with contextlib.suppress(StoppedError):
            tile_predict(f"{folder}/sparse.zarr", model=model, tile=512, progress=watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"side": side, "peak_bytes": peak, "first_tile_seconds": watch.done[0] - began}


def journal(count):
    """Read a journal of `count` tiles."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, FOLDER, LINES)
        lines.parent.mkdir()
        with lines.open("wb") as file:
            for index in range(count):
                text = b'["slide/0/%d", %d]' % (index, index * 2654435761 % 2**32)
                file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        done = set()
        seconds, worked = took(lambda: done.update(Journal(folder).done()))
        return {"tiles": len(done), "seconds": seconds, "processor_seconds": worked}


apart = partial(measuring.apart, __file__)


def run_ours(side, **options):
    return apart("--ours", json.dumps(options), "--side", str(side))


def best_of(runs):
    """Return the quickest run, with the best rate of the machine that any of them saw."""
    best = min(runs, key=lambda run: run["seconds"])
    return best | {"matrix_rate": max(run.get("matrix_rate", 0.0) for run in runs)}


def compare(side, rounds, python):
    """Time us and the peer in turn, several times; return the ratios of the best times."""
    runs = {
        "auto": lambda: run_ours(side),
        "float32": lambda: run_ours(side, precision="float32"),
        **{f"auto_{n}": partial(run_ours, side, tile=n) for n in (512, 1024, 2048)},
        **{
            f"float32_{n}": partial(run_ours, side, precision="float32", tile=n)
            for n in (1024, 2048)
        },
        **{
            f"{how}_{name}": partial(
                apart, "--peer", overlap, "--how", how, "--side", str(side), python=python
            )
            for how in PEERS
            for name, overlap in (("025", "0.25"), ("050", "0.5"))
        },
    }
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    best = {name: best_of(many) for name, many in found.items()}
    times = {name: one["seconds"] for name, one in best.items()}
    figures = {"side": side, "width": WIDTH, "threads": hardware.thread_count()}
    for name in ("auto", "float32"):
        figures |= {f"{name}_{key}": value for key, value in best[name].items()}
        for how, overlap in product(PEERS, ("025", "050")):
            figures[f"ratio_{name}_{how}_{overlap}"] = times[f"{how}_{overlap}"] / times[name]
        figures[f"rate_share_{name}"] = operations(side) / times[name] / best[name]["matrix_rate"]
    figures["rate_share"] = figures["rate_share_auto"]
    for name in ("network_share", "network_share_in_tiles"):
        figures[name] = figures[f"auto_{name}"]
    for name, tiles in (("auto", (512, 1024, 2048)), ("float32", (1024, 2048))):
        fixed = min(times[f"{name}_{tile}"] for tile in tiles)
        figures[f"{name}_over_best_tile"] = times[name] / fixed
    monai = {name: times[name] for name in map("_".join, product(PEERS, ("025", "050")))}
    return figures | {f"monai_{name}_seconds": seconds for name, seconds in monai.items()}


def beside(side, precision):
    """Compare ways of computing with each other: bit for bit, and with two workers."""
    exact = {"tile": 512, "precision": "exact"}
    half = side // 2
    costs = [run_ours(half, **exact)["seconds"], run_ours(half, tile=512, precision="float32")]
    figures = {"exact_over_float32": costs[0] / costs[1]["seconds"]}
    tiled = {"tile": 512, "precision": precision}
    one = run_ours(side * 3 // 2, **tiled)["tile_seconds"]
    for name in ("local:2", "processes"):
        two = run_ours(side * 3 // 2, **tiled, scheduler=name, **WORKERS[name])["tile_seconds"]
        # Between the first tiles and the last: how long workers take to start is another matter.
        figures[f"two_workers_loss_{name.partition(':')[0]}"] = 1 - one / two
    return figures


def scales():
    """Start on a small and a huge sparse plane, and read a long journal."""
    small, large = (apart("--sparse", str(side)) for side in (10_000, 100_000))
    million = apart("--journal", "1000000")
    return {
        "sparse_peak_ratio": large["peak_bytes"] / small["peak_bytes"],
        "first_tile_seconds": large["first_tile_seconds"],
        "journal_seconds": million["seconds"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels a side of the image")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="a Python that has MONAI, torch and unetkit"
    )
    parser.add_argument("--sparse", type=int, help="start on a plane of this side instead")
    parser.add_argument("--journal", type=int, help="read a journal of so many tiles instead")
    parser.add_argument("--beside", help="compare workers in this precision, and exact, instead")
    parser.add_argument("--peer", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--how", choices=PEERS, default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer is not None:
        found = peer(given.peer, given.side, given.how)
    elif given.ours:
        found = ours(given.side, json.loads(given.ours))
    elif given.journal is not None:
        found = journal(given.journal)
    elif given.sparse is not None:
        found = sparse(given.sparse)
    elif given.beside:
        found = beside(given.side, given.beside)
    else:
        found = compare(given.side, given.rounds, given.peer_python)
        found |= beside(given.side, found["auto_precision"]) | scales()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
