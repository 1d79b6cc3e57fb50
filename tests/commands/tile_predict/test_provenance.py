"""What a prediction says of itself is enough to make it again."""

import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.storage.images import open_image


def told(output):
    return open_image(output).attributes["prediction"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": 16, "precision": "exact", "grow": 3, "min_size": 4, "threshold": 0.4},
        {"tta": "flips", "probabilities": "float32", "ome_version": "0.4", "max_memory": "4G"},
        {"skip_below": 5.0, "mask": "where.zarr", "nonfinite": "fill", "channels": "0"},
    ],
)
def test_the_command_makes_the_same_bytes_again(slide, kit, options):
    kit.image(Path("where.zarr"), (32, 30), dtype="u1")
    output = tile_predict(slide, **options).output
    before = kit.contents(output)
    words = shlex.split(told(output)["command"])
    assert words[:3] == ["unetkit", "tile-predict", slide]
    Path(output).rename("kept.zarr")
    assert main([*words[1:], "--quiet"]) == 0
    assert kit.contents(output) == before


def test_files_are_named_without_their_folders(tmp_path, kit):
    (tmp_path / "private").mkdir()
    model = kit.model(tmp_path / "private" / "a model.safetensors")
    source, _ = kit.image(tmp_path / "private" / "slide.zarr", (30, 30))
    output = tile_predict(source, model=model, tile=16, precision="exact").output
    found = told(output)
    assert found["command"] == (
        "unetkit tile-predict slide.zarr --model 'a model.safetensors' --tile 16 --precision exact "
        "--batch 1"
    )
    assert found["model_sha256"] == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    assert found["versions"].keys() == {"python", "torch", "numpy", "zarr"}
    assert found["versions"]["numpy"] == np.__version__
    assert "private" not in str(found)


def test_several_models_are_all_named(tmp_path, kit):
    models = [kit.model(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (2, 3)]
    source, _ = kit.image(tmp_path / "slide.zarr", (30, 30))
    found = told(tile_predict(source, model=models, tile=16).output)
    assert "--model 2.safetensors --model 3.safetensors" in found["command"]
    assert len(set(found["model_sha256"])) == 2
