import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unetkit.commands.train.callbacks import (
    MainCallback,
    TensorBoardCallback,
    WorkerCallback,
    agree,
    check_tensorboard,
    is_main,
)
from unetkit.commands.train.command import train
from unetkit.commands.train.report import TrainingDescription
from unetkit.commands.train.validation import ValidationPicture
from unetkit.errors import ResourceError, StoppedError
from unetkit.models.build import build_model
from unetkit.models.model_file import load
from unetkit.signals import Stop
from unetkit.training.checkpoint import Validation
from unetkit.training.distributed import SINGLE, ProcessGroup
from unetkit.training.loop import TrainingResult
from unetkit.training.run_folder import RunFolder
from unetkit.training.split import Split

Begin = Callable[..., tuple[MainCallback, "Screen"]]


class Screen:
    """A progress that remembers everything."""

    def __init__(self):
        self.stages = []
        self.notes = []
        self.status = ""

    def start(self, what, *, total):
        self.stages.append([what, total, 0])

    def advance(self, parts=1, *, status=""):
        self.stages[-1][2] += parts
        self.status = status

    def expect(self, total):
        self.stages[-1][1] = total

    def note(self, text):
        self.notes.append(text)


def description(plan):
    network = build_model("unet", in_channels=1, classes=2, options=plan.options)
    image = SimpleNamespace(pixel_size=None, channel_names=("0",))
    first = SimpleNamespace(data=SimpleNamespace(channel_count=1), image=image)
    task = SimpleNamespace(
        target="foreground", class_names=("background", "foreground"), score="AP"
    )
    dataset = SimpleNamespace(url="data.zarr", samples=[first])
    return TrainingDescription(
        plan, dataset, task=task, parts=Split((), ()), contract=network.contract
    )


@pytest.fixture
def work(tmp_path):
    with RunFolder(str(tmp_path / "model.safetensors"), inputs=[], overwrite=False) as place:
        yield place


@pytest.fixture
def main_callback(work, plan):
    """Return what begins to follow a training, and the screen that shows it."""

    def begin(*, stop=None, width=2, **options):
        chosen = plan(options=("depth=1", f"width={width}"), **{"steps": 10} | options)
        screen = Screen()
        found = MainCallback(screen, work, description=description(chosen), stop=stop or Stop())
        found.start()
        return found, screen

    return begin


def log(work):
    return [json.loads(line) for line in Path(work.running_log).read_text().splitlines()]


GOOD = Validation(0.5, loss=0.25, scores={"average_precision": 0.5})


def test_the_bar_is_full_when_the_last_validation_is_done(main_callback):
    watch, screen = main_callback(steps=3)
    for step in (1, 2, 3):
        watch.stepped(step, loss=1.0, rate=0.1)
    assert screen.stages == [["training", 3, 2]]
    watch.examining()
    assert screen.status == "loss 1.000 · validating"
    watch.validated(3, GOOD, better=True)
    assert screen.stages == [["training", 3, 3]]
    assert screen.status == "AP 0.50, best · loss 1.000"


def test_no_bar_tells_the_time_of_all_steps_by_the_first(main_callback):
    watch, screen = main_callback(steps=100)
    for step in range(1, 20):
        watch.stepped(step, loss=1.0, rate=0.1)
    watch.planned(20, steps=100, seconds_a_step=1.0)
    watch.stepped(20, loss=1.0, rate=0.1)
    assert screen.stages == [["finding the pace", 20, 19], ["training", 100, 20]]
    (said,) = screen.notes
    assert said.startswith("100 steps will take about 1 min 28 s, until ")


def test_with_a_budget_the_bar_first_counts_steps_to_the_pace(work, main_callback):
    watch, screen = main_callback(steps=1000, time_budget="1h")
    for step in (1, 2, 3, 4):
        watch.stepped(step, loss=1.0, rate=0.1)
    watch.planned(5, steps=8, seconds_a_step=0.1)
    for step in (5, 6, 7, 8):
        watch.stepped(step, loss=1.0, rate=0.1)
    watch.validated(8, GOOD, better=True)
    assert screen.stages == [["finding the pace", 20, 4], ["training", 8, 8]]
    assert {"event": "planned", "step": 5, "steps": 8} in log(work)


def test_a_new_plan_moves_the_end_of_the_bar_and_begins_none(main_callback):
    watch, screen = main_callback(steps=1000, time_budget="1h")
    watch.planned(5, steps=8, seconds_a_step=0.1)
    watch.stepped(5, loss=1.0, rate=0.1)
    watch.replanned(5, steps=7)
    watch.stepped(6, loss=1.0, rate=0.1)
    assert screen.stages[1:] == [["training", 7, 6]]
    # One that was full already and turns out longer is there again.
    watch.stepped(7, loss=1.0, rate=0.1)
    watch.validated(7, GOOD, better=True)
    watch.replanned(7, steps=9)
    assert screen.stages[1:] == [["training", 7, 7], ["training", 9, 7]]


