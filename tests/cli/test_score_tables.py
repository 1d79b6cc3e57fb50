from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `truth.zarr` of six samples and `worse.zarr`, which lacks an object in each."""
    for name, last in (("truth", 2), ("worse", 1)):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for n in range(6):
            labels = np.zeros((30, 40), dtype=np.uint8)
            labels[4:14, 4:14] = 1
            labels[16:26, 20 : 32 - n] = 2 if last == 2 else 0
            Image.fromarray(labels * 90).save(tmp_path / name / "images" / f"{n}.png")
            Image.fromarray(labels).save(tmp_path / name / "masks" / f"{n}.png")
        folder = tmp_path / name
        arguments = [f"{folder}/images", f"{folder}.zarr", "--labels", f"{folder}/masks", "--quiet"]
        assert main(["import", *arguments]) == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_intervals_and_borders_are_shown(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", "worse.zarr", "truth.zarr", "--borders", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "95% interval" in out
    assert "From 6 images, resampled." in out
    assert "warping" in out
    assert "Not there" not in out


def test_what_is_not_there_has_its_reason(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", "worse.zarr", "truth.zarr", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Not there: boundary_f, hausdorff95, surface_distance, v_rand, v_info" in out
    assert "worked out with --borders." in out


def test_predictions_are_shown_side_by_side(
    stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    arguments = ["eval", "worse.zarr", "truth.zarr", "--truth", "truth.zarr", "--quiet"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "p (Holm)" in out
    assert "0.031" in out  # 2 of 2^6 exchanges
    assert main([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2


def test_a_bound_that_does_not_hold_is_code_7_after_the_scores(
    stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "worse.zarr", "truth.zarr", "--json", "--quiet"]
    capsys.readouterr()
    assert main([*arguments, "--fail-under", "recall=0.9"]) == 7
    out, err = capsys.readouterr()
    assert json.loads(out)["overall"]["recall"] < 0.9
    assert err.startswith("error: recall of worse.zarr must be at least 0.9, got 0.")
    assert main([*arguments, "--fail-under", "precision=0.9"]) == 0
    assert main([*arguments, "--fail-under", "nothing=1"]) == 2


def test_the_scores_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "warping_error" in out
    assert main(["eval", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} > {"dice", "pq", "isbi_rand"}
