"""What a training that begun with a model did to its scores, on old and on new held-out images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.commands.train.mixing import SIDES
from unetkit.errors import CheckError
from unetkit.models.decision import default_decision
from unetkit.scores.bootstrap import difference_interval, interval
from unetkit.scores.sums import Sums
from unetkit.training.tuning import score_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unetkit.commands.train.mixing import Mix
    from unetkit.models.decision import Decision
    from unetkit.training.tuning import HeldOutMap

Array = np.ndarray[Any, Any]
RESAMPLES = 2000


@dataclass(frozen=True)
class SideScore:
    """The score of one side's held-out images, before and after."""

    side: str  # old or new
    data: str  # the dataset
    images: int  # planes of held-out images
    score: float  # of the network that is kept
    before: float | None  # of the model that it began with; None where that says something else
    interval: tuple[float, float] | None = None  # 95 %, of the score
    before_interval: tuple[float, float] | None = None  # of the score before
    change_interval: tuple[float, float] | None = None  # of the difference, image by image
    objects: int | None = None  # that are to be found; None of class maps

    @property
    def change(self) -> float | None:
        """How much higher it is than before."""
        return None if self.before is None else self.score - self.before

    @property
    def fell(self) -> bool:
        """Whether it is lower than before by more than images differ."""
        return self.change_interval is not None and self.change_interval[1] < 0

    def sentence(self, name: str) -> str:
        """Say it; `name` is what the score is called."""
        told = f"{self.data}, held out: {name} {self.score:.3f}"
        if self.objects is not None:
            told += f" on {self.objects} object{'s' * (self.objects != 1)}"
        if self.before is None or self.change is None:
            return f"{told}."
        if self.score == self.before:
            return f"{told}, as before."
        told += f", {self.before:.3f} before"
        if self.change_interval is None:
            return f"{told} ({self.change:+.3f}; too few places to tell it from chance)."
        low, high = self.change_interval
        return f"{told} ({self.change:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})."

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {**asdict(self), "change": self.change, "fell": self.fell}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}


@dataclass(frozen=True)
class Comparison:
    """The scores of both sides."""

    score_name: str
    sides: tuple[SideScore, ...]

    @property
    def old(self) -> SideScore:
        """What was known before."""
        return next(side for side in self.sides if side.side == SIDES[0])

    @property
    def sentences(self) -> list[str]:
        """Say each side."""
        return [side.sentence(self.score_name) for side in self.sides]

    @property
    def warning(self) -> str | None:
        """Say that something was unlearned, if it was."""
        if not self.old.fell:
            return None
        return (
            f"The network has unlearned: on what is held out of {self.old.data} its"
            f" {self.score_name} fell beyond its interval, from {self.old.before:.3f} to"
            f" {self.old.score:.3f}."
        )

    def check(self) -> None:
        """Refuse a network that has unlearned."""
        if not self.old.fell:
            return
        low, high = self.old.change_interval or (0.0, 0.0)
        raise CheckError(
            f"the score of {self.old.data} must not fall beyond its interval with --keep-old, got"
            f" {self.score_name} {self.old.score:.3f} after {self.old.before:.3f} (95 % interval of"
            f" the change {low:+.3f} to {high:+.3f}); use a lower --mix, or give the same command"
            " with --resume, without --keep-old, and it is published all the same"
        )

    def by_dataset(self) -> list[dict[str, Any]]:
        """Return what the model file says of each side."""
        names = ("data", "objects", "score", "before")
        return [{name: getattr(side, name) for name in names} for side in self.sides]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"score_name": self.score_name, "sides": [side.to_dict() for side in self.sides]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Make it again from what `to_dict` returned."""
        sides = []
        for one in values["sides"]:
            told: dict[str, Any] = {
                key: tuple(one[key]) if isinstance(one[key], list) else one[key]
                for key in SideScore.__dataclass_fields__
                if key in one  # logs of earlier versions count no objects
            }
            sides.append(SideScore(**told))
        return cls(values["score_name"], tuple(sides))


def compare(
    mix: Mix,
    after: Mapping[str, Sequence[HeldOutMap]],
    before: Mapping[str, Sequence[HeldOutMap]] | None,
    *,
    decisions: tuple[Decision | None, Decision | None],
    target: str,
    score_name: str,
    seed: int,
) -> Comparison:
    """Score what two networks say of the held-out planes of each side, each with its decision.

    Parameters
    ----------
    mix : Mix
        What the sides are.
    after, before : mapping of str to sequence of HeldOutMap
        By side; `before` is None where the earlier model says something else.
    decisions : tuple of Decision
        That of the network after, and of the one before; None is the usual one.
    target : str
        What is learned.
    score_name : str
        What the score is called.
    seed : int
        Of the resamples.

    Returns
    -------
    Comparison
    """
    sides = []
    for side, data in zip(SIDES, mix.names, strict=True):
        if not after.get(side):
            continue
        now = _sums(after[side], decisions[0], target=target)
        objects = sum(one.objects for one in after[side]) if has_instances(target) else None
        told = SideScore(
            side, data, len(after[side]), now.overall() or 0.0, before=None, objects=objects
        )
        drawn: dict[str, Any] = {"resamples": RESAMPLES, "seed": seed}
        several = len(now.by_unit) > 1
        told = replace(told, interval=interval(now, **drawn) if several else None)
        if before is not None:
            then = _sums(before[side], decisions[1], target=target)
            told = replace(told, before=then.overall() or 0.0)
            if several:
                told = replace(
                    told,
                    before_interval=interval(then, **drawn),
                    change_interval=difference_interval(now, then, **drawn),
                )
        sides.append(told)
    return Comparison(score_name, tuple(sides))


def _sums(maps: Sequence[HeldOutMap], decision: Decision | None, *, target: str) -> Sums:
    """Add up what a decision scores, place by place, so that places can be drawn anew."""
    known = decision or default_decision(target, classes=len(maps[0].probabilities))
    parts, wholes = score_places(maps, known, target=target)
    terms = parts.shape[1]

    def formula(_: Array, sums: Array) -> Array:
        part, whole = sums[..., :terms], sums[..., terms:]
        there = whole > 0
        ratios = np.divide(part, whole, out=np.zeros(part.shape), where=there)
        total: Array = ratios.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
        return np.where(there.any(axis=-1), total, np.nan)

    return Sums(np.arange(2 * terms), np.concatenate([parts, wholes], axis=1), formula)
