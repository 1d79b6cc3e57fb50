"""Fit the decision: thresholds, sizes, growth and seeds with the best score on held-out images.

Sums of every setting are kept apart by place, so that a gain can be told from noise. What this
module does not know: networks, files, and where probabilities come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation

from unetkit.arrays.components import components, sizes_and_first_pixels
from unetkit.arrays.instances import (
    elevation,
    foreground_of,
    grow,
    growth_of,
    has_instances,
    instances,
    separate,
)
from unetkit.arrays.meanings import has_threshold, meaning_of
from unetkit.models.decision import Decision, default_decision
from unetkit.models.inference import stored, to_classes
from unetkit.scores.contingency import from_labels
from unetkit.scores.matching import THRESHOLDS as PERCENTS
from unetkit.scores.matching import overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.scores.matching import Overlaps

Array = np.ndarray[Any, Any]

# Pixels that a decision is fitted to at most, so that it takes seconds.
TUNED = 2**22
# Our own choices: what is tried, about as finely as the score can tell settings apart.
THRESHOLDS = tuple(n / 20 for n in range(2, 19))
FEW_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
GROWTHS = (0, 1, 2, 3)
# Other growths than the usual one are tried with so many of the thresholds.
GROWN = 4
# Seeds of a watershed are tried with so many of the thresholds, and the usual one: from which
# probability on, and what share of the usual true object they have at least.
PARTED = 2
SEED_LEVELS, SEED_SHARE = (0.7, 0.8, 0.9, 0.95), 1 / 32
# The same of expected distances, of which a network is rarely sure.
DISTANCE_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# Least sizes are a root of 2 apart, up to one that drops this share of the annotated objects: what
# is no object is smaller. On one held-out image of large cells a larger least size looks good, and
# costs the small cells of other images.
SMALLEST, DROPPED = 4, 1 / 20
# What is at least half as large as nearly all annotated objects may well be one: that much is known
# without any score. Six networks that learned from parts of five sets (300 steps, BBBC039, DSB2018,
# HeLa, U373 and Usiigaci twice) had a mean AP of 0.12 without it on other parts, and 0.31 with it.
SPARED = 1 / 2
_NONE = np.zeros(0, np.int64)
# So many images are units of their own; of fewer, each is cut into so many places a side.
MANY, PLACES = 8, 4
# What is farther from the best is not looked at.
CLOSE = 0.05
# Parts that are left out of a fit in turn, resamples, the share of them that must gain, which is a
# gain of one standard error, and what is not worth a change. In 32 fits to 23 to 711 objects (the
# demo's nuclei, training images of BBBC039 and of DSB2018) the fitted decision did better than the
# default, then one without a least size, on images that the fit had not seen each time; 0.95 kept
# the default in 2 of them.
PARTS, RESAMPLES, SURE, LEAST_GAIN = 5, 500, 0.84, 0.005


# Whose numbers may stay, and why a decision is what it is: sentences that stand alone in `info`.
DEFAULT, KNOWN = "the default", "those of the model that training began with"
SIZED = "the default with a least size by the annotated objects"
KEPT = "these numbers are {}, since no others did better by more than chance"
FITTED = (
    "these numbers gain {gain:.3f} over {first} in places that the fit had not seen; of several"
    " that chance could not tell apart, those were taken whose neighbours do well, too"
)


@dataclass(frozen=True, eq=False)
class HeldOutMap:
    """What a network says of a plane that it has not learned from, and what is true."""

    probabilities: Array  # (K, Y, X), or stored ones
    truth: Array  # (Y, X), instances or classes
    ignore: Array | None = None  # pixels where it is not 0 do not count
    # Brings objects to the size of the truth, where a network saw another.
    enlarge: Callable[[Array], Array] | None = None
    image: str = ""  # of which it is a plane, or a part of one
    group: str | None = None  # that the image belongs to, if that was told

    @property
    def objects(self) -> int:
        """How many objects of the truth are judged, at least in part."""
        return int(np.count_nonzero(np.unique(self.counted)))

    @property
    def counted(self) -> Array:
        """The truth of the pixels that count, in one row."""
        return self.truth.ravel() if self.ignore is None else self.truth[self.ignore == 0]

    @classmethod
    def of(
        cls,
        probabilities: Array,
        truth: Array,
        ignore: Array | None = None,
        *,
        target: str = "classes",
    ) -> HeldOutMap:
        """Take probabilities as a prediction stores them, where it decides by these."""
        if has_threshold(target, classes=len(probabilities)):
            probabilities = stored(probabilities, np.dtype(np.uint8))
        return cls(probabilities, truth, ignore)

    def middle(self, *, most: int) -> HeldOutMap:
        """Return the middle of a plane of more than so many pixels, of the same proportions."""
        if self.truth.size <= most:
            return self
        box = middle_box(self.truth.shape, most=most)
        ignore = None if self.ignore is None else self.ignore[box]
        own = self.probabilities[(slice(None), *box)]
        return replace(self, probabilities=own, truth=self.truth[box], ignore=ignore)


def whole_sizes(labels: Array, ignore: Array | None = None) -> Array:
    """Return the pixels of each object of a plane (Y, X) that is there as a whole.

    Neither the plane's rim cuts it, nor pixels that do not count, where `ignore` is not 0: what
    labels say there is nobody's word.
    """
    rims = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    if ignore is not None:
        labels = np.where(ignore, 0, labels)
        rims.append(labels[binary_dilation(ignore != 0)])
    names, sizes = np.unique(labels, return_counts=True)
    return np.asarray(sizes[(names != 0) & ~np.isin(names, np.concatenate(rims))])


def middle_box(shape: Sequence[int], *, most: int) -> tuple[slice, slice]:
    """Return the middle of a plane, of its proportions and of at most so many pixels."""
    share = min(1.0, math.sqrt(most / max(1, shape[0] * shape[1])))
    sides = [max(1, math.floor(side * share)) for side in shape]
    high, wide = (slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(shape, sides, strict=True))
    return high, wide


class Setting(NamedTuple):
    """One way to decide; None where the target has no such choice."""

    threshold: float | None
    grow: int | None
    min_size: int | None
    seed_level: float | None = None
    seed_size: int | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers by name."""
        return self._asdict()


