"""How sure the scores of an evaluation are, and whether two predictions differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from unetkit.commands.evaluate.counting import border_sums
from unetkit.scores import bootstrap, contingency
from unetkit.scores.table import (
    SCORES_BY_NAME,
    class_sums,
    instance_sums,
    mpq_sums,
    object_class_columns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.counting import Borders
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.sums import Sums
    from unetkit.scores.table import ClassifiedUnit, ScoreSums


@dataclass(frozen=True)
class ConfidenceIntervals:
    """Intervals of the overall scores."""

    unit: str | None  # what was resampled: `image` or `group`, if anything could be
    units: int
    resamples: int
    seed: int
    level: float  # the share of resampled scores that an interval holds
    intervals: dict[str, tuple[float, float] | None]  # by score, of those that are there
    reason: str | None  # why there are none

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        found = {n: None if i is None else list(i) for n, i in self.intervals.items()}
        return asdict(self) | {"intervals": found}


@dataclass(frozen=True)
class Comparison:
    """One score of two predictions, compared unit by unit."""

    score: str
    first: str
    second: str
    difference: float | None  # the first's less the second's
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None  # corrected for all pairs of predictions by Holm's method


@dataclass(frozen=True, eq=False)
class Units:
    """The sums of one prediction, unit by unit; None where there are too few."""

    sums: ScoreSums | None
    count: int
    reason: str | None
    unit: str = "image"


def units_of(
    tables: Sequence[Contingency],
    kind: str,
    *,
    borders: Sequence[Borders] = (),
    tolerance: float = 2.0,
    groups: Sequence[str] = (),
    classified: Sequence[ClassifiedUnit] = (),
    classes: int = 0,
) -> Units:
    """Take the sums of an evaluation by image, or by group where groups are given.

    Tables, borders, groups and what is classified, by so many classes, are one a sample. Places
    of one image are alike and say little of another, so that there is no interval of one slide; so
    are images of one animal.
    """
    unit, count = ("group", len(set(groups))) if groups else ("image", len(tables))
    if count < bootstrap.LEAST_UNITS:
        return Units(None, count, bootstrap.too_few(unit, count), unit)
    units = contingency.apart(tables)
    found = class_sums(units) if kind == "classes" else instance_sums(units)
    found = {name: sums for name, sums in found.items() if SCORES_BY_NAME[name].best is not None}
    if classified:
        parts = zip(units, classified, strict=True)
        own = [replace(one, table=unit) for unit, one in parts]
        found["mpq"] = mpq_sums(object_class_columns(own, classes))
    if borders:
        found |= border_sums(borders, kind, tolerance=tolerance)
    if groups:
        found = {name: sums.grouped(groups) for name, sums in found.items()}
    return Units(found, count, None, unit)


def confidence_intervals(units: Units, *, resamples: int, seed: int) -> ConfidenceIntervals:
    """Draw the intervals of every score that has sums; 0 resamples draw none."""
    return ConfidenceIntervals(
        unit=None if units.sums is None else units.unit,
        units=units.count,
        resamples=resamples,
        seed=seed,
        level=bootstrap.LEVEL,
        intervals={
            # A score that is not there has no interval, even if most resamples have one.
            name: None
            if sums.overall() is None
            else bootstrap.interval(sums, resamples=resamples, seed=seed)
            for name, sums in (units.sums or {}).items()
            if resamples
        },
        reason=units.reason if resamples else "no resamples were asked for",
    )


def compare(
    named: Sequence[tuple[str, Units]], *, resamples: int, seed: int
) -> tuple[Comparison, ...]:
    """Compare every two named predictions in every score that all have sums of."""
    if any(units.sums is None for _, units in named):
        return ()
    every = [(name, units.sums or {}) for name, units in named]
    rows: list[Comparison] = []
    for score in every[0][1]:
        if any(score not in sums for _, sums in every):
            continue
        found = [
            _compare(score, *pair, resamples=resamples, seed=seed)
            for pair in combinations([(name, sums[score]) for name, sums in every], 2)
        ]
        corrected = bootstrap.holm([row["p"] for row in found])
        rows += [Comparison(**row, p_holm=p) for row, p in zip(found, corrected, strict=True)]
    return tuple(rows)


def _compare(
    score: str, one: tuple[str, Sums], other: tuple[str, Sums], *, resamples: int, seed: int
) -> dict[str, Any]:
    (first_name, first), (second_name, second) = one, other
    value, other_value = first.overall(), second.overall()
    interval = None
    if resamples:
        interval = bootstrap.difference_interval(first, second, resamples=resamples, seed=seed)
    return {
        "score": score,
        "first": first_name,
        "second": second_name,
        "difference": None if value is None or other_value is None else value - other_value,
        "interval": interval,
        "p": bootstrap.permutation_test(first, second, seed=seed),
    }
