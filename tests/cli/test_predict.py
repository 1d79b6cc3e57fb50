from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Passed


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--model", "m.safetensors"], "model", ["m.safetensors"]),
        (["--model", "a.st", "--model", "b.st"], "model", ["a.st", "b.st"]),
        (["--tta", "flips"], "tta", "flips"),
        (["--merge", "gaussian"], "merge", "gaussian"),
        (["--audit", "8"], "audit", 8),
        (["--output", "p.zarr"], "output", "p.zarr"),
        (["--tile", "384"], "tile", 384),
        (["--overlap", "92"], "overlap", 92),
        (["--probabilities", "float32"], "probabilities", "float32"),
        (["--threshold", "0.25"], "threshold", 0.25),
        (["--grow", "0"], "grow", 0),
        (["--min-size", "9"], "min_size", 9),
        (["--channels", "DAPI"], "channels", "DAPI"),
        (["--axes", "zyx"], "axes", "zyx"),
        (["--device", "cpu"], "device", "cpu"),
        (["--precision", "bfloat16"], "precision", "bfloat16"),
        (["--batch", "4"], "batch", 4),
        (["--scheduler", "tcp://localhost:8786"], "scheduler", "tcp://localhost:8786"),
        (["--workers", "2"], "workers", 2),
        (["--nonfinite", "fill"], "nonfinite", "fill"),
        (["--resume"], "resume", True),
        (["--overwrite"], "overwrite", True),
        (["--dry-run"], "dry_run", True),
        (["--strict"], "strict", True),
    ],
)
def test_options_of_tile_predict_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("tile_predict", "tile-predict", "a.zarr")
    assert passed("tile_predict", "tile-predict", "a.zarr", *option) == before | {name: value}


class Plan:
    output = "a.prediction.zarr"

    def to_dict(self) -> dict[str, Any]:
        return {"output": self.output, "tiles_total": 4, "output_bytes": 5_000_000}


def test_a_plan_is_shown_and_no_path(passed: Passed, capsys: pytest.CaptureFixture[str]) -> None:
    passed("tile_predict", "tile-predict", "a.zarr", "--dry-run", answer=Plan())
    assert capsys.readouterr().out.splitlines() == [
        "output        a.prediction.zarr",
        "tiles total   4",
        "output bytes  5.0 MB",
    ]
    passed("tile_predict", "tile-predict", "a.zarr", "--dry-run", "--json", answer=Plan())
    assert json.loads(capsys.readouterr().out) == Plan().to_dict()
    passed("tile_predict", "tile-predict", "a.zarr", answer=Plan())
    assert capsys.readouterr().out == "a.prediction.zarr\n"


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["train", "nothing.zarr"], ["tile-predict", "nothing.zarr"]):
        assert main(arguments) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert "nothing.zarr" in err
    assert list(tmp_path.iterdir()) == []
