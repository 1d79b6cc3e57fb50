"""What tests of models share: files of any content, states, tiles, programs of their own."""

import subprocess
import sys
from functools import wraps

import pytest
import torch

from unetkit import registry
from unetkit.models import build
from unetkit.models.inference import tiled_pass, whole_pass
from unetkit.models.model_header import ModelHeader


@pytest.fixture
def stored(tmp_path):
    """Return what stores bytes as a model file, and gives its path."""

    def store(content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        return str(path)

    return store


@pytest.fixture(scope="session")
def header_of():
    """Return what describes a model of one channel and two classes."""

    def describe(module, **more):
        names = {"class_names": ("background", "foreground"), "target": "foreground"}
        fields = {"model": "unet", "options": {}, "in_channels": 1, "normalization": "percentile"}
        return ModelHeader(**{**names, **fields, "contract": module.contract, **more})

    return describe


@pytest.fixture(scope="session")
def run_python():
    """Return what runs a program that warns of nothing, and gives what it prints."""

    def run(program, *arguments, **more):
        line = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=True, **more)
        assert done.stderr == ""
        return done.stdout

    return run


@pytest.fixture(scope="session")
def tiles_differ():
    """Return what tells how far an image in tiles is from the whole: 0 only where all bits are."""

    def largest(network, image, *, tile, overlap):
        whole = whole_pass(network, image, overlap=overlap)
        tiled = tiled_pass(network, image, tile=tile, overlap=overlap)
        assert tiled.shape == whole.shape
        return float((tiled - whole).abs().max())

    return largest


@pytest.fixture
def computing_build(monkeypatch):
    """Let every model be the classic one, by a builder that computes with values."""
    unet = build.models().get("unet")

    @wraps(unet)
    def computing(**options):
        torch.ones(1).item()
        return unet(**options)

    monkeypatch.setattr(registry.Registry, "get", lambda *_: computing)
