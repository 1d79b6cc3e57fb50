"""Masks for an import: read them all once, decide what they mean, then hand them out as labels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.masks import (
    MaskSurvey,
    join_pages,
    one_channel,
    split_ignore,
    to_classes,
    whole_numbers,
)
from unetkit.commands.import_images.pairing import PLANE, plane_files
from unetkit.commands.import_images.rules import named_by
from unetkit.errors import InputError, LabelError, UsageError
from unetkit.machine import mapped
from unetkit.progress import SILENT, Progress
from unetkit.storage.chunk_files import PackedArray
from unetkit.storage.drawings import BACKGROUND
from unetkit.storage.image_file import ImageFile
from unetkit.storage.object_classes import (
    object_class_names,
    read_object_classes,
    renumbered,
)
from unetkit.storage.readers import is_built_in, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.commands.import_images.pairing import Pair
    from unetkit.commands.import_images.rules import MaskRules
    from unetkit.storage.image_file import Strip
    from unetkit.storage.object_classes import ObjectClasses


COLOURS = ("red", "green", "blue")


def open_mask(path: str, image: ImageFile, *, fill: bool = False) -> ImageFile:
    """Look into a mask; one that is of another size or was compressed with loss is refused."""
    wanted = image.axes.replace("c", "")
    if PLANE in path:
        file = _of_planes(path, image)
    else:
        # Pages of a mask mean what those of its image mean, where the mask does not say it.
        file = open_file(path, axes=wanted, labels=True, fill=fill)
    return fitting_mask(file, image)


def fitting_mask(file: ImageFile, image: ImageFile) -> ImageFile:
    """Refuse a mask that can't be that of an image, and say what is to be known of it."""
    wanted = image.axes.replace("c", "")
    if file.lossy:
        raise LabelError(
            f"mask must be saved without loss, got a JPEG in {file.path!r}, whose values are not"
            " those that were drawn; save it as PNG or TIFF"
        )
    paged = image.planes == 1 and file.axes == "zyx"
    if paged and file.planes > 1:
        remark = "have a page for each object, which were numbered in their order"
        file = replace(file, remarks=(*file.remarks, remark))
    for axis in dict.fromkeys(wanted + file.axes):
        if axis in "tz" and file.size(axis) != image.size(axis) and not paged:
            raise InputError(
                f"mask must have the planes of its image, got {file.size(axis)} along {axis} in"
                f" {file.path!r} for {image.size(axis)} in {image.path!r}"
            )
    sizes = [(f.size("y"), f.size("x")) for f in (file, image)]
    if sizes[0] != sizes[1]:
        turned = [f.path for f in (image, file) if f.turned and sizes[0] == sizes[1][::-1]]
        raise InputError(
            "mask must be as high and wide as its image, got"
            f" {sizes[0][0]} x {sizes[0][1]} in {file.path!r} for"
            f" {sizes[1][0]} x {sizes[1][1]} in {image.path!r}"
            + (
                f"; {turned[0]!r} carries an orientation, which is not applied: save it as it is to"
                " be shown, without one"
                if turned
                else "; is it another image's? else scale it to that size, without smoothing, or"
                " take it away"
            )
        )
    return file


def _of_planes(path: str, image: ImageFile) -> ImageFile:
    """Look into the masks of single planes as one of their stack; nobody judged its other planes.

    What of them can't be decoded is refused.
    """
    masks = {z: open_file(file, axes="yx", labels=True) for z, file in plane_files(path).items()}
    last, depth = max(masks), image.size("z")
    if image.axes.replace("c", "") != "zyx" or last >= depth:
        raise InputError(
            f"masks of planes must be of a stack with the axes zyx, got {masks[last].path!r} for"
            f" {image.path!r}, which has {image.axes} and {depth} planes, counted from 0"
        )
    first = next(iter(masks.values()))
    for mask in masks.values():
        if mask.axes != "yx" or mask.shape != first.shape:
            raise InputError(
                f"masks of planes must be grey and of one size, got {mask.shape} in {mask.path!r}"
                f" and {first.shape} in {first.path!r}"
            )
    dtype, (rows, width) = np.result_type(*(mask.dtype for mask in masks.values())), first.shape

    def strips(height: int) -> Iterator[Strip]:
        for z in range(depth):
            if z in masks:
                for _, y0, block in masks[z].strips(height):
                    yield z, y0, block.astype(dtype)
                continue
            for y0 in range(0, rows, height):
                yield z, y0, np.zeros((1, min(height, rows - y0), width), dtype=dtype)

    return ImageFile(
        path,
        "zyx",
        (depth, rows, width),
        dtype,
        strips,
        lossy=any(mask.lossy for mask in masks.values()),
        remarks=("are of some planes, so that the others are ignored",),
        absent=sum(mask.absent for mask in masks.values()),
        parts=sum(mask.parts for mask in masks.values()),
        unjudged=tuple(z for z in range(depth) if z not in masks),
    )


