from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unetkit.commands.train.callbacks import TensorBoardCallback, check_tensorboard
from unetkit.commands.train.command import train
from unetkit.commands.train.validation import ValidationPicture
from unetkit.errors import ResourceError
from unetkit.training.checkpoint import Validation

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def test_where_it_is_missing_the_way_to_install_it_is_said_before_anything_is_done(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # As where it was never installed, whether it is here or not.
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ResourceError, match=r"pip install 'unetkit\[tensorboard\]'") as caught:
        check_tensorboard()
    assert caught.value.exit_code == 5
    kit.cells(tmp_path / "data.zarr")
    with pytest.raises(ResourceError):
        train("data.zarr", tensorboard="runs")
    assert [path.name for path in tmp_path.iterdir()] == ["data.zarr"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_and_pictures_are_those_that_it_reads(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    labels = np.zeros((20, 30), int)
    labels[3:9, 4:12] = 1
    picture = ValidationPicture(np.random.default_rng(0).random((1, 20, 30)), labels, 0 * labels)
    board = TensorBoardCallback(str(tmp_path / "runs"), picture=lambda: picture)
    board.stepped(1, loss=0.5, rate=1e-3)
    board.stepped(2, loss=None, rate=2e-3)
    board.validated(2, Validation(0.25, loss=0.75, scores={"dice": 0.125}))
    board.ended()
    found = reader.EventAccumulator(str(tmp_path / "runs")).Reload()
    assert {
        tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    } == {
        "training/loss": [(1, 0.5)],
        "training/learning_rate": [(1, pytest.approx(1e-3)), (2, pytest.approx(2e-3))],
        "validation/loss": [(2, 0.75)],
        "validation/score": [(2, 0.25)],
        "validation/dice": [(2, 0.125)],
    }
    truth, prediction = (found.Images(name)[0] for name in ("truth", "prediction"))
    assert (truth.width, truth.height) == (30, 20)
    assert truth.encoded_image_string != prediction.encoded_image_string
