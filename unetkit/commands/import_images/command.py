"""Image files to Zarr: a folder becomes a dataset, one file without masks an image."""

from __future__ import annotations

import re
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unetkit.commands.import_images.class_maps import check_class_maps, vote, with_class_maps
from unetkit.commands.import_images.dataset import DatasetOutput
from unetkit.commands.import_images.groups import group_finder, grouped
from unetkit.commands.import_images.layouts import channel_names, find_layout
from unetkit.commands.import_images.masks import named_as_stored, rules_of_stored, survey
from unetkit.commands.import_images.pairing import Pair, pair_files
from unetkit.commands.import_images.rules import (
    check_append,
    check_damaged,
    check_drawn,
    kind_of,
    read_rules,
)
from unetkit.commands.import_images.shapes import (
    class_note,
    find_regions,
    pair_shapes,
    region_note,
    shape_notes,
    survey_shapes,
)
from unetkit.errors import InputError, UsageError
from unetkit.progress import SILENT, Progress, collects_warnings, warn, warnings_of
from unetkit.storage.annotations import annotation_files
from unetkit.storage.atomic import is_stored
from unetkit.storage.datasets import DatasetWriter, are_named, listed_names, open_dataset
from unetkit.storage.image_file import ImageFile, check_axes, joined
from unetkit.storage.images import channel_numbers, detect
from unetkit.storage.outputs import check_output
from unetkit.storage.pixel_size import parse_pixel_size
from unetkit.storage.readers import open_file
from unetkit.storage.tiff_bands import place_of
from unetkit.storage.urls import resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unetkit.commands.import_images.rules import MaskRules
    from unetkit.options import Axes, Channels, Opt, Overwrite
    from unetkit.storage.drawings import Drawing


@dataclass(frozen=True)
class ImportReport:
    """What an import made."""

    output: str
    made: str = "dataset"  # or image
    samples: int = 0
    labelled: int = 0
    unlabelled: int = 0
    skipped_hidden: int = 0  # files
    skipped_other: int = 0  # files that are no images
    skipped_known: int = 0  # images that the dataset has already
    alpha_dropped: int = 0  # images with an alpha channel
    absent_parts: int = 0  # tiles and strips that TIFFs speak of and do not hold
    damaged_parts: int = 0  # those that can't be decoded and came in as 0
    kind: str | None = None  # of the labels
    mapping: dict[str, int] = field(default_factory=dict)  # from value in the masks to class
    class_names: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()  # several where images differ
    pixel_size: dict[str, float] | None = None  # micrometres, where all images have the same
    preview: str | None = None  # the picture
    groups: tuple[str, ...] = ()  # that the images belong to, if these were told
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def notes(report: ImportReport, rules: MaskRules) -> list[str]:
    """Say what was passed over, and what became of values in masks."""
    said = []
    if report.skipped_known:
        said.append(f"skipped {_many(report.skipped_known, 'image')} that the dataset has already")
    if report.skipped_hidden:
        said.append(f"skipped {_many(report.skipped_hidden, 'hidden file')}")
    if report.skipped_other:
        said.append(f"skipped {_many(report.skipped_other, 'file')} of other kinds")
    if rules.kind == "classes" and report.mapping and not rules.canvases:
        said.append(f"values in the masks became classes: {_classes(report)}")
    if rules.ignore is not None:
        said.append(f"{_many(rules.ignored, 'pixel')} of value {rules.ignore} will be ignored")
    if report.groups:
        said.append(f"{_many(len(report.groups), 'group')}: {listed_names(report.groups)}")
    return [*said, *class_note(rules), *region_note(rules)]


def cautions(
    report: ImportReport, files: Sequence[ImageFile], rules: MaskRules, *, asked: bool
) -> list[str]:
    """Say what is not as one may think; of images without a mask where masks were asked for."""
    said = []
    if report.alpha_dropped:
        said.append(f"dropped the alpha channel of {_many(report.alpha_dropped, 'image')}")
    for noun, opened in (("image", files), ("mask", tuple(rules.files.values()))):
        said += _remarks(noun, opened)
    if asked and report.unlabelled:
        said.append(f"{_many(report.unlabelled, 'image')} without a mask came in unlabelled")
    if rules.empty:
        what = "foreground" if rules.kind == "instances" else "second class"
        said.append(
            f"no {what} was found in any mask, so that there is nothing to learn from them; look at"
            " them, or annotate some more"
        )
    return said


