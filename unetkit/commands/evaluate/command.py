"""Score predictions against the truth: sample by sample, overall, with intervals, side by side."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from unetkit.commands.evaluate import object_errors
from unetkit.commands.evaluate.confidence import compare
from unetkit.commands.evaluate.counting import Runner
from unetkit.commands.evaluate.report import CompareReport, EvaluateReport, contents
from unetkit.commands.evaluate.scoring import EvaluateOptions, ScoredPrediction, score_prediction
from unetkit.commands.evaluate.sides import check_one, sides
from unetkit.progress import SILENT, Progress, collects_warnings
from unetkit.signals import stoppable
from unetkit.storage.atomic import write_text
from unetkit.storage.outputs import check_file, write_csv
from unetkit.views.page import BEGINS, page

if TYPE_CHECKING:
    from unetkit.options import (
        Axes,
        BreakLock,
        LabelName,
        Opt,
        SchedulerName,
        Seed,
        Workers,
    )


@collects_warnings
def evaluate(
    *stores: Annotated[str, Opt(check="unetkit.commands.evaluate.sides:check_sides")],
    truth: str | None = None,
    labels: LabelName = None,
    borders: bool = False,
    tolerance: Annotated[float, Opt(metavar="PX", min=0)] = 2.0,
    bootstrap: Annotated[int, Opt(min=0)] = 1000,
    seed: Seed = 0,
    objects: Annotated[
        str | None, Opt(panel="Output", check="unetkit.commands.evaluate.sides:check_one")
    ] = None,
    report: Annotated[
        str | None, Opt(panel="Output", check="unetkit.commands.evaluate.sides:check_one")
    ] = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_files")
    ] = False,
    resume: bool = False,
    break_lock: BreakLock = False,
    axes: Axes = None,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    progress: Progress = SILENT,
) -> EvaluateReport | CompareReport:
    """Compare predictions with the truth: pixels, objects, splits and merges.

    The truth's labels say what is compared: instance ids where it has them, else classes. Samples
    are matched by name; two sides of one sample each match whatever their names.

    Parameters
    ----------
    *stores : str
        A prediction and its truth; or predictions, with `truth`. Each is a labelled image or
        a labelled dataset.
    truth : str, optional
        A labelled image or dataset; all others are predictions of it then.
    labels : str, optional
        Which labels of the truth count, by name, or ``NAME=classes`` for class maps of other
        writers.
    borders : bool
        Also score outlines and thin borders; slower.
    tolerance : float
        How far outlines may lie apart for ``boundary_f``, in pixels.
    bootstrap : int
        Resamples of images for the intervals, which need five; of groups, where images have some.
    seed : int
        Same seed, same intervals.
    objects : str, optional
        Also write a CSV table of what became of every object.
    report : str, optional
        Also write an HTML page to look at: scores, pictures, the worst objects.
    overwrite : bool
        Replace an earlier result of unetkit.
    resume : bool
        Go on where a run stopped; what it counted is kept beside the prediction until the end.
    break_lock : bool
        Take the result over from another job that is known to be dead.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    scheduler : str
        Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH.
    workers : int, optional
        How many work at once.
    progress : Progress
        Told of each block.

    Returns
    -------
    EvaluateReport, or CompareReport for several predictions

    Raises
    ------
    UsageError
        If there is nothing to compare, or files are asked for of several predictions.
    OutputError
        If such a file is there already, or what is to be resumed is of other data or settings.
    StoppedError
        If a signal came.
    InputError
        If there are no labels to compare, a labelled sample of the truth has no prediction, or
        sizes or kinds of labels do not match.
    """
    predictions, against = sides(stores, truth)
    check_one(objects or report, stores=stores, truth=truth)
    _check_files(objects, report, overwrite=overwrite)
    options = EvaluateOptions(
        borders=borders,
        tolerance=tolerance,
        bootstrap=bootstrap,
        seed=seed,
        axes=axes,
        labels=labels,
        resume=resume,
        break_lock=break_lock,
        runner=Runner(scheduler, workers, progress),
    )
    with stoppable() as stop, ExitStack() as stack:
        done = [
            score_prediction(prediction, against, options, stop=stop, stack=stack)
            for prediction in predictions
        ]
        if len(done) == 1:
            _write_files(done[0], objects=objects, report=report)
            return done[0].report
        named = [(one.report.prediction, one.units) for one in done]
        return CompareReport(
            truth=against,
            reports=tuple(one.report for one in done),
            comparisons=compare(named, resamples=bootstrap, seed=seed),
            reason=done[0].units.reason,
        )


def _check_files(objects: str | None, report: str | None, *, overwrite: bool) -> None:
    """Make sure that files that were asked for can be written, before any work."""
    wanted = ((objects, ",".join(object_errors.BEGINS)), (report, BEGINS))
    for path, begins in wanted:
        if path is not None:
            check_file(path, overwrite=overwrite, begins=begins)


def _write_files(done: ScoredPrediction, *, objects: str | None, report: str | None) -> None:
    """Write the table of objects and the page, where they were asked for."""
    if objects is None and report is None:
        return
    matched, found = done.matched, []
    if matched.kind == "instances":
        found = object_errors.find_objects(
            matched.pairs, done.tables, done.runner, classes=matched.object_classes
        )
    if objects is not None:
        classed = bool(matched.object_classes)
        more = object_errors.CLASS_COLUMNS if classed else ()
        rows = (one.row(classed=classed) for one in found)
        write_csv(objects, (*object_errors.COLUMNS, *more), rows)
    if report is not None:
        write_text(report, page(contents(done.report, matched.pairs, found)))
