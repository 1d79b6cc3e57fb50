"""How sure the scores of an evaluation are, and whether two predictions differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from unetkit.commands.evaluate import counting
from unetkit.scores import bootstrap, contingency, sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.counting import Borders
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.sums import Shares
    from unetkit.scores.units import Squares

# With fewer images resampling says little; our own choice.
LEAST_IMAGES = 5


@dataclass(frozen=True)
class Certainty:
    """Intervals of the overall scores.

    Attributes
    ----------
    unit : str or None
        What was resampled, `image` or `square` of one image; None where nothing could be.
    units : int
        How many there are.
    square : int or None
        The side of a square in pixels.
    resamples, seed : int
    level : float
        The share of resampled scores that an interval holds.
    intervals : dict of str to (float, float) or None
        By score. A score that is not there has none.
    reason : str or None
        Why there are no intervals.
    """

    unit: str | None
    units: int
    square: int | None
    resamples: int
    seed: int
    level: float
    intervals: dict[str, tuple[float, float] | None]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        found = {n: None if i is None else list(i) for n, i in self.intervals.items()}
        return asdict(self) | {"intervals": found}


@dataclass(frozen=True)
class Comparison:
    """One score of two predictions, compared unit by unit.

    Attributes
    ----------
    score, first, second : str
        Which score of which predictions.
    difference : float or None
        The first's less the second's.
    interval : (float, float) or None
        Of the difference.
    p, p_holm : float or None
        Of the exchange test; corrected for all pairs of predictions by Holm's method.
    """

    score: str
    first: str
    second: str
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, eq=False)
class Units:
    """The sums of one prediction, unit by unit; None where there are too few."""

    shares: Shares | None
    unit: str | None
    count: int
    square: int | None
    reason: str | None


def units_of(
    tables: Sequence[Contingency],
    kind: str,
    *,
    squares: Squares | None,
    borders: Sequence[Borders] = (),
    tolerance: float = 2.0,
) -> Units:
    """Take the sums of an evaluation, by image, or by square of a single image.

    Parameters
    ----------
    tables : sequence of Contingency
        One a sample; of a single one its squares stand side by side.
    kind : str
        Which labels.
    squares : Squares or None
        What a single image is cut into, if it is.
    borders : sequence of Borders
        One a sample, where they were asked for.
    tolerance : float
        Of `boundary_f`, in pixels.

    Returns
    -------
    Units
    """
    if len(tables) == 1 and squares is None:
        return Units(
            None, None, 1, None, "one image of fewer than 16 squares of 128 pixels says nothing"
        )
    if 1 < len(tables) < LEAST_IMAGES:
        reason = f"intervals need {LEAST_IMAGES} images or more, got {len(tables)}"
        return Units(None, None, len(tables), None, reason)
    alone = len(tables) == 1
    table = tables[0] if alone else contingency.pool(tables)
    found = (
        sums.of_classes(table) if kind == "classes" else sums.of_instances(table, one_image=alone)
    )
    if borders:
        found |= counting.sums_of(borders, tolerance=tolerance, parted=alone)
    side = None if squares is None else squares.side
    return Units(found, "square" if alone else "image", table.images, side, None)


def certainty_of(units: Units, *, resamples: int, seed: int) -> Certainty:
    """Draw the intervals of every score that has sums.

    Parameters
    ----------
    units : Units
    resamples : int
        0 draws none.
    seed : int

    Returns
    -------
    Certainty
    """
    found = {
        name: bootstrap.interval(part, resamples=resamples, seed=seed)
        for name, part in (units.shares or {}).items()
        if resamples
    }
    return Certainty(
        unit=units.unit,
        units=units.count,
        square=units.square,
        resamples=resamples,
        seed=seed,
        level=bootstrap.LEVEL,
        intervals=found,
        reason=units.reason if resamples else "no resamples were asked for",
    )


def compare(
    named: Sequence[tuple[str, Units]], *, resamples: int, seed: int
) -> tuple[Comparison, ...]:
    """Compare every two predictions in every score that has sums.

    Parameters
    ----------
    named : sequence of (str, Units)
        Predictions of the same truth.
    resamples, seed : int

    Returns
    -------
    tuple of Comparison
        Empty where there are too few units.
    """
    if any(units.shares is None for _, units in named):
        return ()
    everyone = [units.shares or {} for _, units in named]
    rows: list[Comparison] = []
    for score in everyone[0]:
        if any(score not in own for own in everyone):
            continue
        found = [
            _compare(score, one, other, resamples=resamples, seed=seed)
            for one, other in combinations(named, 2)
        ]
        corrected = bootstrap.holm([row["p"] for row in found])
        rows += [Comparison(**row, p_holm=p) for row, p in zip(found, corrected, strict=True)]
    return tuple(rows)


def _compare(
    score: str, one: tuple[str, Units], other: tuple[str, Units], *, resamples: int, seed: int
) -> dict[str, Any]:
    ours, theirs = ((units.shares or {})[score] for _, units in (one, other))
    p = bootstrap.exchange_test(ours, theirs, seed=seed)
    first, second = ours.overall(), theirs.overall()
    return {
        "score": score,
        "first": one[0],
        "second": other[0],
        "difference": None if first is None or second is None else first - second,
        "interval": (
            bootstrap.difference_interval(ours, theirs, resamples=resamples, seed=seed)
            if resamples
            else None
        ),
        "p": p,
    }