@pytest.mark.parametrize(
    ("steps", "score", "budget", "said"),
    [
        (100, 0.2, "1h", ()),
        (99, 0.2, "1h", ("Only 99 steps fitted into the time",)),
        (1, 0.2, "1h", ("Only 1 step fitted into the time",)),
        (99, 0.2, None, ()),
        (500, 0.19, None, ("AP 0.19 on what was held out is poor: look at the page",)),
        (4, 0.0, "1h", ("Only 4 steps", "AP 0.00 on what was held out is poor")),
    ],
)
def test_a_model_that_learned_too_little_is_called_so(main_callback, *, steps, score, budget, said):
    watch, screen = main_callback(steps=1000, time_budget=budget)
    found = Validation(score, loss=1.0)
    watch.ended(TrainingResult(steps, steps, found, stopped_early=False))
    assert len(screen.notes) == len(said)
    assert all(note.startswith(part) for note, part in zip(screen.notes, said, strict=True))


@pytest.mark.parametrize(("made", "doubts"), [(50, 0), (49, 1)])
def test_few_steps_are_no_doubt_where_no_more_were_asked_for(main_callback, made, doubts):
    watch, screen = main_callback(steps=50, time_budget="1h")
    watch.ended(TrainingResult(made, made, Validation(0.5, loss=1.0), stopped_early=False))
    assert len(screen.notes) == doubts


def test_the_log_tells_steps_skips_and_validations(work, main_callback):
    watch, _ = main_callback()
    watch.stepped(1, loss=1.5, rate=0.1)
    watch.stepped(2, loss=None, rate=0.1)
    watch.validated(2, GOOD, better=False)
    start, step, skipped, validation = log(work)
    assert (start["event"], start["model"], start["steps"]) == ("start", "unet", 10)
    assert (step["event"], step["step"], step["loss"]) == ("step", 1, 1.5)
    assert (skipped["event"], skipped["step"]) == ("skipped", 2)
    assert (validation["score"], validation["average_precision"]) == (0.5, 0.5)
    assert validation["best"] is False


def test_a_long_log_thins_out(work, main_callback):
    watch, _ = main_callback(steps=5000)
    for step in range(1, 5001):
        watch.stepped(step, loss=1.0, rate=0.1)
    steps = [row["step"] for row in log(work)[1:]]
    assert steps == list(range(10, 5001, 10))


def test_what_is_shown_is_a_smooth_loss(main_callback):
    watch, screen = main_callback()
    watch.stepped(1, loss=1.0, rate=0.1)
    watch.stepped(2, loss=3.0, rate=0.1)
    assert screen.status == "loss 1.100"


@pytest.mark.parametrize(
    ("width", "seconds", "words"),
    [
        (64, 0.01, []),
        (64, 1.0, ["1000 steps will take about 18 min 17 s, until "]),
        (16, 10.0, ["1000 steps will take about 3 h 02 min, until "]),
        (
            64,
            10.0,
            ["1000 steps will take about 3 h 02 min, until ", "--set width=16 it would take about"],
        ),
    ],
)
def test_people_hear_when_it_ends_and_how_it_would_end_sooner(
    main_callback, *, width, seconds, words
):
    watch, screen = main_callback(steps=1000, width=width)
    watch.planned(3, steps=1000, seconds_a_step=seconds)
    assert len(screen.notes) == len(words)
    assert all(word in note for word, note in zip(words, screen.notes, strict=True))


