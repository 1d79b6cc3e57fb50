"""A tiny network whose classes are mixed, and stored images of noise, for predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from unetkit.arrays import normalization
from unetkit.models import build, hardware, model_file, model_header
from unetkit.storage.atomic import write_bytes
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image

FOREGROUND = ("background", "foreground")


def tiny_model(
    path,
    *,
    classes=FOREGROUND,
    target="foreground",
    channels=1,
    depth=2,
    width=2,
    seed=2,
    method="percentile",
    chosen=None,
    name="unet",
    norm=None,
    decision=None,
    provenance=None,
):
    """Write a network; with this seed its classes are mixed over an image of noise."""
    options: dict[str, Any] = {"depth": depth, "width": width}
    if norm is not None:
        options["norm"] = norm
    torch.manual_seed(seed)
    network = build.build_model(name, in_channels=channels, classes=len(classes), options=options)
    network.eval()
    contract = network.contract
    with torch.inference_mode():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, 0.1)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 2)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
        side = contract.legal(contract.minimum + 60)
        noise = torch.rand(1, channels, side, side)
        logits = hardware.forward(network, noise, precision="exact")[0]
        # Without this one class would win nearly everywhere, and seams could not show.
        for number in range(1, len(classes)):
            lead = (logits[number] - logits[:number].amax(dim=0)).median()
            logits[number] -= lead
            network.head.bias[number] -= lead
    header = model_header.ModelHeader(
        model=name,
        options=options,
        in_channels=channels,
        class_names=classes,
        target=target,
        contract=contract,
        normalization=method,
        channels=chosen,
        decision=decision,
        provenance=provenance or {},
    )
    write_bytes(str(path), model_file.to_bytes(network, header))
    return str(path)


def noise_image(path, shape, *, axes="yx", dtype="u2", seed=0, chunk=32):
    """Store an image of noise; the array has shape (planes, C, Y, X)."""
    high = 1 if dtype.startswith("f") else np.iinfo(dtype).max
    noise = np.random.default_rng(seed).random(shape) * high
    data = create_image(str(path), shape=shape, axes=axes, dtype=dtype, chunk=chunk)
    order = [axis for axis in "tzcyx" if axis in axes]
    turned = noise.transpose([axes.index(axis) for axis in order]).astype(dtype)
    planes = turned.reshape(data.planes, data.channel_count, *shape[-2:])
    for number, plane in enumerate(planes):
        data.write(number, 0, 0, plane)
    return str(path), planes


def plate(path, *, rows="AB", columns="12", fields=1, shape=(40, 44), version="0.4", labels=None):
    """Write a plate as other programs do: noise in every field, squares as labels if named."""
    formats = {"zarr_format": 3 if version == "0.5" else 2}

    def group(place, **told):
        told = {"ome": {"version": "0.5", **told}} if version == "0.5" and told else told
        zarr.create_group(f"{path}/{place}".rstrip("/"), attributes=told, **formats)

    wells = [
        {"path": f"{row}/{column}", "rowIndex": r, "columnIndex": c}
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
    ]
    named = {"rows": [{"name": n} for n in rows], "columns": [{"name": n} for n in columns]}
    group("", plate={**named, "wells": wells, "name": "screen", "version": "0.4"})
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    image = {"axes": axes, "datasets": levels, "version": version, "name": "field"}
    for row in rows:
        group(row)
    for number, well in enumerate(wells):
        group(well["path"], well={"images": [{"path": str(f)} for f in range(fields)]})
        for f in range(fields):
            place, seed = f"{well['path']}/{f}", number * fields + f
            group(place, multiscales=[image])
            noise = np.random.default_rng(seed).integers(0, 255, shape).astype("u1")
            zarr.create_array(f"{path}/{place}/0", data=noise, chunks=(32, 32), **formats)
            if labels:
                squares = np.zeros(shape, "u2")
                squares[4:14, 5:15], squares[20:30, 22:31] = 1, 2
                group(f"{place}/labels", labels=[labels])
                group(f"{place}/labels/{labels}", multiscales=[image])
                array = f"{path}/{place}/labels/{labels}/0"
                zarr.create_array(array, data=squares, chunks=(32, 32), **formats)
    return str(path)


def whole(data, plane=0):
    """Read a whole plane."""
    return data.read(plane, 0, data.height, 0, data.width)


def one_pass(model, image):
    """Predict an image (C, Y, X) in one pass over it, mirrored on every side."""
    loaded = model_file.load(model)
    contract = loaded.header.contract
    fitted = normalization.fit(lambda: [image], method=loaded.header.normalization)
    height, width = image.shape[1:]
    far = [contract.legal(n + 2 * contract.need) - n - contract.need for n in (height, width)]
    padding = [(0, 0), *((contract.need, after) for after in far)]
    padded = np.pad(fitted.apply(image), padding, mode="reflect")
    with torch.inference_mode():
        batch = torch.from_numpy(padded)[None]
        logits = hardware.forward(loaded.module, batch, precision="exact")[0].numpy()
    powers = np.exp(logits - logits.max(axis=0))[:, :height, :width]
    return np.asarray(powers / powers.sum(axis=0))


def contents(folder):
    """Return every file below a folder."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def differing(first, second):
    """Return the names of the files that two folders don't have alike."""
    one, other = contents(first), contents(second)
    return sorted(name for name in one.keys() | other if one.get(name) != other.get(name))


class Watching:
    """A progress that remembers, and may act at a given part."""

    def __init__(self, at=None, act=lambda: None):
        self.notes: list[str] = []
        self.stages: list[list[Any]] = []
        self.calls = 0  # of `advance`, each of which may be of several parts
        self.left, self.act = at, act

    def start(self, what, *, total):
        self.stages.append([what, total, 0])

    def advance(self, parts=1, *, status=""):
        if self.stages:
            self.stages[-1][2] += parts
        self.calls += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.act()

    def expect(self, total):
        self.stages[-1][1] = total

    def note(self, text):
        self.notes.append(text)


def cells(path, *, count=2, shape=(40, 44), kind="instances", unlabelled=0, **parts):
    """Store a dataset of bright squares on noise; samples s0, s1, ... then u0, ... unlabelled."""
    writer = DatasetWriter(str(path))
    for k in range(count + unlabelled):
        rng = np.random.default_rng(k)
        labels = np.zeros(shape, np.uint8)
        corners = [(y, x) for y in range(3, shape[0] - 9, 13) for x in range(4, shape[1] - 9, 14)]
        for number, (y, x) in enumerate(corners, start=1):
            labels[y : y + 8, x : x + 9] = number if kind == "instances" else 1
        image = 60 + 100 * (labels > 0) + rng.integers(0, 20, shape)
        own = {"labels": labels, "kind": kind} | parts if k < count else {}
        name = f"s{k}" if k < count else f"u{k - count}"
        writer.add(name, image.astype(np.uint8), axes="yx", **own)
    writer.finish()
    return str(path)


@pytest.fixture
def kit():
    """Return what makes models and images for predictions, and looks at what came of them."""
    return SimpleNamespace(
        cells=cells,
        contents=contents,
        differing=differing,
        image=noise_image,
        model=tiny_model,
        one_pass=one_pass,
        plate=plate,
        read=whole,
        watching=Watching,
    )


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """Work in a folder with model.safetensors and slide.zarr of 64 x 60 pixels."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "model.safetensors")
    noise_image(tmp_path / "slide.zarr", (64, 60))
    return "slide.zarr"
