"""Score one prediction against the truth: tables, borders, curves, and how sure they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import chances, contingency, scores
from unetkit.arrays.squares import squares_of
from unetkit.pipeline.evaluate_blocks import count
from unetkit.pipeline.evaluate_borders import count_borders, scores_of, sweep
from unetkit.pipeline.evaluate_kept import keep
from unetkit.pipeline.evaluate_maps import map_of
from unetkit.pipeline.evaluate_pairs import match_samples
from unetkit.pipeline.evaluate_reasons import facts_of
from unetkit.pipeline.evaluate_reports import EvaluateReport
from unetkit.pipeline.evaluate_sure import certainty_of, units_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from unetkit.arrays.contingency import Contingency
    from unetkit.arrays.scores import Scores
    from unetkit.arrays.squares import Squares
    from unetkit.engine.signals import Stop
    from unetkit.pipeline.evaluate_blocks import Counted
    from unetkit.pipeline.evaluate_borders import Borders
    from unetkit.pipeline.evaluate_pairs import Matched
    from unetkit.pipeline.evaluate_sure import Units

Work = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """What was asked for, as `evaluate` takes it."""

    borders: bool
    tolerance: float
    bootstrap: int
    seed: int
    axes: str | None
    resume: bool
    break_lock: bool


@dataclass(frozen=True, eq=False)
class Done:
    """One prediction scored, and what its files and comparisons are made of."""

    report: EvaluateReport
    units: Units
    matched: Matched
    tables: list[Contingency]
    work: Work


def score_side(
    prediction: str, truth: str, wishes: Wishes, *, work: Work, stop: Stop, stack: ExitStack
) -> Done:
    """Score one prediction.

    Parameters
    ----------
    prediction, truth : str
    wishes : Wishes
    work : dict
        `scheduler`, `workers`, `progress`.
    stop : Stop
        Asked after each block.
    stack : ExitStack
        Until its end the results of blocks are kept.

    Returns
    -------
    Done
    """
    matched = match_samples(prediction, truth, axes=wishes.axes, progress=work["progress"])
    _notice_swapped(matched, truth, work)
    alone = matched.pairs[0][1].image.labels[matched.kind] if len(matched.pairs) == 1 else None
    squares = None if alone is None else squares_of(alone.height, alone.width)
    kept = stack.enter_context(
        keep(
            prediction,
            matched,
            settings={"squares": None if squares is None else asdict(squares)},
            resume=wishes.resume,
            break_lock=wishes.break_lock,
            stop=stop,
            progress=work["progress"],
        )
    )
    work = {**work, "run": kept.run}
    counted = count(matched.pairs, matched.kind, squares=squares, **work)
    thin = matched.kind == "instances" or _is_two(matched, counted)
    lines = (
        count_borders(matched.pairs, matched.kind, thin=thin, squares=squares, **work)
        if wishes.borders
        else []
    )
    report, units = _report(
        (prediction, truth),
        matched,
        wishes,
        counted=counted,
        lines=lines,
        squares=squares,
        thin=thin,
    )
    report = replace(report, tiles_total=kept.total, tiles_reused=kept.reused)
    return Done(report, units, matched, [one.table.joined() for one in counted], work)


def _report(
    sides: tuple[str, str],
    matched: Matched,
    wishes: Wishes,
    *,
    counted: Sequence[Counted],
    lines: Sequence[Borders],
    squares: Squares | None,
    thin: bool,
) -> tuple[EvaluateReport, Units]:
    """Work the scores out."""
    joined = [one.table.joined() for one in counted]
    each = [_score(table, matched) for table in joined]
    overall = _score(contingency.pool(joined), matched)
    if lines:
        each = [
            replace(one, **scores_of(line, tolerance=wishes.tolerance))
            for one, line in zip(each, lines, strict=True)
        ]
        overall = replace(overall, **scores_of(lines, tolerance=wishes.tolerance))
    units = units_of(
        [one.table for one in counted],
        matched.kind,
        squares=squares,
        borders=lines,
        tolerance=wishes.tolerance,
    )
    maps = sum(one.chances is not None for one in counted)
    names = [theirs.name for _, theirs in matched.pairs]
    report = EvaluateReport(
        prediction=sides[0],
        truth=sides[1],
        kind=matched.kind,
        overall=overall,
        mean=scores.mean(each),
        samples=dict(zip(names, each, strict=True)),
        certainty=certainty_of(units, resamples=wishes.bootstrap, seed=wishes.seed),
        facts=facts_of(matched.pairs, matched.kind, borders=wishes.borders, thin=thin, maps=maps),
        sweep=tuple(sweep(lines)),
        curve=tuple(_curve(matched, counted)),
        unlabelled=matched.unlabelled,
        unpaired=matched.unpaired,
    )
    return report, units


def _curve(matched: Matched, counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """Score the probability maps of all samples as one, label by label and threshold by threshold.

    Empty where not every sample has a map of the same labels.
    """
    maps = [map_of(ours.image, matched.kind) for ours, _ in matched.pairs]
    first = maps[0]
    if first is None or any(one is None or one.labels != first.labels for one in maps):
        return []
    total = np.sum([one.chances for one in counted if one.chances is not None], axis=0)
    return [
        {"label": label, "name": name, **row}
        for label, name, counts in zip(first.labels, first.names, total, strict=True)
        for row in chances.curve(counts)
    ]


def _notice_swapped(matched: Matched, truth: str, work: Work) -> None:
    if all("prediction" in theirs.image.attributes for _, theirs in matched.pairs):
        work["progress"].note(
            f"{truth} was taken for the truth, but is a prediction; the prediction stands first."
        )


def _is_two(matched: Matched, counted: Sequence[Counted]) -> bool:
    """Whether class maps know cells and borders alone, as those of the ISBI challenge do."""
    highest = [max(c.table.true.max(initial=0), c.table.pred.max(initial=0)) for c in counted]
    return max(len(matched.class_names) - 1, *map(int, highest)) == 1


def _score(table: Contingency, matched: Matched) -> Scores:
    if matched.kind == "classes":
        return scores.score_classes(table, matched.class_names)
    return scores.score_instances(table)
