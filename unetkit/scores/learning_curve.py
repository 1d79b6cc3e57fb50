"""How a score grows with what is learned from: a power law, and what it says of more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import InputError
from unetkit.scores.bootstrap import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Measured learning curves have exponents from 0.07 to 0.5 on large data, more on small ones.
EXPONENTS = np.geomspace(0.05, 3, 60)
# Our choice: the ends of an interval of 95 % are then exact to a few percent of its width.
REPEATS = 4000
# A curve has three numbers.
FEWEST_SIZES = 3


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """Curves of the form ``top - drop * n ** -exponent``, each with 0 <= drop and top <= 1."""

    top: Floats  # shape (R,)
    drop: Floats
    exponent: Floats

    def at(self, size: float) -> Floats:
        """Return the score with so much to learn from, shape (R,)."""
        found: Floats = self.top - self.drop * size**-self.exponent
        return found


def fit_power_law(sizes: Floats, scores: Floats, weights: Floats) -> PowerLaw:
    """Fit a curve to each row of scores, with the least weighted squares.

    Parameters
    ----------
    sizes : ndarray of float, shape (N,)
        How much was learned from.
    scores : ndarray of float, shape (R, N)
        At most 1; a higher one is better.
    weights : ndarray of float, shape (N,)
        What each counts: one by its variance.

    Returns
    -------
    PowerLaw

    References
    ----------
    Hestness et al. (2017), Deep learning scaling is predictable, empirically, equation 1; Viering,
    Loog (2023), The shape of learning curves, section 4.1.
    """
    best = np.full(len(scores), np.inf)
    found = np.zeros((3, len(scores)))
    share = weights / weights.sum()
    for exponent in EXPONENTS:
        x = sizes**-exponent
        mean_x, mean_y = float(share @ x), scores @ share
        spread = float(share @ (x - mean_x) ** 2)
        slope = (scores - mean_y[:, None]) @ (share * (x - mean_x)) / spread
        drop = np.maximum(0, -slope)
        top = mean_y + drop * mean_x
        # Where nothing more than a perfect score is possible, it is the end of the curve.
        over = top > 1
        through_one = np.maximum(0, (1 - scores) @ (share * x) / float(share @ x**2))
        drop, top = np.where(over, through_one, drop), np.where(over, 1.0, top)
        error = ((scores - (top[:, None] - drop[:, None] * x)) ** 2) @ share
        better = error < best
        best = np.where(better, error, best)
        found = np.where(better, [top, drop, np.full(len(scores), exponent)], found)
    return PowerLaw(*found)


@dataclass(frozen=True)
class ScorePrediction:
    """What a score will be with so many images, and an interval of 95 %."""

    size: int
    score: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Scores of trainings on so many images each, and the curve through them.

    Parameters
    ----------
    sizes : sequence of int
        How many images each training had.
    scores : sequence of float
        What each reached; at most 1.
    seed : int
        Of the bootstrap.
    """

    sizes: Sequence[int]
    scores: Sequence[float]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.sizes)) < FEWEST_SIZES:
            raise InputError(
                f"a learning curve must have at least {FEWEST_SIZES} sizes, got"
                f" {len(set(self.sizes))}; add more annotated images"
            )

    @cached_property
    def _noise(self) -> Floats:
        """The standard deviation of a training's score at each size, shape (N,).

        Few trainings of one size tell little of their own spread, so that it is brought half way
        to that of all; a size with a single one takes that of all.
        """
        sizes, scores = np.array(self.sizes), np.array(self.scores, np.float64)
        groups = [np.flatnonzero(sizes == size) for size in set(self.sizes)]
        groups = [group for group in groups if len(group) > 1]
        if degrees := sum(len(group) - 1 for group in groups):
            pooled = sum(scores[g].var(ddof=1) * (len(g) - 1) for g in groups) / degrees
        else:
            even = fit_power_law(sizes.astype(float), scores[None], np.ones(len(scores)))
            rest = scores - np.array([even.at(size)[0] for size in self.sizes])
            pooled = float((rest**2).sum()) / max(1, len(scores) - FEWEST_SIZES)
        variance = np.full(len(scores), pooled)
        for group in groups:
            variance[group] = (scores[group].var(ddof=1) + pooled) / 2
        # Scores are told to a thousandth; what has no noise at all would weigh without bound.
        return np.asarray(np.sqrt(np.maximum(variance, 1e-6)))

    @cached_property
    def _weights(self) -> Floats:
        weights: Floats = 1 / self._noise**2
        return weights

    @cached_property
    def fitted(self) -> PowerLaw:
        """The curve."""
        sizes, scores = np.array(self.sizes, np.float64), np.array([self.scores], np.float64)
        return fit_power_law(sizes, scores, self._weights)

    @cached_property
    def _drawn(self) -> tuple[PowerLaw, Floats]:
        """Curves through scores as they might have been, and the noise of one more training.

        A parametric bootstrap; noise that is known from few trainings has the tails of Student's t.
        """
        generator = np.random.default_rng([self.seed, len(self.sizes)])
        sizes = np.array(self.sizes, np.float64)
        middle = np.array([self.fitted.at(size)[0] for size in self.sizes])
        degrees = max(1, len(self.sizes) - FEWEST_SIZES)
        scale = np.sqrt(degrees / generator.chisquare(degrees, REPEATS))[:, None]
        noise = generator.standard_normal((REPEATS, len(sizes))) * self._noise * scale
        curves = fit_power_law(sizes, np.minimum(middle + noise, 1), self._weights)
        largest = self._noise[int(np.argmax(sizes))]
        more: Floats = generator.standard_normal(REPEATS) * largest * scale[:, 0]
        return curves, more

    def predict(self, size: int) -> ScorePrediction:
        """Say what one training on so many images will reach, with an interval of 95 %."""
        curves, noise = self._drawn
        low, high = self._ends(np.minimum(curves.at(size) + noise, 1))
        return ScorePrediction(size, float(self.fitted.at(size)[0]), max(0.0, low), high)

    def gain(self, size: int) -> ScorePrediction:
        """Say by how much the curve rises from the largest size to another, with an interval.

        It is of the curve, the mean over trainings: one of them may be above it or below.
        """
        now = max(self.sizes)
        curves, _ = self._drawn
        low, high = self._ends(curves.at(size) - curves.at(now))
        score = float(self.fitted.at(size)[0] - self.fitted.at(now)[0])
        return ScorePrediction(size, score, min(low, score), max(high, score))

    @staticmethod
    def _ends(values: Floats) -> tuple[float, float]:
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Return the curve's numbers."""
        law = self.fitted
        return {name: float(getattr(law, name)[0]) for name in ("top", "drop", "exponent")}
