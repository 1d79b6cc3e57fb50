"""Propose windows of a predicted image to be annotated next."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from unetkit.arrays.diversity import choose_diverse, standardized
from unetkit.arrays.uncertainty import LEVELS
from unetkit.engine.window_sums import Layers, block_count, sum_windows
from unetkit.errors import InputError, UsageError, command_line
from unetkit.geometry.windows import Windows
from unetkit.progress import SILENT, Progress, Together, collects_warnings, warn
from unetkit.storage import urls
from unetkit.storage.datasets import listed_names, open_dataset
from unetkit.storage.outline_files import Outline, Picture, write_geojson
from unetkit.storage.outputs import check_file, check_output, output_name, write_csv
from unetkit.storage.predicted_images import image_name, predicted_images
from unetkit.views.layers import image_contrast
from unetkit.views.pictures import contact_sheet, image_panel, weight_panel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.options import Channels, ImageOf, Opt, SchedulerName, Store, Workers
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

COLUMNS = ("sample", "plane", "rank", "y0", "x0", "y1", "x1", "uncertainty")
# How the GeoJSON begins, so that an earlier one may be replaced.
BEGINS = '{"type": "FeatureCollection", "unetkit": {"command": "suggest"'
# The class of the shapes in it.
SUGGESTED = "suggested"
RECTANGLE = re.compile(r"(\d+):(\d+),(\d+):(\d+)")
# Windows that are less than a few pixels hold no kind of place: our choice.
SMALLEST = 16
# The sheet has this many windows in a row, each with its map of uncertainty.
IN_A_ROW = 2

Box = tuple[int, int, int, int]  # y0, y1, x0, x1 in pixels of the image


@dataclass(frozen=True)
class SuggestedWindow:
    """A window to annotate, in pixels of its image; the ends are excluded."""

    sample: str
    plane: int
    rank: int  # 1 is to be annotated first
    y0: int
    x0: int
    y1: int
    x1: int
    uncertainty: float  # its mean, 0 to 1

    @property
    def box(self) -> Box:
        """Rows and columns."""
        return self.y0, self.y1, self.x0, self.x1


@dataclass(frozen=True)
class SuggestReport:
    """Which windows to annotate next."""

    output: str
    windows: tuple[SuggestedWindow, ...]  # the first one first
    candidates: int  # windows that were looked at
    judged: int  # of these, windows that share a pixel with what is judged
    geojson: str | None = None
    sheet: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """All files."""
        return tuple(filter(None, (self.output, self.geojson, self.sheet)))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {**asdict(self), "warnings": list(self.warnings)}
        return {**told, "windows": [asdict(window) for window in self.windows]}


@collects_warnings
def suggest(
    prediction: Store,
    *,
    count: Annotated[int, Opt(min=1, max=1000)] = 5,
    window: Annotated[int, Opt(min=16)] = 256,
    judged: Annotated[Sequence[str], Opt(metavar="DATASET|Y0:Y1,X0:X1")] = (),
    image: ImageOf = None,
    channels: Channels = None,
    output: Annotated[
        str | None,
        Opt(flags=("--output", "-o"), default="NAME.suggested.csv", panel="Output"),
    ] = None,
    geojson: Annotated[str | None, Opt(panel="Output")] = None,
    sheet: Annotated[
        str | None, Opt(panel="Output", check="unetkit.storage.urls:check_png")
    ] = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_suggestion")
    ] = False,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    progress: Progress = SILENT,
) -> SuggestReport:
    """Propose windows to annotate next: where looks are least sure, each of another kind of place.

    Takes a prediction with a layer of uncertainty, as ``tile-predict --uncertainty`` writes it. The
    first window is the one with the highest mean. Each further one has the largest product of its
    mean and its distance to the nearest window that is chosen or judged, in mean and spread of
    the intensities and shares of the classes. No two share a pixel. They show where
    a network fails; on fields of nuclei it learned no more from them than from random ones.

    Parameters
    ----------
    prediction : str
        A prediction with uncertainty, or an image with one of its own (``--in-place``); of a
        dataset or plate, windows of all its images are compared.
    count : int
        How many windows.
    window : int
        Their side, in pixels of the image.
    judged : sequence of str
        What is annotated already, and near which nothing is proposed: a rectangle of the image, or
        a dataset: its samples that ``unetkit correct`` cut out of the image, and labelled ones of
        its name; repeated, each of several.
    image : str, optional
        The image of the prediction, where it is no longer beside it.
    channels : str, optional
        Channels by which places are compared: ``0,2`` or ``DAPI,GFP``.
    output : str, optional
        The table; left out, beside the prediction.
    geojson : str, optional
        Write the windows as GeoJSON too, for QuPath; of a single image.
    sheet : str, optional
        Draw them too, each beside its uncertainty, as a PNG.
    overwrite : bool
        Replace earlier files of unetkit.
    scheduler : str
        Who looks through the image: threads, sync, processes, local:4, tcp://host:8786 or
        file:PATH.
    workers : int, optional
        How many work at once.
    progress : Progress
        Told of each block.

    Returns
    -------
    SuggestReport

    Raises
    ------
    UsageError
        If a rectangle is none, or comes with several images.
    InputError
        If there is no layer of uncertainty, or the image is not found or of another size.
    OutputError
        If a file is there already.

    References
    ----------
    Sener, Savarese (2018), Active learning for convolutional neural networks: a core-set approach.
    """
    if count < 1 or window < SMALLEST:
        name, least, got = ("count", 1, count) if count < 1 else ("window", SMALLEST, window)
        raise UsageError(f"{name} must be at least {least}, got {got}; leave it out for the usual")
    target = output or output_name(prediction, ".suggested.csv")
    check_file(target, overwrite=overwrite, begins=",".join(COLUMNS))
    if geojson is not None:
        check_file(geojson, overwrite=overwrite, begins=BEGINS)
    if sheet is not None:
        check_output(sheet, overwrite=overwrite)
    files = [urls.absolute(path) for path in (target, geojson, sheet) if path is not None]
    if twice := next((path for path in files if files.count(path) > 1), None):
        raise UsageError(
            f"outputs must be different files, got {urls.base_name(twice)} twice; name another with"
            " --output, --geojson or --sheet"
        )
    found = _open(prediction, progress)
    images = predicted_images(found, image, channels=channels)
    if geojson is not None and len(found.samples) > 1:
        raise UsageError(
            f"geojson must be of a single image, got {len(found.samples)} in {prediction}; name"
            " one of them, or leave --geojson out"
        )
    boxes = _judged_boxes(judged, found, images, progress)
    layers = [
        _layers(sample, picture, window)
        for sample, picture in zip(found.samples, images, strict=True)
    ]
    total = sum(map(block_count, layers))
    together = Together(progress, "look for windows", total=total)
    places = _looked_at(layers, scheduler=scheduler, workers=workers, progress=together)
    known = places.meeting(boxes)
    chosen = places.choose(count, known)
    windows = tuple(
        _window(places, at, rank, found.samples) for rank, at in enumerate(chosen, start=1)
    )
    if len(windows) < count:
        warn(
            progress,
            f"only {len(windows)} of {count} windows are proposed: looks agree in all others, or"
            " these share pixels with one that is proposed or judged",
        )
    rows = [[getattr(one, name) for name in COLUMNS] for one in windows]
    write_csv(target, COLUMNS, rows)
    if geojson is not None:
        write_geojson(geojson, [_picture(windows, images[0], prediction)])
    if not windows:
        sheet = None
    if sheet is not None:
        _draw(sheet, windows, found.samples, images)
    return SuggestReport(target, windows, len(known), int(known.sum()), geojson, sheet)


def _open(url: str, progress: Progress) -> Dataset:
    """Open a prediction; images without a layer of uncertainty are left out, and named."""
    found = open_dataset(url, mixed=True)
    kept = tuple(sample for sample in found.samples if sample.image.uncertainty is not None)
    if not kept:
        raise InputError(
            f"{url} must have a layer of uncertainty, got none; run '{_with_uncertainty(found)}',"
            " and name the prediction that it writes"
        )
    if left := [one.name for one in found.samples if one.image.uncertainty is None]:
        warn(progress, f"{listed_names(left)} of {url} have no uncertainty and are left out")
    return replace(found, samples=kept)


def _with_uncertainty(found: Dataset) -> str:
    """Return the command that made a prediction, with the layer, into the current folder.

    Its files are known by their names alone; those that lie beside the prediction are found.
    """
    told = found.attributes.get("prediction")
    command = told.get("command") if isinstance(told, dict) else None
    # After the words `unetkit tile-predict`.
    words = shlex.split(str(command))[2:] if command else [found.url]
    folder = found.url.rstrip("/").removesuffix(urls.base_name(found.url))
    for at, word in enumerate(words):
        is_file = at == 0 or words[at - 1] in ("--model", "--mask")
        if is_file and not urls.exists(word) and urls.exists(folder + word):
            words[at] = folder + word
    words = [word for word in words if word not in ("--in-place", "--uncertainty")]
    looks = [] if "--tta" in words or words.count("--model") > 1 else ["--tta", "flips"]
    output = urls.base_name(output_name(found.url, ".unsure.zarr"))
    return command_line("tile-predict", *words, *looks, "--uncertainty", "--output", output)


def _layers(sample: Sample, picture: Image, window: int) -> Layers:
    """Say what is summed up of an image, and in which windows."""
    image, uncertainty = picture.data, sample.image.uncertainty
    assert uncertainty is not None  # by `_open`
    classes = sample.image.labels.get("classes")
    return Layers(
        image.with_absolute_url(),
        uncertainty.with_absolute_url(),
        None if classes is None else classes.with_absolute_url(),
        class_count=0 if classes is None else len(sample.class_names),
        windows=Windows(image.height, image.width, window),
    )


@dataclass(frozen=True)
class _Judged:
    """What is annotated already, of an image that goes by its number."""

    sample: int
    box: Box
    planes: tuple[int, ...] | None = None  # None for all


def _judged_boxes(
    judged: Sequence[str], found: Dataset, images: Sequence[Image], progress: Progress
) -> list[_Judged]:
    boxes: list[_Judged] = []
    for text in judged:
        match = RECTANGLE.fullmatch(text.replace(" ", ""))
        if match is None and not re.search(r"[^\d\s:,.+-]", text):
            raise _no_rectangle(text)
        if match is None:
            own = list(_judged_in(open_dataset(text, mixed=True), found.samples, images))
            if not own:
                warn(
                    progress,
                    f"nothing in {text} is of {found.url}: no window that was cut out of its"
                    " images, and no labelled sample of their name and size",
                )
            boxes += own
            continue
        y0, y1, x0, x1 = map(int, match.groups())
        if not (y0 < y1 and x0 < x1):
            raise _no_rectangle(text)
        if len(images) > 1:
            raise UsageError(
                f"a rectangle that was judged must be of a single image, got {text!r} for"
                f" {len(images)}; name a dataset of what is annotated with --judged, or predict one"
                " image"
            )
        height, width = images[0].data.height, images[0].data.width
        if y1 > height or x1 > width:
            raise UsageError(
                f"a rectangle that was judged must lie inside of the image, got {text!r} for"
                f" {images[0].name!r}, {height} high, {width} wide; rows come first"
            )
        boxes.append(_Judged(0, (y0, y1, x0, x1)))
    return boxes


def _no_rectangle(text: str) -> UsageError:
    return UsageError(
        "what was judged must be a dataset, or y0:y1,x0:x1 in whole pixels, the second of each pair"
        f" larger, got {text!r}; write for example --judged 0:256,512:768"
    )


def _judged_in(
    data: Dataset, samples: Sequence[Sample], images: Sequence[Image]
) -> Iterator[_Judged]:
    """Find what a dataset has of images: windows cut out of them, or all of an image."""
    for one in data.samples:
        told = one.image.attributes
        window, origin = told.get("window"), told.get("corrected")
        for number, (sample, image) in enumerate(zip(samples, images, strict=True)):
            whole = image.data
            if isinstance(window, dict) and origin == image_name(sample, image):
                box = (*window["y"], *window["x"])
                yield _Judged(number, box, _planes(window, whole.size("t"), whole.size("z")))
            elif window is None and sample.name in (one.name, one.source):
                same = (one.data.height, one.data.width) == (whole.height, whole.width)
                if same and one.label_kind is not None:
                    yield _Judged(number, (0, whole.height, 0, whole.width))


def _planes(window: Mapping[str, Sequence[int]], times: int, depth: int) -> tuple[int, ...]:
    """List the planes of a window, those of one t after those of another."""
    t, z = (window.get(axis, (0, size)) for axis, size in (("t", times), ("z", depth)))
    return tuple(i * depth + j for i in range(*t) for j in range(*z))


@dataclass(frozen=True, eq=False)
class _Places:
    """All windows of all planes, in their order."""

    at: NDArray[np.int64]  # (N, 6): number of the sample, plane, y0, y1, x0, x1
    scores: NDArray[np.float64]  # (N,): mean uncertainty, 0 to 1
    features: NDArray[np.float64]  # (N, F)

    def meeting(self, judged: Sequence[_Judged]) -> NDArray[np.bool_]:
        """Mark windows that share a pixel with what is judged."""
        found = np.zeros(len(self.at), bool)
        for one in judged:
            where = self._sharing(one.sample, one.box)
            if one.planes is not None:
                where &= np.isin(self.at[:, 1], one.planes)
            found |= where
        return found

    def _sharing(self, sample: int, box: Sequence[int]) -> NDArray[np.bool_]:
        number, _, y0, y1, x0, x1 = self.at.T
        down, across = (y0 < box[1]) & (box[0] < y1), (x0 < box[3]) & (box[2] < x1)
        found: NDArray[np.bool_] = np.logical_and.reduce([number == sample, down, across])
        return found

    def choose(self, count: int, known: NDArray[np.bool_]) -> list[int]:
        """Choose windows of which no two share a pixel."""

        def near(chosen: int) -> NDArray[np.bool_]:
            sample, plane, *box = self.at[chosen].tolist()
            same: NDArray[np.bool_] = self.at[:, 1] == plane
            return self._sharing(sample, box) & same

        features = standardized(self.features)
        return choose_diverse(self.scores, features, count=count, known=known, near=near)


def _looked_at(
    layers: Sequence[Layers], *, scheduler: str, workers: int | None, progress: Progress
) -> _Places:
    """Look through all images once; say of each window how unsure it is, and of what kind."""
    at, scores, features = [], [], []
    for number, one in enumerate(layers):
        boxes = np.array(one.windows.boxes())
        planes = sum_windows(one, scheduler=scheduler, workers=workers, progress=progress)
        for plane, sums in enumerate(planes):
            pixels, predicted, apart, *rest = sums
            ends = 2 * one.image.channel_count
            values, classes = rest[:ends], rest[ends:]
            means = [total / pixels for total in values[::2]]
            squares = [total / pixels for total in values[1::2]]
            spreads = [
                np.sqrt(np.maximum(square - mean**2, 0))
                for square, mean in zip(squares, means, strict=True)
            ]
            shares = [count / predicted for count in classes[1:]]
            place = np.broadcast_to([number, plane], (len(boxes), 2))
            at.append(np.hstack([place, boxes]))
            scores.append(apart / predicted / LEVELS)
            features.append(np.column_stack([*means, *spreads, *shares]))
    return _Places(np.concatenate(at), np.concatenate(scores), np.concatenate(features))


def _window(places: _Places, at: int, rank: int, samples: Sequence[Sample]) -> SuggestedWindow:
    number, plane, y0, y1, x0, x1 = places.at[at].tolist()
    score = float(f"{places.scores[at]:.6g}")
    return SuggestedWindow(samples[number].name, plane, rank, y0, x0, y1, x1, score)


def _picture(windows: Sequence[SuggestedWindow], image: Image, prediction: str) -> Picture:
    """Draw windows as annotations in the pixels of their image."""
    depth, planes = image.data.size("z"), image.data.planes
    outlines = [
        Outline(
            one.rank,
            [[np.array([(one.x0, one.y0), (one.x1, one.y0), (one.x1, one.y1), (one.x0, one.y1)])]],
            SUGGESTED,
            divmod(one.plane, depth) if planes > 1 else None,
            is_object=False,
        )
        for one in windows
    ]
    about = {"command": "suggest", "prediction": urls.base_name(prediction)}
    return Picture(image.name, image.data.height, image.data.width, outlines, about=about)


def _draw(
    path: str,
    windows: Sequence[SuggestedWindow],
    samples: Sequence[Sample],
    images: Sequence[Image],
) -> None:
    """Draw each window beside its uncertainty, all on one scale, and as bright as in its image."""
    shown = {one.sample for one in windows}
    ends = {
        s.name: image_contrast(i.data)
        for s, i in zip(samples, images, strict=True)
        if s.name in shown
    }
    names = [sample.name for sample in samples]
    maps, panels = [], []
    for one in windows:
        number = names.index(one.sample)
        layer = samples[number].image.uncertainty
        assert layer is not None
        box = _predicted_box(one.box, images[number], layer)
        maps.append(layer.read(one.plane, *box) / LEVELS)
    high = max((float(values.max(initial=0)) for values in maps), default=0) or 1.0
    for one, values in zip(windows, maps, strict=True):
        image = images[names.index(one.sample)]
        where = f"{one.y0}:{one.y1},{one.x0}:{one.x1}"
        name = f"{one.sample}, " if len(samples) > 1 else ""
        plane = f"plane {one.plane}, " if image.data.planes > 1 else ""
        caption = f"{one.rank}: {name}{plane}{where}"
        pixels = image.data.read(one.plane, *one.box)
        panels.append(image_panel(pixels, caption, ends=ends[one.sample]))
        panels.append(weight_panel(values, f"uncertainty, mean {one.uncertainty:.3g}", high=high))
    contact_sheet(path, panels, columns=2 * IN_A_ROW, title="annotate next")


def _predicted_box(box: Box, image: Image, layer: PlaneArray) -> Box:
    """Return where a box of the image lies in a layer, which may be smaller."""
    (y0, y1), (x0, x1) = (
        (first * size // whole, max(last * size // whole, first * size // whole + 1))
        for first, last, size, whole in (
            (box[0], box[1], layer.height, image.data.height),
            (box[2], box[3], layer.width, image.data.width),
        )
    )
    return y0, y1, x0, x1