@dataclass(frozen=True, eq=False)
class Tally:
    """What settings scored, place by place: a score is the mean over terms of part / whole."""

    settings: tuple[Setting, ...]
    parts: Array  # float64, (U, S, K): terms of each place and setting
    wholes: Array

    def scores(self, times: Array | None = None) -> Array:
        """Score every setting, (S,); with `times` (R, U), of each choice of places, (R, S)."""
        times = np.ones((1, len(self.parts))) if times is None else times
        shape = (len(times), *self.parts.shape[1:])
        part, whole = (
            (times @ side.reshape(len(side), -1)).reshape(shape)
            for side in (self.parts, self.wholes)
        )
        there = whole > 0
        ratios = np.divide(part, whole, out=np.zeros(shape), where=there)
        found = ratios.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
        return np.asarray(found[0] if len(times) == 1 else found)

    def __add__(self, other: Tally) -> Tally:
        """Join the settings of two, of the same places."""
        return Tally(
            self.settings + other.settings,
            np.concatenate([self.parts, other.parts], axis=1),
            np.concatenate([self.wholes, other.wholes], axis=1),
        )

    def best(self) -> list[Setting]:
        """Return the best setting of each threshold, the best first, without a least size."""
        best: dict[float | None, tuple[float, Setting]] = {}
        for setting, score in zip(self.settings, self.scores().tolist(), strict=True):
            if setting.threshold not in best or score > best[setting.threshold][0]:
                best[setting.threshold] = score, setting
        order = sorted(best, key=lambda one: (-best[one][0], abs((one or 0.5) - 0.5)))
        return [best[one][1]._replace(min_size=None) for one in order]

    def of(self, units: Array) -> Tally:
        """Return the same of some of the places."""
        return replace(self, parts=self.parts[units], wholes=self.wholes[units])


