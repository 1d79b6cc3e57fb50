"""The plugin that plugins/README.md shows works as shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from unetkit.models.modelfile import make
from unetkit.testing import check_model

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[1] / "plugins" / "README.md").read_text()


@pytest.fixture
def shallow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay the shown files on disk as an installer would, and let Python find them."""
    toml, python = re.findall(r"^```(?:toml|python)\n(.*?)^```", README, flags=re.M | re.S)
    (tmp_path / "unetkit_shallow.py").write_text(python)
    info = tmp_path / "unetkit_shallow-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unetkit-shallow\nVersion: 0.1.0\n")
    line = re.search(r'^shallow = "(.*)"$', toml, flags=re.M)
    assert line is not None
    (info / "entry_points.txt").write_text(f"[unetkit.models]\nshallow = {line[1]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("unetkit_shallow", None)


def test_the_shown_plugin_is_found_and_keeps_its_contract(shallow: Path) -> None:
    model = make("shallow", in_channels=1, classes=2, options={"width": 4})
    assert model(torch.zeros(1, 1, 9, 11)).shape == (1, 2, 5, 7)
    check_model(sys.modules["unetkit_shallow"].build)
