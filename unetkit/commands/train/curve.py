"""Say what more annotated images would gain: train on growing parts of those that there are."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unetkit.commands.train.command import prepare, train_one
from unetkit.commands.train.initial_weights import open_start
from unetkit.commands.train.output import claim_output
from unetkit.commands.train.plan import TrainOptions, check_channels, make_plan
from unetkit.errors import OutputError, UsageError
from unetkit.models import hardware
from unetkit.options import check_resume
from unetkit.progress import SILENT, Progress, collects_warnings, format_duration, parse_duration
from unetkit.scores.learning_curve import LearningCurve
from unetkit.storage.atomic import make_folder, write_text
from unetkit.storage.datasets import open_dataset
from unetkit.storage.journal import differences
from unetkit.storage.lock import locked
from unetkit.storage.outputs import check_file, discard, output_name, partial_url
from unetkit.storage.urls import base_name, exists
from unetkit.training.distributed import init_distributed
from unetkit.training.growing import growing_sizes, growing_units, nested_orders, part_of
from unetkit.training.run_folder import folder_of
from unetkit.views.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.commands.train.initial_weights import Start
    from unetkit.options import (
        Axes,
        BreakLock,
        Channels,
        Device,
        Init,
        LabelName,
        Loss,
        ModelName,
        NetworkOptions,
        Opt,
        Precision,
        RecipeChanges,
        RecipeName,
        Resume,
        Samplers,
        Seed,
        Steps,
        Store,
        Target,
        TimeBudget,
    )
    from unetkit.scores.learning_curve import ScorePrediction
    from unetkit.storage.datasets import Dataset
    from unetkit.training.distributed import ProcessGroup
    from unetkit.training.growing import Unit
    from unetkit.training.split import Split

TEMPLATE = "curve.html"
BEGINS = "<!doctype html><!-- unetkit curve -->"
RECORD = '{"unetkit": "curve"'
FINGERPRINT = "fingerprint.json"
# The seeds of trainings of one draw after another lie so far apart.
APART = 1000


@dataclass(frozen=True)
class CurveTraining:
    """One training on a part of the images."""

    draw: int  # from 1; of one draw, larger parts hold the smaller ones
    size: int  # images, or groups of them
    score: float  # on what is held out
    steps: int
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class CurveReport:
    """What more annotated images would gain."""

    output: str  # the page
    record: str  # the same as JSON
    sentence: str
    score_name: str  # AP or Dice
    unit: str  # image, or group where images are of groups
    now: int  # units to learn from
    held_out: int  # images
    more: int
    gain: float  # of the curve, from `now` to `more` beyond
    gain_low: float
    gain_high: float
    fit: dict[str, float]  # score = top - drop * size ** -exponent
    trainings: tuple[CurveTraining, ...]
    trainings_reused: int  # finished by an earlier run
    expected: tuple[ScorePrediction, ...]  # of one training
    seconds: float = field(compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Both files."""
        return self.output, self.record

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = asdict(self)
        names = ("trainings", "expected", "warnings")
        return {**told, **{name: list(told[name]) for name in names}}


