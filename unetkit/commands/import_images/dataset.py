"""How imported images come into their place: strip by strip, sample by sample, all or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.import_images.masks import (
    drawn_mask,
    make_labels,
    needs_all,
    stored_classes,
)
from unetkit.commands.import_images.rules import MaskRules, named_by
from unetkit.commands.import_images.shapes import check_overlaps, write_ignored
from unetkit.errors import InputError, OutputError, UsageError, command_line
from unetkit.machine import ahead, mapped
from unetkit.progress import Portion, span
from unetkit.storage.chunks import empty_chunks
from unetkit.storage.datasets import (
    Dataset,
    DatasetWriter,
    are_named,
    open_dataset,
    order_remark,
    write_sample,
)
from unetkit.storage.image_writer import create_image, create_labels, update_attributes
from unetkit.storage.object_classes import (
    object_class_names,
    read_object_classes,
    write_object_classes,
)
from unetkit.storage.outputs import check_output, discard, staged
from unetkit.storage.pyramids import PyramidWriter
from unetkit.storage.urls import exists, join
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.commands.import_images.pairing import Pair
    from unetkit.progress import Progress, Told
    from unetkit.storage.datasets import Sample
    from unetkit.storage.image_file import ImageFile
    from unetkit.storage.planes import PlaneArray

    # Tells what there is to be warned of once all is written, and returns it.
    Warned = Callable[[], Sequence[str]]

CHUNK = 512  # rows of a strip, and the side of the chunks that it fills


class DatasetOutput:
    """What is written, and how it comes into its place; with `append`, more samples of it."""

    def __init__(self, url: str, *, append: bool, overwrite: bool) -> None:
        self.url = url
        self.append = append
        self.overwrite = overwrite
        self.known: dict[int, int] | None = None
        self.there: dict[str, Sample] = {}  # in the dataset that is added to

    def check(self, pairs: Sequence[Pair]) -> None:
        """Refuse an output that may not be written, before anything is read."""
        if not self.append:
            check_output(self.url, inputs=_inputs(pairs), overwrite=self.overwrite)

    def check_appended(
        self,
        files: Sequence[ImageFile],
        rules: MaskRules,
        *,
        labelled: bool,
    ) -> MaskRules:
        """Hold images against the samples there are; the classes that these have go on."""
        dataset = open_dataset(self.url)
        self.there = {sample.name: sample for sample in dataset.samples}
        if dataset.kind != "dataset":
            raise InputError(
                f"output must be a dataset to add samples, got the {dataset.kind} {self.url};"
                " import into a new dataset"
            )
        count = dataset.samples[0].data.channel_count
        if files[0].size("c") != count:
            raise InputError(
                f"images must have as many channels as {self.url}, {count}, got"
                f" {files[0].size('c')} in {files[0].path!r}; choose some with --channels"
            )
        kinds = {sample.label_kind for sample in dataset.samples} - {None}
        if labelled and kinds - {rules.kind}:
            raise InputError(
                f"labels must be of the kind that {self.url} has, {kinds.pop()}, got {rules.kind};"
                " choose it with --kind"
            )
        if labelled and rules.kind == "instances":
            return self._check_object_classes(dataset, rules)
        return self._check_classes(dataset, rules) if rules.kind == "classes" else rules

    def _check_object_classes(self, dataset: Dataset, rules: MaskRules) -> MaskRules:
        """Objects have classes in all samples or in none, and the same ones."""
        labelled = [sample for sample in dataset.samples if sample.label_kind is not None]
        if not labelled:
            return rules
        names = object_class_names(labelled[0].image)
        if bool(names) != rules.classed:
            kind = "instances+classes" if names else "instances"
            raise InputError(
                f"objects must have {'a class' if names else 'no classes'} as those of {self.url},"
                f" got {'none' if names else 'some'}; choose it with --kind {kind}"
            )
        if rules.names not in (None, names):
            raise UsageError(
                f"classes must be those of {self.url}, {', '.join(names)}, got"
                f" {', '.join(rules.names or ())}; leave --classes out"
            )
        return replace(rules, names=names or None)

    def _check_classes(self, dataset: Dataset, rules: MaskRules) -> MaskRules:
        for sample in dataset.samples:
            notes = sample.image.label_attributes.get("classes", {})
            if "mapping" in notes:
                self.known, stored = _stored_classes(sample, {"ranges": (), **notes})
                ranges = rules.ranges or stored
                same = rules.names in (None, sample.class_names) and all(
                    not ranges or sample.class_names[number] in named_by(ranges, value)
                    for value, number in self.known.items()
                )
                if not same:
                    raise UsageError(
                        f"classes must be those of {self.url}, {', '.join(sample.class_names)},"
                        f" got {', '.join(rules.names or ())}; leave --classes out"
                    )
                return replace(rules, names=sample.class_names, ranges=ranges)
        return rules

    def remarks(self, files: Sequence[ImageFile]) -> list[str]:
        """Say where channels are called otherwise, or lie in another order, than in the first."""
        names = {file.path: file.channels for file in files}
        first = next(iter(self.there.values()), None)
        if first is not None:
            names = {first.name: first.image.channel_names, **names}
        remark = order_remark(names)
        if remark is None:
            return []
        return [f"{remark}; the names are kept, and where they are the same go before the order"]

    def missing(
        self, pairs: Sequence[Pair], files: Sequence[ImageFile], rules: MaskRules
    ) -> list[int]:
        """Give the numbers of images that the dataset lacks; others must be as it has them."""
        found: list[int] = []
        for number, (pair, file) in enumerate(zip(pairs, files, strict=True)):
            sample = self.there.get(pair.name)
            if sample is None or pair.group is not None:
                self._check_group(pair)
            if sample is None:
                found.append(number)
                continue
            # Opened alone it has its channels in its own order.
            (alone,) = open_dataset(sample.image.url).samples
            regrouped = pair.group not in (None, sample.group)
            if regrouped or not _is_same(alone, pair, file, rules=rules):
                other = "another group" if regrouped else "other pixels, sizes or labels"
                raise OutputError(
                    f"samples must have new names, got {pair.name!r}, which {self.url} has with"
                    f" {other}; rename the file, or take the sample out first:"
                    f" '{command_line('remove', self.url, pair.name)}'"
                )
        return found

    def _check_group(self, pair: Pair) -> None:
        """Refuse an image with a group where samples have none, or the other way round."""
        has_groups = any(sample.group is not None for sample in self.there.values())
        if has_groups and pair.group is None:
            raise InputError(
                f"images must have a group as the samples of {self.url} have, got none for"
                f" {pair.name!r}; give --group"
            )
        if pair.group is not None and not has_groups:
            raise InputError(
                f"images must be of no group as the samples of {self.url} are, got {pair.group!r}"
                f" for {pair.name!r}; leave --group out, or import all of them anew"
            )

    def write_image(
        self, file: ImageFile, pair: Pair, progress: Progress, *, warned: Warned
    ) -> None:
        """Write one image strip by strip, each as high as a chunk."""
        with staged(self.url, inputs=_inputs([pair]), overwrite=self.overwrite) as partial:
            data = create_image(
                partial,
                shape=file.shape,
                axes=file.axes,
                dtype=file.dtype,
                chunk=CHUNK,
                channel_names=file.channel_names,
                pixel_size=file.pixel_size,
                attributes=_provenance(file, pair),
                name=pair.name,
            )
            portion = Portion(progress, _parts(file), status=pair.name)
            progress.start("importing", total=_parts(file))
            _write_strips(partial, data, file, portion.reach)
            if warnings := warned():
                update_attributes(partial, warnings=warnings)

    def write_dataset(
        self,
        pairs: Sequence[Pair],
        files: Sequence[ImageFile],
        rules: MaskRules,
        *,
        progress: Progress,
        warned: Warned,
    ) -> None:
        """Write sample by sample; what is listed is complete."""
        progress.start("importing", total=sum(map(_parts, files)))
        told: dict[str, Any] = {"rules": rules, "progress": progress, "warned": warned}
        if self.append and not pairs:
            warned()
            return
        if self.append:
            self._add(DatasetWriter(self.url), pairs, files, **told)
            return
        with staged(self.url, inputs=_inputs(pairs), overwrite=self.overwrite) as partial:
            writer = DatasetWriter(partial, attributes={"command": "import", **_version()})
            self._add(writer, pairs, files, **told)

    def _add(
        self,
        writer: DatasetWriter,
        pairs: Sequence[Pair],
        files: Sequence[ImageFile],
        *,
        rules: MaskRules,
        progress: Progress,
        warned: Warned,
    ) -> None:
        before = writer.names
        try:
            jobs = (
                _Job(
                    writer.reserve(pair.name, source=pair.source, group=pair.group),
                    pair,
                    file,
                    Portion(progress, _parts(file), status=pair.name),
                    is_alone=pair.name in rules.canvases or needs_all(file),
                )
                for pair, file in zip(pairs, files, strict=True)
            )

            def write(job: _Job) -> Portion:
                # Of those in other threads progress is told when they are done.
                told = job.portion.reach if job.is_alone else _untold
                if exists(job.place):
                    discard(job.place)
                add = _add_drawn if job.pair.name in rules.canvases else _add_sample
                add(job, rules=rules, told=span(told, 0, 0.9))
                writer.add_levels(job.pair.name, span(told, 0.9, 1))
                return job.portion

            for portion in mapped(write, jobs, alone=attrgetter("is_alone")):
                portion.reach(1)
            writer.finish(warnings=warned())
        except BaseException:
            # In a dataset that was there before, only whole additions may stay.
            for name in set(writer.names) - set(before):
                if exists(join(writer.url, name)):
                    discard(join(writer.url, name))
            raise


def _inputs(pairs: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(path for pair in pairs for path in pair.files))


def _is_same(sample: Sample, pair: Pair, file: ImageFile, *, rules: MaskRules) -> bool:
    """Tell whether a sample was made from an image and its mask; what is left out is not asked."""
    names = sample.image.channel_names
    same = (
        sample.data.axes == file.axes
        and sample.data.shape == file.shape
        and sample.data.dtype == file.dtype
        and file.pixel_size in (None, sample.image.pixel_size)
        # Names that nobody read when the sample was made make no other image.
        and (names == file.channels or not are_named(names))
    )
    # What of it is damaged is known only when it was read.
    same = same and _holds(sample.data, file.load(), file)
    if same and pair.name in rules.canvases:
        painted = rules.canvases[pair.name].load()
        classes = rules.canvases[pair.name].object_classes
        same = classes is None or classes.is_same(read_object_classes(sample.image))
        numbers, ignored = painted.reshape(_plain_shape(file)), None
    elif same and pair.mask:
        drawn = drawn_mask(pair.mask, file, rules)
        numbers, ignored = make_labels(drawn, rules)
        classes = stored_classes(pair, rules)
        same = classes is None or classes.is_same(read_object_classes(sample.image))
    if same and pair.mask:
        ignored = _with_unknown(ignored, pair, file, rules=rules)
        same = (
            rules.kind in sample.image.labels
            and (sample.ignore is None) == (ignored is None)
            and _holds(sample.labels(rules.kind), numbers, file)
            and (sample.ignore is None or ignored is None or _holds(sample.ignore, ignored, file))
        )
    return same


def _with_unknown(
    ignored: NDArray[np.uint8] | None, pair: Pair, file: ImageFile, *, rules: MaskRules
) -> NDArray[np.uint8] | None:
    """Add what lies outside of the regions that were judged, and what could not be decoded."""
    mask = rules.files.get(str(pair.mask))
    parts = [None if ignored is None else ignored != 0, file.filled([mask] if mask else [])]
    if pair.name in rules.regions:
        parts.append(rules.regions[pair.name].load().reshape(_plain_shape(file)) == 0)
    if pair.sample is not None and (there := pair.sample.ignore) is not None:
        parts.append(np.asarray(there).reshape(_plain_shape(file)) != 0)
    known = [part for part in parts if part is not None]
    return np.any(known, axis=0).astype(np.uint8) if known else None


def _holds(stored: PlaneArray, pixels: NDArray[Any], file: ImageFile) -> bool:
    """Tell whether an array holds pixels, with the axes of an image or those without c."""
    own = file.axes if stored.has_channels else file.axes.replace("c", "")
    turned = pixels.transpose([own.index(axis) for axis in "tzcyx" if axis in own])
    planes = turned.reshape(stored.planes, -1, stored.height, stored.width)
    return all(
        np.array_equal(
            stored.read(number, 0, stored.height, 0, stored.width),
            plane,
            equal_nan=plane.dtype.kind == "f",
        )
        for number, plane in enumerate(planes if stored.has_channels else planes[:, 0])
    )


def _plain_shape(file: ImageFile) -> list[int]:
    return [file.size(axis) for axis in file.axes if axis != "c"]


def _parts(file: ImageFile) -> int:
    """Count the parts in which a progress is told of an image: one if it is small."""
    return 1 + (math.prod(file.shape) >> 22)


def _write_strips(url: str, data: PlaneArray, file: ImageFile, told: Told) -> None:
    """Write an image with its pyramid strip by strip, each as high as a chunk."""
    count = file.planes * -(-file.size("y") // CHUNK)
    with PyramidWriter(url, data) as writer:
        for number, (plane, y0, block) in enumerate(ahead(file.strips(CHUNK))):
            writer.write(plane, y0, 0, block)
            told((number + 1) / count)
    if notes := _damaged(file):
        update_attributes(url, **notes)
    if (empty := empty_chunks(data)) is not None:
        update_attributes(url, empty_chunks=empty)


@dataclass(frozen=True)
class _Job:
    """A sample to write."""

    place: str
    pair: Pair
    file: ImageFile
    portion: Portion
    is_alone: bool  # no other one is written meanwhile


def _untold(_: float) -> None:
    pass


def _add_drawn(job: _Job, *, rules: MaskRules, told: Told) -> None:
    """Write an image strip by strip, and paint its shapes block by block."""
    place, pair, file = job.place, job.pair, job.file
    canvas = rules.canvases[pair.name]
    data = create_image(
        place,
        shape=file.shape,
        axes=file.axes,
        dtype=file.dtype,
        channel_names=file.channel_names,
        pixel_size=file.pixel_size,
        attributes=_provenance(file, pair),
    )
    _write_strips(place, data, file, span(told, 0, 0.6))
    boxes = [box for one in file.damage for box in one.found.values()]
    notes: dict[str, Any] = {"source": Path(str(pair.mask)).name, "overlaps": rules.overlaps}
    notes.update(_judged(rules))
    if rules.kind == "classes":
        notes["mapping"] = {str(value): number for value, number in rules.mapping.items()}
        notes["class_names"] = list(rules.class_names)
    same: dict[str, Any] = {"shape": _plain_shape(file), "axes": file.axes.replace("c", "")}
    labels = create_labels(place, rules.kind, dtype=canvas.dtype, attributes=notes, **same)
    with PyramidWriter(join(place, "labels", rules.kind), labels, nearest=True) as levels:
        canvas.write(labels, levels=levels, told=span(told, 0.6, 1))
    if canvas.object_classes is not None:
        write_object_classes(labels, canvas.object_classes)
    if pair.name in rules.regions or boxes:
        ignore = create_labels(place, "ignore", dtype=np.uint8, **same)
        if pair.name in rules.regions:
            write_ignored(rules.regions[pair.name], ignore, str(pair.mask))
        _add_ones(ignore, boxes)
    if rules.overlaps == "refuse":
        check_overlaps(canvas, str(pair.mask))


def _add_ones(labels: PlaneArray, boxes: Sequence[tuple[int, int, int, int, int]]) -> None:
    """Write 1 into boxes of labels, chunk by chunk."""
    for plane, y0, y1, x0, x1 in labels.chunk_boxes(CHUNK):
        inside = [
            (slice(max(top - y0, 0), bottom - y0), slice(max(left - x0, 0), right - x0))
            for number, top, bottom, left, right in boxes
            if number == plane and top < y1 and bottom > y0 and left < x1 and right > x0
        ]
        if inside:
            block = labels.read(plane, y0, y1, x0, x1)
            for where in inside:
                block[where] = 1
            labels.write(plane, y0, x0, block)


def _add_sample(job: _Job, *, rules: MaskRules, told: Told) -> None:
    """Write an image and its labels from memory."""
    pair, file = job.pair, job.file
    image = file.load()
    drawn = None
    if pair.mask:
        drawn = drawn_mask(pair.mask, file, rules)
    numbers = ignored = None
    notes: dict[str, Any] = {}
    if drawn is not None:
        at = file.axes.find("c")
        _check_differs(image[None] if at < 0 else np.moveaxis(image, at, 0), drawn, pair)
        numbers, ignored = make_labels(drawn, rules)
        ignored = _with_unknown(ignored, pair, file, rules=rules)
        mask = rules.files.get(str(pair.mask))
        notes = {"source": Path(str(pair.mask)).name, **_absent(mask), **_damaged(mask)}
        if rules.ignore is not None:
            notes["ignore_value"] = rules.ignore
        notes.update(_judged(rules))
        if pair.classes is not None:
            notes["classes_source"] = Path(pair.classes).name
        if rules.split:
            notes["connected_components"] = True
        if rules.kind == "classes":
            notes["mapping"] = {str(value): number for value, number in rules.mapping.items()}
            if rules.ranges:
                notes["ranges"] = [list(one) for one in rules.ranges]
    write_sample(
        job.place,
        image,
        axes=file.axes,
        labels=numbers,
        kind=rules.kind,
        ignore=ignored,
        class_names=rules.class_names,
        channel_names=file.channel_names,
        pixel_size=file.pixel_size,
        attributes={**_provenance(file, pair), **_damaged(file)},
        label_attributes=notes,
    )
    if (classes := stored_classes(pair, rules)) is not None:
        (sample,) = open_dataset(job.place).samples
        write_object_classes(sample.labels(rules.kind), classes)
    told(1)


def _stored_classes(
    sample: Sample, notes: Mapping[str, Any]
) -> tuple[dict[int, int], tuple[tuple[int, int, str], ...]]:
    """Read which value of a mask became which class, and the ranges that were given by name."""
    try:
        known = {int(value): range(256)[number] for value, number in notes["mapping"].items()}
        ranges = tuple((int(low), int(high), str(name)) for low, high, name in notes["ranges"])
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"mapping and ranges of {sample.labels('classes').url} must say which value is which"
            f" class, got {notes['mapping']!r:.80} and {notes['ranges']!r:.80};"
            " import the images anew"
        ) from error
    if max(known.values(), default=0) >= len(sample.class_names):
        raise InputError(
            f"mapping of {sample.labels('classes').url} must hold one of"
            f" {len(sample.class_names)} classes for each value, got {notes['mapping']!r:.80};"
            " import the images anew"
        )
    return known, ranges


def _check_differs(channels: NDArray[Any], mask: NDArray[Any], pair: Pair) -> None:
    # A black image without objects is a good example of background.
    if mask.any() and all(np.array_equal(channel, mask) for channel in channels):
        raise InputError(
            f"mask must differ from its image, got the same pixels in {pair.mask!r} and"
            f" {pair.image!r}; check --labels"
        )


def _provenance(file: ImageFile, pair: Pair) -> dict[str, Any]:
    notes: dict[str, Any] = {"command": "import", "source_file": Path(file.path).name, **_version()}
    if file.scene:
        notes["scene"] = file.scene
    if pair.position:
        notes["plate"] = dict(pair.position)
    if pair.channels:
        notes["source_files"] = [Path(path).name for path in pair.channels.values()]
    if file.alpha_dropped:
        notes["alpha_dropped"] = True
    notes.update(_absent(file))
    if file.files:
        notes["source_set"] = sorted(Path(other).name for other in (file.path, *file.files))
    return notes


def _absent(file: ImageFile | None) -> dict[str, Any]:
    if file is None or not file.absent:
        return {}
    return {"absent_parts": {"absent": file.absent, "of": file.parts}}


def _judged(rules: MaskRules) -> dict[str, Any]:
    boxes = [f"{y0}:{y1},{x0}:{x1}" for y0, y1, x0, x1 in rules.rectangles]
    named = [*rules.judged, *boxes]
    return {"judged": named} if named else {}


# How many places of parts that were filled in are recorded.
LISTED = 100


def _damaged(file: ImageFile | None) -> dict[str, Any]:
    """Record the parts that were filled in, once they were read: how many, and where the first."""
    found = [box for one in (file.damage if file else ()) for box in one.found.values()]
    if file is None or not found:
        return {}
    where = [list(box) for box in found[:LISTED]]
    return {"damaged_parts": {"damaged": len(found), "of": file.parts, "where": where}}


def _version() -> dict[str, str]:
    return {"unetkit_version": __version__}
