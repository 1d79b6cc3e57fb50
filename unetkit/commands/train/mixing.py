"""Old and new data learned from together: which samples are new, and what of both is held out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, UsageError
from unetkit.storage.datasets import Dataset, aligned
from unetkit.storage.urls import base_name
from unetkit.training.split import Region, Split, split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unetkit.storage.datasets import Sample
    from unetkit.training.split import Origin

# The share of tiles from the new data, where nobody says another: as many as of the old.
SHARE = 0.5
# What the two sides are called where scores stand side by side.
SIDES = ("old", "new")


Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mix:
    """Two kinds of data that are learned from together."""

    share: float  # of the tiles, drawn from the new ones
    new: frozenset[str]  # names of samples
    names: tuple[str, str]  # what is old, and what is new, for people
    boxes: Mapping[str, Box]  # y0, y1, x0, x1 of what was judged, by sample
    places: Mapping[str, Box] = field(default_factory=dict)  # likewise, in its whole image

    @property
    def weights(self) -> tuple[float, float]:
        """What the score of either side counts in choosing the network, as its tiles do."""
        return 1 - self.share, self.share

    def to_dict(self) -> dict[str, Any]:
        """Return what decides about the weights, as JSON can hold it."""
        return {"mix": self.share, "new": sorted(self.new)}


def join_datasets(datasets: Sequence[Dataset], share: float | None) -> tuple[Dataset, Mix | None]:
    """See several datasets as one; the samples of the last one are new.

    A sample whose name another dataset has as well is called after its dataset, too. Sources and
    groups keep their names: what two datasets call alike is taken for the same.
    """
    first, *more = datasets
    if not more:
        return first, None
    taken: set[str] = set()
    samples: list[Sample] = []
    for dataset in datasets:
        named = [_named(sample, dataset, taken) for sample in dataset.samples]
        taken.update(sample.name for sample in named)
        samples += named
    samples = list(aligned(tuple(samples)))
    for sample in samples:
        counts = samples[0].data.channel_count, sample.data.channel_count
        if counts[0] != counts[1]:
            raise InputError(
                f"datasets to train on must have equally many channels, got {counts[0]} in"
                f" {first.url} and {counts[1]} in {sample.dataset}; choose some with --channels"
            )
    new = samples[len(samples) - len(more[-1].samples) :]
    old = ", ".join(base_name(dataset.url) for dataset in datasets[:-1])
    mix = Mix(
        SHARE if share is None else share,
        frozenset(sample.name for sample in new),
        (old, base_name(more[-1].url)),
        {sample.name: box for sample in new if (box := _judged_box(sample)) is not None},
        {sample.name: box for sample in new if (box := _judged_box(sample, whole=True))},
    )
    return replace(first, samples=tuple(samples)), mix


def _named(sample: Sample, dataset: Dataset, taken: set[str]) -> Sample:
    if sample.name not in taken:
        return sample
    name = f"{base_name(dataset.url)}/{sample.name}"
    if name in taken:
        raise UsageError(
            f"datasets must be different ones, got {dataset.url!r} twice; name it once"
        )
    return replace(sample, name=name)


def _judged_box(sample: Sample, *, whole: bool = False) -> Box | None:
    """Return the rows and columns of what was judged, where `unetkit correct` says them.

    They are those of the sample, or of the `whole` image that it was cut out of, in pixels of the
    size in which the sample is read.
    """
    told = sample.image.attributes
    if told.get("command") != "correct":
        return None
    sides = []
    try:
        for axis, size in zip("yx", (sample.data.height, sample.data.width), strict=True):
            first, last = (int(end) for end in told["stored"][axis])
            start, stop = (
                round((int(end) - first) * size / (last - first)) for end in told["window"][axis]
            )
            if not 0 <= start < stop <= size:
                return None
            top = round(first * size / (last - first)) if whole else 0
            sides += [top + start, top + stop]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    y0, y1, x0, x1 = sides
    return y0, y1, x0, x1


def split_sides(
    origins: Sequence[Origin],
    mix: Mix,
    *,
    gap: int,
    seed: int,
    has_foreground: Callable[[Region], bool],
) -> Split:
    """Hold out a part of the old data, and one of the new, by what their samples were made from.

    The old data are parted as if they were alone, so that the same seed holds out what it held out
    before. A source, or group, of both is on one side: new samples of what is held out are held
    out, and of what is learned from learned from, unless there are no others. Of an image that is
    parted, new windows that meet the part that is held out are held out.
    """
    asked: dict[str, Any] = {"gap": gap, "seed": seed, "has_foreground": has_foreground}
    old = [origin for origin in origins if origin.name not in mix.new]
    new = [origin for origin in origins if origin.name in mix.new]
    for side, name in zip((old, new), mix.names, strict=True):
        if not side:
            raise InputError(f"{name} must have labels to learn from, got none; annotate some")
    first = split(old, **asked)
    known = {origin.name: _kin(origin) for origin in old}
    held = {kin for region in first.validation for kin in known[region.sample]}
    learned = {kin for region in first.train for kin in known[region.sample]}
    bound = [origin for origin in new if _kin(origin) & (held - learned)]
    fixed = [origin for origin in new if _kin(origin) & (learned - held) and origin not in bound]
    within = [
        origin
        for origin in new
        if _kin(origin) & held & learned
        and any(_meets(mix.places.get(origin.name), region) for region in first.validation)
    ]
    notes = _notes_of(mix.names[0], first)
    if len(bound) + len(within) < len(new):
        bound += within
    elif within:
        listed = ", ".join(origin.name for origin in within)
        notes = (
            *notes,
            f"{listed} of {mix.names[1]} meet what is held out of {mix.names[0]}, whose score may"
            " be too good.",
        )
    free = [origin for origin in new if origin not in (*bound, *fixed)]
    if not (fixed or free):
        told = sorted({origin.group or origin.source for origin in new})
        raise InputError(
            f"samples of {mix.names[1]} must be of other images than those that are held out of"
            f" {mix.names[0]}, got {', '.join(told)} alone; hold out others with another --seed"
        )
    second = _split_new(bound, fixed, free, mix, asked=asked)
    notes = (*notes, *second.notes)
    summaries = filter(None, (first.summary, second.summary))
    return Split(
        first.train + second.train,
        first.validation + second.validation,
        notes,
        " ".join(summaries),
    )


def _kin(origin: Origin) -> set[tuple[str, str | None]]:
    """Say what a sample is of: its source, and its group, which one side may not know."""
    kin: set[tuple[str, str | None]] = {("source", origin.source)}
    return kin if origin.group is None else {*kin, ("group", origin.group)}


def _meets(place: Box | None, region: Region) -> bool:
    if place is None:
        return False
    y0, y1, x0, x1 = place
    return y0 < region.y1 and region.y0 < y1 and x0 < region.x1 and region.x0 < x1


def _split_new(
    bound: Sequence[Origin],
    fixed: Sequence[Origin],
    free: Sequence[Origin],
    mix: Mix,
    *,
    asked: dict[str, Any],
) -> Split:
    """Part the new samples, of which some have to be held out, and some learned from."""
    if bound:
        return Split(_whole(fixed, free), _whole(bound))
    if not free:
        found = _split_alone(fixed, mix, asked=asked)
        note = (
            f"All of {mix.names[1]} are of images that are learned from, so that what is held out"
            " of them may score a little too well."
        )
        return replace(found, notes=(note, *_notes_of(mix.names[1], found)))
    if fixed and len({origin.group or origin.source for origin in free}) == 1:
        return Split(_whole(fixed), _whole(free))
    found = _split_alone(free, mix, asked=asked)
    source = {origin.name: origin.source for origin in free}
    learned, held = ({source[r.sample] for r in side} for side in (found.train, found.validation))
    notes = _notes_of(mix.names[1], found)
    if len(free) > 1 and (both := sorted(learned & held)):
        note = (
            f"Windows of {', '.join(both)} are learned from and held out of {mix.names[1]}, whose"
            " score may be a little too good; correct windows of another image, too."
        )
        notes = (note, *notes)
    return replace(found, train=_whole(fixed) + found.train, notes=notes)


def _notes_of(data: str, found: Split) -> tuple[str, ...]:
    """Say of which dataset it is what was to be said of a split."""
    return tuple(f"{data}: {note[:1].lower()}{note[1:]}" for note in found.notes)


def _whole(*origins: Sequence[Origin]) -> tuple[Region, ...]:
    return tuple(Region(o.name, 0, 0, o.height, o.width) for side in origins for o in side)


def _split_alone(origins: Sequence[Origin], mix: Mix, *, asked: dict[str, Any]) -> Split:
    """Part samples as those of one dataset; of a single window what was judged."""
    if len({origin.group for origin in origins}) == 1:
        origins = [replace(origin, group=None) for origin in origins]
    (one, *others), box = origins, mix.boxes.get(origins[0].name)
    if others or box is None:
        return split(origins, **asked)
    y0, y1, x0, x1 = box
    has_foreground = asked["has_foreground"]

    def back(region: Region) -> Region:
        """Place a part of what was judged in its sample, with the surroundings on its outside."""
        return Region(
            one.name,
            region.y0 + y0 if region.y0 else 0,
            region.x0 + x0 if region.x0 else 0,
            region.y1 + y0 if region.y1 < y1 - y0 else one.height,
            region.x1 + x0 if region.x1 < x1 - x0 else one.width,
        )

    found = split(
        [replace(one, height=y1 - y0, width=x1 - x0)],
        **{**asked, "has_foreground": lambda region: has_foreground(back(region))},
    )
    train, validation = (tuple(map(back, side)) for side in (found.train, found.validation))
    return replace(found, train=train, validation=validation)