@collects_warnings
def curve(
    source: Store,
    *,
    time_budget: TimeBudget = None,
    steps: Steps = None,
    more: Annotated[int | None, Opt(min=1, default="as many as there are")] = None,
    draws: Annotated[int, Opt(min=1, max=20)] = 3,
    output: Annotated[
        str | None,
        Opt(flags=("--output", "-o"), default="NAME.curve.html", panel="Output"),
    ] = None,
    model: ModelName = None,
    options: NetworkOptions = (),
    recipe: RecipeName = "default",
    recipe_set: RecipeChanges = (),
    loss: Loss = None,
    target: Target = None,
    init: Init = None,
    seed: Seed = 0,
    channels: Channels = None,
    labels: LabelName = None,
    axes: Axes = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Samplers = None,
    nonfinite: Literal["error", "fill"] = "error",
    resume: Resume = False,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_curve")
    ] = False,
    break_lock: BreakLock = False,
    progress: Progress = SILENT,
) -> CurveReport:
    """Say what more annotated images would gain: a learning curve, with an interval.

    Trains on growing parts of the images, each about twice the one before and holding it, in
    several random orders, and scores all on the same held-out images as ``unetkit train`` does,
    each with the step and the decision that score best there. A power law is fitted to the scores;
    where it leads with more images is told in one sentence, as a page with the curve, and as JSON.

    The gain is that of the curve, the mean of many trainings. One training more varies by itself,
    as the table of expected scores says. More images are taken to be like those that there are.

    Parameters
    ----------
    source : str
        A dataset with labels.
    time_budget : str, optional
        For all trainings together: ``90s``, ``2h``; each gets the same part of it.
    steps : int, optional
        Updates of each network; with a time budget at most so many.
    more : int, optional
        How many images more to ask about.
    draws : int
        In how many orders the images are added.
    output : str, optional
        The page; the JSON lies beside it.
    model : str, optional
        Name of an installed model.
    options : sequence of str
        An option of the model, such as ``width=16``; may be repeated.
    recipe : str
        How to learn: ``default``, or ``paper`` for the original's settings.
    recipe_set : sequence of str
        A number of the recipe, such as ``batch=4``; may be repeated.
    loss : str, optional
        What to make small, such as ``unet+0.5*dice``.
    target : str, optional
        What to learn: foreground, foreground+boundary, foreground+distance, boundary or classes;
        or classes+boundary, objects of several classes.
    init : str, optional
        A model file that each training begins with.
    seed : int
        Same seed, same held-out images, orders and first weights.
    channels : str, optional
        Channels to use, in this order, by name or number: ``DAPI`` or ``0,2``.
    labels : str, optional
        Which labels to learn, by name, or ``NAME=classes`` for class maps of other writers.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    device : str
        Where the network runs: auto, cpu, cuda, cuda:1 or mps.
    precision : {"auto", "exact", "float32", "bfloat16", "float16"}
        Numbers to compute with; ``exact`` gives the same bits on every run, slower.
    workers : int, optional
        Threads that draw samples; they change nothing but the time.
    nonfinite : {"error", "fill"}
        What to do about NaN and infinite pixels: stop, or read them as 0.
    resume : bool
        Keep the trainings that an earlier run with the same settings had finished.
    overwrite : bool
        Replace an earlier curve.
    break_lock : bool
        Take the result over from another job that is known to be dead.
    progress : Progress
        Told of every training.

    Returns
    -------
    CurveReport

    Raises
    ------
    InputError
        If there are fewer than three images to learn from beside those held out.
    OutputError
        If a curve is there already, or what is to be resumed was made with other settings.
    StoppedError
        If a signal came; finished trainings are kept for `resume`.

    References
    ----------
    Hestness et al. (2017), Deep learning scaling is predictable, empirically, equation 1.
    """
    began = time.monotonic()
    check_resume(resume, overwrite=overwrite)
    if draws < 1 or (more is not None and more < 1):
        raise UsageError(
            f"draws and more must be at least 1, got {draws} and {more}; leave them out"
        )
    given = TrainOptions(
        model=model,
        options=options,
        recipe=recipe,
        recipe_set=recipe_set,
        loss=loss,
        steps=steps,
        time_budget=time_budget,
        target=target,
        normalization=None,
        tensorboard=None,
        freeze_encoder=0,
        seed=seed,
        channels=channels,
        device=device,
        precision=precision,
        workers=workers,
        nonfinite=nonfinite,
        accumulate=1,
        keep_state=False,
        keep_old=False,
    )
    page_path = output or output_name(source, ".curve.html")
    places = _Places(page_path, source, resume=resume, overwrite=overwrite, break_lock=break_lock)
    places.check()
    start = None if init is None else open_start(init)
    dataset = open_dataset(source, axes=axes, channels=channels, labels=labels)
    check_channels(dataset, channels, progress)
    with init_distributed(hardware.pick_device(device)) as group:
        run = _Growing.begin(dataset, given, draws, start=start, group=group, progress=progress)
        with locked(places.folder, break_lock=break_lock):
            reused, trainings = run.learn(places, progress)
            found = run.report(places, trainings, more=more or run.sizes[-1])
            found = replace(
                found, trainings_reused=reused, seconds=round(time.monotonic() - began, 1)
            )
            places.publish(found, run.fingerprint, run.facts)
    progress.note(found.sentence)
    return found