# Of masks that were looked at so many bytes are kept, packed, which is some 10^5 of 512 x 512.
KEPT_BYTES = 2**28
# Images from this size on are worked on one at a time.
LARGE = 2**26


def needs_all(image: ImageFile, *paths: str) -> bool:
    """Tell whether an image must be worked on alone: a large one, or one of an installed reader.

    What such a reader calls may not bear a second thread.
    """
    plain = all(is_built_in(path) for path in (image.path, *paths))
    return not plain or math.prod(image.shape) * image.dtype.itemsize > LARGE


def drawn_mask(path: str, image: ImageFile, rules: MaskRules) -> NDArray[Any]:
    """Return the numbers of a mask as drawn: those that `survey` kept, or read again."""
    if path in rules.kept:
        return rules.kept[path].values()
    return read_mask(path, image, ignore=rules.ignore, fill=rules.fill)


def read_mask(
    path: str, image: ImageFile, *, ignore: int | None = None, fill: bool = False
) -> NDArray[Any]:
    """Read the numbers of a mask as drawn, with its image's axes without c.

    One that does not fit, is coloured or not of whole numbers is refused.
    """
    return mask_numbers(open_mask(path, image, fill=fill), image, ignore)[0]


def mask_numbers(
    file: ImageFile, image: ImageFile, ignore: int | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the numbers of a mask, and what a user should know of how it was drawn."""
    pixels = file.load()
    channels = np.moveaxis(pixels, file.axes.index("c"), 0) if "c" in file.axes else pixels[None]
    shown = [channel.any() for channel in (channels[:-1] if file.alpha else channels)]
    pages = file.planes > image.planes
    said: tuple[str, ...] = ()
    # Colours mean what nobody says; other channels are pages.
    if sum(shown) > 1 and file.planes == 1 and not (file.alpha or file.channel_names == COLOURS):
        pages = any(not np.array_equal(channels[0], other) for other in channels[1:])
    if pages and file.planes == 1:
        drawn, said = channels, ("have a channel for each object, which were numbered in order",)
    else:
        drawn = one_channel(channels, name=file.path, alpha=file.alpha)
    if sum(shown) == 1 < len(shown):
        name = (COLOURS if len(shown) == 3 else file.channels)[shown.index(True)]
        said = (f"hold something in the channel {name} alone, which was taken for the numbers",)
    numbers = whole_numbers(drawn, name=file.path, ignore=ignore)
    if pages:
        numbers = join_pages(numbers.reshape(-1, *numbers.shape[-2:]), name=file.path)
        if file.planes == 1 and numbers.all():
            raise LabelError(
                "mask with a channel for each object must leave pixels to the background, got none"
                f" in {file.path!r}; if the channels are classes, save one with their numbers"
            )
    return numbers.reshape([image.size(axis) for axis in image.axes if axis != "c"]), said


def survey(
    masks: Sequence[tuple[str, ImageFile]],
    rules: MaskRules,
    *,
    known: dict[int, int] | None = None,
    progress: Progress = SILENT,
) -> MaskRules:
    """Read every mask once and decide what their values mean, for all of them together.

    `known` are the classes of a dataset that is added to.
    """
    seen = MaskSurvey(ignore=rules.ignore)
    instances = rules.kind == "instances"
    progress.start("looking at the masks", total=len(masks))
    files: dict[str, ImageFile] = {}
    kept: dict[str, PackedArray] = {}
    room = KEPT_BYTES

    def look(mask: tuple[str, ImageFile]) -> tuple[ImageFile, MaskSurvey, PackedArray]:
        path, image = mask
        file = open_mask(path, image, fill=rules.fill)
        drawn, said = mask_numbers(file, image, rules.ignore)
        own = MaskSurvey(ignore=rules.ignore)
        own.add(path, drawn, pieces=instances and not rules.split)
        return replace(file, remarks=(*file.remarks, *said)), own, PackedArray(drawn)

    looks = mapped(look, masks, alone=lambda mask: needs_all(mask[1], mask[0]))
    for (path, _), (file, own, packed) in zip(masks, looks, strict=True):
        progress.advance()
        files[path] = file
        seen.join(own)
        room -= len(packed.content)
        if room >= 0:
            kept[path] = packed
    rules = replace(rules, files=files, kept=kept, ignored=seen.ignored)
    if instances:
        if rules.split:
            seen.check_binary()
        else:
            seen.check_instances()
        return replace(rules, empty=not any(seen.found))
    if rules.ranges:
        mapping = _joined_classes(seen.found, rules)
    else:
        mapping = _known_classes(seen, known) if known else seen.classes(rules.names)
    names = rules.names or tuple(str(value) for value in sorted(mapping))
    empty = len(set(mapping.values())) < 2
    return replace(rules, mapping=mapping, class_names=names, empty=empty)


def _known_classes(seen: MaskSurvey, known: dict[int, int]) -> dict[int, int]:
    new = [value for value in seen.found if value not in known]
    if new:
        raise LabelError(
            "masks must hold the values that the dataset has classes for"
            f" ({', '.join(map(str, sorted(known)))}), got {', '.join(map(str, new[:12]))} as well;"
            " import all of them together into a new dataset"
        )
    return known


def _joined_classes(found: Sequence[int], rules: MaskRules) -> dict[int, int]:
    """Give each value the class of its range; the first class is that of the lowest value."""
    names = rules.names or ()
    lost = [value for value in found if not named_by(rules.ranges, value)]
    if lost:
        named = ", ".join(
            f"{low}-{high}" if low < high else str(low) for low, high, _ in rules.ranges
        )
        raise LabelError(
            f"masks must hold values that are named as classes ({named}), got"
            f" {', '.join(map(str, lost[:12]))} as well; name all by --classes, or mark one with"
            " --ignore"
        )
    return {value: names.index(named_by(rules.ranges, value)[0]) for value in found}


def rules_of_stored(pairs: Sequence[Pair], rules: MaskRules) -> MaskRules:
    """Let what a store says of its labels hold: names of classes, and that objects have some."""
    samples = [pair.sample for pair in pairs if pair.sample is not None]
    if rules.kind == "classes":
        names = {sample.class_names for sample in samples}
        if rules.names is None and len(names) == 1 and (own := names.pop()):
            ranges = tuple((number, number, name) for number, name in enumerate(own))
            return replace(rules, names=own, ranges=ranges)
        return rules
    classed = {bool(object_class_names(sample.image)): sample.name for sample in samples}
    if len(classed) > 1 or (rules.classed and False in classed):
        raise InputError(
            "objects of a store must have classes in all samples to have some, got none in"
            f" {classed[False]!r}; draw and import its objects with classes"
        )
    if True in classed and rules.split:
        raise UsageError(
            "--connected-components must be left out where objects have classes, got objects of"
            f" classes in {classed[True]!r}"
        )
    return replace(rules, classed=rules.classed or True in classed)


def named_as_stored(pairs: Sequence[Pair], rules: MaskRules) -> MaskRules:
    """Name the classes of objects as the stores do that they come from, where nothing else does."""
    images = [pair.sample.image for pair in pairs if pair.sample is not None]
    if not rules.classed or not images:
        return rules
    found = tuple(dict.fromkeys(name for one in images for name in object_class_names(one)[1:]))
    names = rules.names or (BACKGROUND, *found)
    if lost := [name for name in found if name not in names[1:]]:
        raise LabelError(
            f"objects must be of the classes {', '.join(names[1:])}, got the class {lost[0]!r};"
            " name it in --classes"
        )
    return replace(rules, names=names)


def stored_classes(pair: Pair, rules: MaskRules) -> ObjectClasses | None:
    """Return the class of each object of labels from a store, or of masks with class maps."""
    if pair.name in rules.voted:
        return rules.voted[pair.name]
    if pair.sample is None or not rules.classed:
        return None
    found = read_object_classes(pair.sample.image)
    return None if found is None else renumbered(found, rules.names or found.names)


def make_labels(
    mask: NDArray[Any], rules: MaskRules
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Turn a mask as drawn (..., Y, X) into labels, and 1 where nobody annotated.

    Classes become uint8, instances keep their numbers; without an ignored value the second is None.
    """
    if rules.kind == "classes":
        ignore = None if rules.ignore is None else (mask == rules.ignore).astype(np.uint8)
        # What is ignored counts as the first class, whatever its value.
        stand_in = mask.dtype.type(min(rules.mapping, default=0))
        drawn = mask if ignore is None else np.where(ignore, stand_in, mask)
        return to_classes(drawn, rules.mapping or {0: 0}), ignore
    drawn, ignore = split_ignore(mask, rules.ignore)
    return (_pieces(drawn) if rules.split else drawn), ignore


def _pieces(mask: NDArray[Any]) -> NDArray[np.uint32]:
    # Loaded where it is used: most masks need none of it.
    from unetkit.arrays.components import components

    planes = mask.reshape(-1, *mask.shape[-2:])
    numbers = np.zeros(planes.shape, dtype=np.uint32)
    total = 0
    for plane, out in zip(planes, numbers, strict=True):
        found, count = components(plane > 0)
        out[:] = np.where(found > 0, found + np.uint32(total), 0)
        total += count
    return numbers.reshape(mask.shape)
