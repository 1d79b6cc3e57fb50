import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from unetkit.commands.train.command import train
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.models.model_file import load
from unetkit.models.model_header import read_header
from unetkit.storage.lock import Holder
from unetkit.training import run_folder
from unetkit.training.checkpoint import Checkpoint, Checkpoints

OPTIONS = ("depth=1", "width=2", "dropout=0.5")


class CrashError(RuntimeError):
    """Nobody expects it, so nobody cleans up."""


class Crashing:
    """A progress that ends a training after some steps, as a crash would."""

    def __init__(self, after=None):
        self.left, self.stage = after, ""
        self.notes = []

    def start(self, what, *, total):
        self.stage = what

    def advance(self, parts=1, *, status=""):
        if self.left is not None and self.stage == "training" and parts == 1:
            self.left -= 1
            if self.left == 0:
                raise CrashError

    def note(self, text):
        self.notes.append(text)


class Eager(Checkpoints):
    """Keeps every state, where the usual one keeps one a minute."""

    def is_due(self):
        self.finish()
        return True


@pytest.fixture
def here(kit, tmp_path, monkeypatch):
    """Work in a folder with a dataset, and keep a state after every step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "Checkpoints", Eager)
    kit.cells(tmp_path / "data.zarr", count=3)
    return tmp_path


def run(**changes):
    usual = {"options": OPTIONS, "steps": 20, "device": "cpu"}
    return train("data.zarr", **{**usual, "precision": "float32", **changes})


def crash(after, **changes):
    with pytest.raises(CrashError):
        run(progress=Crashing(after), **changes)


def log(path="model.log.jsonl"):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


# Keeps every state, and kills itself at its tenth step.
DEADLY = """
import os, signal, sys
from unetkit.commands.train.command import train
from unetkit.training import run_folder
from unetkit.training.checkpoint import Checkpoints

class Eager(Checkpoints):
    def is_due(self):
        self.finish()
        return True

class Deadly:
    left = 10
    def start(self, what, *, total):
        self.stage = what
    def advance(self, parts=1, *, status=""):
        self.left -= self.stage == "training" and parts
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
    def note(self, text):
        pass

run_folder.Checkpoints = Eager
train("data.zarr", options=("depth=1", "width=2", "dropout=0.5"), steps=20, device="cpu",
      precision="float32", workers=int(sys.argv[1]), progress=Deadly())
"""


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_twenty_steps_equal_ten_a_kill_and_ten(here, workers):
    whole = run(output="whole.safetensors", workers=2)
    line = [sys.executable, "-c", DEADLY, str(workers)]
    killed = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    # It may have died between putting the last state aside and putting a new one in its place.
    states = {"last.safetensors", "previous.safetensors"}
    assert states & set(file_names(here / "model.train"))
    assert not Path("model.safetensors").exists()
    report = run(resume=True, workers=workers)
    assert (report.steps_total, report.steps) == (20, whole.steps)
    assert report.resumed_at_step in (8, 9)
    assert Path("model.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    # Each step once, whatever was written before the crash and not kept.
    assert log() == log("whole.log.jsonl")
    assert report.scores == whole.scores
    assert "model.train" not in file_names(here)
    # The control: a step more would not have gone unnoticed.
    other = run(output="other.safetensors", steps=19)
    assert other.steps == 19
    assert Path("other.safetensors").read_bytes() != Path("whole.safetensors").read_bytes()


# Keeps its states as usual, one a minute, and kills itself before the first.
EARLY = """
import os, signal, sys
from pathlib import Path
from unetkit.commands.train.command import train

class Deadly:
    def start(self, what, *, total):
        self.stage = what
    def advance(self, parts=1, *, status=""):
        ripe = sys.argv[1] == "step" or Path("model.train/best.safetensors").exists()
        if self.stage == "training" and ripe:
            os.kill(os.getpid(), signal.SIGKILL)
    def note(self, text):
        pass

train("data.zarr", options=("depth=1", "width=2", "dropout=0.5"), steps=20, device="cpu",
      precision="float32", progress=Deadly())