@dataclass(frozen=True)
class _Places:
    """Where page, record, and what is done so far lie."""

    page: str
    source: str
    resume: bool
    overwrite: bool
    break_lock: bool

    @property
    def record(self) -> str:
        """The same as JSON."""
        return f"{self.page.removesuffix('.html')}.json"

    @property
    def folder(self) -> str:
        """The finished trainings, until the page is there."""
        return partial_url(self.page)

    def check(self) -> None:
        """Refuse to replace what is there, unless that is asked for."""
        if not self.page.endswith(".html"):
            raise UsageError(f"output must end in .html, got {self.page}; add it")
        allowed = self.overwrite or self.resume
        check_file(self.page, overwrite=allowed, begins=BEGINS)
        check_file(self.record, overwrite=allowed, begins=RECORD)
        if exists(self.folder) and not allowed:
            raise OutputError(
                f"output {self.page} must not have been begun, got the trainings of a run that was"
                " stopped; --resume goes on with them, --overwrite starts afresh"
            )

    def finished(self, fingerprint: dict[str, Any]) -> list[CurveTraining]:
        """Return the trainings that an earlier run has finished, after a look at its settings."""
        before: Any = None
        trainings: list[Any] = []
        if self.resume and exists(self.record):
            told = json.loads(Path(self.record).read_bytes())
            before, trainings = told["fingerprint"], told["trainings"]
        elif self.resume and exists(f"{self.folder}/{FINGERPRINT}"):
            before = json.loads(Path(self.folder, FINGERPRINT).read_bytes())
            paths = sorted(Path(self.folder).glob("draw*.json"))
            trainings = [json.loads(path.read_bytes()) for path in paths]
        if before is None:
            discard(self.folder)
        elif found := differences(before, fingerprint):
            raise OutputError(
                f"{self.page} must have been made with the same settings to be resumed, got"
                f" {'; '.join(found[:5])}; give those of before, or --overwrite instead of --resume"
                " to start afresh"
            )
        make_folder(self.folder)
        write_text(f"{self.folder}/{FINGERPRINT}", json.dumps(fingerprint))
        return [CurveTraining(**one) for one in trainings]

    def keep(self, training: CurveTraining) -> None:
        """Write down that a training is finished; its model is of no use any more."""
        name = f"{self.folder}/{_name(training.draw, training.size)}"
        write_text(f"{name}.json", json.dumps(asdict(training)))
        for ending in (".safetensors", ".log.jsonl", ".training.html"):
            Path(f"{name}{ending}").unlink(missing_ok=True)

    def publish(
        self, report: CurveReport, fingerprint: dict[str, Any], facts: Sequence[tuple[str, Any]]
    ) -> None:
        """Write page and record, and clear away what only the work needed."""
        told = {"unetkit": "curve", **report.to_dict(), "fingerprint": fingerprint}
        write_text(self.record, json.dumps(told))
        write_text(self.page, page(_contents(report, self.source, facts), template=TEMPLATE))
        discard(self.folder)


def _name(draw: int, size: int) -> str:
    return f"draw{draw:02d}-{size:05d}"


