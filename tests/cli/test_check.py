from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.storage.chunks import write_list
from unetkit.storage.image_writer import create_image

if TYPE_CHECKING:
    from unetkit.storage.planes import PlaneArray


@pytest.fixture
def stored(tmp_path: Path) -> PlaneArray:
    data = create_image(str(tmp_path / "a.zarr"), shape=(4, 8), axes="yx", dtype="u1", chunk=4)
    data.write(0, 0, 0, np.eye(4, 8, dtype=np.uint8)[None])
    (tmp_path / "a.zarr" / ".unetkit").mkdir()
    write_list(str(tmp_path / "a.zarr"), str(tmp_path / "a.zarr" / ".unetkit" / "chunks.jsonl"))
    return data


def test_what_is_in_order_ends_well(
    stored: PlaneArray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path / "a.zarr"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["chunks"] == 3


def test_damage_ends_with_7_and_names_the_chunk(
    stored: PlaneArray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(stored.url, "c", "0", "0").write_bytes(b"")
    assert main(["verify", str(tmp_path / "a.zarr")]) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert "0/c/0/0 is 0 bytes long" in err