"""


@pytest.mark.parametrize("after", ["step", "model"])
def test_one_killed_before_its_first_state_begins_at_step_0(here, after):
    run(output="whole.safetensors")
    line = [sys.executable, "-c", EARLY, after]
    killed = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = file_names(here / "model.train")
    assert ("best.safetensors" in left) == (after == "model")
    assert not {"last.safetensors", "previous.safetensors"} & set(left)
    with pytest.raises(OutputError, match="add --resume to go on with it"):
        run()
    progress = Crashing()
    assert run(resume=True, progress=progress).resumed_at_step is None
    assert any("training begins at step 0" in note for note in progress.notes)
    assert Path("model.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    assert log() == log("whole.log.jsonl")
    assert "model.train" not in file_names(here)


def test_many_crashes_change_nothing_either(here):
    run(output="whole.safetensors")
    crash(3)
    for after in (2, 1, 5, 4):
        crash(after, resume=True)
    assert run(resume=True).resumed_at_step == 10
    assert Path("model.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    assert log() == log("whole.log.jsonl")


def test_a_frozen_encoder_goes_on_as_it_was(here):
    same = {"model": "smp-linknet", "options": ("encoder=tu-test_resnet",), "steps": 8}
    run(output="whole.safetensors", freeze_encoder=4, **same)
    for after in (2, 4):
        crash(after, freeze_encoder=4, resume=after > 2, **same)
    run(resume=True, freeze_encoder=4, **same)
    assert Path("model.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_nothing_there_starts_afresh_and_a_finished_one_is_left_alone(here):
    first = run(resume=True, steps=3)
    assert (first.resumed_at_step, first.steps_total) == (None, 3)
    before = Path("model.safetensors").read_bytes()
    progress = Crashing()
    again = run(resume=True, steps=3, progress=progress)
    assert progress.notes[-1] == "The training is finished, so there is nothing to do."
    assert (again.resumed_at_step, again.scores) == (3, first.scores)
    assert (again.best_step, again.stopped_early) == (first.best_step, first.stopped_early)
    assert Path("model.safetensors").read_bytes() == before
    # As one leaves it that is killed after it has published.
    Path("model.train", ".unetkit").mkdir(parents=True)
    holder = {"host": platform.node(), "pid": 2**30, "since": "", "birth": ""}
    Path("model.train.lock").write_text(json.dumps(holder))
    assert run(resume=True, steps=3).scores == first.scores
    assert not {"model.train", "model.train.lock"} & set(file_names(here))
    with pytest.raises(OutputError, match="steps: 3 before, 4 now") as caught:
        run(resume=True, steps=4)
    assert caught.value.exit_code == 4
    Path("model.log.jsonl").unlink()
    with pytest.raises(OutputError, match="must have its log beside it"):
        run(resume=True, steps=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed: 0 before, 1 now"),
        ({"options": ("depth=1", "width=3")}, r"options.width: 2 before, 3 now"),
        ({"recipe_set": ("grey=0",)}, "grey: .* before, 0"),
        ({"nonfinite": "fill"}, "nonfinite: error before, fill now"),
        ({"precision": "bfloat16"}, "precision: float32 before, bfloat16 now"),
    ],
    ids=str,
)
def test_other_settings_are_refused_by_name(here, changes, words):
    crash(5)
    kept = (here / "model.train" / "last.safetensors").read_bytes()
    with pytest.raises(OutputError, match=words) as caught:
        run(resume=True, **changes)
    assert caught.value.exit_code == 4
    assert (here / "model.train" / "last.safetensors").read_bytes() == kept
    assert run(resume=True).resumed_at_step == 4


def test_other_data_is_refused(kit, here):
    crash(5)
    (here / "data.zarr").rename(here / "old.zarr")
    kit.cells(here / "data.zarr", count=3, shape=(40, 45))
    with pytest.raises(OutputError, match=r"input\.s\d: "):
        run(resume=True)
    with pytest.raises(UsageError, match="resume must be given without overwrite"):
        run(resume=True, overwrite=True)


def test_a_choice_that_was_made_is_kept(here):
    # On this machine 'auto' may mean another precision than that of the first run.
    crash(5, precision="bfloat16")
    assert run(resume=True, precision="auto").precision == "bfloat16"


def test_what_a_stopped_training_left_is_not_lost_by_chance(here):
    crash(5)
    with pytest.raises(OutputError, match="add --resume to go on with it, or add --overwrite"):
        run()
    assert run(overwrite=True).resumed_at_step is None


def test_a_refused_resume_leaves_a_killed_training_to_be_cleared(here):
    run(steps=3)
    (here / "model.train" / ".unetkit").mkdir(parents=True)
    dead = asdict(Holder(platform.node(), 2**30, since="", birth=""))
    (here / "model.train.lock").write_text(json.dumps(dead))
    before = file_names(here)
    with pytest.raises(OutputError, match="to be resumed"):
        run(resume=True, steps=4)
    assert file_names(here) == before
    run(resume=True, steps=3)
    assert [name for name in before if name not in file_names(here)] == [
        "model.train",
        "model.train.lock",
    ]


def test_a_damaged_last_state_falls_back_to_the_one_before(here):
    run(output="whole.safetensors")
    crash(10)
    last = here / "model.train" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-3] + b"abc")
    progress = Crashing()
    assert run(resume=True, progress=progress).resumed_at_step == 8
    assert any("goes on from the state before it" in note for note in progress.notes)
    assert Path("model.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()
    assert log() == log("whole.log.jsonl")


def test_a_lost_best_model_is_noticed(here):
    crash(10)
    for path in (here / "model.train").glob("best*"):
        path.unlink()
    with pytest.raises(InputError, match="must be the best model as it was written, got none"):
        run(resume=True)


@pytest.mark.parametrize("kind", ["garbage", "cut", "one bit", "another model", "older"])
def test_a_best_model_that_is_another_never_becomes_the_model(here, small_model, kind):
    crash(10)
    state = Checkpoint.from_bytes((here / "model.train" / "last.safetensors").read_bytes(), path="")
    step = state.facts["position"]["best_step"]
    kept = here / "model.train" / f"best-{step}.safetensors"
    best = kept if kept.exists() else here / "model.train" / "best.safetensors"
    content = best.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    others = {"garbage": b"garbage", "cut": content[:-4], "one bit": flipped}
    best.write_bytes(others.get(kind, small_model.read_bytes()))
    if kind == "older":
        # States of earlier versions know the step of their best model, and no checksum.
        facts = {**state.facts, "more": {**state.facts["more"], "best": {}}}
        older = Checkpoint(state.tensors, facts).to_bytes()
        (here / "model.train" / "last.safetensors").write_bytes(older)
    with pytest.raises(InputError, match=f"{best.name} must be the best model as it was written"):
        run(resume=True)
    assert not (here / "model.safetensors").exists()
    best.write_bytes(content)
    run(resume=True)
    assert (here / "model.safetensors").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"position": {"step": "../.."}},
        {"position": {"best": {"score": "../..", "loss": 0.5, "scores": {}}}},
        {"position": {"best": []}},
        {"more": {"best": [[[]]]}},
        {"learner": {"suspects": 7}},
        {"pace": 9223372036854775808},
        {"pace": {"steps": "9"}},
        {"more": {"surroundings": "../.."}},
        {"more": {"settings": None}},
        {"more": {"reporter": {"seconds": 1.0, "smooth": [], "score": ""}}},
    ],
)
def test_a_state_of_another_form_is_refused_and_stays(here, change):
    crash(10)
    place = here / "model.train" / "last.safetensors"
    state = Checkpoint.from_bytes(place.read_bytes(), path="")
    facts = {
        **state.facts,
        **{n: {**state.facts[n], **v} if isinstance(v, dict) else v for n, v in change.items()},
    }
    content = Checkpoint(state.tensors, facts).to_bytes()
    place.write_bytes(content)
    told = (here / "model.train" / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="must be as it was written"):
        run(resume=True)
    assert place.read_bytes() == content
    assert (here / "model.train" / "log.jsonl").read_bytes() == told


def test_the_state_stays_where_wanted(here):
    run(steps=4, keep_state=True)
    content = (here / "model.train" / "last.safetensors").read_bytes()
    state = Checkpoint.from_bytes(content, path="")
    assert state.facts["position"]["step"] == 4
    names = set(state.tensors)
    assert {name.split(".")[0] for name in names} == {"network", "average", "optimizer"}
    assert (here / "model.train" / "best.safetensors").exists()


def test_another_number_of_threads_is_named(here, monkeypatch):
    import torch

    crash(5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    progress = Crashing()
    run(resume=True, progress=progress)
    assert any("threads: " in note and "99 now" in note for note in progress.notes)


def test_a_budget_becomes_a_stored_number_of_steps(here):
    with pytest.raises(CrashError):
        # The bar begins anew once the number of steps is known.
        run(steps=10**6, time_budget="12s", precision="exact", progress=Crashing(2))
    content = (here / "model.train" / "last.safetensors").read_bytes()
    steps = Checkpoint.from_bytes(content, path="").facts["pace"]["steps"]
    assert steps < 10**6
    report = run(resume=True, steps=10**6, time_budget="12s", precision="exact")
    assert report.steps_total == steps
    assert read_header("model.safetensors").provenance["steps"] == steps
    assert [row["event"] for row in log()].count("planned") == 1


def begin(folder, *words):
    options = [word for option in OPTIONS for word in ("--set", option)]
    same = ["--steps", "120", "--device", "cpu", "--precision", "float32", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "unetkit", "train", "data.zarr", "--json", *same, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(place, words, process):
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if place.exists() and words in place.read_text():
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"never came: {words}; {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_at_once_and_the_same_command_goes_on(here, number):
    with begin(here) as process:
        wait_for(here / "model.train" / "log.jsonl", '"step": 30,', process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "give the same command with --resume to go on" in said
    # No minute has passed: it was the signal that saved.
    state = Checkpoint.from_bytes((here / "model.train" / "last.safetensors").read_bytes(), path="")
    step = state.facts["position"]["step"]
    assert step >= 30
    with begin(here, "--resume") as process:
        printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert json.loads(printed)["resumed_at_step"] == step
    steps = [row["step"] for row in log() if row["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert load("model.safetensors").header.provenance["steps"] == 120


def test_one_training_at_a_time(here):
    with begin(here) as process:
        wait_for(here / "model.train" / "log.jsonl", '"step": 2,', process)
        with pytest.raises(OutputError, match="one job at a time"):
            run(overwrite=True)
        process.kill()
        process.wait(timeout=60)
    # What a dead process held is taken over.
    assert run(overwrite=True, steps=2).steps == 2
