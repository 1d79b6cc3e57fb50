"""What machines have to share is told in words that can be compared."""

import os
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch

import unetkit
from unetkit.commands.tile_predict.environment import (
    NOTHING,
    compare_workers,
    environment_of,
    surroundings,
)
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import ResourceError
from unetkit.models.model_header import read_header
from unetkit.storage.datasets import open_dataset
from unetkit.storage.lock import lock_path


def test_versions_and_files_are_told(tmp_path):
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


def test_model_image_and_the_output_s_folder_are_looked_at(slide):
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


def alike(home):
    return {"version": "1", "letters": "abc"}


def unlike(home):
    elsewhere = os.getpid() != home
    return {"letters": "abc", "version": "2" if elsewhere else "1", "torch": "9"}


def poorer(home):
    return {"version": "1"} if os.getpid() != home else {"version": "1", "torch": "9"}


def broken(home):
    if os.getpid() != home:
        raise ImportError("no module named 'network'")
    return {}


@pytest.fixture(scope="module")
def two():
    with open_scheduler("local:2") as scheduler:
        yield scheduler


def test_workers_that_are_alike_pass(two):
    compare_workers(two, partial(alike, os.getpid()))


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (unlike, "got version 2 instead of 1; install the same versions everywhere"),
        (poorer, "got torch unknown instead of 9;"),
        (broken, "got ImportError: no module named 'network'; install the same versions there"),
    ],
)
def test_one_that_differs_is_named(two, look, words):
    with pytest.raises(ResourceError, match=words) as caught:
        compare_workers(two, partial(look, os.getpid()))
    assert caught.value.exit_code == 5
    assert "worker tcp://127.0.0.1:" in str(caught.value)


@pytest.mark.parametrize("name", ["sync", "threads", "processes"])
def test_this_machine_s_own_pools_are_not_asked(name):
    def look():
        raise AssertionError("asked")

    with open_scheduler(name, 1) as scheduler:
        compare_workers(scheduler, look)