def _classes(report: ImportReport) -> str:
    listed = []
    for number, name in enumerate(report.class_names):
        values = [value for value, found in report.mapping.items() if found == number]
        shown = " ".join(values[:LISTED]) + (" …" if len(values) > LISTED else "")
        if values:
            listed.append(f"{shown} -> {number}" + (f" ({name})" if [name] != values else ""))
    return ", ".join(listed)


def _remarks(noun: str, files: Sequence[ImageFile]) -> list[str]:
    """Say what readers remarked, each with the number of files."""
    said = []
    holed = [file for file in files if file.absent]
    if holed:
        said.append(
            f"{_many(len(holed), noun)} such as {holed[0].path!r}:"
            f" {_many(sum(file.absent for file in holed), 'tile or strip', 'tiles or strips')} of"
            f" {sum(file.parts for file in holed):,} were never written and came in as 0"
        )
    remarks = [remark for file in files for remark in file.remarks]
    seen = (
        "have transparency (an alpha channel), which is taken for the mask where all that shows is"
        " of one colour; elsewhere the colours are"
    )
    remarks += [seen for file in files if file.alpha]
    return said + [_remark(noun, count, remark) for remark, count in Counter(remarks).items()]


def _remark(noun: str, count: int, remark: str) -> str:
    """Say of how many files a remark is; it is written of many."""
    verb, _, rest = remark.partition(" ")
    one = {
        "have": "has",
        "hold": "holds",
        "carry": "carries",
        "say": "says",
        "were": "was",
        "are": "is",
    }
    return f"{_many(count, noun)} {one.get(verb, verb) if count == 1 else verb} {rest}"


