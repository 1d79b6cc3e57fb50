"""An output in the making: kept after a signal, gone after a fault, never lost unasked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from unetkit.errors import (
    CheckError,
    InputError,
    NonFiniteError,
    OutputError,
    StoppedError,
    UsageError,
)
from unetkit.storage.atomic import half_removed
from unetkit.storage.image_writer import create_image, create_labels, update_attributes
from unetkit.storage.images import open_image
from unetkit.storage.journal import Journal
from unetkit.storage.lock import lock_path, locked
from unetkit.storage.nodes import changed_documents, read_node
from unetkit.storage.partial import Partial, stop_message
from unetkit.storage.pyramids import add_pyramid

STOPPED = StoppedError("stopped", signal=15)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def partial(**options):
    return Partial("out.zarr", inputs=("slide.zarr",), **options)


def make(error=None, *, sigma=5.0, **options):
    """Make an image of one part, and end before or after it is published."""
    making = partial(**options)
    with making.locked():
        previous = making.recheck()
        if previous is not None:
            previous.check({"sigma": sigma})
            if previous.finished:
                return
        with making.opened(fresh=previous is None) as journal:
            if previous is None:
                create_image(making.folder, shape=(8, 1100), axes="yx", dtype="u1", chunk=8)
            making.write_fingerprint({"sigma": sigma})
            if not journal.is_done("one", lambda: 7):
                open_image(making.folder).data.write(0, 0, 0, np.full((1, 8, 8), 2, np.uint8))
                journal.record("one", checksum=7)
            if error is not None:
                raise error


def stop(error=STOPPED, **options):
    with suppress(type(error)):
        make(error, **options)


def files():
    return {path.name for path in Path().iterdir()}


def test_a_signal_keeps_what_is_done_and_going_on_publishes_it():
    stop()
    assert files() == {Path(partial().folder).name}
    assert Journal(partial().folder).done() == {"one": 7}
    make(resume=True)
    assert files() == {"out.zarr"}
    assert (open_image("out.zarr").data.read(0, 0, 8, 0, 8) == 2).all()
    assert not Path("out.zarr", ".unetkit", "journal.txt").exists()
    assert Journal("out.zarr").read_fingerprint() == {"sigma": 5.0}


def test_a_fault_leaves_nothing():
    stop(InputError("damaged"))
    assert files() == set()


@pytest.mark.parametrize(
    ("error", "stays"), [(OSError, True), (CheckError, True), (NonFiniteError, False)]
)
def test_a_caller_says_what_is_lost(error, stays):
    notes: list[str] = []

    def work():
        with partial().opened(
            fresh=True, kept=(CheckError,), lost=(NonFiniteError,), note=notes.append
        ):
            Path(partial().folder).mkdir()
            raise error("no")

    with pytest.raises(error):
        work()
    assert Path(partial().folder).exists() == stays
    # A check says itself how to go on.
    assert [note.endswith("--resume goes on with them") for note in notes] == (
        [True] if error is OSError else []
    )


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_and_named(finished):
    make() if finished else stop()
    with pytest.raises(OutputError, match=r"same settings .*, got sigma: 5\.0 before, 6\.0 now"):
        make(sigma=6.0, resume=True)
    assert partial(resume=True).check_writable() is not None


def test_what_is_begun_anew_knows_nothing_of_before():
    stop()
    notes: list[str] = []
    with partial().opened(fresh=True, note=notes.append, publish=False) as journal:
        assert not Path(partial().folder).exists()
        assert not journal.is_done("one", lambda: 7)
    assert notes == ["an unfinished prediction is started afresh"]


def test_a_part_that_is_not_as_it_was_written_is_not_done():
    stop()
    journal = Journal(partial().folder)
    assert journal.is_done("one", lambda: 7)
    assert not journal.is_done("one", lambda: 8)
    assert not journal.is_done("two", lambda: 7)


def test_what_is_finished_is_nothing_to_do_for_resume_and_refused_without():
    make()
    Journal("out.zarr").record("one", checksum=7)
    make(resume=True)
    # A kill right after the renaming left it.
    assert not Path("out.zarr", ".unetkit", "journal.txt").exists()
    with pytest.raises(OutputError, match="must not exist yet"):
        make()
    make(overwrite=True, sigma=6.0)
    assert Journal("out.zarr").read_fingerprint() == {"sigma": 6.0}


def test_what_was_begun_to_replace_another_goes_on_beside_it():
    make()
    stop(overwrite=True, sigma=6.0)
    assert Journal("out.zarr").read_fingerprint() == {"sigma": 5.0}
    with pytest.raises(OutputError, match=r"sigma: 6\.0 before, 5\.0 now"):
        make(resume=True)
    make(resume=True, sigma=6.0)
    assert Journal("out.zarr").read_fingerprint() == {"sigma": 6.0}
    assert files() == {"out.zarr"}


def test_what_was_not_begun_to_replace_another_never_does():
    stop(sigma=6.0)
    # Someone puts another result in the place meanwhile.
    Path(partial().folder).rename("aside")
    make()
    Path("aside").rename(partial().folder)
    with pytest.raises(OutputError, match=r"out\.zarr must .* got sigma: 5\.0 before, 6\.0 now"):
        make(resume=True, sigma=6.0)
    assert Journal("out.zarr").read_fingerprint() == {"sigma": 5.0}


def look(**options):
    making = partial(**options)
    with making.locked():
        return making.recheck()


def test_a_stopped_run_is_not_thrown_away_unasked():
    assert look() is None
    stop()
    words = r"output out.zarr must not have been begun, .*; --resume goes on with them, --overwrite"
    with pytest.raises(OutputError, match=words):
        look()
    with pytest.raises(OutputError, match=r"^out.zarr must not have been begun"):
        look(title="")
    assert look(overwrite=True) is look(dry_run=True) is None
    found = look(resume=True)
    assert found is not None
    assert not found.finished
    with pytest.raises(UsageError, match="resume must be given without overwrite"):
        look(resume=True, overwrite=True)
    Path(partial().folder, ".unetkit", "fingerprint.json").unlink()
    for asked in ({"resume": True}, {}):
        with pytest.raises(OutputError, match=r"must say what was begun.*none beside what is done"):
            look(**asked)
    assert look(overwrite=True) is None
    Path(partial().folder, ".unetkit", "journal.txt").unlink()
    assert look() is None  # what was not even begun is nothing to lose


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("0/zarr.json", '"fill_value": 0', '"fill_value": 9'),
        ("zarr.json", '"name": "y"', '"name": "z"'),
        ("zarr.json", '"kind": "image"', '"kind": "array"'),
        ("zarr.json", "{", "["),
        ("0/zarr.json", None, None),
    ],
)
def test_a_document_that_is_another_is_refused(name, old, new):
    stop()
    place = Path(partial().folder, name)
    content = place.read_text()
    assert old is None or old in content
    place.unlink()
    if old is not None:
        place.write_text(content.replace(old, new, 1))
    with pytest.raises(OutputError, match=rf"must hold what a run .* had written.*{name}; bring"):
        make(resume=True)
    assert not Path("out.zarr").exists()
    # What is added on the way is nothing that was changed.
    place.write_text(content)
    create_labels(partial().folder, "instances", shape=(8, 1100), axes="yx", dtype="u1")
    update_attributes(partial().folder, prediction={"audit": 1}, samples=["a"])
    before = changed_documents(partial().folder, Journal(partial().folder).read_documents())
    add_pyramid(partial().folder)
    assert read_node(f"{partial().folder}/1") is not None
    assert before == []
    make(resume=True)
    assert Path("out.zarr").exists()


def test_one_job_at_a_time_is_at_work():
    lock = Path(lock_path(partial().folder))
    with partial().locked():
        assert lock.exists()
        for asked in ("resume", "overwrite"):
            with pytest.raises(OutputError, match=r"one job at a time, got one on host .* process"):
                look(**{asked: True})
        assert look(dry_run=True) is None
    assert not lock.exists()
    look()  # the negative control: once the first is done there is room


def test_what_appeared_while_it_waited_stays(monkeypatch):
    # The other job ends between the first look and the lock.
    partial().check_writable()
    with monkeypatch.context() as patch:

        def lock_late(*given, **options):
            patch.undo()
            make()
            return locked(*given, **options)

        patch.setattr("unetkit.storage.partial.locked", lock_late)
        with pytest.raises(OutputError, match="must not exist yet"):
            look()


def test_what_was_put_aside_for_a_replacement_comes_back():
    make()
    Path("out.zarr").rename(half_removed("out.zarr"))
    with partial(resume=True).locked():
        assert files() >= {"out.zarr"}
    assert files() == {"out.zarr"}


def test_a_choice_is_taken_over_for_the_same_model_only():
    making = partial(resume=True)
    Journal(making.folder).write_fingerprint({"model": "ab", "tile": 512, "precision": None})
    found = making.begun()
    assert found is not None
    assert found.choice("tile", int, sha256="ab") == 512
    assert found.choice("tile", int, sha256="cd") is None
    assert found.choice("precision", str, sha256="ab") is None


def test_a_stop_is_told_with_the_signal_and_the_way_on():
    assert stop_message("it must go on", 2, " after all tiles") == (
        "it must go on, got SIGINT after all tiles; give the same command with --resume"
    )
