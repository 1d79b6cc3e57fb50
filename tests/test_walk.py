"""Every verb on every set of real microscopy, as a lab would walk it, only shorter."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from unetkit.commands.augment.command import augment
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.import_images.command import import_images
from unetkit.commands.info import info
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.weights.command import weights

if TYPE_CHECKING:
    from typing import Any

SETS: dict[str, dict[str, Any]] = {
    "bbbc039_nuclei": {},
    "dsb2018_mixed": {},
    "axon_sem": {"kind": "classes", "classes": "background,myelin,axon"},
    "usiigaci_phase": {},
    "dic_hela": {},
    "phc_u373": {},
    "isbi2012_em": {"kind": "classes"},
}


def few(folder, target, *, count):
    """Copy some images of a set, evenly spread, with their masks; all where `count` is None."""
    images = sorted((folder / "images").iterdir())
    step = 1 if count is None else max(1, len(images) // count)
    for image in images[::step][:count]:
        for kind in ("images", "masks"):
            (target / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target / "images")
        shutil.copy(folder / "masks" / f"{image.stem}.png", target / "masks")
    return target


def walk(name, folder, options):
    def at(file):
        return str(folder / file)

    imported = import_images(at("images"), at("data.zarr"), labels=at("masks"), **options)
    augment(at("data.zarr"), at("more.zarr"), copies=1)
    weights(at("more.zarr"))
    train(
        at("more.zarr"),
        output=at("model.safetensors"),
        options=("width=8",),
        steps=20,
        device="cpu",
    )
    tile_predict(at("data.zarr"), model=at("model.safetensors"), device="cpu")
    scores = evaluate(at("data.prediction.zarr"), at("data.zarr")).to_dict()

    assert imported.labelled == len(list((folder / "images").iterdir()))
    json.dumps(scores, allow_nan=False)
    assert info(at("data.prediction.zarr"))["kind"] == "dataset"
    assert info(at("model.safetensors"))["model"] == "unet"
    kinds = "classes" if options else "instances"
    assert info(at("data.zarr"))["samples"][0]["labels"] == kinds
    assert not list(folder.glob(".*partial*")), name


@pytest.mark.parametrize("name", SETS)
def test_every_verb_runs_on_three_images_of_each_set(name, test_data, tmp_path):
    walk(name, few(test_data / name, tmp_path, count=3), SETS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_verb_runs_on_each_whole_set(name, test_data, tmp_path):
    walk(name, few(test_data / name, tmp_path, count=None), SETS[name])
