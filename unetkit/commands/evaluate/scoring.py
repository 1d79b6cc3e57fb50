"""Score one prediction against the truth: tables, borders, curves, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.evaluate.cached_counts import cached_counts
from unetkit.commands.evaluate.confidence import confidence_intervals, units_of
from unetkit.commands.evaluate.counting import Runner, border_sums, count, count_borders, sweep
from unetkit.commands.evaluate.report import EvaluateReport, undefined_reasons
from unetkit.commands.evaluate.samples import match_samples, probability_map
from unetkit.progress import WarningCollector, warn
from unetkit.scores import table, threshold_curve
from unetkit.scores.contingency import apart, pool
from unetkit.scores.matching import errors, overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from unetkit.commands.evaluate.confidence import Units
    from unetkit.commands.evaluate.counting import Borders, Counted
    from unetkit.commands.evaluate.samples import MatchedSamples
    from unetkit.progress import Progress
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.table import ClassifiedUnit, Scores
    from unetkit.signals import Stop


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What was asked for, as `evaluate` takes it."""

    borders: bool = False
    tolerance: float = 2.0
    bootstrap: int = 1000
    seed: int = 0
    axes: str | None = None
    labels: str | None = None
    resume: bool = False
    break_lock: bool = False
    runner: Runner = field(default_factory=Runner)


@dataclass(frozen=True, eq=False)
class ScoredPrediction:
    """One prediction scored, and what its files and comparisons are made of."""

    report: EvaluateReport
    units: Units
    matched: MatchedSamples
    tables: list[Contingency]  # one a sample
    runner: Runner


def score_prediction(
    prediction: str, truth: str, options: EvaluateOptions, *, stop: Stop, stack: ExitStack
) -> ScoredPrediction:
    """Score one prediction; until the end of `stack` the results of blocks are kept."""
    # What is warned of here is of this prediction, one of several.
    progress = WarningCollector(options.runner.progress)
    matched = match_samples(
        prediction, truth, axes=options.axes, labels=options.labels, progress=progress
    )
    if all("prediction" in true.image.attributes for _, true in matched.pairs):
        warn(
            progress,
            f"{truth} was taken for the truth, but is a prediction; the prediction stands first.",
        )
    _pass_on(matched, progress)
    kept = stack.enter_context(
        cached_counts(
            prediction,
            matched,
            resume=options.resume,
            break_lock=options.break_lock,
            stop=stop,
            progress=progress,
        )
    )
    runner = replace(options.runner, run=kept.run)
    counted = count(matched.pairs, matched.kind, runner)
    tables = [one.table for one in counted]
    if matched.kind == "instances" and (told := _too_small(matched, tables)):
        progress.note(told)
    thin = matched.kind == "instances" or _is_two(matched, tables)
    borders = (
        count_borders(matched.pairs, matched.kind, runner, thin=thin) if options.borders else []
    )
    classified = _classified(matched, tables)
    units = units_of(
        tables,
        matched.kind,
        borders=borders,
        tolerance=options.tolerance,
        groups=matched.groups,
        classified=classified,
        classes=len(matched.object_names),
    )
    overall, samples, groups = _scores(
        matched, tables, borders, classified, tolerance=options.tolerance
    )
    maps = sum(one.chances is not None for one in counted)
    report = EvaluateReport(
        prediction=prediction,
        truth=truth,
        kind=matched.kind,
        overall=overall,
        mean=table.mean(list(samples.values())),
        samples=samples,
        groups=groups,
        certainty=confidence_intervals(units, resamples=options.bootstrap, seed=options.seed),
        reasons=undefined_reasons(
            matched.pairs, matched.kind, borders=options.borders, thin=thin, maps=maps
        ),
        sweep=tuple(sweep(borders)),
        curve=tuple(_curve(matched, counted)),
        unlabelled=matched.unlabelled,
        unpaired=matched.unpaired,
        tiles_total=kept.total,
        tiles_reused=kept.reused,
        warnings=progress.warnings,
    )
    return ScoredPrediction(report, units, matched, tables, runner)


