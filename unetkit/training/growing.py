"""Growing parts of what is learned from, one inside the other; it knows names and numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unetkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.training.split import Origin, Split

# Keeps the random numbers of these draws apart from all others of the same seed.
GROWING = 7
# Sizes of a curve, each about twice the one before: our choice.
MOST_SIZES, FEWEST_SIZES = 5, 3


@dataclass(frozen=True)
class Unit:
    """What an image more would be: a source, or a group of them."""

    name: str
    samples: frozenset[str]
    foreground: bool


def growing_units(origins: Sequence[Origin], parts: Split) -> tuple[str, list[Unit]]:
    """Say what is counted, `image` or `group`, and list those that may be learned from."""
    grouped = any(origin.group is not None for origin in origins)
    sources = {origin.source for origin in origins if not origin.augmented}
    learned = {region.sample for region in parts.train}
    if learned & {region.sample for region in parts.validation}:
        raise InputError(
            "a learning curve must hold whole images out, got a single one; annotate more images"
        )
    members: dict[str, list[Origin]] = {}
    for origin in origins:
        kin = (origin.group or origin.source) if grouped else origin.source
        if not grouped and len(sources) == 1:
            kin = origin.name
        if origin.name in learned:
            members.setdefault(kin, []).append(origin)
    units = [
        Unit(
            name,
            frozenset(one.name for one in own),
            any(one.foreground for one in own if not one.augmented),
        )
        for name, own in members.items()
    ]
    return "group" if grouped else "image", units


def growing_sizes(count: int, *, unit: str) -> list[int]:
    """Choose how many are learned from, each about half of the next, the last all of them.

    >>> growing_sizes(16, unit="image"), growing_sizes(3, unit="image")
    ([2, 4, 8, 16], [1, 2, 3])
    """
    if count < FEWEST_SIZES:
        raise InputError(
            f"a learning curve must have at least {FEWEST_SIZES} {unit}s to learn from, beside"
            f" those that are held out, got {count}; annotate more"
        )
    sizes = [count]
    while len(sizes) < MOST_SIZES and sizes[-1] > (1 if len(sizes) < FEWEST_SIZES else 3):
        sizes.append(sizes[-1] // 2)
    if len(sizes) < FEWEST_SIZES:
        sizes = [3, 2, 1]
    return sizes[::-1]


def nested_orders(units: Sequence[Unit], *, draws: int, seed: int) -> list[list[Unit]]:
    """Draw orders in which they are added; the first one has something to find in it."""
    found = []
    for draw in range(draws):
        order = np.random.default_rng([seed, GROWING, draw]).permutation(len(units))
        drawn = [units[k] for k in order]
        first = next((k for k, unit in enumerate(drawn) if unit.foreground), 0)
        found.append([drawn[first], *drawn[:first], *drawn[first + 1 :]])
    return found


def part_of(parts: Split, units: Sequence[Unit]) -> Split:
    """Leave only some to be learned from; what is held out stays."""
    names = frozenset[str]().union(*(unit.samples for unit in units))
    return replace(
        parts, train=tuple(region for region in parts.train if region.sample in names), notes=()
    )
