"""The class of each object of a mask, by a class map of the same image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.import_images.masks import drawn_mask, make_labels, read_mask
from unetkit.commands.import_images.pairing import pair_files
from unetkit.commands.import_images.rules import named_by
from unetkit.errors import InputError, LabelError, UsageError
from unetkit.storage.drawings import BACKGROUND
from unetkit.storage.object_classes import MOST_NAMES, ObjectClasses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.commands.import_images.pairing import Pair
    from unetkit.commands.import_images.rules import MaskRules
    from unetkit.progress import Progress
    from unetkit.storage.image_file import ImageFile

Array = np.ndarray[Any, Any]
# Of one image: its objects, the values in them, and the pixels of each value in each object.
Votes = tuple[Array, Array, Array]


def with_class_maps(pairs: Sequence[Pair], source: str, maps: str) -> list[Pair]:
    """Give each image with a mask its class map; files of class maps are no images."""
    found = {pair.image: pair.mask for pair in pair_files(source, maps)[0]}
    kept = [pair for pair in pairs if pair.image in found]
    lost = [pair.name for pair in kept if pair.mask and found[pair.image] is None]
    if lost:
        raise InputError(
            f"every mask of objects must have a class map, got none for {len(lost):,} images, such"
            f" as {lost[0]!r}, in {maps!r}; add them, or take the masks away"
        )
    return [replace(pair, classes=found[pair.image] if pair.mask else None) for pair in kept]


def vote(
    pairs: Sequence[Pair], files: Sequence[ImageFile], rules: MaskRules, *, progress: Progress
) -> tuple[MaskRules, list[str]]:
    """Give each object the class of most of its pixels; what else lies in them is said.

    Pixels of class 0 have no vote: an object that has no others is refused. Of classes with as many
    pixels the first is taken.
    """
    mapped = [(p, f) for p, f in zip(pairs, files, strict=True) if p.mask and p.classes]
    progress.start("looking at the classes", total=len(mapped))
    found: dict[str, Votes] = {}
    for pair, file in mapped:
        ids = make_labels(drawn_mask(str(pair.mask), file, rules), rules)[0]
        found[pair.name] = _count(ids, read_mask(str(pair.classes), file, fill=rules.fill))
        progress.advance()
    values = sorted({value for _, there, _ in found.values() for value in there.tolist()})
    mapping, names = _numbers(values, rules)
    voted, mixed, total = {}, 0, 0
    for pair, _ in mapped:
        ids, there, pixels = found[pair.name]
        by_class = np.zeros((len(ids), len(names)), np.int64)
        for column, value in enumerate(there.tolist()):
            by_class[:, mapping[value]] += pixels[:, column]
        none = ids[by_class[:, 1:].sum(axis=1) == 0]
        if len(none):
            raise LabelError(
                f"objects must be of a class, got {len(none):,} of class 0 alone in"
                f" {pair.classes!r}, such as object {none[0]} of {pair.mask!r}; take them away, or"
                " name 0 in --classes, as in 0=other,1=tumour"
            )
        mixed += int((np.count_nonzero(by_class, axis=1) > 1).sum())
        total += len(ids)
        chosen = by_class[:, 1:].argmax(axis=1) + 1
        voted[pair.name] = ObjectClasses.of_objects(ids, chosen, names)
    remarks = []
    if mixed:
        remarks.append(
            f"{mixed:,} of {total:,} objects hold pixels of more than one class: each is of the"
            " class of most of its pixels, those of class 0 left out"
        )
    return replace(rules, names=names, voted=voted), remarks


def _count(ids: NDArray[Any], values: NDArray[Any]) -> Votes:
    """Count the pixels of each value in each object."""
    inside = ids != 0
    objects, row = np.unique(ids[inside], return_inverse=True)
    there, column = np.unique(values[inside], return_inverse=True)
    counts = np.bincount(row * len(there) + column, minlength=len(objects) * len(there))
    return objects, there, counts.reshape(len(objects), len(there))


def _numbers(values: Sequence[int], rules: MaskRules) -> tuple[dict[int, int], tuple[str, ...]]:
    """Say which number each value of the class maps has among the names, and these."""
    names = rules.names or (BACKGROUND, *(str(value) for value in values if value))
    if len(names) > MOST_NAMES:
        raise LabelError(
            f"objects must be of at most {MOST_NAMES - 1} classes, got {len(names) - 1} values in"
            " the class maps; are these maps of classes? join values by --classes"
        )
    if rules.ranges:
        own = {v: names.index(n[0]) for v in values if (n := named_by(rules.ranges, v))}
    elif all(name.isdecimal() for name in names[1:]):
        own = {v: names.index(str(v), 1) for v in values if str(v) in names[1:]}
    else:
        own = {value: value for value in values if 0 <= value < len(names)}
    lost = [value for value in values if value and value not in own]
    if lost:
        raise UsageError(
            f"classes must name every value of the class maps, got {', '.join(names)} for"
            f" {', '.join(map(str, lost[:12]))} as well; name all, as in --classes"
            " 1=tumour,2-3=stroma"
        )
    return {0: 0, **own}, names


def check_class_maps(maps: str | None, *, kind: str, stored: bool, drawn: bool) -> None:
    """Refuse class maps of objects where there are no masks of objects."""
    if maps is None:
        return
    if kind != "instances+classes":
        raise UsageError(
            f"--object-classes must come with --kind instances+classes, got {kind}; add it"
        )
    if stored or drawn:
        raise UsageError(
            "--object-classes must come with masks, got"
            f" {'a store' if stored else 'outlines, which name their class'}; leave it out"
        )
