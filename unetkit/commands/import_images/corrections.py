"""Corrected places of a prediction, with their surroundings, into a dataset of judged samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from unetkit.commands.import_images.edits import Predicted, PredictedImage, read_edit
from unetkit.commands.import_images.rules import check_append, check_judged, read_rules
from unetkit.commands.import_images.shapes import overlap_note
from unetkit.commands.import_images.windows import AXES, Window, cropped
from unetkit.errors import InputError, OutputError, command_line
from unetkit.progress import SILENT, Progress, collects_warnings, warn, warnings_of
from unetkit.storage.collections import kind_of_collection
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.object_classes import object_class_names, write_object_classes
from unetkit.storage.ome import provenance_marks
from unetkit.storage.outputs import check_output, discard, staged
from unetkit.storage.predicted_images import image_name, predicted_images
from unetkit.storage.readers import stored_file
from unetkit.storage.urls import exists, join
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.import_images.edits import Correction
    from unetkit.options import Axes, Channels, ImageOf, LabelName, Opt, Overwrite, Store
    from unetkit.storage.datasets import Dataset, Sample


@dataclass(frozen=True)
class CorrectReport:
    """What was put into a dataset of corrections."""

    output: str
    samples: tuple[str, ...]  # those that were added, one a window
    objects: int  # in these, as far as they lie where the labels were judged
    changed: int  # of these, those that are not as they were predicted
    removed: int  # predicted ones of which nothing is left there
    judged_pixels: int
    skipped_known: int = 0  # windows that the dataset has already
    preview: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "samples": list(self.samples), "warnings": list(self.warnings)}


@collects_warnings
def correct(
    prediction: Store,
    *,
    edited: Annotated[str, Opt(flags=("--from",), check="unetkit.storage.urls:check_there")],
    judged: Annotated[
        Sequence[str],
        Opt(metavar="NAME|Y0:Y1,X0:X1", check="unetkit.commands.import_images.rules:check_judged"),
    ],
    output: Annotated[
        str,
        Opt(
            flags=("--output", "-o"),
            panel="Output",
            check="unetkit.storage.outputs:check_new_dataset",
        ),
    ] = "corrections.zarr",
    context: Annotated[int | None, Opt(min=0, default="the overlap of the prediction")] = None,
    image: ImageOf = None,
    channels: Channels = None,
    axes: Axes = None,
    labels: LabelName = None,
    connected_components: Annotated[bool, Opt(panel="Labels")] = False,
    outlines: Annotated[
        Literal["corners", "centres"] | None, Opt(panel="Labels", default="as the format has it")
    ] = None,
    overlaps: Annotated[Literal["later", "smaller", "refuse"], Opt(panel="Labels")] = "later",
    append: Annotated[
        bool, Opt(panel="Output", check="unetkit.commands.import_images.rules:check_append")
    ] = False,
    preview: Annotated[
        str | None, Opt(panel="Output", check="unetkit.storage.urls:check_png")
    ] = None,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> CorrectReport:
    """Put corrected places of a prediction into a dataset, to learn from them.

    Each window that was judged becomes a sample: the image with its surroundings, and inside the
    window the labels as they were corrected. They are the whole truth of the window: an object
    that is not among them is none, and nothing is taken over from the prediction. What lies
    outside is ignored. `unetkit train data.zarr corrections.zarr --init model.safetensors` learns
    from both.

    Parameters
    ----------
    prediction : str
        What was corrected: a prediction of one image, or one of a dataset such as
        ``data.prediction.zarr/a01``.
    edited : str
        The corrected labels: a labels layer saved as Zarr, TIFF or PNG, as large as the image; or
        outlines: GeoJSON of QuPath or of ``unetkit view --annotations``, ImageJ's ROIs, or any
        other file that ``unetkit import`` takes.
    judged : sequence of str
        Where they are complete: a rectangle in pixels, first and last row and column, the last ones
        excluded, on every plane; or the class of the outlines that say it. Windows that overlap
        become one.
    output : str
        The dataset to write.
    context : int, optional
        Pixels of the image around each window, so that the network sees what it would see there.
    image : str, optional
        The image of the prediction, where it is no longer beside it.
    channels : str, optional
        Channels of the image to keep, in this order, by name or number: ``DAPI`` or ``0,2``.
    axes : str, optional
        Names of the image's axes, slowest first, such as ``zyx``; needed where it does not say.
    labels : str, optional
        Which labels of a Zarr were corrected, by name.
    connected_components : bool
        Number the separate pieces of a yes/no mask; touching objects become one.
    outlines : {"corners", "centres"}, optional
        Where outlines are counted from: the outer corner of the first pixel, or its centre.
    overlaps : {"later", "smaller", "refuse"}
        Which shape stays where outlines overlap, or none.
    append : bool
        Add to a dataset that is there; windows that it has already are skipped, and others that
        share pixels with one that it has are refused.
    preview : str, optional
        Write a PNG to look at: the windows with the outlines of their labels, dim where nobody
        judged.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told of each window and of what a user should know.

    Returns
    -------
    CorrectReport

    Raises
    ------
    UsageError
        If options do not fit each other, or a window lies outside of the image.
    InputError
        If the prediction is of several images, its image is not found, or the labels are not of
        it; a `LabelError` where they are not what they are said to be.
    OutputError
        If the output is there, or has a window that shares pixels with one of these.
    """
    check_append(append, overwrite=overwrite)
    check_judged(judged, name="judged")
    found = _one_of(prediction)
    (picture,) = predicted_images(found, image, axes=axes, channels=channels)
    predicted = Predicted(found.samples[0], found)
    if predicted.sample.field is not None:
        # Its own name, such as 0, is that of many.
        picture = replace(picture, name=predicted.sample.name)
    rules = read_rules(
        edited, predicted.kind, None, ignore=None, judged=judged, split=connected_components
    )
    rules = replace(rules, outlines=outlines, overlaps=overlaps, **predicted.classes)
    inputs = [prediction, picture.url, edited]
    for path, own in ((output, append), (preview, False)):
        if path is not None and not own:
            check_output(path, inputs=inputs, overwrite=overwrite or (append and path == preview))
    source = PredictedImage(picture, stored_file(picture, picture.url).stored(), predicted)
    edit = read_edit(edited, source, rules, labels=labels, progress=progress)
    windows = edit.windows
    progress.start("correcting", total=len(windows))
    corrections = []
    for window in windows:
        around = predicted.overlap if context is None else context
        corrections.append(edit.correction(window, context=around))
        progress.advance()
    edit.check(corrections)
    added = _write(output, corrections, source, inputs=inputs, append=append, overwrite=overwrite)
    for one in corrections:
        progress.note(one.sentence)
    for remark in overlap_note(edit.rules):
        warn(progress, remark)
    names = tuple(one.name for one in added)
    if preview is not None and added:
        from unetkit.views.overview import draw_dataset

        draw_dataset(preview, open_dataset(output), names)
    return CorrectReport(
        output,
        names,
        objects=sum(one.counts.objects for one in added),
        changed=sum(one.counts.changed for one in added),
        removed=sum(one.counts.removed for one in added),
        judged_pixels=sum(int(one.judged.sum()) for one in added),
        skipped_known=len(corrections) - len(added),
        preview=preview if added else None,
        warnings=warnings_of(progress),
    )


def _one_of(prediction: str) -> Dataset:
    """Open a prediction of one image, also one that lies in a dataset of them, or in a plate."""
    parts = prediction.rstrip("/").split("/")
    # A plate has its images three levels below, the others one.
    for depth in (3, 1):
        parent, path = "/".join(parts[:-depth]), "/".join(parts[-depth:])
        node = read_node(parent) if parent else None
        if not isinstance(node, GroupNode):
            continue
        if provenance_marks(node).get("kind") == "dataset" or kind_of_collection(node) is not None:
            found = open_dataset(parent, mixed=True)
            if own := tuple(sample for sample in found.samples if sample.path == path):
                return replace(found, samples=own)
    found = open_dataset(prediction, mixed=True)
    if len(found.samples) > 1:
        first = join(prediction, found.samples[0].path)
        raise InputError(
            f"a prediction to be corrected must be of one image, got {len(found.samples)} in"
            f" {prediction}; name one of them, such as {first}"
        )
    return found


def _write(
    output: str,
    corrections: Sequence[Correction],
    source: PredictedImage,
    *,
    inputs: Sequence[str],
    append: bool,
    overwrite: bool,
) -> list[Correction]:
    """Write what the output lacks, and return it."""
    if not append:
        with staged(output, inputs=inputs, overwrite=overwrite) as partial:
            marks = {"command": "correct", "unetkit_version": __version__}
            _add(DatasetWriter(partial, attributes=marks), corrections, source)
        return list(corrections)
    there = open_dataset(output, mixed=True)
    new = _lacking(there, corrections, source)
    if new:
        _add(DatasetWriter(output), new, source)
    return new


def _lacking(
    there: Dataset, corrections: Sequence[Correction], source: PredictedImage
) -> list[Correction]:
    """Return what a dataset does not have yet; the rest must be as it has it."""
    first = there.samples[0]
    one = corrections[0]
    known = {
        "channels": (first.data.channel_count, source.file.size("c")),
        "labels": (first.label_kind, one.kind),
        "classes": (
            object_class_names(first.image) or first.class_names,
            (source.predicted.object_names or source.predicted.classes["names"] or ()),
        ),
    }
    for what, (before, now) in known.items():
        if before != now:
            raise InputError(
                f"corrections to add must have the {what} of {there.url}, {before}, got {now};"
                " write them into a new dataset"
            )
    new = []
    for correction in corrections:
        if correction.name in there.names and _is_same(there[correction.name], correction, source):
            continue
        for sample in there.samples:
            _check_apart(sample, correction, source, url=there.url)
        new.append(correction)
    return new


def _check_apart(
    sample: Sample, correction: Correction, source: PredictedImage, *, url: str
) -> None:
    """Refuse a window that shares pixels with one that is there, or its name alone.

    Two truths of one place would be learned from, or one of them be held out.
    """
    name, told = sample.name, sample.image.attributes
    own = told.get("corrected") == image_name(source.predicted.sample, source.image)
    window, stored = (_told_window(told.get(key), source) for key in ("window", "stored"))
    if own and window is not None and stored is not None and window.meets(correction.window):
        both = stored.shared(correction.seen)
        there = cropped(stored_file(sample.image, url), both.within(stored)).load()
        if np.array_equal(there, cropped(source.file, both).load(), equal_nan=True):
            raise OutputError(
                f"windows to add must share no pixel with those that are there, got"
                f" {correction.name!r}, which meets {name!r} of {url}; take that one out, and judge"
                f" what is to stay of it anew: '{command_line('remove', url, name)}'"
            )
    if name == correction.name:
        raise OutputError(
            f"windows to add must have names of their own, got {name!r}, which {url} has of another"
            " image, or of other channels; rename the image, and say where it is with --image"
        )


def _told_window(sides: Any, source: PredictedImage) -> Window | None:
    """Read the place that a sample tells; along axes that its image does not have, all."""
    if not isinstance(sides, dict):
        return None
    return Window(tuple(tuple(sides.get(axis, (0, source.sizes[axis]))) for axis in AXES))


def _is_same(sample: Sample, correction: Correction, source: PredictedImage) -> bool:
    (alone,) = open_dataset(sample.image.url).samples
    ignore, labels = alone.ignore, alone.labels(correction.kind)
    told = [(labels, correction.labels), (ignore, ~correction.judged)]
    image = cropped(source.file, correction.seen)
    return (
        alone.data.planes == len(correction.labels)
        and all(
            array is not None
            and (array.height, array.width) == pixels.shape[1:]
            and all(
                np.array_equal(array.read(n, 0, array.height, 0, array.width), plane)
                for n, plane in enumerate(pixels)
            )
            for array, pixels in told
        )
        and np.array_equal(np.asarray(alone.data), image.load(), equal_nan=True)
    )


def _add(writer: DatasetWriter, corrections: Sequence[Correction], source: PredictedImage) -> None:
    """Write samples and list them; where that fails none of them stays."""
    before = writer.names
    try:
        for one in corrections:
            _add_one(writer, one, source)
        writer.finish()
    except BaseException:
        for name in set(writer.names) - set(before):
            if exists(join(writer.url, name)):
                discard(join(writer.url, name))
        raise


def _add_one(writer: DatasetWriter, one: Correction, source: PredictedImage) -> None:
    file = cropped(source.file, one.seen)
    plain = [file.size(axis) for axis in file.axes if axis != "c"]
    made_from, group = source.kin
    told: dict[str, Any] = {
        "command": "correct",
        "unetkit_version": __version__,
        "corrected": image_name(source.predicted.sample, source.image),
        # Where it lies in the image: what was judged, and what is stored.
        "window": {axis: list(one.window[axis]) for axis in "tzyx" if axis in file.axes},
        "stored": {axis: list(one.seen[axis]) for axis in "tzyx" if axis in file.axes},
    }
    normalization = source.predicted.normalization(source.image)
    if normalization is not None:
        told["image_normalization"] = normalization
    names = source.predicted.classes["names"] if one.kind == "classes" else ()
    writer.add(
        one.name,
        file.load(),
        source=made_from,
        group=group,
        axes=file.axes,
        labels=one.labels.reshape(plain),
        kind=one.kind,
        ignore=(~one.judged).reshape(plain),
        class_names=names or (),
        channel_names=file.channel_names,
        pixel_size=file.pixel_size,
        attributes=told,
    )
    if one.classes is not None:
        (sample,) = open_dataset(join(writer.url, one.name)).samples
        write_object_classes(sample.labels(one.kind), one.classes)