@pytest.mark.parametrize(
    ("first", "kept", "words"),
    [
        (0.25, 0.5, "It has learned: step 3, which is kept, scored AP 0.500 in validation, a.b"),
        (0.5, 0.4, "scored AP 0.400 in validation, which is not surely worse than the 0.500 of"),
        (0.5, 0.5, "scored AP 0.500 in validation, which is not surely worse than the 0.500 of"),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_people_hear_that_a_network_has_learned(
    work, main_callback, first, kept, words, *, resumed
):
    watch, screen = main_callback()
    watch._description = replace(watch._description, start=SimpleNamespace(path="/x/a.b"))
    watch.validated(0, Validation(first, loss=1.0), better=True)
    if resumed:
        known = watch.to_dict()
        watch, screen = main_callback()
        watch._description = replace(watch._description, start=SimpleNamespace(path="/x/a.b"))
        position = {"step": 3, "best": None}
        facts = {"more": {"reporter": known}, "pace": {"steps": 10}, "position": position}
        watch.go_on(SimpleNamespace(facts=json.loads(json.dumps(facts))))
    watch.validated(3, Validation(kept, loss=0.5), better=True)
    watch.ended(TrainingResult(3, 3, Validation(kept, loss=0.5), stopped_early=False))
    (said,) = (note for note in screen.notes if "learned" in note)
    assert words in said
    assert f"{first:.3f}" in said
    # Who begins with nothing has nothing to compare with.
    watch, screen = main_callback()
    watch.ended(TrainingResult(3, 3, Validation(kept, loss=0.5), stopped_early=False))
    assert not any("learned" in note for note in screen.notes)


def test_a_kept_model_can_be_loaded_and_says_when_it_was_kept(work, main_callback):
    watch, _ = main_callback()
    network = build_model(
        "unet", in_channels=1, classes=2, options={"depth": 1, "width": 2, "norm": "batch"}
    )
    watch.kept(7, network, GOOD)
    header = load(work.best).header
    assert header.scores == {"average_precision": 0.5, "loss": 0.25}
    assert (header.provenance["best_step"], header.provenance["steps"]) == (7, 10)


@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_ends_it_and_the_sentence_says_what_is_kept(work, main_callback, *, kept):
    stop = Stop()
    watch, _ = main_callback(stop=stop)
    watch.stepped(1, loss=1.0, rate=0.1)
    if kept:
        network = build_model(
            "unet", in_channels=1, classes=2, options={"depth": 1, "width": 2, "norm": "batch"}
        )
        watch.kept(1, network, GOOD)
    watch.examining()
    stop.signal = signal.SIGTERM
    with pytest.raises(
        StoppedError, match=r"after 1, before the first|after 1; give the same"
    ) as caught:
        watch.examining()
    assert caught.value.exit_code == 143
    assert "--resume to go on" in str(caught.value)
    assert (work.best in str(caught.value)) == kept
    with pytest.raises(StoppedError, match="after 2"):
        watch.stepped(2, loss=1.0, rate=0.1)


def test_nothing_ends_without_a_signal(main_callback):
    main_callback()[0].check()


class Pair(ProcessGroup):
    """Two processes, the other of which heard a signal."""

    def highest(self, value):
        return max(value, float(signal.SIGTERM))


def test_a_signal_to_one_is_a_signal_to_all():
    alone, paired = Stop(), Stop()
    agree(alone, SINGLE)
    agree(paired, Pair())
    assert (alone.signal, paired.signal) == (None, signal.SIGTERM)


def test_a_worker_says_nothing_and_ends_with_the_others():
    worker = WorkerCallback(Stop(), SINGLE)
    worker.planned(1, steps=2, seconds_a_step=0.1)
    worker.stepped(1, loss=1.0, rate=0.1)
    worker.on_restore(1)
    worker.validated(1, Validation(0.0, loss=0.0), better=True)
    worker.kept(1, torch.nn.Identity(), Validation(0.0, loss=0.0))
    with pytest.raises(StoppedError, match="process 1 of the training ended") as caught:
        WorkerCallback(Stop(), Pair(rank=1, size=2)).stepped(1, loss=1.0, rate=0.1)
    assert caught.value.exit_code == 128 + signal.SIGTERM


def test_the_first_process_is_the_main_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert is_main()
    for rank, expected in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main() == expected


def test_where_tensorboard_is_missing_the_way_to_install_it_is_said_before_anything_is_done(
    kit, tmp_path, monkeypatch
):
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
def test_curves_and_pictures_are_those_that_tensorboard_reads(tmp_path):
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
    found = Validation(0.25, loss=0.75, scores={"dice": 0.125})
    board.validated(2, found, better=True)
    board.ended(TrainingResult(2, 2, found, stopped_early=False))
    written = reader.EventAccumulator(str(tmp_path / "runs")).Reload()
    assert {
        tag: [(e.step, e.value) for e in written.Scalars(tag)] for tag in written.Tags()["scalars"]
    } == {
        "training/loss": [(1, 0.5)],
        "training/learning_rate": [(1, pytest.approx(1e-3)), (2, pytest.approx(2e-3))],
        "validation/loss": [(2, 0.75)],
        "validation/score": [(2, 0.25)],
        "validation/dice": [(2, 0.125)],
    }
    truth, prediction = (written.Images(name)[0] for name in ("truth", "prediction"))
    assert (truth.width, truth.height) == (30, 20)
    assert truth.encoded_image_string != prediction.encoded_image_string
