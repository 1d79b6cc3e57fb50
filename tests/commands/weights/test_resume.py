"""Weights in the making: kept after an end from outside, gone after a fault."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from unetkit.errors import InputError, OutputError, StoppedError
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_weights
from unetkit.storage.images import open_image
from unetkit.storage.lock import lock_path, locked
from unetkit.storage.outputs import partial_url
from unetkit.storage.partial import alone, begun


@pytest.fixture
def image(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", np.zeros((8, 9), np.uint8), axes="yx")
    writer.finish()
    return f"{writer.url}/a"


def start(image, *, sigma=5.0, resume=False):
    return begun(
        f"{image}/weights",
        fingerprint={"sigma": sigma},
        create=lambda at: create_weights(image, shape=(8, 9), axes="yx", chunk=8, at=at),
        resume=resume,
        overwrite=False,
    )


def stop(image, error):
    with suppress(type(error)), start(image) as partial:
        partial.output.write(0, 0, 0, np.full((8, 8), 2, np.float32))
        partial.journal.record("one", checksum=7)
        raise error


def test_a_signal_keeps_what_is_done_and_a_fault_does_not(image):
    place = partial_url(f"{image}/weights")
    stop(image, StoppedError("stopped", signal=15))
    assert Path(place).is_dir()
    with start(image, resume=True) as partial:
        assert partial.before == {"one": 7}
        assert (partial.output.read(0, 0, 8, 0, 8) == 2).all()
    assert not Path(place).exists()
    assert open_image(image).weights is not None


def test_a_fault_leaves_nothing(image):
    stop(image, InputError("damaged"))
    assert not Path(partial_url(f"{image}/weights")).exists()
    assert open_image(image).weights is None


def test_other_settings_are_refused_and_named(image):
    stop(image, StoppedError("stopped", signal=15))
    with (
        pytest.raises(OutputError, match=r"sigma: 5\.0 before, 6\.0 now"),
        start(image, sigma=6.0, resume=True),
    ):
        pass


def test_what_is_begun_anew_knows_nothing_of_before(image):
    stop(image, StoppedError("stopped", signal=15))
    with start(image) as partial:
        assert partial.before == {}
        assert (partial.output.read(0, 0, 8, 0, 8) == 0).all()


def test_finished_weights_are_nothing_to_do_for_resume_and_refused_without(image):
    with start(image):
        pass
    with start(image, resume=True) as partial:
        assert partial is None
    with pytest.raises(OutputError, match="must not exist yet"), start(image):
        pass


def be_alone(image, **wishes):
    wanted = {"resume": False, "overwrite": False, "break_lock": False, **wishes}
    return alone([f"{image}/weights"], **wanted)


def test_a_stopped_run_is_not_thrown_away_unasked(image):
    stop(image, StoppedError("stopped", signal=15))
    words = r"must not have been begun, .*; --resume goes on with them, --overwrite starts afresh"
    with pytest.raises(OutputError, match=words), be_alone(image):
        pass
    for wish in ("resume", "overwrite"):
        with be_alone(image, **{wish: True}):
            pass
    Path(partial_url(f"{image}/weights"), ".unetkit", "fingerprint.json").unlink()
    with be_alone(image):  # what was not even begun is nothing to lose
        pass


def test_one_job_at_a_time_is_at_work_on_a_sample(image):
    lock = Path(lock_path(partial_url(f"{image}/weights")))
    with be_alone(image):
        assert lock.exists()
        for wish in ("resume", "overwrite"):
            with (
                pytest.raises(OutputError, match=r"one job at a time, got one on host .* process"),
                be_alone(image, **{wish: True}),
            ):
                pass
    assert not lock.exists()
    with be_alone(image):  # the negative control: once the first is done there is room
        pass


def test_weights_that_appeared_while_it_waited_stay(image, monkeypatch):
    # The other job ends between the first look and the lock.
    def lock_late(url, **wishes):
        with start(image):
            pass
        return locked(url, **wishes)

    monkeypatch.setattr("unetkit.storage.partial.locked", lock_late)
    with pytest.raises(OutputError, match="must not exist yet"), be_alone(image):
        pass
