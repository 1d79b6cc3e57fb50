"""Which part of the data is learned from and which is only looked at; it knows names and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unetkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Keeps the random numbers of splits apart from all others of the same seed.
SPLIT = 1


@dataclass(frozen=True)
class Origin:
    """What a split needs to know of a sample.

    Parameters
    ----------
    name : str
        The sample.
    source : str
        What it was made from; augmented copies share it with their original.
    augmented : bool
        Whether it is such a copy.
    height, width : int
        Its size in pixels.
    """

    name: str
    source: str
    augmented: bool
    height: int
    width: int


@dataclass(frozen=True)
class Region:
    """A box of a sample: rows `y0` to ``y1 - 1``, columns `x0` to ``x1 - 1``."""

    sample: str
    y0: int
    x0: int
    y1: int
    x1: int


@dataclass(frozen=True)
class Split:
    """Where tiles are drawn, where scores are measured, and what the user should know of it."""

    train: tuple[Region, ...]
    validation: tuple[Region, ...]
    notes: tuple[str, ...] = ()


def split(origins: Sequence[Origin], *, gap: int, seed: int) -> Split:
    """Hold out a part of the data by what the samples were made from.

    One source: the last fifth of the image along its longer side, `gap` pixels from the rest.
    Two to four: one source. Five or more: a fifth of them. Augmented copies never validate, and
    copies of what is held out are not learned from.

    Parameters
    ----------
    origins : sequence of Origin
        The labelled samples.
    gap : int
        Pixels between what is learned and what is held out of a single image, so that no tile's
        labels lie in the other's context.
    seed : int
        Chooses the sources that are held out.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        If there are only copies, or a single image is too small to be parted.
    """
    originals = [origin for origin in origins if not origin.augmented]
    if not originals:
        raise InputError(
            "a dataset to train on must hold originals beside augmented copies, got copies alone;"
            " run 'unetkit augment' again, which writes both"
        )
    sources = list(dict.fromkeys(origin.source for origin in originals))
    if len(originals) == 1:
        return _part_one(originals[0], copies=len(origins) - 1, gap=gap)
    if len(sources) == 1:
        # Several images of one source: nothing else can be told apart.
        sources = [origin.name for origin in originals]
        return _hold_out(origins, sources, by="name", seed=seed)
    return _hold_out(origins, sources, by="source", seed=seed)


def _hold_out(origins: Sequence[Origin], sources: Sequence[str], *, by: str, seed: int) -> Split:
    count = max(1, len(sources) // 5)
    rng = np.random.default_rng([seed, SPLIT])
    held = {sources[k] for k in rng.permutation(len(sources))[:count]}

    def whole(origin: Origin) -> Region:
        return Region(origin.name, 0, 0, origin.height, origin.width)

    return Split(
        train=tuple(whole(o) for o in origins if getattr(o, by) not in held),
        validation=tuple(whole(o) for o in origins if getattr(o, by) in held and not o.augmented),
    )


def _part_one(origin: Origin, *, copies: int, gap: int) -> Split:
    """Part a single image across its longer side."""
    length = max(origin.height, origin.width)
    held = max(1, length // 5)
    between = min(gap, length // 4)
    learned = length - held - between
    if learned < 1:
        raise InputError(
            f"a single image to train on must be at least 3 pixels long, got {length};"
            " add more annotated images"
        )
    notes = [
        f"One image: its last {held} pixels along the longer side are held out for validation."
    ]
    if between < gap:
        notes.append(
            f"It is small: {between} pixels instead of {gap} part them from the rest, so scores "
            "may be a little too good."
        )
    if copies:
        notes.append(
            f"Its {copies} augmented copies hold those pixels as well and are left out; training "
            "deforms every tile anew anyway."
        )
    if origin.height >= origin.width:
        boxes = ((0, 0, learned, origin.width), (length - held, 0, length, origin.width))
    else:
        boxes = ((0, 0, origin.height, learned), (0, length - held, origin.height, length))
    train, validation = (Region(origin.name, *box) for box in boxes)
    return Split(train=(train,), validation=(validation,), notes=tuple(notes))
