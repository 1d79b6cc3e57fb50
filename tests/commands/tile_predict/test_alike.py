"""What machines have to share is told in words that can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch

import unetkit
from unetkit.commands.tile_predict.environment import NOTHING, environment_of, surroundings
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import open_dataset
from unetkit.storage.lock import lock_path


def test_versions_and_files_are_told(tmp_path: Path) -> None:
    there, other = tmp_path / "a", tmp_path / "b"
    there.write_text("a")
    other.write_text("b")
    names = [str(there), str(other), str(tmp_path / "c"), str(tmp_path)]
    found = surroundings(packages=["numpy", "no-such-package"], paths=names)
    assert found["unetkit"] == unetkit.__version__
    assert found["torch"] == torch.__version__
    assert found["numpy"] == numpy.__version__
    assert found["no-such-package"] == "that is not installed"
    assert found[names[0]] != found[names[1]]
    assert found[names[2]] == NOTHING
    assert found[names[3]] == "is a directory"


def test_model_image_and_the_output_s_folder_are_looked_at(slide: str) -> None:
    header = read_header("model.safetensors")
    partial = ".slide.prediction.zarr.unetkit-partial"
    look = environment_of(["model.safetensors"], [header], open_dataset(slide), partial_url=partial)
    Path(lock_path(partial)).write_text("me")
    here = look()
    names = ["model.safetensors", "slide.zarr/0/zarr.json", lock_path(partial)]
    paths = [str(Path(name).absolute()) for name in names]
    assert list(here) == ["unetkit", "torch", *paths]
    assert all(here[path].startswith("file ") for path in paths)
    # A folder of the same name on another machine has no lock, or another's.
    Path(lock_path(partial)).write_text("somebody else")
    assert look() != here