def _many(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


LISTED = 12  # values of one class that are named


@collects_warnings
def import_images(
    source: str,
    output: Annotated[str, Opt(check="unetkit.storage.outputs:check_new_dataset")],
    *,
    labels: Annotated[str | None, Opt(panel="Labels")] = None,
    kind: Annotated[
        Literal["instances", "classes", "instances+classes"],
        Opt(panel="Labels", check="unetkit.commands.import_images.rules:check_rules"),
    ] = "instances",
    classes: Annotated[str | None, Opt(panel="Labels")] = None,
    object_classes: Annotated[str | None, Opt(panel="Labels")] = None,
    ignore: Annotated[int | None, Opt(panel="Labels")] = None,
    judged: Annotated[Sequence[str], Opt(metavar="NAME|Y0:Y1,X0:X1", panel="Labels")] = (),
    connected_components: Annotated[bool, Opt(panel="Labels")] = False,
    outlines: Annotated[
        Literal["corners", "centres"] | None, Opt(panel="Labels", default="as the format has it")
    ] = None,
    overlaps: Annotated[Literal["later", "smaller", "refuse"], Opt(panel="Labels")] = "later",
    group: Annotated[str | None, Opt(metavar="REGEX|CSV")] = None,
    scene: Annotated[str | None, Opt(metavar="NAME|NUMBER", default="all")] = None,
    axes: Axes = None,
    channels: Channels = None,
    pixel_size: Annotated[
        str | None,
        Opt(default="from the file", check="unetkit.storage.pixel_size:parse_pixel_size"),
    ] = None,
    require_complete_input: bool = False,
    damaged: Annotated[
        Literal["error", "fill"], Opt(check="unetkit.commands.import_images.rules:check_damaged")
    ] = "error",
    append: Annotated[
        bool, Opt(panel="Output", check="unetkit.commands.import_images.rules:check_append")
    ] = False,
    preview: Annotated[
        str | None, Opt(panel="Output", check="unetkit.storage.urls:check_png")
    ] = None,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> ImportReport:
    """Turn image files, with or without masks, into Zarr.

    A folder becomes a dataset; one file without masks becomes one image, such as a slide.

    Parameters
    ----------
    source : str
        A folder, a quoted glob, a path such as ``DIR/{stem}_img.png`` or one image file: PNG, JPEG,
        TIFF, or what an installed reader takes. ``DIR/{stem}_{channel}.tif`` joins files, one a
        channel. In a folder as nnU-Net, Cellpose, StarDist, BiaPy or the Cell Tracking Challenge
        lay it out, masks are found. Or an OME-Zarr image, dataset or plate, whose pixels are
        copied.
    output : str
        The Zarr to write; it appears complete or not at all.
    labels : str, optional
        Masks: a folder with files of the same stems, one file, or a pattern such as
        ``DIR/{stem}_mask.png``; or outlines: a GeoJSON, COCO, LabelMe, VIA, CVAT,
        ImageScope or ImageJ ROI file, or a folder of them. Of OME-Zarr the name of its labels.
        Images without either come in unlabelled.
    kind : {"instances", "classes", "instances+classes"}
        What a mask's values are: one id an object, or one value a class. An outline is an object
        each, or of the class that it names, or both: an object of that class.
    classes : str, optional
        Class names in the order of their values: ``background,myelin,axon``; or with the values
        that join to each: ``0=background,127-130=myelin,233-255=axon``. Of outlines the first is
        what lies in none.
    object_classes : str, optional
        Where masks hold an id for each object: class maps of the same images, given as labels are.
        Each object is of the class of most of its pixels.
    ignore : int, optional
        The mask value of pixels that nobody judged, such as 255 or -1; they become background and
        a mask of their own.
    judged : sequence of str
        Where the annotation is complete; everything else is ignored. The class of the shapes that
        say it, or a rectangle in pixels, first and last row and column, the last ones excluded.
        Labels stay as they are; an object across the rim counts with what of it lies inside.
    connected_components : bool
        Number the separate pieces of a yes/no mask; touching objects become one.
    outlines : {"corners", "centres"}, optional
        Where outlines are counted from: the outer corner of the first pixel, or its centre, the
        outline included, as OpenCV and Cellpose write it into formats of either kind.
    overlaps : {"later", "smaller", "refuse"}
        Which shape stays where outlines overlap, or none.
    group : str, optional
        Which animal, patient, well or staining each image belongs to: a regular expression, whose
        first part in brackets is found in the image's name, such as ``(.+)_``, or a CSV file with
        the columns image and group. Scenes are of their file's group, unless the table names them
        or only their own names match. Splits, intervals and scores go by it.
    scene : str, optional
        Which scene, series or position of files that hold several, by name or number; left out,
        each becomes a sample. A wrong one lists those that there are.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    channels : str, optional
        Channels to use, in this order, by name or number: ``DAPI`` or ``0,2``.
    pixel_size : str, optional
        Micrometres a pixel: ``0.25``, ``250nm``, or y,x as ``0.5,0.25``; left out, what the
        metadata of OME or ImageJ say.
    require_complete_input : bool
        Refuse a TIFF that lacks a tile or strip that it speaks of; else it comes in as 0, and the
        output tells of it. Absent planes and files of a set are always refused.
    damaged : {"error", "fill"}
        What to do about tiles and strips of a TIFF that can't be decoded: stop, or bring them in as
        0, recorded, and ignored in labels.
    append : bool
        Add to a dataset that is there; images that it has already are skipped.
    preview : str, optional
        Write a PNG to look at: images with the outlines of their labels, dim where nobody judged;
        some, evenly chosen, where they are many.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told of files and of what a user should know.

    Returns
    -------
    ImportReport

    Raises
    ------
    UsageError
        If options do not fit each other or can't be read.
    InputError
        If files are missing, damaged or do not fit together; a `LabelError` where masks are not
        what they are said to be.
    OutputError
        If the output is there, or a sample of this name is.
    """
    laid = find_layout(source) if labels is None else None
    if laid is not None:
        source, labels = laid.source, laid.labels
        progress.note(str(laid))
        kind = laid.kind or kind
        if classes is None:
            ignore = laid.ignore if ignore is None else ignore
            classes = laid.named(ignore)
    stored = is_stored(source)
    kind = kind_of(kind, labels, stored=stored)
    rules = read_rules(
        labels, kind, classes, ignore=ignore, judged=judged, split=connected_components
    )
    fill = damaged == "fill"
    rules = replace(rules, outlines=outlines, overlaps=overlaps, fill=fill)
    check_damaged(damaged, require_complete_input=require_complete_input)
    check_append(append, overwrite=overwrite)
    size = parse_pixel_size(pixel_size) if pixel_size is not None else None
    by_file = labels is not None and (not stored or Path(labels).exists())
    drawn = annotation_files(labels, beside=source) if labels is not None and by_file else []
    check_class_maps(object_classes, kind=kind, stored=stored, drawn=bool(drawn))
    pairs, found = pair_files(source, None if drawn else labels)
    if object_classes is not None:
        pairs = with_class_maps(pairs, source, object_classes)
    drawings: dict[str, Drawing] = {}
    rules = rules_of_stored(pairs, rules)
    told = drawn or object_classes is not None or any(pair.sample for pair in pairs)
    if rules.classed and not told:
        raise UsageError(
            "kind must be instances or classes where labels are masks, whose values are one of"
            " them, got instances+classes; outlines such as GeoJSON say both, and masks with"
            " --object-classes for their class maps"
        )
    check_drawn(rules, drawn=bool(drawn))
    if drawn:
        pairs, drawings, remarks = pair_shapes(pairs, drawn, rules, progress=progress)
        found = replace(found, remarks=(*found.remarks, *remarks))
    single = detect(source) == "image" if stored else Path(source).is_file()
    alone = labels is None and not append and single
    if group is not None:
        group_finder(group)  # what can't find any is refused before a file is opened
    here = DatasetOutput(output, append=append, overwrite=overwrite)
    here.check(pairs)
    if preview is not None:
        inputs = [path for pair in pairs for path in pair.files]
        check_output(preview, inputs=inputs, overwrite=overwrite or append)
    opened = partial(open_file, axes=axes and check_axes(axes), fill=fill)
    pairs = [replace(pair, scene=scene) for pair in pairs]
    names = laid.channels if laid is not None else ()
    pairs, files = _open_all(pairs, opened, names=names, channels=channels, size=size)
    alone = alone and len(pairs) == 1  # a file may hold several scenes
    if group is not None:
        if alone:
            raise UsageError(
                "--group must be of several images, or of one with labels, got one that becomes an"
                " image; leave --group out"
            )
        pairs = grouped(pairs, group)
    if append:
        rules = here.check_appended(files, rules, labelled=labels is not None)
    masks = [(p.mask, f) for p, f in zip(pairs, files, strict=True) if p.mask]
    rules = named_as_stored(pairs, rules)
    if drawn:
        drawn_of = zip(pairs, files, strict=True)
        there = [(p.name, drawings[p.name], f) for p, f in drawn_of if p.name in drawings]
        rules = survey_shapes(there, rules)
    elif masks:
        rules = survey(masks, rules, known=here.known, progress=progress)
    mixed: list[str] = []
    if object_classes is not None:
        rules, mixed = vote(pairs, files, rules, progress=progress)
    if rules.judged or rules.rectangles:
        paired = [(p, f) for p, f in zip(pairs, files, strict=True) if p.mask]
        rules = find_regions([(p.name, drawings.get(p.name), f) for p, f in paired], rules)
    if require_complete_input:
        _check_complete((*files, *rules.files.values()))
    remarks = [*found.remarks, *here.remarks(files), *mixed]
    known = len(pairs)
    if append:
        new = here.missing(pairs, files, rules)
        pairs, files = [pairs[n] for n in new], [files[n] for n in new]
        rules = rules.of(pair.name for pair in pairs)
    known -= len(pairs)
    report = replace(
        _report(output, files, rules if masks else None),
        made="image" if alone else "dataset",
        labelled=sum(pair.mask is not None for pair in pairs),
        unlabelled=sum(pair.mask is None for pair in pairs),
        skipped_hidden=found.hidden,
        skipped_other=len(found.other),
        skipped_known=known,
        groups=tuple(dict.fromkeys(pair.group for pair in pairs if pair.group)),
    )
    remarks += cautions(report, files, rules, asked=labels is not None)
    with _damage(files) as lossy:

        def warned() -> tuple[str, ...]:
            # What painting tells is known only now.
            painted = shape_notes(rules, list(drawings.values()))
            for remark in (*remarks, *painted, *lossy(), *filled_in(files, rules)):
                warn(progress, remark)
            return warnings_of(progress)

        if alone:
            here.write_image(files[0], pairs[0], progress, warned=warned)
        else:
            here.write_dataset(pairs, files, rules, progress=progress, warned=warned)
    for sentence in notes(report, rules):
        progress.note(sentence)
    if preview is not None and pairs:
        from unetkit.views.overview import draw_dataset

        made = open_dataset(output)
        draw_dataset(preview, made, made.names if alone else [pair.name for pair in pairs])
        report = replace(report, preview=preview)
    return replace(report, damaged_parts=sum(map(_filled_parts, _all_files(files, rules))))


def _all_files(files: Sequence[ImageFile], rules: MaskRules) -> tuple[ImageFile, ...]:
    return (*files, *rules.files.values())


def _filled_parts(file: ImageFile) -> int:
    return sum(len(damage.found) for damage in file.damage)


def filled_in(files: Sequence[ImageFile], rules: MaskRules) -> list[str]:
    """Say which tiles and strips could not be decoded, now that all were read."""
    holed = [file for file in _all_files(files, rules) if _filled_parts(file)]
    if not holed:
        return []
    first = next(iter(holed[0].damage[0].found.values()), None)
    return [
        f"{_many(len(holed), 'file')} such as {holed[0].path!r}:"
        f" {_many(sum(map(_filled_parts, holed)), 'tile or strip', 'tiles or strips')} of"
        f" {sum(file.parts for file in holed):,} could not be decoded and came in as 0"
        + (f", such as {place_of(first)}" if first else "")
        + (", ignored in the labels" if rules.files or rules.canvases else "")
    ]


@contextmanager
def _damage(files: Sequence[ImageFile]) -> Iterator[Callable[[], list[str]]]:
    """Look for damaged data beside the writing, and return what says what was found."""
    pool = ThreadPoolExecutor(max_workers=2)
    checks = [pool.submit(file.is_damaged) for file in files if file.is_damaged]

    def said() -> list[str]:
        count = sum(check.result() for check in checks)
        what = "hold damaged data, so that some pixels are not those that were saved"
        return [_remark("image", count, what)] if count else []

    try:
        yield said
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _report(output: str, files: Sequence[ImageFile], rules: MaskRules | None) -> ImportReport:
    sizes = [file.pixel_size for file in files]
    return ImportReport(
        output=output,
        samples=len(files),
        alpha_dropped=sum(file.alpha_dropped for file in files),
        absent_parts=sum(f.absent for f in (*files, *(rules.files.values() if rules else ()))),
        kind=(f"{rules.kind}+classes" if rules.classed else rules.kind) if rules else None,
        mapping={str(value): number for value, number in rules.mapping.items()} if rules else {},
        class_names=rules.class_names if rules else (),
        axes=tuple(sorted({file.axes for file in files})),
        pixel_size=sizes[0] if sizes and sizes.count(sizes[0]) == len(sizes) else None,
    )


def _open_all(
    pairs: Sequence[Pair],
    opened: Callable[..., ImageFile],
    *,
    names: Sequence[str],
    channels: str | None,
    size: dict[str, float] | None,
) -> tuple[list[Pair], list[ImageFile]]:
    kept: list[Pair] = []
    files: list[ImageFile] = []
    sets: dict[Path, int] = {}  # which of them a further file of its set belongs to
    first_names: tuple[str, ...] = ()  # of the first file's channels
    waiting = deque(pairs)
    while waiting:
        pair = waiting.popleft()
        place = resolved(pair.image)
        if place in sets:
            kept[sets[place]] = _one_of_set(kept[sets[place]], pair)
            continue
        if pair.channels:
            parts = [opened(path, scene=pair.scene) for path in pair.channels.values()]
            file = joined(parts, channel_names(pair, names))
        else:
            file = opened(pair.image, scene=pair.scene)
        if pair.scene is None and len(file.scenes) > 1:
            waiting.extendleft(reversed(_by_scene(pair, file.scenes)))
            continue
        sets.update((resolved(other), len(kept)) for other in file.files)
        first_names = first_names or file.channels
        if channels is not None:
            # Where images name the same channels, a number means that of the first image.
            same = are_named(first_names) and sorted(first_names) == sorted(file.channels)
            known_names = first_names if same else file.channels
            numbers = channel_numbers(channels, known_names, of=pair.image)
            if same:
                numbers = [file.channels.index(first_names[number]) for number in numbers]
            file = file.pick(numbers) if "c" in file.axes else file
        sizes = {**(file.pixel_size or {}), **(size or {})}
        known = {axis: sizes[axis] for axis in file.axes if axis in sizes}
        kept.append(pair)
        files.append(replace(file, pixel_size=known or None))
    first = files[0]
    for file in files:
        if file.size("c") != first.size("c"):
            raise InputError(
                f"images must have equally many channels, got {first.size('c')} in {first.path!r}"
                f" and {file.size('c')} in {file.path!r}; choose some with --channels, or import"
                " them apart"
            )
    return kept, files


def _by_scene(pair: Pair, scenes: Sequence[str]) -> list[Pair]:
    """Return a sample for each scene of a file, called after both."""
    if pair.mask is not None or pair.channels:
        raise InputError(
            f"an image with {'a mask' if pair.mask else 'a file a channel'} must be one scene, got"
            f" {len(scenes)} in {pair.image!r}; choose one with --scene"
            f" {quote(scenes[0])}"
        )
    plain = [re.sub(r"[^\w.+-]+", "-", scene).strip("-.") for scene in scenes]
    if not all(plain) or len({name.casefold() for name in plain}) < len(plain):
        plain = list(map(str, range(len(scenes))))
    return [
        replace(pair, name=f"{pair.name}-{name}", scene=scene, file_name=pair.name)
        for name, scene in zip(plain, scenes, strict=True)
    ]


def _one_of_set(first: Pair, further: Pair) -> Pair:
    """Choose the file that stands for a set: the one with the mask, or else the first."""
    if first.mask and further.mask:
        raise InputError(
            f"files of one set must have one mask, got {first.mask!r} for {first.image!r} and"
            f" {further.mask!r} for {further.image!r}; remove one"
        )
    return further if further.mask else first


def _check_complete(files: Sequence[ImageFile]) -> None:
    for file in files:
        if file.absent:
            raise InputError(
                f"TIFF must hold all of its {file.parts} tiles or strips, got {file.absent} absent"
                f" in {file.path!r}; copy it again, or leave out --require-complete-input if they"
                " are empty"
            )


@dataclass(frozen=True)
class RemoveReport:
    """What was taken out of a dataset."""

    output: str
    removed: tuple[str, ...]
    samples: int  # that are left

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def remove_samples(dataset: str, *samples: str) -> RemoveReport:
    """Take samples out of a dataset, from its list and from the disk.

    Also those whose folders are gone already.

    Parameters
    ----------
    dataset : str
        What `unetkit import` or `unetkit augment` wrote.
    *samples : str
        Names of samples, as `unetkit info` lists them.

    Returns
    -------
    RemoveReport

    Raises
    ------
    UsageError
        If no sample is named, or every one.
    InputError
        If it is no dataset, or has no sample of a name; then none is taken out.
    """
    if not samples:
        raise UsageError("samples must be named to be removed, got none; 'unetkit info' lists them")
    detect(dataset)  # what is not there is said, and nothing made of it
    writer = DatasetWriter(dataset)
    writer.remove(samples)
    return RemoveReport(dataset, tuple(dict.fromkeys(samples)), len(writer.names))
