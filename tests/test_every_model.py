"""Every registered model walks the path from masks to scores on real nuclei."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import pytest

from unetkit.cli.app import main
from unetkit.models.options import options_of
from unetkit.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

MODELS = Registry("unetkit.models", noun="model")
# Decoders of these widths are too narrow to be built otherwise.
WIDE = {"smp-pspnet": 64, "smp-deeplabv3": 64, "smp-deeplabv3plus": 64}


def small(name: str) -> list[str]:
    """Return options that make a model tiny: few channels, shallow, the smallest encoder."""
    encoder = "tu-test_vit" if name == "smp-dpt" else "tu-test_resnet"
    tiny = {"depth": 2, "width": WIDE.get(name, 4), "encoder": encoder}
    known = options_of(MODELS.get(name))
    return [word for key in sorted(tiny.keys() & known) for word in ("--set", f"{key}={tiny[key]}")]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_it_learns_predicts_and_is_scored(
    name: str, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab)
    quick = ["--steps", "2", "--device", "cpu", "--precision", "float32", "-q"]
    assert main(["import", "images", "--labels", "masks", "data.zarr", "-q"]) == 0
    assert main(["train", "data.zarr", "--model", name, *small(name), *quick]) == 0
    assert main(["import", "big.tif", "--labels", "big_masks", "truth.zarr", "-q"]) == 0
    assert main(["tile-predict", "truth.zarr", "--precision", "float32", "-q"]) == 0
    capsys.readouterr()
    assert main(["eval", "truth.prediction.zarr", "truth.zarr", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["objects_true"] > 0


@pytest.mark.parametrize("name", MODELS.names())
def test_what_builds_it_travels_to_other_processes(name: str) -> None:
    build = MODELS.get(name)
    assert pickle.loads(pickle.dumps(build)) is build
