"""What each target means: which class is what, and how objects come of them.

It loads nothing heavy, so that options are refused before anything is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the classes of a target are.

    Attributes
    ----------
    names : tuple of str
        Of the first classes, in the order of their numbers; classes that labels name follow.
    objects : int, optional
        The class that is inside of objects; None where there are none.
    several : bool
        Whether all classes from that one on are inside of objects.
    classed : bool
        Whether each of these is a class of objects.
    bands : int
        How many of them say how deep inside of an object a pixel is, from the rim inwards; 0 for
        a target that doesn't.
    growth : int, optional
        The class into which objects may grow; None for anywhere.
    parted : bool
        Whether a watershed parts what touches where nothing else was fitted or asked for.
    context : int
        How many pixels around a tile decide about it.
    """

    names: tuple[str, ...] = ()
    objects: int | None = None
    several: bool = False
    classed: bool = False
    bands: int = 0
    growth: int | None = None
    parted: bool = False
    context: int = 2


# How deep inside of an object a pixel is told from another, in pixels; our own choice: cells of a
# radius of 128 pixels are larger than what networks see well.
REACH = 128
BANDS = ("rim", "middle", "core")
# Every target, by its name.
MEANINGS = {
    "foreground": Meaning(names=("background", "foreground"), objects=1),
    "foreground+boundary": Meaning(
        names=("background", "interior", "boundary"), objects=1, growth=2
    ),
    "foreground+distance": Meaning(
        names=("background", *BANDS),
        objects=1,
        several=True,
        bands=len(BANDS),
        parted=True,
        context=REACH + 2,
    ),
    "boundary": Meaning(names=("inside", "boundary"), objects=0, growth=1),
    "classes": Meaning(),
    "classes+boundary": Meaning(
        names=("background", "boundary"), objects=2, several=True, classed=True, growth=1
    ),
}
TARGETS = tuple(MEANINGS)
# Those of instances without classes.
OF_IDS = tuple(n for n, one in MEANINGS.items() if one.objects is not None and not one.classed)


def target_names(target: str, class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Name the classes of a target, in the order of their numbers.

    Parameters
    ----------
    target : str
        One of `TARGETS`.
    class_names : sequence of str
        What the classes of a class map or of objects are called, background first; used by
        ``classes`` and ``classes+boundary`` alone.

    Returns
    -------
    tuple of str

    Raises
    ------
    UsageError
        If there is no such target, or a class of objects has a name that means something else.
    """
    check_target(target)
    taken = MEANINGS[target].names
    if MEANINGS[target].classed:
        if lost := [name for name in class_names[1:] if name in taken]:
            raise UsageError(
                "a class of objects must not be called background or boundary, which are learned"
                f" beside the classes, got {lost[0]!r}; rename it where it was drawn"
            )
        return (*taken, *class_names[1:])
    return taken or tuple(class_names)


def default_target(kind: str, *, classed: bool = False) -> str:
    """Return the target that labels of a kind (``instances`` or ``classes``) are learned by.

    Objects that are ``classed`` are learned with their classes.
    """
    if kind == "classes":
        return "classes"
    return "classes+boundary" if classed else "foreground"


def meaning_of(target: str) -> Meaning:
    """Return what the classes of a target are; of an unknown one that of class maps."""
    return MEANINGS.get(target, MEANINGS["classes"])


def has_threshold(target: str, *, classes: int) -> bool:
    """Say whether a threshold decides, and not which of so many classes is the most probable."""
    return classes == 2 or meaning_of(target).bands > 0


def check_target(target: str) -> None:
    """Raise `UsageError` unless `target` is one of `TARGETS`."""
    if target not in TARGETS:
        raise UsageError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
