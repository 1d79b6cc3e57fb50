"""What lies in the output's place stays, unless it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from unetkit.commands.tile_predict.output import Target, output_of
from unetkit.errors import CheckError, MissingError, NonFiniteError, OutputError, UsageError
from unetkit.storage.journal import Journal

if TYPE_CHECKING:
    from types import SimpleNamespace


def target(**options: bool) -> Target:
    asked = dict.fromkeys(("resume", "overwrite", "break_lock", "dry_run"), False) | options
    return Target("out.zarr", ("slide.zarr",), **asked)


def test_the_output_lies_beside_the_source(slide: str) -> None:
    assert output_of(slide, None) == "slide.prediction.zarr"
    assert output_of(slide, "other.zarr") == "other.zarr"
    with pytest.raises(MissingError):
        output_of("absent.zarr", None)


def test_tiles_of_a_stopped_run_are_not_lost(slide: str) -> None:
    assert target().look_alone() is None
    Journal(target().partial).write_fingerprint({"model": "abc"})
    with pytest.raises(OutputError, match="must not have been begun"):
        target().look_alone()
    assert target(overwrite=True).look_alone() is None
    assert target(dry_run=True).look_alone() is None
    found = target(resume=True).look_alone()
    assert found is not None
    assert not found.finished
    with pytest.raises(UsageError, match="without overwrite"):
        target(resume=True, overwrite=True).look()


@pytest.mark.parametrize(
    ("error", "stays"), [(OSError, True), (CheckError, True), (NonFiniteError, False)]
)
def test_what_is_done_stays_where_going_on_could_help(
    kit: SimpleNamespace, slide: str, error: type[Exception], stays: bool
) -> None:
    progress = kit.watching()

    def stop() -> None:
        with target().making(progress, fresh=True):
            Path(target().partial).mkdir()
            raise error("no")

    with pytest.raises(error):
        stop()
    assert Path(target().partial).exists() == stays
