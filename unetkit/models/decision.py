"""How probabilities become classes and objects: the numbers that are chosen, and how well they did.

What this module does not know: networks, and how a decision is found.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from unetkit.arrays.meanings import has_threshold, meaning_of
from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Threshold, least size, growth and separation, with the scores they were chosen by.

    A number is None where the target has no such choice: no threshold where the most probable of
    several classes is taken, no objects in a class map. Without a seed level, what touches is one
    object.
    """

    threshold: float | None = None  # probability from which it is foreground
    min_size: int | None = None  # objects of fewer pixels, before they grow, are dropped
    grow: int | None = None  # pixels
    # Of a watershed: seeds are at least so high (see `elevation`), and have so many pixels.
    seed_level: float | None = None
    seed_size: int | None = None
    # Mean average precision over IoU 0.5 to 0.95 for instances, mean Dice for classes; None where
    # nothing was fitted.
    score: float | None = None
    default_score: float | None = None
    images: int = 0  # that it was fitted on
    objects: int | None = None  # that they hold
    reason: str = ""  # why it is this one, in words
    # Checksums of the weights of the networks whose probabilities it was fitted to, in order.
    models: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, float | int]:
        """What is decided, by the name of the option that overrides it."""
        found = {name: getattr(self, name) for name in NUMBERS}
        return {name: value for name, value in found.items() if value is not None}

    def __str__(self) -> str:
        """Say it in words, for a sentence.

        >>> str(Decision(threshold=0.45, min_size=30, grow=1))
        'threshold 0.45, min size 30, grow 1'
        """
        told = (f"{name.replace('_', ' ')} {value:g}" for name, value in self.numbers.items())
        return ", ".join(told)

    def sentence(self, score: str) -> str:
        """Say what was fitted, to what and why; `score` is what its score is called."""
        images = "1 held-out image" if self.images == 1 else f"{self.images} held-out images"
        found, usual = (value or 0.0 for value in (self.score, self.default_score))
        other = "" if found == usual else f", {usual:.3f} with the default decision"
        return f"Decides with {self}: {score} {found:.3f} on {images}{other}; {self.reason}."

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; earlier versions read it where no watershed is in it."""
        parted = self.seed_level is not None
        found = {n: v for n, v in asdict(self).items() if parted or n not in OF_WATERSHED}
        return {**found, "models": list(self.models)}

    @classmethod
    def from_dict(cls, stored: Any) -> Decision:
        """Rebuild what `to_dict` returned, if names and values are those of a decision."""
        names = {each.name for each in fields(cls)}
        if not isinstance(stored, dict) or not stored.keys() <= names:
            raise InputError(
                f"a decision must hold {', '.join(sorted(names))}, got {stored!r:.200}"
            )
        for name, value in stored.items():
            if not _CHECKS[name](value):
                raise InputError(f"{name} of the decision is unfit, got {value!r:.200}")
        if (stored.get("seed_level") is None) != (stored.get("seed_size") is None):
            raise InputError("a decision must have both a seed level and a seed size, or neither")
        return cls(**{**stored, "models": tuple(stored.get("models", ()))})


OF_WATERSHED = ("seed_level", "seed_size")
NUMBERS = ("threshold", "min_size", "grow", *OF_WATERSHED)


def check_threshold(threshold: float) -> None:
    """Refuse what makes everything foreground, or nothing."""
    if not 0 < threshold < 1:
        raise UsageError(
            f"threshold must lie between 0 and 1, got {threshold}; leave it out for the model's own"
        )


def check_seeds(value: float, *, separate: str | None, name: str) -> None:
    """Refuse a number of a watershed, called `name`, where none is asked for."""
    if separate == "components":
        raise UsageError(
            f"{name} must be left out where what touches is one object, got {value};"
            " add --separate watershed"
        )


# Where a network learned distances, and nobody has fitted anything: our own choice, see
# docs/train.md.
DISTANCE_LEVEL, DISTANCE_SIZE = 0.6, 5


def default_decision(target: str, *, classes: int) -> Decision:
    """Return what holds for a target of so many classes where nobody has fitted anything.

    >>> default_decision("foreground", classes=2).numbers
    {'threshold': 0.5, 'min_size': 0, 'grow': 1}
    >>> default_decision("foreground+distance", classes=4).numbers["seed_level"]
    0.6
    >>> default_decision("classes", classes=3).numbers
    {}
    """
    meaning = meaning_of(target)
    objects = meaning.objects is not None
    return Decision(
        threshold=0.5 if has_threshold(target, classes=classes) else None,
        min_size=0 if objects else None,
        grow=1 if objects else None,
        seed_level=DISTANCE_LEVEL if meaning.parted else None,
        seed_size=DISTANCE_SIZE if meaning.parted else None,
    )


def joint_decision(decisions: Sequence[Decision | None], *, usual: Decision) -> Decision | None:
    """Return the decision of networks whose probabilities are averaged; None where none has one.

    Where they differ and were not fitted together, it is the middle of each number; `usual` stands
    for those that have none. A watershed parts objects where it does for each of them.
    """
    if not any(decisions):
        return None
    each = [usual if one is None else one for one in decisions]
    if all(one.numbers == each[0].numbers for one in each):
        return each[0]
    parted = all(one.seed_level is not None for one in each)
    own = {**usual.numbers, **{name: getattr(each[0], name) for name in OF_WATERSHED if parted}}
    middle: dict[str, Any] = {
        name: type(value)(round(median(one.numbers.get(name, value) for one in each), 3))
        for name, value in own.items()
    }
    reason = (
        "the models' own decisions differ and were not fitted together, so that the middle of each"
        " number is taken; 'unetkit tune' fits them together"
    )
    return replace(usual, **middle, reason=reason)


def _is_real(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "threshold": lambda value: value is None or (type(value) is float and 0 < value < 1),
    "min_size": _is_count,
    "grow": _is_count,
    "seed_level": lambda value: value is None or (type(value) is float and 0 < value <= 1),
    "seed_size": _is_count,
    "score": _is_real,
    "default_score": _is_real,
    "images": lambda value: value is not None and _is_count(value),
    "objects": _is_count,
    "reason": lambda value: isinstance(value, str),
    "models": lambda value: (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    ),
}