def _pass_on(matched: MatchedSamples, progress: Progress) -> None:
    """Say what was warned of when the predictions were made."""
    told = [ours.image.attributes.get("prediction") for ours, _ in matched.pairs]
    kept = [text for one in told if isinstance(one, dict) for text in one.get("warnings", ())]
    texts = [f"When it was predicted: {text}" for text in dict.fromkeys(kept)]
    if texts:
        more = f" (and {len(texts) - 1} more warnings)" if texts[1:] else ""
        warn(progress, *texts, note=f"{texts[0]}{more}")


def _too_small(matched: MatchedSamples, tables: Sequence[Contingency]) -> str | None:
    """Say where most of what was not found is smaller than anything that the prediction keeps."""
    least, small, missed = 0, 0, 0
    for (ours, _), one in zip(matched.pairs, tables, strict=True):
        told = ours.image.attributes.get("prediction")
        size = told.get("min_size") if isinstance(told, dict) else None
        if not isinstance(size, int) or size < 1:
            continue
        pairs = overlaps(one)
        lost = pairs.true.sizes[errors(pairs)[0].kinds == "miss"]
        small += int(np.count_nonzero(lost < size))
        missed, least = missed + len(lost), max(least, size)
    if 2 * small <= missed:
        return None
    return (
        f"{small:,} of the {missed:,} missed objects have fewer pixels than the prediction's"
        f" least size, {least}: 'unetkit tile-predict --min-size' with fewer may find them, and"
        " more specks."
    )


def _scores(
    matched: MatchedSamples,
    tables: Sequence[Contingency],
    borders: Sequence[Borders],
    classified: Sequence[ClassifiedUnit],
    *,
    tolerance: float,
) -> tuple[Scores, dict[str, Scores], dict[str, Scores]]:
    """Score all samples as one, each by its name in the truth, and those of each group as one."""

    def score(numbers: Sequence[int]) -> Scores:
        part = tables[numbers[0]] if len(numbers) == 1 else pool(tables[n] for n in numbers)
        own = [borders[n] for n in numbers if borders]
        if matched.kind == "classes":
            scores = table.score_classes(part, matched.class_names)
        else:
            scores = table.score_instances(part)
        sums = border_sums(own, matched.kind, tolerance=tolerance) if own else {}
        values: dict[str, Any] = {name: one.overall() for name, one in sums.items()}
        if classified:
            parts = apart(classified[n].table for n in numbers)
            units = [replace(classified[n], table=t) for n, t in zip(numbers, parts, strict=True)]
            values |= table.score_object_classes(units, matched.object_names)
        return replace(scores, **values)

    samples = {true.name: score([n]) for n, (_, true) in enumerate(matched.pairs)}
    members: dict[str, list[int]] = {}
    for number, group in enumerate(matched.groups):
        members.setdefault(group, []).append(number)
    groups = {group: score(numbers) for group, numbers in members.items()}
    return score(range(len(tables))), samples, groups


def _classified(
    matched: MatchedSamples, tables: Sequence[Contingency]
) -> list[table.ClassifiedUnit]:
    """Look up the class of each label of each sample, where objects have classes."""
    if not matched.object_classes:
        return []
    return [
        table.ClassifiedUnit(one, wanted.of(one.true), found.of(one.pred))
        for one, (found, wanted) in zip(tables, matched.object_classes, strict=True)
    ]


def _curve(matched: MatchedSamples, counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """Score the probability maps of all samples as one, label by label and threshold by threshold.

    Empty where not every sample has a map of the same labels.
    """
    maps = [probability_map(predicted.image, matched.kind) for predicted, _ in matched.pairs]
    first = maps[0]
    if first is None or any(one is None or one.labels != first.labels for one in maps):
        return []
    total = np.sum([one.chances for one in counted if one.chances is not None], axis=0)
    return [
        {"label": label, "name": name, **row}
        for label, name, counts in zip(first.labels, first.names, total, strict=True)
        for row in threshold_curve.curve(counts)
    ]


def _is_two(matched: MatchedSamples, tables: Sequence[Contingency]) -> bool:
    """Whether class maps know cells and borders alone, as those of the ISBI challenge do."""
    highest = [max(one.true.max(initial=0), one.pred.max(initial=0)) for one in tables]
    return max(len(matched.class_names) - 1, *map(int, highest)) == 1
