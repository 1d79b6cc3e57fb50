"""What a plan settles, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.tile_predict.command import make_plan, tile_predict
from unetkit.commands.tile_predict.ensemble import load_ensemble
from unetkit.commands.tile_predict.plan import PredictOptions
from unetkit.commands.tile_predict.resources import Parallelism
from unetkit.errors import InputError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image

ONE = Parallelism(1, networks=1, threads=None, concurrency=1)
EXACT = {"precision": "exact", "probabilities": "float32"}


def test_other_channels_than_the_model_s_are_named(kit, slide):
    kit.image(Path("rgb.zarr"), (3, 30, 30), axes="cyx")
    with pytest.raises(InputError, match=r"must have 1 channels, .* got 3; choose .*--channels"):
        tile_predict("rgb.zarr")
    report = tile_predict("rgb.zarr", channels="2", tile=16)
    assert report.status == "done"


def test_the_model_remembers_its_channels(kit, slide):
    model = kit.model(Path("third.safetensors"), chosen="2")
    _, image = kit.image(Path("rgb.zarr"), (3, 30, 30), axes="cyx")
    report = tile_predict("rgb.zarr", model=model, tile=16, **EXACT)
    made = kit.read(open_image(report.output).data)
    np.testing.assert_array_equal(made, kit.one_pass(model, image[0, 2:]))


@pytest.mark.parametrize(
    ("tile", "chunk"), [(16, 16), (1024, 1024), (1040, 520), (2048, 1024), (3072, 1024)]
)
def test_chunks_are_parts_of_a_tile(kit, slide, tile, chunk):
    plan = make_plan(
        load_ensemble(["model.safetensors"], device="cpu"),
        open_dataset(slide),
        PredictOptions(tile=tile),
        parallelism=ONE,
    )
    assert plan.chunk == chunk
    (sample,) = plan.samples
    assert plan.blocks(sample).tile % chunk == 0
    assert plan.tiles_total == len(plan.tiles(sample))


def test_a_fingerprint_changes_with_all_that_decides_about_pixels(kit, slide):
    model, dataset = load_ensemble(["model.safetensors"], device="cpu"), open_dataset(slide)
    plain = PredictOptions(precision="float32")
    before = make_plan(model, dataset, plain, parallelism=ONE).fingerprint()
    assert make_plan(model, dataset, plain, parallelism=ONE).fingerprint() == before
    for change in (
        {"tile": 16},
        {"overlap": 24},
        {"precision": "exact"},
        {"batch": 2},
        {"probabilities": "float32"},
        {"threshold": 0.4},
        {"grow": 2},
        {"min_size": 3},
        {"nonfinite": "fill"},
    ):
        assert (
            make_plan(model, dataset, replace(plain, **change), parallelism=ONE).fingerprint()
            != before
        )
    json.dumps(before, allow_nan=False)


def test_an_automatic_tile_is_the_image_rounded_up(kit, slide):
    kit.image(Path("odd.zarr"), (61, 45))
    model = load_ensemble(["model.safetensors"], device="cpu")
    assert make_plan(model, open_dataset("odd.zarr"), PredictOptions(), parallelism=ONE).tile == 64
