"""Time the separation of objects by a watershed, and measure its memory; the last line is JSON.

Run ``python tests/benchmarks/separate.py``: planes of 4,096 and 16,384 pixels a side are drawn with
round objects, about 100,000 in the larger one, a part of which touch, and predicted by a network
that hands intensities on as probabilities. Then each prediction is decided about again, by a
watershed and by components, every time in a process of its own. Said are the seconds of the
separation, the objects, and the peak of memory; the share of what a network of width 32 takes for
as many pixels in either precision, measured on some tiles, in seconds of the clock and of the
processor; and the ratio of the peaks of both sizes. ``--folder`` keeps what is drawn for the next
time.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import apart

# ruff: noqa: T201 - a benchmark prints


PITCH, TILE, NETWORK_SIDE = 52, 1024, 4096
PRECISIONS = ("float32", "bfloat16")
# Of the network that hands on: how steeply its probability rises with the intensity.
STEEP = 8.0


class Clock:
    """A progress that tells how long each stage took, by the clock and of the processor."""

    def __init__(self):
        self.seconds, self.stage, self.began = {}, None, self.now()

    def now(self):
        return np.array([time.perf_counter(), time.process_time()])

    def start(self, what, *, total):
        now = self.now()
        self.seconds[self.stage] = now - self.began
        self.stage, self.began = what, now

    def advance(self, parts=1, *, status=""):
        pass

    def note(self, text):
        print(text, file=sys.stderr)

    def warn(self, text):
        self.note(text)


def intensities(y0, x0, side, *, seed=1):
    """Draw a part of the plane: domes on a grid, some so wide that neighbours touch, and noise."""
    at = np.arange(side, dtype=np.float32)
    rows, columns = (y0 + at) // PITCH, (x0 + at) // PITCH
    place = rows[:, None].astype(np.uint32) * 65536 + columns[None].astype(np.uint32)
    drawn = np.modf(np.sin(place * np.float64(12.9898) + seed) * 43758.5453)[0] ** 2
    radius = (0.38 + 0.17 * drawn) * PITCH
    shift = (drawn * 7919 % 1 - 0.5) * 0.12 * PITCH
    dy = (y0 + at - (rows + 0.5) * PITCH)[:, None] - shift
    dx = (x0 + at - (columns + 0.5) * PITCH)[None] + shift
    dome = 255 * (1 - 0.5 * np.hypot(dy, dx) / radius)
    noise = np.random.default_rng([seed, y0, x0]).normal(0, 1, dome.shape)
    return np.clip(dome + noise, 0, 255).astype(np.uint8)


def models(folder):
    """Store a network that hands intensities on, and one of width 32 that was never trained."""
    import torch

    from unetkit.models.build import build_model
    from unetkit.models.model_file import to_bytes
    from unetkit.models.model_header import ModelHeader

    for name, options in (("on", {"depth": 1, "width": 1}), ("wide", {"width": 32})):
        network = build_model("unet", in_channels=1, classes=2, options=options)
        if name == "on":
            with torch.no_grad():
                for layer in network.parameters():
                    layer.zero_()
                first, last = network.down[0], network.merge[0]
                for layer in (first[0], first[2], last[0], last[2]):
                    layer.weight[0, 0, 1, 1] = 1.0
                network.head.weight[:, 0, 0, 0] = torch.tensor([-0.5, 0.5]) * STEEP / 255
                network.head.bias[:] = torch.tensor([0.25, -0.25]) * STEEP
        header = ModelHeader(
            model="unet",
            options=options,
            in_channels=1,
            class_names=("background", "foreground"),
            target="foreground",
            contract=network.contract,
            normalization="none",
        )
        Path(folder, f"{name}.safetensors").write_bytes(to_bytes(network, header))


def draw(folder, side):
    """Store a plane and its prediction, unless they are there."""
    from unetkit.storage.image_writer import create_image

    plane = create_image(f"{folder}/{side}.zarr", shape=(side, side), axes="yx", dtype="u1")
    for y0 in range(0, side, TILE):
        for x0 in range(0, side, TILE):
            plane.write(0, y0, x0, intensities(y0, x0, TILE)[None])
    decide(folder, side, "components", overwrite=False)
    return {}


def decide(folder, side, separate, *, model="on", overwrite=True, **more):
    """Predict, or decide again about what is predicted; return seconds by stage, and objects."""
    from unetkit.commands.tile_predict.command import tile_predict

    clock = Clock()
    report = tile_predict(
        f"{folder}/{side}.zarr",
        model=f"{folder}/{model}.safetensors",
        output=f"{folder}/{model}-{side}.zarr",
        tile=TILE,
        separate=separate,
        overwrite=overwrite,
        progress=clock,
        **more,
    )
    clock.start("end", total=0)
    reused = report.tiles_taken_over == report.tiles_total
    return {"stages": clock.seconds, "objects": report.objects, "decided_again": reused}


def separated(folder, side, separate, scheduler):
    """Decide again; return what that took."""
    found = decide(folder, side, separate, scheduler=scheduler)
    assert found["decided_again"], "the prediction was made anew"
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    seconds, worked = found["stages"]["number objects"].round(2).tolist()
    told = {"seconds": seconds, "processor_seconds": worked}
    return told | {"objects": found["objects"], "peak_mib": round(peak)}


def network(folder, side, precision):
    """Return the seconds that a network of width 32 takes a tile."""
    found = decide(folder, side, "components", model="wide", precision=precision)
    seconds, worked = (found["stages"]["predict"] / (side // TILE) ** 2).tolist()
    return {"tile_seconds": seconds, "tile_processor_seconds": worked}


def part(given):
    folder, side = given.folder, given.sides[0]
    if given.part == "draw":
        return draw(folder, side)
    if given.part in PRECISIONS:
        return network(folder, side, given.part)
    return separated(folder, side, given.part, given.scheduler)


def measure(given, folder):
    def run(name, side):
        more = ["--folder", folder, "--part", name, "--scheduler", given.scheduler]
        return apart(__file__, str(side), *more, shown=(name, side))

    if not Path(folder, "wide.safetensors").exists():
        models(folder)
    rows = {}
    for side in (*given.sides, NETWORK_SIDE):
        if not Path(folder, f"on-{side}.zarr").exists():
            run("draw", side)
    for side in given.sides:
        # What was decided last is not decided again.
        rows[side] = {name: run(name, side) for name in ("watershed", "components")}
    tiles = {precision: run(precision, NETWORK_SIDE) for precision in PRECISIONS}
    for side, found in rows.items():
        for precision, tile in tiles.items():
            for what in ("seconds", "processor_seconds"):
                known = tile[f"tile_{what}"] * (side / TILE) ** 2
                share = round(found["watershed"][what] / known, 3)
                found[f"share_of_{precision}_{what}"] = share
        print(json.dumps({"side": side, **found}))
    small, large = (rows[side]["watershed"]["peak_mib"] for side in given.sides[:: len(rows) - 1])
    return {"network": tiles, "peak_ratio": round(large / small, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sides", nargs="*", type=int, default=[4096, 16384])
    parser.add_argument("--folder", help="keeps what is drawn; left out, nothing is kept")
    parser.add_argument("--scheduler", default="threads")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(part(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.folder:
            Path(given.folder).mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(given, given.folder or folder)))


if __name__ == "__main__":
    sys.exit(main())