@dataclass(frozen=True)
class Fit:
    """A decision, and how other thresholds did."""

    decision: Decision
    # By threshold: the best score of it, and the one with the usual growth and least size.
    curve: tuple[dict[str, float | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**self.decision.to_dict(), "curve": list(self.curve)}


def rounds(target: str) -> int:
    """Say how often `fit_decision` goes over its maps."""
    return 3 if has_instances(target) else 1


def has_choice(target: str, *, classes: int) -> bool:
    """Say whether there is anything to decide: class maps of three and more have nothing."""
    return bool(default_decision(target, classes=classes).numbers)


def fit_decision(
    maps: Sequence[HeldOutMap],
    *,
    target: str,
    known: Decision | None = None,
    learned: Array = _NONE,
    advance: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> Fit:
    """Choose the decision by the score of held-out maps.

    It is the usual one where no other is surely better, with a least size by what the annotated
    objects have, or the one that was `known` before, as of the model that a training began with,
    where that does better. Of all that is as good as the best within noise, that one is taken whose
    neighbours are best.
    `learned` holds the pixels of each of some objects that were learned from, since few held-out
    images don't tell how small objects are. `advance` is called after each map of each of the
    `rounds`.
    """
    classes = len(maps[0].probabilities)
    usual = default_decision(target, classes=classes)
    before = None if known is None else _setting(known, usual)
    search = _Search(maps, target, usual, advance, before, learned)
    kept, owner = search.usual, DEFAULT
    # What sizes tell needs no score to speak for it, only none against it.
    if search.sized is not None and search.score(search.sized) >= search.score(kept):
        kept, owner = search.sized, SIZED
    if before is not None and search.score(before) > search.score(kept):
        kept, owner = before, KNOWN
    tally = search.tally()
    first = tally.settings.index(kept)
    best = _pick(tally, seed=seed)
    gain, low = _honest_gain(tally, first, seed=seed)
    chosen, reason = tally.settings[best], FITTED.format(gain=gain, first=owner)
    score, default_score = (search.score(each) for each in (chosen, search.usual))
    kept_score = search.score(kept)
    if gain < LEAST_GAIN or low <= 0 or score <= max(kept_score, search.blind_score):
        # Shuffled labels must not choose anything.
        chosen, score, reason = kept, kept_score, KEPT.format(owner)
        if best != first:
            reason += f": in places that the fit had not seen the best change it by {gain:+.3f}"
    decision = replace(
        usual,
        **chosen.numbers,
        score=round(score, 6),
        default_score=round(default_score, 6),
        images=len(maps),
        objects=search.objects if has_instances(target) else None,
        reason=reason,
    )
    return Fit(decision, _curve(tally, search.usual))


def best_score(
    maps: Sequence[HeldOutMap], *, target: str, learned: Array = _NONE
) -> tuple[float, float]:
    """Score maps with the best of a few thresholds and any least size, quickly.

    Returns the score and its standard error, had other places been held out.
    """
    usual = default_decision(target, classes=len(maps[0].probabilities))
    search = _Search(maps, target, usual, lambda: None, learned=learned)
    thresholds = (None,) if usual.threshold is None else FEW_THRESHOLDS
    tally = search.over([search.way(threshold=one) for one in thresholds])
    scores = tally.scores()
    drawn = tally.scores(_times(len(tally.parts), seed=0))[:, scores.argmax()]
    return float(scores.max()), float(drawn.std())


def score_decision(maps: Sequence[HeldOutMap], decision: Decision, *, target: str) -> float:
    """Score a decision on maps as `fit_decision` does."""
    usual = default_decision(target, classes=len(maps[0].probabilities))
    return _Search(maps, target, usual, lambda: None).score(_setting(decision, usual))


def decided(probabilities: Array, decision: Decision, *, target: str) -> Array:
    """Return the objects of probabilities (K, Y, X) that a decision finds, (Y, X)."""
    usual = default_decision(target, classes=len(probabilities))
    return _found(probabilities, _setting(decision, usual), target)


def _setting(decision: Decision, usual: Decision) -> Setting:
    """Complete a decision by the usual one; a watershed is its own alone."""
    own = usual.numbers if not decision.numbers else {}
    numbers: dict[str, Any] = {**own, **decision.numbers}
    for name in ("threshold", "min_size", "grow"):
        numbers.setdefault(name, getattr(usual, name))
    return Setting(*(numbers.get(name) for name in Setting._fields))


def score_places(
    maps: Sequence[HeldOutMap], decision: Decision, *, target: str
) -> tuple[Array, Array]:
    """Return what a decision scores place by place, as parts and wholes (U, K).

    A place is an image, or where there are few of them a part of one. The score of any places is
    the mean over K of the sum of parts over that of wholes.
    """
    usual = default_decision(target, classes=len(maps[0].probabilities))
    setting = _setting(decision, usual)
    search = _Search(maps, target, usual, lambda: None)
    side = 1 if len(maps) >= MANY else PLACES
    found = [search.by_place(one, setting, _Places(one.truth.shape, side)) for one in maps]
    parts, wholes = zip(*found, strict=True)
    return np.concatenate(parts).astype(float), np.concatenate(wholes).astype(float)


@dataclass(frozen=True, eq=False)
class _Search:
    """What is tried on which maps."""

    maps: Sequence[HeldOutMap]
    target: str
    decision: Decision  # the usual one
    advance: Callable[[], None]
    known: Setting | None = None  # another that is tried besides
    learned: Array = field(default_factory=lambda: _NONE)  # pixels of other true objects

    @property
    def usual(self) -> Setting:
        return Setting(*(getattr(self.decision, name) for name in Setting._fields))

    def way(self, **numbers: Any) -> Setting:
        """Return the usual setting with other numbers, of any least size."""
        return self.usual._replace(min_size=None, **numbers)

    @cached_property
    def sizes(self) -> Array:
        """The pixels that count of every true object."""
        counted = (one.counted for one in self.maps)
        found = [np.unique(truth[truth != 0], return_counts=True)[1] for truth in counted]
        return np.concatenate([*found, np.zeros(0, np.int64)])

    @property
    def sized(self) -> Setting | None:
        """The usual setting with a least size that spares the annotated objects."""
        small = [size for size in self.tried_sizes if size <= SPARED * self.small_object]
        return self.usual._replace(min_size=small[-1]) if small else None

    @property
    def objects(self) -> int:
        return len(self.sizes)

    @property
    def blind_score(self) -> float:
        """What a map gets that finds everything everywhere; of objects nothing."""
        if has_instances(self.target):
            return 0.0
        counted = [one.counted for one in self.maps]
        true = sum(int((one == 1).sum()) for one in counted)
        return 2 * true / max(1, true + sum(one.size for one in counted)) + LEAST_GAIN

    @cached_property
    def small_object(self) -> float:
        """The pixels that nearly all annotated objects have at least."""
        held_out = (whole_sizes(one.truth, one.ignore) for one in self.maps)
        every = np.concatenate([*held_out, self.learned])
        # Where the rim cuts all of them, parts tell more than nothing.
        every = every if len(every) else self.sizes
        return float(np.quantile(every, DROPPED)) if len(every) else 0.0

    @cached_property
    def tried_sizes(self) -> list[int]:
        """The least sizes above 0 that objects of the annotated sizes leave to try, from below."""
        if self.decision.min_size is None:
            return []
        steps = np.arange(0, 2 * np.log2(max(self.small_object / SMALLEST, 1)) + 1e-9)
        return [int(size) for size in np.rint(SMALLEST * 2 ** (steps / 2))]

    @cached_property
    def least(self) -> Array:
        """The least sizes to try, from 0 up."""
        if self.decision.min_size is None:
            return np.zeros(1, np.int64)
        known = 0 if self.known is None else self.known.min_size or 0
        return np.unique([0, known, *self.tried_sizes])

    def tally(self) -> Tally:
        """Add up the sums of all settings that are tried, with the one that was known before."""
        tally = self._usual_ways()
        if self.known is None or self.known in tally.settings:
            return tally
        return tally + replace(self, advance=lambda: None).over([self.known])

    def _usual_ways(self) -> Tally:
        """Try thresholds first, then growths and seeds."""
        thresholds = (None,) if self.usual.threshold is None else THRESHOLDS
        tally = self.over([self.way(threshold=one) for one in thresholds])
        if self.usual.grow is None:
            return tally
        others = [each for each in GROWTHS if each != self.usual.grow]
        few = tally.best()[:GROWN]
        tally += self.over([one._replace(grow=each) for one in few for each in others])
        few = tally.best()
        few = few[:PARTED] + [one for one in few[PARTED:] if one.threshold == self.usual.threshold]
        return tally + self.over([each for one in few for each in self._parted(one)])

    def _parted(self, way: Setting) -> list[Setting]:
        """List what a watershed may do with what is found so."""
        usual = float(np.median(self.sizes)) if self.objects else 0.0
        size = max(1, round(usual * SEED_SHARE))
        levels = [level for level in SEED_LEVELS if level > (way.threshold or 0.5)]
        if meaning_of(self.target).bands:
            levels = list(DISTANCE_LEVELS)
        ways = [way._replace(seed_level=level, seed_size=size) for level in levels]
        return [one for one in ways if one != way]

    def over(self, ways: Sequence[Setting]) -> Tally:
        """Add up the sums of settings with every least size."""
        settings = [
            way._replace(min_size=int(size) if self.usual.min_size is not None else None)
            for way in ways
            for size in self.least
        ]
        parts, wholes = [], []
        for one in self.maps:
            part, whole = self._count(one, ways)
            parts.append(part)
            wholes.append(whole)
            self.advance()
        return Tally(tuple(settings), np.concatenate(parts), np.concatenate(wholes))

    def _count(self, one: HeldOutMap, ways: Sequence[Setting]) -> tuple[Array, Array]:
        """Return the terms of a map by place and setting, (U, S, K)."""
        side = 1 if len(self.maps) >= MANY else PLACES
        places = _Places(one.truth.shape, side)
        if not has_instances(self.target):
            counted = [_pixel_terms(one, way.threshold, places) for way in ways]
            return np.stack([p for p, _ in counted], 1), np.stack([w for _, w in counted], 1)
        ids, first = np.unique(one.truth, return_index=True)
        true = _Side(ids.astype(np.uint64), places.of(first))
        terms = []
        known: tuple[Any, ...] = (object(),)
        for way in ways:
            ungrown = way._replace(grow=None)
            if ungrown != known[0]:
                classes, labels, count = _objects(one.probabilities, ungrown, self.target)
                within = growth_of(classes, self.target)
                sizes, first = sizes_and_first_pixels(labels, count)
                found = _Side(np.arange(1, count + 1, dtype=np.uint64), places.of(first))
                known = (ungrown, labels, within, found, sizes)
            _, labels, within, found, sizes = known
            grown = grow(labels, distance=way.grow or 0, within=within)
            table = from_labels(one.truth, grown, ignore=one.ignore)
            # How many of the least sizes each object passes, less one.
            passed = np.searchsorted(self.least, sizes, side="right") - 1
            steps = _Steps(places.count, len(self.least))
            terms.append(
                _object_terms(overlaps(table), true, found, passed=passed, sizes=sizes, steps=steps)
            )
        parts, wholes = zip(*terms, strict=True)
        return np.concatenate(parts, axis=1), np.concatenate(wholes, axis=1)

    def score(self, setting: Setting) -> float:
        """Score one setting as a prediction would be, with objects dropped before others grow."""
        total = np.zeros((2, 1))
        for one in self.maps:
            terms = self._terms(one, setting)
            total = total + terms
        part, whole = total
        there = whole > 0
        return float((part[there] / whole[there]).mean()) if there.any() else 0.0

    def _terms(self, one: HeldOutMap, setting: Setting) -> Array:
        if not has_instances(self.target):
            found = _pixel_terms(one, setting.threshold, _Places(one.truth.shape, 1))
            return np.stack([side[0] for side in found])
        pairs = overlaps(from_labels(one.truth, self._found(one, setting), ignore=one.ignore))
        matched = np.array([len(pairs.matches(percent)) for percent in PERCENTS])
        return np.stack([matched, pairs.true.objects + pairs.pred.objects - matched])

    def _found(self, one: HeldOutMap, setting: Setting) -> Array:
        """Return the objects that a prediction would have."""
        predicted = _found(one.probabilities, setting, self.target)
        return predicted if one.enlarge is None else one.enlarge(predicted)

    def by_place(self, one: HeldOutMap, setting: Setting, places: _Places) -> tuple[Array, Array]:
        """Return the terms of a setting by place, (U, K) each; an object is where it begins."""
        if not has_instances(self.target):
            classes = range(1, len(one.probabilities))
            if len(classes) == 1:
                return _pixel_terms(one, setting.threshold, places)
            terms = [_class_terms(one, to_classes(one.probabilities), k, places) for k in classes]
            parts, wholes = zip(*terms, strict=True)
            return np.concatenate(parts, axis=1), np.concatenate(wholes, axis=1)
        found = self._found(one, setting)
        pairs = overlaps(from_labels(one.truth, found, ignore=one.ignore))
        sides = []
        for labels, segments in ((one.truth, pairs.true), (found, pairs.pred)):
            ids, first = np.unique(labels, return_index=True)
            sides.append(places.of(first)[np.searchsorted(ids, segments.ids)])
        there = [
            np.bincount(place[segments.ids != 0], minlength=places.count)
            for place, segments in zip(sides, (pairs.true, pairs.pred), strict=True)
        ]
        matched = [sides[0][pairs.rows[pairs.matches(percent)]] for percent in PERCENTS]
        part = np.stack([np.bincount(at, minlength=places.count) for at in matched], axis=1)
        return part, (there[0] + there[1])[:, None] - part


@dataclass(frozen=True)
class _Places:
    """A plane cut into so many places a side, numbered from 0."""

    shape: tuple[int, ...]
    side: int

    @property
    def count(self) -> int:
        return self.side**2

    def of(self, pixels: Array) -> Array:
        """Return the place of each raster index."""
        y, x = np.divmod(pixels, self.shape[1])
        rows, columns = y * self.side // self.shape[0], x * self.side // self.shape[1]
        return np.asarray(rows * self.side + columns)


def _objects(probabilities: Array, way: Setting, target: str) -> tuple[Array, Array, int]:
    """Return the classes of a map, its objects before they grow, and their number."""
    threshold = 0.5 if way.threshold is None else way.threshold
    classes = to_classes(probabilities, threshold=threshold, target=target)
    mask = foreground_of(classes, target)
    if way.seed_level is None:
        return classes, *components(mask)
    seeds: dict[str, Any] = {"seed_level": way.seed_level, "seed_size": way.seed_size or 0}
    return classes, *separate(elevation(probabilities, target), mask, **seeds)


def _found(probabilities: Array, setting: Setting, target: str) -> Array:
    """Return the objects that a prediction would have."""
    classes, *parted = _objects(probabilities, setting, target)
    return instances(
        classes,
        target,
        min_size=setting.min_size or 0,
        distance=setting.grow or 0,
        parted=parted,
    )


@dataclass(frozen=True, eq=False)
class _Side:
    """The objects of one side: their ids, from low to high, and the place of each."""

    ids: Array
    places: Array

    def at(self, ids: Array) -> Array:
        """Return where in the list some ids are."""
        return np.searchsorted(self.ids, ids)


@dataclass(frozen=True)
class _Steps:
    """Counts by place and least size."""

    places: int
    levels: int

    def count(self, place: Array, passed: Array) -> Array:
        """Count objects that pass a least size, (U, L), by their places and how many they pass."""
        at = place * self.levels + passed
        found = np.bincount(at, minlength=self.places * self.levels)
        return np.asarray(found.reshape(self.places, -1)[:, ::-1].cumsum(axis=1)[:, ::-1])


def _object_terms(
    pairs: Overlaps, true: _Side, found: _Side, *, passed: Array, sizes: Array, steps: _Steps
) -> tuple[Array, Array]:
    """Return matches, and all objects less these, by place, least size and IoU, (U, L, 10).

    The pairs are those of all predicted objects. Without those that are too small the others match
    as they did, so that sizes tell how many are left.
    """
    there = found.at(pairs.pred.ids[pairs.pred.ids != 0])
    predicted = steps.count(found.places[there], passed[there])
    wanted = true.places[true.at(pairs.true.ids[pairs.true.ids != 0])]
    objects = predicted + np.bincount(wanted, minlength=steps.places)[:, None]
    place = true.places[true.at(pairs.true.ids)][pairs.rows]
    # Background is in no pair.
    number = found.at(pairs.pred.ids)[pairs.columns]
    matched = []
    for percent in PERCENTS:
        close = np.flatnonzero(100 * pairs.shared >= percent * pairs.unions)
        if percent == 50:
            close = _one_to_one(close, pairs.rows, pairs.columns, sizes[number])
        matched.append(steps.count(place[close], passed[number[close]]))
    part = np.stack(matched, axis=-1)
    return part, objects[..., None] - part


def _one_to_one(close: Array, rows: Array, columns: Array, sizes: Array) -> Array:
    """Choose one pair an object where an IoU of exactly one half leaves two to choose from.

    The two are then the halves of one object, so that the larger of them, which is dropped last,
    stands for both.
    """
    order = close[np.argsort(-sizes[close], kind="stable")]
    order = order[np.unique(rows[order], return_index=True)[1]]
    return np.asarray(order[np.unique(columns[order], return_index=True)[1]])


def _pixel_terms(one: HeldOutMap, threshold: float | None, places: _Places) -> tuple[Array, Array]:
    """Return twice the shared pixels of the second class, and those of both sides, by place."""
    return _class_terms(one, to_classes(one.probabilities, threshold=threshold or 0.5), 1, places)


def _class_terms(
    one: HeldOutMap, classes: Array, number: int, places: _Places
) -> tuple[Array, Array]:
    found, true = classes == number, one.truth == number
    counted = np.ones(true.shape, bool) if one.ignore is None else one.ignore == 0
    at = places.of(np.arange(true.size)).reshape(true.shape)

    def count(mask: Array) -> Array:
        return np.bincount(at[mask & counted], minlength=places.count)[:, None]

    return 2 * count(found & true), count(found) + count(true)


def _pick(tally: Tally, *, seed: int) -> int:
    """Return the setting with the best neighbours among those as good as the best within noise."""
    scores = tally.scores()
    best = int(scores.argmax())
    near = [int(number) for number in np.flatnonzero(scores >= scores[best] - CLOSE)]
    few = Tally(tuple(tally.settings[n] for n in near), tally.parts[:, near], tally.wholes[:, near])
    drawn = few.scores(_times(len(tally.parts), seed=seed))
    lead = drawn[:, near.index(best)][:, None] - drawn
    good = [n for k, n in enumerate(near) if scores[best] - scores[n] <= lead[:, k].std()]
    known = dict(zip(tally.settings, scores.tolist(), strict=True))

    def rank(number: int) -> tuple[float, ...]:
        """Put the best neighbours first, then what is next to the usual."""
        own = tally.settings[number]
        far = abs((own.threshold or 0.5) - 0.5), own.min_size or 0, abs((own.grow or 0) - 1)
        return -round(_around(own, known), 6), own.seed_level is not None, *far

    return min(good, key=rank)


def _around(setting: Setting, known: dict[Setting, float]) -> float:
    """Return the mean score of a setting and its neighbours in threshold, size and level."""
    axes = []
    for name in ("threshold", "min_size", "seed_level"):
        values = sorted({getattr(each, name) for each in known} - {None})
        own = getattr(setting, name)
        if own is not None:
            place = values.index(own)
            axes += [
                setting._replace(**{name: values[n]})
                for n in (place - 1, place + 1)
                if 0 <= n < len(values)
            ]
    found = [known[each] for each in (setting, *axes) if each in known]
    return float(np.mean(found))


def _honest_gain(tally: Tally, first: int, *, seed: int) -> tuple[float, float]:
    """Return what a fit gains over setting `first` on places that it has not seen, and the least.

    Each part of the places is scored by what the others choose; the least is what a share of
    `SURE` of the resamples of the places gain.
    """
    units = len(tally.parts)
    order = np.random.default_rng([seed, units]).permutation(units)
    own = np.zeros((2, units, *tally.parts.shape[2:]))
    for part in np.array_split(order, min(PARTS, units)):
        rest = np.setdiff1d(order, part)
        if not len(rest):
            return 0.0, 0.0
        chosen = _pick(tally.of(rest), seed=seed)
        own[0][part], own[1][part] = tally.parts[part, chosen], tally.wholes[part, chosen]
    pair = Tally(
        (tally.settings[first],) * 2,
        np.stack([own[0], tally.parts[:, first]], axis=1),
        np.stack([own[1], tally.wholes[:, first]], axis=1),
    )
    whole, drawn = pair.scores(), pair.scores(_times(units, seed=seed))
    gains = drawn[:, 0] - drawn[:, 1]
    return float(whole[0] - whole[1]), float(np.quantile(gains, 1 - SURE))


def _times(units: int, *, seed: int) -> Array:
    """Draw how often each place is in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES).astype(float)


def _curve(tally: Tally, usual: Setting) -> tuple[dict[str, float | None], ...]:
    if usual.threshold is None:
        return ()
    rows: dict[float, dict[str, float | None]] = {}
    for setting, score in zip(tally.settings, tally.scores().tolist(), strict=True):
        threshold = setting.threshold or 0.0
        row = rows.setdefault(threshold, {"threshold": threshold, "best": 0.0, "default": None})
        row["best"] = round(max(row["best"] or 0.0, score), 6)
        if setting == usual._replace(threshold=threshold):
            row["default"] = round(score, 6)
    return tuple(rows[key] for key in sorted(rows))
