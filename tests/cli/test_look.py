from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Passed


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a dataset `a.zarr` of two samples and go to its folder."""
    labels = np.zeros((30, 40), dtype=np.uint8)
    labels[4:14, 4:14], labels[16:26, 20:32] = 1, 2
    for kind, array in (("images", labels * 90), ("masks", labels)):
        (tmp_path / kind).mkdir()
        for name in ("one", "two"):
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    assert main(["import", "images/", "a.zarr", "--labels", "masks/", "--quiet"]) == 0
    return tmp_path


def test_scores_are_data(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", "a.zarr", "a.zarr"]) == 0
    out, err = capsys.readouterr()
    assert "average precision at IoU 0.5" in out
    assert "two" in out
    assert "average" not in err
    assert main(["eval", "a.zarr", "a.zarr", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["overall"]["average_precision_at"]["0.50"] == 1.0


def test_a_store_is_described(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["info", "a.zarr"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "30 x 40" in out
    assert main(["info", "a.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "dataset"


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--axes", "zyx"], "axes", "zyx"),
        (["--scheduler", "sync"], "scheduler", "sync"),
        (["--workers", "2"], "workers", 2),
        (["--truth", "t.zarr"], "truth", "t.zarr"),
        (["--borders"], "borders", True),
        (["--tolerance", "3"], "tolerance", 3.0),
        (["--bootstrap", "10"], "bootstrap", 10),
        (["--seed", "4"], "seed", 4),
        (["--objects", "o.csv"], "objects", "o.csv"),
        (["--report", "r.html"], "report", "r.html"),
        (["--overwrite"], "overwrite", True),
        (["--resume"], "resume", True),
        (["--break-lock"], "break_lock", True),
    ],
)
def test_options_of_eval_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    class Nothing:
        def to_dict(self) -> dict[str, Any]:
            return {}

    answer = Nothing()
    before = passed("evaluate", "eval", "a.zarr", "b.zarr", "--json", answer=answer)
    after = passed("evaluate", "eval", "a.zarr", "b.zarr", "--json", *option, answer=answer)
    assert after == before | {name: value}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--to", "geojson"], "to", "geojson"),
        (["-o", "cells.png"], "output", "cells.png"),
        (["--layer", "classes"], "layer", "classes"),
        (["--overwrite"], "overwrite", True),
    ],
)
def test_options_of_export_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("export_prediction", "export", "a.zarr")
    assert before["values"] == ("a.zarr",)
    assert passed("export_prediction", "export", "a.zarr", *option) == before | {name: value}


class Walked:
    output = "my demo"

    def to_dict(self) -> dict[str, Any]:
        return {"output": self.output, "scores": [], "pictures": [], "commands": ["unetkit info x"]}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [(["--seed", "2"], "seed", 2), (["--overwrite"], "overwrite", True)],
)
def test_options_of_demo_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("demo", "demo", "my demo", answer=Walked())
    assert before["values"] == ("my demo",)
    assert passed("demo", "demo", "my demo", *option, answer=Walked()) == before | {name: value}


def test_the_demo_prints_its_folder_and_tells_the_rest(
    passed: Passed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert passed("demo", "demo", answer=Walked())["values"] == ("unetkit-demo",)
    out, err = capsys.readouterr()
    assert out == "my demo\n"
    assert "  unetkit info x\n" in err
    passed("demo", "demo", "--quiet", answer=Walked())
    assert capsys.readouterr() == ("my demo\n", "")
