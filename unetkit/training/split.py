"""Which part of the data is learned from and which is only looked at; it knows names and boxes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Keeps the random numbers of splits apart from all others of the same seed.
SPLIT = 1
# One in so many sources, and such a part of a single image, is held out.
SHARE = 5
# So many groups are named.
NAMED = 3


@dataclass(frozen=True)
class Origin:
    """What a split needs to know of a sample."""

    name: str
    source: str  # what it was made from; augmented copies share it with their original
    augmented: bool  # whether it is such a copy
    height: int
    width: int
    foreground: bool = True  # whether there is anything in it to find
    group: str | None = None  # what its source belongs to, if that was told


@dataclass(frozen=True)
class Region:
    """A box of a sample: rows `y0` to ``y1 - 1``, columns `x0` to ``x1 - 1``."""

    sample: str
    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0


@dataclass(frozen=True)
class Fold:
    """One of several ways to hold data out, so that each part of it is held out once."""

    number: int  # from 1
    count: int  # at least 2


@dataclass(frozen=True)
class Split:
    """Where tiles are drawn, where scores are measured, and what the user should know of it."""

    train: tuple[Region, ...]
    validation: tuple[Region, ...]
    notes: tuple[str, ...] = ()
    summary: str = ""  # which groups are held out, where there are some


def split(
    origins: Sequence[Origin],
    *,
    gap: int,
    seed: int,
    has_foreground: Callable[[Region], bool] = lambda region: True,
    fold: Fold | None = None,
) -> Split:
    """Hold out a part of the data by what the samples were made from, or belong to.

    One image: a fifth of it at one end of its longer side, `gap` pixels from the rest. Two to four
    sources: one of them. Five or more: a fifth of them. Sources without foreground can't tell a
    good network from a bad one and are held out only where nothing else can be. Augmented copies
    never validate, and copies of what is held out are not learned from.

    Of several folds each holds out its share of the sources, or of the single image, and all
    together everything once; sources without foreground are always learned from.

    Where samples are of groups, such as animals, these stand for the sources, and at least two are
    needed. Where none were told, names that look like groups parted by the split are noted.

    The gap keeps the labels of every tile out of the context of what is held out. `seed` chooses
    the sources; `has_foreground` is asked of regions of a single image only.
    """
    originals = [origin for origin in origins if not origin.augmented]
    if not originals:
        raise InputError(
            "a dataset to train on must hold originals beside augmented copies, got copies alone;"
            " run 'unetkit augment' again, which writes both"
        )
    if any(origin.group is not None for origin in originals):
        return _by_group(origins, seed=seed, fold=fold)
    if len(originals) == 1:
        copies = len(origins) - 1
        return _part_one(
            originals[0], copies=copies, gap=gap, has_foreground=has_foreground, fold=fold
        )
    if len({origin.source for origin in originals}) > 1:
        found = _hold_out(origins, by="source", seed=seed, fold=fold)
        return replace(found, notes=_suspicion(originals, found, fold=fold))
    # Several images of one source: they are told apart by name, and copies can't be.
    found = _hold_out(originals, by="name", seed=seed, fold=fold)
    copies = len(origins) - len(originals)
    note = f"{copies} augmented copies of a single source can't be parted and are left out."
    return Split(found.train, found.validation, notes=(note,) if copies else ())


def _by_group(origins: Sequence[Origin], *, seed: int, fold: Fold | None) -> Split:
    """Hold out whole groups; what is of none stands for itself."""
    kin = {origin.name: origin.group or origin.source for origin in origins}
    groups = list(dict.fromkeys(kin[origin.name] for origin in origins if not origin.augmented))
    if len(groups) < 2:
        raise InputError(
            "images to train on must be of at least two groups, so that one can be held out, got"
            f" {groups[0]!r} alone; import images of another one too, or leave --group out"
        )
    found = _hold_out(
        [replace(origin, group=kin[origin.name]) for origin in origins],
        by="group",
        seed=seed,
        fold=fold,
    )
    learned, held = (
        list(dict.fromkeys(kin[region.sample] for region in side))
        for side in (found.train, found.validation)
    )
    images = f"{len(found.validation)} image{'s' if found.validation[1:] else ''}"
    more = ", …" if held[NAMED:] else ""
    summary = (
        f"Held out by group: {', '.join(held[:NAMED])}{more} ({images});"
        f" {len(learned)} other group{'s are' if learned[1:] else ' is'} learned from."
    )
    return replace(found, summary=summary)


def _suspicion(originals: Sequence[Origin], found: Split, *, fold: Fold | None) -> tuple[str, ...]:
    """Say once where names share what stands before their last ``_`` or ``-`` across the split."""
    stems = {o.name: re.split(r"[_-](?=[^_-]*$)", o.name)[0] for o in originals}
    known = any(o.source != o.name for o in originals)  # what belongs together
    sides = [
        {stems[r.sample] for r in side if r.sample in stems}
        for side in (found.train, found.validation)
    ]
    groups = list(dict.fromkeys(stems.values()))
    plain = any(stem in ("", name) for name, stem in stems.items())
    if known or plain or len(groups) < 2 or sides[0].isdisjoint(sides[1]):
        return ()
    if fold is not None and fold.number > 1:
        return ()
    more = ", …" if groups[NAMED:] else ""
    return (
        f"Images seem to belong to {len(groups)} groups ({', '.join(groups[:NAMED])}{more}), some"
        " of which are learned from and held out: 'unetkit import' with --group '(.+)[_-]' keeps"
        " them apart.",
    )


def _hold_out(origins: Sequence[Origin], *, by: str, seed: int, fold: Fold | None) -> Split:
    """Hold out whole samples that share a value of the field `by`."""
    full: dict[str, bool] = {}
    for origin in origins:
        if not origin.augmented:
            group = getattr(origin, by)
            full[group] = full.get(group, False) or origin.foreground
    able = [group for group, foreground in full.items() if foreground]
    # The only one with foreground must be learned from.
    pool = able if len(able) != 1 else [group for group in full if group not in able]
    count = max(1, min(len(full) // SHARE, len(able) - 1))
    order = np.random.default_rng([seed, SPLIT]).permutation(len(pool))
    held = {pool[k] for k in order[:count]}
    if fold is not None:
        if fold.count > len(able):
            raise UsageError(
                f"folds must be at most the number of {by}s with foreground, {len(able)}, got"
                f" {fold.count}; use {max(1, len(able))} or fewer"
            )
        held = {pool[k] for k in order[fold.number - 1 :: fold.count]}

    def whole(origin: Origin) -> Region:
        return Region(origin.name, 0, 0, origin.height, origin.width)

    return Split(
        train=tuple(whole(o) for o in origins if getattr(o, by) not in held),
        validation=tuple(whole(o) for o in origins if getattr(o, by) in held and not o.augmented),
    )


def _part_one(
    origin: Origin,
    *,
    copies: int,
    gap: int,
    has_foreground: Callable[[Region], bool],
    fold: Fold | None,
) -> Split:
    """Part a single image across its longer side.

    ::

        |<------------ learned ------------>|<- gap ->|<- held ->|    or the other way round
    """
    length = max(origin.height, origin.width)
    held = max(1, length // (SHARE if fold is None else fold.count))
    between = min(gap, length // 4 if fold is None else max(0, length - held) // 4)
    if fold is not None and length < 3 * fold.count:
        raise UsageError(
            f"folds must leave each at least 3 pixels of a single image of {length}, got"
            f" {fold.count}; use fewer, or add more annotated images"
        )
    if length - held - between < 1:
        raise InputError(
            f"a single image to train on must be at least 3 pixels long, got {length};"
            " add more annotated images"
        )

    def box(start: int, stop: int) -> Region:
        if origin.height >= origin.width:
            return Region(origin.name, start, 0, stop, origin.width)
        return Region(origin.name, 0, start, origin.height, stop)

    def parts(first: int) -> tuple[tuple[Region, ...], Region]:
        sides = ((0, first - between), (first + held + between, length))
        return tuple(box(*side) for side in sides if side[1] > side[0]), box(first, first + held)

    if fold is not None:
        train, validation = parts((fold.number - 1) * (length - held) // max(1, fold.count - 1))
        where = f"part {fold.number} of {fold.count}, {held} pixels"
    else:
        ends = {"last": parts(length - held), "first": parts(0)}
        # The last end, unless only the other way round both parts hold something to find.
        end = max(ends, key=lambda e: (has_foreground(ends[e][0][0]), has_foreground(ends[e][1])))
        train, validation = ends[end]
        where = f"the {end} {held} pixels"
    notes = _part_notes(where, between=between, gap=gap, copies=copies)
    return Split(train=train, validation=(validation,), notes=notes)


def _part_notes(where: str, *, between: int, gap: int, copies: int) -> tuple[str, ...]:
    notes = [f"One image, of which {where} along the longer side are held out for validation."]
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
    return tuple(notes)
