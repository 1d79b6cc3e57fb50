import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import InputError, ResourceError
from unetkit.training.checkpoint import (
    LAST,
    PREVIOUS,
    SAVE_INTERVAL,
    Checkpoint,
    Checkpoints,
    Position,
    Validation,
)


def state(step=3):
    generator = torch.Generator().manual_seed(step)
    kernel = torch.randn(4, 3, 3, 3, generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    tensors = {"kernel": kernel, "half": kernel.bfloat16(), "steps": torch.tensor(step)}
    return Checkpoint(tensors | {"none": torch.zeros(0)}, {"step": step, "loss": 0.1 + 0.2})


CONTENT = state().to_bytes()


@pytest.fixture
def states(tmp_path):
    kept = Checkpoints(str(tmp_path))
    yield kept
    kept.close()


def heard(states):
    notes = []
    return states.load(notes.append), notes


def test_a_state_comes_back_bit_for_bit():
    found = Checkpoint.from_bytes(CONTENT, path="x")
    assert found.facts == state().facts
    assert all(torch.equal(value, found.tensors[name]) for name, value in state().tensors.items())
    assert found.to_bytes() == CONTENT


@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
def test_a_single_wrong_bit_is_noticed(place, bit):
    torn = bytearray(CONTENT)
    torn[place] ^= 1 << bit
    try:
        found = Checkpoint.from_bytes(bytes(torn), path="last")
    except InputError:
        return
    # Blanks that fill up the header mean nothing.
    assert found.to_bytes() == CONTENT


@given(end=st.integers(0, len(CONTENT) - 1))
def test_a_torn_state_is_noticed(end):
    with pytest.raises(InputError, match="state last must be as it was written"):
        Checkpoint.from_bytes(CONTENT[:end], path="last")


def test_nan_makes_a_state_no_place_to_go_back_to():
    assert state().is_finite
    assert not Checkpoint({"a": torch.tensor([1.0, torch.nan])}, {}).is_finite


def test_the_last_two_are_there_and_the_last_is_read(states, tmp_path):
    assert heard(states) == (None, [])
    assert not states.any
    for step in (1, 2, 3):
        states.save(state(step))
    states.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, PREVIOUS]
    found, notes = heard(states)
    assert found is not None
    assert (found.facts["step"], notes) == (3, [])


def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(states, tmp_path):
    for step in (1, 2):
        states.save(state(step))
    states.finish()
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found, (note,) = heard(states)
    assert found is not None
    assert found.facts["step"] == 1
    assert LAST in note
    assert "goes on from the state before it" in note
    # The next save must not put the damaged one in the place of the good one.
    states.save(state(3))
    states.finish()
    assert Checkpoint.from_bytes((tmp_path / PREVIOUS).read_bytes(), path="").facts["step"] == 1


def test_where_both_are_damaged_nobody_goes_on(states, tmp_path):
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(InputError, match=PREVIOUS):
        heard(states)
    assert (tmp_path / PREVIOUS).exists()


def test_a_save_is_due_once_a_minute_and_never_while_one_is_written(tmp_path):
    now = [0.0]
    states = Checkpoints(str(tmp_path), clock=lambda: now[0])
    assert not states.is_due()
    now[0] = SAVE_INTERVAL
    assert states.is_due()
    states.save(state())
    states.finish()
    assert not states.is_due()
    now[0] = 2 * SAVE_INTERVAL
    assert states.is_due()
    states.close()


def test_a_disk_that_refuses_is_heard_of(tmp_path):
    states = Checkpoints(str(tmp_path / "gone"))
    states.save(state())
    with pytest.raises((ResourceError, FileExistsError), match="gone"):
        states.finish()
    states.close()


# Forks, so that torch is imported once; each child saves until it is killed.
WRITER = """
import os, signal, sys, time
import torch
from unetkit.training.checkpoint import Checkpoint, Checkpoints

def work(pipe):
    states = Checkpoints(sys.argv[1])
    held = states.load(print)
    step = held.facts["step"] if held else 0
    while True:
        step += 1
        state = Checkpoint({"big": torch.full((300_000,), float(step))}, {"step": step})
        states.save(state, after=lambda step=step: os.write(pipe, b"%d\\n" % step))

for kill in range(10):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        work(theirs)
    os.close(theirs)
    said = b""
    while said.count(b"\\n") < 2:
        said += os.read(ours, 100)
    time.sleep(0.003 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(ours, 10_000):
        said += more
    states = Checkpoints(sys.argv[1])
    found = states.load(print)
    whole = bool((found.tensors["big"] == found.facts["step"]).all())
    print(said.split()[-1].decode(), found.facts["step"], whole)
    states.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_ten_kills_during_saves_leave_a_state_each_time(tmp_path):
    line = [sys.executable, "-c", WRITER, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    rows = [row.split() for row in done.stdout.splitlines()]
    assert len(rows) == 10
    last = 0
    for said, found, whole in rows:
        # Nothing that was said to be safe is lost, and what is there is whole.
        assert int(found) >= int(said) > last
        assert whole == "True"
        last = int(found)


def test_a_position_survives_json():
    position = Position()
    for again in (
        position,
        Position(7, 5, 5, Validation(0.1 + 0.2, loss=1e-7, scores={"a": 1}), 2),
        Position(7, 5, 0, Validation(0.5, loss=1.0), 1, doubt=0.1),
    ):
        assert Position.from_dict(json.loads(json.dumps(again.to_dict()))) == again
    # What earlier versions wrote, and read.
    assert "doubt" not in position.to_dict()


def test_the_network_at_the_start_is_left_for_one_that_is_hardly_worse():
    position = Position()
    better = []
    for step, score in ((0, 0.57), (10, 0.46), (20, 0.48), (30, 0.53), (40, 0.52)):
        position.step = step
        better.append(position.judge(Validation(score, loss=1.0)))
        position.doubt = 0.1
    assert better == [True, False, True, True, False]
    assert position.best == Validation(0.53, loss=1.0)


def test_the_best_is_remembered_and_the_others_are_counted():
    position = Position()
    found = [(0.5, 1.0), (0.4, 0.1), (0.5, 1.0), (0.5, 0.9)]
    better = []
    for step, (score, loss) in enumerate(found, start=1):
        position.step = step
        better.append(position.judge(Validation(score, loss=loss)))
        assert position.validated == step
    assert better == [True, False, False, True]
    assert (position.best_step, position.since_best) == (4, 0)


@pytest.mark.parametrize(
    ("first", "second", "higher"),
    [
        ((0.5, 1.0), (0.5004, 0.9), True),
        ((0.5, 1.0), (0.51, 9.0), True),
        ((0.5, 1), (0.5, 2), False),
    ],
)
def test_scores_within_a_thousandth_are_equal_and_the_loss_decides(first, second, *, higher):
    one, other = (Validation(score, loss=loss) for score, loss in (first, second))
    assert (other.rank > one.rank) == higher