@dataclass(frozen=True)
class _Growing:
    """What is trained on what."""

    dataset: Dataset
    given: TrainOptions
    parts: Split
    unit: str
    orders: list[list[Unit]]
    sizes: list[int]
    score_name: str
    fingerprint: dict[str, Any]
    facts: list[tuple[str, Any]]
    group: ProcessGroup
    start: Start | None = None

    @classmethod
    def begin(
        cls,
        dataset: Dataset,
        given: TrainOptions,
        draws: int,
        *,
        start: Start | None,
        group: ProcessGroup,
        progress: Progress,
    ) -> _Growing:
        """Hold a part out as `train` does, and draw the orders of the rest."""
        plan = make_plan(given, start=None if start is None else start.header)
        _, description = prepare(
            plan, dataset, given.target, start=start, mix=None, progress=progress
        )
        unit, units = growing_units(description.task.origins(), description.parts)
        sizes = growing_sizes(len(units), unit=unit)
        orders = nested_orders(units, draws=draws, seed=given.seed)
        if given.time_budget is not None:
            share = parse_duration(given.time_budget) / (draws * len(sizes))
            given = replace(given, time_budget=f"{share:.3f}s")
            progress.note(
                f"{draws * len(sizes)} trainings of {format_duration(share)} each, on"
                f" {', '.join(map(str, sizes))} {unit}s"
            )
        told = description.to_dict()
        fingerprint = {**told, "draws": draws, "sizes": sizes, "nonfinite": given.nonfinite}
        length = f"{given.time_budget} each" if given.time_budget else plan.steps
        facts = [
            *(("model", plan.model), *sorted(plan.options.items()), ("recipe", plan.recipe)),
            *(("target", told["target"]), ("steps", length), ("seed", given.seed)),
            ("held out", len(description.parts.validation)),
        ]
        return cls(
            *(dataset, given, description.parts, unit, orders, sizes),
            *(description.task.score, fingerprint, facts, group, start),
        )

    def learn(self, places: _Places, progress: Progress) -> tuple[int, list[CurveTraining]]:
        """Do the trainings that are not finished, draw by draw; return how many were."""
        found = {(one.draw, one.size): one for one in places.finished(self.fingerprint)}
        reused = len(found)
        progress.start("train", total=len(self.orders) * len(self.sizes))
        for draw, size in self._wanted():
            if (draw, size) not in found:
                found[draw, size] = one = self._train(places, draw, size)
                places.keep(one)
                progress.note(
                    f"{self._counted(size)}, draw {draw}: {self.score_name} {one.score:.3f}"
                    f" after {one.steps} steps"
                )
            progress.advance()
        return reused, [found[key] for key in self._wanted()]

    def _wanted(self) -> Iterator[tuple[int, int]]:
        return ((d, size) for d in range(1, len(self.orders) + 1) for size in self.sizes)

    def _counted(self, count: int) -> str:
        return f"{count} {self.unit}{'' if count == 1 else 's'}"

    def _train(self, places: _Places, draw: int, size: int) -> CurveTraining:
        path = f"{places.folder}/{_name(draw, size)}.safetensors"
        claim = partial(
            claim_output,
            path,
            inputs=[places.source],
            # What is there is of this very training.
            resume=True,
            overwrite=False,
            break_lock=places.break_lock,
        )
        report, _ = train_one(
            self.dataset,
            replace(self.given, seed=self.given.seed + APART * draw),
            claim,
            fold=None,
            start=self.start,
            mix=None,
            group=self.group,
            progress=SILENT,
            parts=part_of(self.parts, self.orders[draw - 1][:size]),
        )
        discard(folder_of(path))
        return CurveTraining(draw, size, report.score, report.steps, report.seconds)

    def report(
        self, places: _Places, trainings: Sequence[CurveTraining], *, more: int
    ) -> CurveReport:
        """Fit the curve, and say where it leads."""
        sizes, scores = [one.size for one in trainings], [one.score for one in trainings]
        line = LearningCurve(sizes, scores, seed=self.given.seed)
        now = self.sizes[-1]
        gain = line.gain(now + more)
        ends = f"{_two(gain.low)} to {_two(gain.high)}"
        rise = _two(gain.score)
        sentence = (
            f"{self._counted(more).replace(' ', ' more ', 1)}:"
            f" {rise if rise.startswith('-') else f'+{rise}'} ({ends}) of {self.score_name}"
        )
        last = now + max(more, now)
        told = sorted({*self.sizes, now + more, last})
        step = max(1, (last - self.sizes[0]) // 40)
        drawn = sorted({*range(self.sizes[0], last, step), *told})
        expected = [line.predict(size) for size in drawn]
        return CurveReport(
            *(places.page, places.record, sentence, self.score_name, self.unit, now),
            held_out=len(self.parts.validation),
            more=more,
            gain=gain.score,
            gain_low=gain.low,
            gain_high=gain.high,
            fit=line.to_dict(),
            trainings=tuple(trainings),
            trainings_reused=0,
            expected=tuple(expected),
            seconds=0.0,
        )


def _two(number: float) -> str:
    text = f"{number:.2f}"
    return "0.00" if text == "-0.00" else text


def _contents(report: CurveReport, source: str, facts: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Say what the page shows."""
    told = {one.size for one in report.trainings} | {report.now + report.more}
    plain = report.to_dict()
    return {
        "title": f"Learning curve of {base_name(source)}",
        "sentence": report.sentence,
        "state": (
            f"{len(report.trainings)} trainings on up to {report.now} {report.unit}s, scored on the"
            f" same {report.held_out} held-out images; intervals are of 95 %, and the gain is that"
            " of the curve, the mean of many trainings."
        ),
        "score": "mean average precision (AP)" if report.score_name == "AP" else "mean Dice",
        "facts": [[name, str(value)] for name, value in facts],
        "warnings": plain["warnings"],
        "unit": report.unit,
        "now": report.now,
        "expected": [{**one, "told": one["size"] in told} for one in plain["expected"]],
        "trainings": plain["trainings"],
    }
