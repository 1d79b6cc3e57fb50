"""How sure scores are: bootstrap and exact intervals, paired tests, Holm's correction for several.

What this module does not know: what the units are. Everything drawn follows from the seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from unetkit.scores.formulas import count
from unetkit.scores.sums import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.scores.sums import Sums

Array = np.ndarray[Any, Any]

LEVEL = 0.95
# With fewer images or groups resampling says little; our own choice.
LEAST_UNITS = 5
# Exchanges of two predictions: all of them up to 2^13, else so many at random.
EXCHANGES = 9999
_MOST_UNITS_FOR_ALL = 13
_ROWS_AT_A_TIME = 256


def too_few(unit: str, count: int) -> str:
    """Say why there is no interval of so many images or groups.

    >>> too_few("image", 3)
    'intervals need 5 images or more, got 3'
    """
    return f"intervals need {LEAST_UNITS} {unit}s or more, got {count}"


def interval(sums: Sums, *, resamples: int, seed: int) -> tuple[float, float] | None:
    """Find a 95 % interval of a score of all images of which these are a sample, by resampling.

    Percentiles of few units are too narrow, by the factor that Student's t is wider than the
    normal and by the root of n / (n - 1): they are taken as much farther out. A count is also as
    uncertain as one of rare events, so that none of them in few images isn't taken for never.

    Parameters
    ----------
    sums : Sums
        Of the score, by unit.
    resamples : int
        How many times as many units are drawn, with replacement.
    seed : int

    Returns
    -------
    tuple of float, or None
        None where the score applies to no resample, and where all are alike: how far images
        differ was not seen.

    References
    ----------
    Hesterberg (2015), The American Statistician 69:371, expanded percentiles.
    Garwood (1936), Biometrika 28:437, rare events.
    """
    drawn = _resampled(sums, resamples=resamples, seed=seed)
    found = _middle(drawn, len(sums.by_unit))
    if sums.formula is not count or not len(drawn):
        return found
    seen = float(sums.by_unit.sum())
    edge = (1 - LEVEL) / 2
    low = special.chdtri(2 * seen, 1 - edge) / 2 if seen else 0.0
    high = special.chdtri(2 * seen + 2, edge) / 2
    return min([low, *(found or ())]), max([high, *(found or ())])


def share_interval(seen: int, *, drawn: int, total: int) -> tuple[float, float]:
    """Find an exact 95 % interval of the share of marked objects among all from which some came.

    The numbers of marked objects among all that make what was seen no rarer than 2.5 % on either
    side. They are drawn without replacement, so that the tails are hypergeometric: with many more
    objects than were drawn the interval is that of Clopper and Pearson, with all of them drawn it
    has no width.

    Parameters
    ----------
    seen : int
        Marked objects among those drawn.
    drawn : int
        How many were drawn, at least one.
    total : int
        How many there are.

    Returns
    -------
    tuple of float

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26:404; Buonaccorsi (1987), The American Statistician
    41:215, finite populations.

    Examples
    --------
    >>> share_interval(3, drawn=4, total=4)
    (0.75, 0.75)
    >>> low, high = share_interval(9, drawn=10, total=10**9)
    >>> f"{low:.4f} to {high:.4f}"
    '0.5550 to 0.9975'
    """
    least = _least_marked(seen, drawn=drawn, total=total)
    most = total - _least_marked(drawn - seen, drawn=drawn, total=total)
    return least / total, most / total


def _least_marked(seen: int, *, drawn: int, total: int) -> int:
    """Find how few of all may be marked for as many or more to be seen in over 2.5 % of draws."""
    more = np.arange(seen, drawn + 1)
    low, high = seen, total - (drawn - seen)
    while low < high:
        marked = (low + high) // 2
        there = more[(more <= marked) & (drawn - more <= total - marked)]
        ways = _log_choices(marked, there) + _log_choices(total - marked, drawn - there)
        tail = np.exp(ways - _log_choices(total, np.array(drawn))).sum()
        low, high = (low, marked) if tail > (1 - LEVEL) / 2 else (marked + 1, high)
    return low


def _log_choices(total: int, drawn: Array) -> Array:
    """Count the choices of some of all, as a logarithm."""
    found: Array = -np.log1p(total) - special.betaln(total - drawn + 1.0, drawn + 1.0)
    return found


def difference_interval(
    first: Sums, second: Sums, *, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Find a 95 % interval of the difference of a score between two predictions of the same units.

    Parameters
    ----------
    first, second : Sums
    resamples, seed
        As for `interval`; both predictions are resampled alike.
    """
    drawn = [_resampled(side, resamples=resamples, seed=seed) for side in (first, second)]
    return _middle(drawn[0] - drawn[1], len(first.by_unit))


def permutation_test(first: Sums, second: Sums, *, seed: int) -> float | None:
    """Test whether two predictions of the same units differ in a score.

    If they did not, either could stand for the other in any unit: the p-value is the share of such
    exchanges that make the scores differ at least as much.

    Returns
    -------
    float or None
        Two-sided; of all exchanges up to 13 units, else of 9,999 at random and the one that was
        observed. None where a score does not apply.

    References
    ----------
    Good (2005), Permutation, Parametric and Bootstrap Tests of Hypotheses, chapter 3.
    """
    first, second = aligned(first, second)
    one, other = first.by_unit, second.by_unit
    units = len(one)
    observed = float(first.of(one.sum(0)) - second.of(other.sum(0)))
    if not np.isfinite(observed):
        return None
    if units <= _MOST_UNITS_FOR_ALL:
        swapped = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
    else:
        swapped = np.random.default_rng(seed).integers(0, 2, size=(EXCHANGES, units))
    at_least_as_large = 0
    for start in range(0, len(swapped), _ROWS_AT_A_TIME):
        moved = swapped[start : start + _ROWS_AT_A_TIME] @ (other - one)
        found = first.of(one.sum(0) + moved) - second.of(other.sum(0) - moved)
        at_least_as_large += int((np.abs(found) >= abs(observed) - 1e-12).sum())
    if units <= _MOST_UNITS_FOR_ALL:
        return at_least_as_large / len(swapped)
    return (at_least_as_large + 1) / (EXCHANGES + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of several tests so that one false finding among all stays rare.

    Parameters
    ----------
    p_values : sequence of float or None
        None stands for a test that could not be made, and does not count.

    Returns
    -------
    list of float or None
        In the same order.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6:65.

    Examples
    --------
    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    made = sorted((p, n) for n, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p))
        corrected[place] = largest
    return corrected


def _resampled(sums: Sums, *, resamples: int, seed: int) -> Array:
    """Work out the score of each choice of as many units, drawn with replacement."""
    units = len(sums.by_unit)
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _ROWS_AT_A_TIME):
        rows = min(_ROWS_AT_A_TIME, resamples - start)
        times = rng.multinomial(units, np.full(units, 1 / units), size=rows)
        found.append(sums.of(times @ sums.by_unit))
    return np.concatenate(found) if found else np.empty(0)


def _middle(values: Array, units: int) -> tuple[float, float] | None:
    """Give the middle 95 % of the values that are there, widened for few units."""
    there = values[np.isfinite(values)]
    if not len(there) or there.min() == there.max():
        return None
    far = np.sqrt(units / (units - 1)) * special.stdtrit(units - 1, (1 - LEVEL) / 2)
    edge = 100 * special.ndtr(far)
    low, high = np.percentile(there, [edge, 100 - edge])
    return float(low), float(high)
