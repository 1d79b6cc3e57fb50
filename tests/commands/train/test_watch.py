from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.commands.train.callbacks import MainCallback, spoken
from unetkit.commands.train.plan import make_plan
from unetkit.commands.train.report import TrainingDescription
from unetkit.engine.signals import Stop
from unetkit.errors import StoppedError
from unetkit.models.build import build_model
from unetkit.models.model_file import load
from unetkit.training.checkpoint import Validation
from unetkit.training.run_folder import RunFolder
from unetkit.training.split import Split

if TYPE_CHECKING:
    from collections.abc import Iterator


class Screen:
    """A progress that remembers everything."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []
        self.notes: list[str] = []
        self.status = ""

    def start(self, what: str, *, total: int) -> None:
        self.stages.append([what, total, 0])

    def advance(self, parts: int = 1, *, status: str = "") -> None:
        self.stages[-1][2] += parts
        self.status = status

    def note(self, text: str) -> None:
        self.notes.append(text)


def description(*, steps: int, budget: str | None = None, width: int = 2) -> TrainingDescription:
    plan = make_plan(
        model="unet",
        options=("depth=1", f"width={width}"),
        recipe="default",
        steps=steps,
        time_budget=budget,
        seed=0,
        channels=None,
        device="cpu",
        precision="float32",
        workers=1,
    )
    network = build_model("unet", in_channels=1, classes=2, options=plan.options)
    image = SimpleNamespace(pixel_size=None)
    first = SimpleNamespace(data=SimpleNamespace(channel_count=1), image=image)
    task: Any = SimpleNamespace(
        target="foreground", class_names=("background", "foreground"), score="AP"
    )
    dataset: Any = SimpleNamespace(url="data.zarr", samples=[first])
    return TrainingDescription(
        plan, dataset, task=task, parts=Split((), ()), contract=network.contract
    )


@pytest.fixture
def work(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder(str(tmp_path / "model.safetensors"), inputs=[], overwrite=False) as place:
        yield place


def main_callback(
    work: RunFolder, *, stop: Stop | None = None, **plan: Any
) -> tuple[MainCallback, Screen]:
    screen = Screen()
    found = MainCallback(
        screen, work, description=description(**{"steps": 10} | plan), stop=stop or Stop()
    )
    found.start()
    return found, screen


def log(work: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(work.running_log).read_text().splitlines()]


GOOD = Validation(0.5, loss=0.25, scores={"average_precision": 0.5})


def test_the_bar_is_full_when_the_last_validation_is_done(work: RunFolder) -> None:
    watch, screen = main_callback(work, steps=3)
    for step in (1, 2, 3):
        watch.stepped(step, loss=1.0, rate=0.1)
    assert screen.stages == [["training", 3, 2]]
    watch.examining()
    assert screen.status == "loss 1.000 · validating"
    watch.validated(3, GOOD, better=True)
    assert screen.stages == [["training", 3, 3]]
    assert screen.status == "loss 1.000 · AP 0.500 (best)"


def test_with_a_budget_the_bar_first_counts_steps_to_the_pace(work: RunFolder) -> None:
    watch, screen = main_callback(work, steps=1000, budget="1h")
    for step in (1, 2, 3, 4):
        watch.stepped(step, loss=1.0, rate=0.1)
    watch.planned(5, steps=8, seconds_a_step=0.1)
    for step in (5, 6, 7, 8):
        watch.stepped(step, loss=1.0, rate=0.1)
    watch.validated(8, GOOD, better=True)
    assert screen.stages == [["finding the pace", 20, 4], ["training", 8, 8]]
    assert {"event": "planned", "step": 5, "steps": 8} in log(work)


def test_the_log_tells_steps_skips_and_validations(work: RunFolder) -> None:
    watch, _ = main_callback(work)
    watch.stepped(1, loss=1.5, rate=0.1)
    watch.stepped(2, loss=None, rate=0.1)
    watch.validated(2, GOOD, better=False)
    start, step, skipped, validation = log(work)
    assert (start["event"], start["model"], start["steps"]) == ("start", "unet", 10)
    assert (step["event"], step["step"], step["loss"]) == ("step", 1, 1.5)
    assert (skipped["event"], skipped["step"]) == ("skipped", 2)
    assert (validation["score"], validation["average_precision"]) == (0.5, 0.5)
    assert validation["best"] is False


def test_a_long_log_thins_out(work: RunFolder) -> None:
    watch, _ = main_callback(work, steps=5000)
    for step in range(1, 5001):
        watch.stepped(step, loss=1.0, rate=0.1)
    steps = [row["step"] for row in log(work)[1:]]
    assert steps == list(range(10, 5001, 10))


def test_what_is_shown_is_a_smooth_loss(work: RunFolder) -> None:
    watch, screen = main_callback(work)
    watch.stepped(1, loss=1.0, rate=0.1)
    watch.stepped(2, loss=3.0, rate=0.1)
    assert screen.status == "loss 1.100"


@pytest.mark.parametrize(
    ("width", "seconds", "words"),
    [
        (64, 0.01, []),
        (64, 1.0, ["1000 steps will take about 18 min, until "]),
        (16, 10.0, ["1000 steps will take about 3.0 h, until "]),
        (
            64,
            10.0,
            ["1000 steps will take about 3.0 h, until ", "--set width=16 it would take about"],
        ),
    ],
)
def test_people_hear_when_it_ends_and_how_it_would_end_sooner(
    work: RunFolder, *, width: int, seconds: float, words: list[str]
) -> None:
    watch, screen = main_callback(work, steps=1000, width=width)
    watch.planned(3, steps=1000, seconds_a_step=seconds)
    assert len(screen.notes) == len(words)
    assert all(word in note for word, note in zip(words, screen.notes, strict=True))


def test_a_kept_model_can_be_loaded_and_says_when_it_was_kept(work: RunFolder) -> None:
    watch, _ = main_callback(work)
    network = build_model(
        "unet", in_channels=1, classes=2, options={"depth": 1, "width": 2, "norm": "batch"}
    )
    watch.kept(7, network, GOOD)
    header = load(work.best).header
    assert header.scores == {"average_precision": 0.5, "loss": 0.25}
    assert (header.provenance["best_step"], header.provenance["steps"]) == (7, 10)


@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_ends_it_and_the_sentence_says_what_is_kept(
    work: RunFolder, *, kept: bool
) -> None:
    stop = Stop()
    watch, _ = main_callback(work, stop=stop)
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


def test_nothing_ends_without_a_signal(work: RunFolder) -> None:
    main_callback(work)[0].check()


def test_times_are_said_as_people_do() -> None:
    assert [spoken(s) for s in (0.2, 89.5, 120, 5399, 7200)] == [
        "1 s",
        "90 s",
        "2 min",
        "90 min",
        "2.0 h",
    ]
