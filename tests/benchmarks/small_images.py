"""Time many small images in one dataset, and one of them from the shell; the last line is JSON.

Run ``python tests/benchmarks/small_images.py``. The images hold round objects, and the network,
whose weights are drawn, tells bright from dark, so that there are objects to be numbered.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import cells

from unetkit.models import hardware, model_file, model_header, unet
from unetkit.storage.atomic import write_bytes
from unetkit.storage.datasets import DatasetWriter

# ruff: noqa: T201 - a benchmark prints


SIDE, WIDTH, DEPTH = 512, 8, 2


def image(number):
    """Return an image of 36 bright discs over noise."""
    noise = np.random.default_rng(number).normal(300, 20, (SIDE, SIDE))
    return (noise + 1500 * (cells(SIDE, 36, seed=number) > 0)).astype(np.uint16)


def store_model(path):
    """Write a network of drawn weights that tells bright from dark."""
    torch.manual_seed(0)
    made = unet.build(in_channels=1, classes=2, width=WIDTH, depth=DEPTH).eval()
    side, margin = made.contract.legal(made.contract.minimum + 256), made.contract.margin
    shown = torch.from_numpy((image(0)[:side, :side].astype(np.float32) - 300) / 1500)
    bright = shown[margin : side - margin, margin : side - margin]
    with torch.inference_mode():
        # Weights above 0 blur; those that are drawn see little but noise.
        for parameter in made.parameters():
            parameter.abs_()
        made.head.weight[0] = 0
        lead = made(shown[None, None])[0, 1]
        cut = (lead[bright > 0.5].median() + lead[bright <= 0.5].median()) / 2
        made.head.weight[1] *= 10 / cut
        made.head.bias[1] = -10
    header = model_header.ModelHeader(
        model="unet",
        options={"width": WIDTH, "depth": DEPTH},
        in_channels=1,
        class_names=("background", "foreground"),
        target="foreground",
        contract=made.contract,
        normalization="percentile",
        channels=None,
    )
    write_bytes(path, model_file.to_bytes(made, header))


def store_images(path, count):
    """Write a dataset of so many images."""
    writer = DatasetWriter(path)
    for number in range(count):
        writer.add(f"field{number:04d}", image(number), axes="yx")
    writer.finish()


def many(data, model, count):
    """Return the milliseconds an image that a prediction of a dataset takes beside its network."""
    from unetkit.commands.tile_predict.command import tile_predict

    hardware.tune_allocator()
    real, spent = hardware.forward, []

    def forward(*arguments, **named):
        began = time.perf_counter()
        try:
            return real(*arguments, **named)
        finally:
            spent.append(time.perf_counter() - began)

    hardware.forward = forward
    began = time.perf_counter()
    report = tile_predict(data, model=model, overwrite=True)
    seconds = time.perf_counter() - began
    return {
        "images": count,
        "ms_an_image": round(1000 * seconds / count, 2),
        "ms_an_image_beyond_network": round(1000 * (seconds - sum(spent)) / count, 2),
        "objects": report.objects,
    }


def cold(folder, model, *, rounds):
    """Return how often as long as `import torch` one image takes from the shell, each the best."""
    one = f"{folder}/one.zarr"
    store_images(one, 1)
    predict = [sys.executable, "-m", "unetkit", "tile-predict", one, "--model", model]
    commands = {
        "import_torch": [sys.executable, "-c", "import torch"],
        "predict": [*predict, "--overwrite", "--quiet"],
        "refuse": [*predict, "--tile", "none"],
    }
    found = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, check=name != "refuse")
            found[name].append(time.perf_counter() - began)
    seconds = {f"{name}_seconds": round(min(took), 3) for name, took in found.items()}
    ratio = min(found["predict"]) / min(found["import_torch"])
    return {**seconds, "cold_over_import_torch": round(ratio, 2)}


def main():
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5, help="of the commands from the shell")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, data = f"{folder}/model.safetensors", f"{folder}/data.zarr"
        store_model(model)
        found = cold(folder, model, rounds=asked.rounds) if asked.rounds else {}
        if asked.images:
            store_images(data, asked.images)
            found |= many(data, model, asked.images)
        found["disk_bytes"] = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
