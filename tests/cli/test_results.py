"""Commands on real data: what stands on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.storage.chunks import write_list
from unetkit.storage.image_writer import create_image


@pytest.fixture
def labelled(
    imported,
    nuclei,
    tmp_path,
    monkeypatch,
    capsys,
):
    """Make a dataset `a.zarr` of two samples and go to its folder."""
    imported("a", one=nuclei, two=nuclei)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()


@pytest.fixture
def stores(
    imported,
    tmp_path,
    monkeypatch,
    capsys,
):
    """Make `truth.zarr` of six samples and `worse.zarr`, which lacks an object in each."""
    for name in ("truth", "worse"):
        samples = {}
        for n in range(6):
            samples[str(n)] = labels = np.zeros((30, 40), dtype=np.uint8)
            labels[4:14, 4:14] = 1
            labels[16:26, 20 : 32 - n] = 2 if name == "truth" else 0
        imported(name, **samples)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()


def test_scores_are_data(labelled, capsys):
    assert main(["eval", "a.zarr", "a.zarr"]) == 0
    out, err = capsys.readouterr()
    assert "average precision at IoU 0.5" in out
    assert "two" in out
    assert "average" not in err
    assert main(["eval", "a.zarr", "a.zarr", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["overall"]["average_precision_at"]["0.50"] == 1.0


def test_a_store_is_described(labelled, capsys):
    assert main(["info", "a.zarr"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "30 x 40" in out
    assert main(["info", "a.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "dataset"


def test_intervals_and_borders_are_shown(stores, capsys):
    assert main(["eval", "worse.zarr", "truth.zarr", "--borders", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "95% interval" in out
    assert "From 6 images, resampled." in out
    assert "warping" in out
    assert "Not there" not in out


def test_what_is_not_there_has_its_reason(stores, capsys):
    assert main(["eval", "worse.zarr", "truth.zarr", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Not there: boundary_f, hausdorff95, surface_distance, v_rand, v_info" in out
    assert "worked out with --borders." in out


def test_predictions_are_shown_side_by_side(stores, capsys):
    arguments = ["eval", "worse.zarr", "truth.zarr", "--truth", "truth.zarr", "--quiet"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "p (Holm)" in out
    assert "0.031" in out  # 2 of 2^6 exchanges
    assert main([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2


def test_a_bound_that_does_not_hold_is_code_7_after_the_scores(stores, capsys):
    arguments = ["eval", "worse.zarr", "truth.zarr", "--json", "--quiet"]
    assert main([*arguments, "--fail-under", "recall=0.9"]) == 7
    out, err = capsys.readouterr()
    assert json.loads(out)["overall"]["recall"] < 0.9
    assert err.startswith("error: recall of worse.zarr must be at least 0.9, got 0.")
    assert main([*arguments, "--fail-under", "precision=0.9"]) == 0
    assert main([*arguments, "--fail-under", "nothing=1"]) == 2


def test_the_scores_are_listed(capsys):
    assert main(["eval", "--list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "warping_error" in out
    assert main(["eval", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} > {"dice", "pq", "isbi_rand"}


@pytest.fixture
def stored(tmp_path):
    data = create_image(str(tmp_path / "a.zarr"), shape=(4, 8), axes="yx", dtype="u1", chunk=4)
    data.write(0, 0, 0, np.eye(4, 8, dtype=np.uint8)[None])
    (tmp_path / "a.zarr" / ".unetkit").mkdir()
    write_list(str(tmp_path / "a.zarr"), str(tmp_path / "a.zarr" / ".unetkit" / "chunks.jsonl"))
    return data


def test_what_is_in_order_ends_well(stored, tmp_path, capsys):
    assert main(["verify", str(tmp_path / "a.zarr"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["chunks"] == 3


def test_damage_ends_with_7_and_names_the_chunk(stored, tmp_path, capsys):
    Path(stored.url, "c", "0", "0").write_bytes(b"")
    assert main(["verify", str(tmp_path / "a.zarr")]) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert "0/c/0/0 is 0 bytes long" in err


def test_images_become_a_dataset_with_weights(imported, nuclei, tmp_path, monkeypatch, capsys):
    imported("data", a=nuclei)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for arguments, written in (
        (["import", "data/images", "again.zarr", "--labels", "data/masks"], "again.zarr"),
        (["augment", "data.zarr", "more.zarr", "--copies", "1"], "more.zarr"),
        (["weights", "more.zarr", "--preview", "weights.png"], "more.zarr"),
    ):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"{written}\n"
    assert (tmp_path / "weights.png").is_file()
    assert main(["import", "data/images", "data.zarr"]) == 4
    assert main(["weights", "more.zarr", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().out == "more.zarr\n"


def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["train", "nothing.zarr"], ["tile-predict", "nothing.zarr"]):
        assert main(arguments) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert "nothing.zarr" in err
    assert list(tmp_path.iterdir()) == []
