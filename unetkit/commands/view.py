"""Look at predictions, their images and what was found in them, in a browser or in napari."""

from __future__ import annotations

import threading
import webbrowser
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from unetkit.errors import InputError, MissingError, ResourceError, UsageError
from unetkit.progress import SILENT, Progress, collects_warnings, warn
from unetkit.storage import urls
from unetkit.storage.atomic import write_bytes
from unetkit.storage.datasets import listed_names, open_dataset
from unetkit.storage.images import choose_channels, choose_labels, detect
from unetkit.storage.marks import read_marks
from unetkit.storage.object_classes import object_class_names
from unetkit.storage.outputs import check_output
from unetkit.storage.predicted_images import check_same_image, predicted_images
from unetkit.views import napari as napari_view
from unetkit.views.annotations import OBJECTS, Annotations, check_annotations
from unetkit.views.browser import find_browser, headless
from unetkit.views.layers import (
    image_layers,
    label_layers,
    probability_layers,
    scene_of,
    uncertainty_layers,
)
from unetkit.views.neuroglancer import MOST_MARKS, PANE, SIZE, Shown
from unetkit.views.pictures import png_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.options import Axes, Channels, ImageOf, Opt, Store
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.marks import Mark
    from unetkit.views.layers import Layer, Scene

# How long a browser without a window may take to start and draw, in seconds.
PATIENCE = 120.0
# Our choice: of labels that other programs named, so many at most.
MOST_OTHERS = 8


@dataclass(frozen=True)
class View:
    """What is shown, and where; open until `close` or the end of the process."""

    url: str | None  # to be opened in a browser; None where nothing is served any more
    picture: str | None
    scene: Scene
    warnings: tuple[str, ...] = ()
    shown: Shown | None = field(default=None, compare=False, repr=False)

    @property
    def output(self) -> str:
        """What was drawn, or where the page is; empty where neither is there."""
        return self.picture or self.url or ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is to be printed of it."""
        return tuple(filter(None, [self.output]))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {"url": self.url, "picture": self.picture, **self.scene.to_dict()}
        return {**told, "warnings": list(self.warnings)}

    def __enter__(self) -> View:
        """Serve inside a `with` block, which Ctrl-C ends without an error."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """End the server."""
        self.close()
        return kind is not None and issubclass(kind, KeyboardInterrupt)

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        if self.shown is not None:
            threading.Event().wait()

    def close(self) -> None:
        """End the server."""
        if self.shown is not None:
            self.shown.close()


@collects_warnings
def view(
    prediction: Store,
    *more: str,
    image: ImageOf = None,
    sample: Annotated[str | None, Opt(metavar="NAME", default="the only one")] = None,
    channels: Channels = None,
    axes: Axes = None,
    points: Annotated[
        str | None, Opt(metavar="CSV", check="unetkit.storage.urls:check_there")
    ] = None,
    open_page: Annotated[bool, Opt(flags=("--open",))] = False,
    napari: bool = False,
    annotations: Annotated[
        str | None,
        Opt(metavar="GEOJSON", panel="Output", check="unetkit.views.annotations:check_annotations"),
    ] = None,
    png: Annotated[str | None, Opt(panel="Output", check="unetkit.storage.urls:check_png")] = None,
    overwrite: Annotated[bool, Opt(panel="Output")] = False,
    progress: Progress = SILENT,
) -> View:
    """Look at a prediction over its image: probabilities, classes and instances.

    Prints a link to a page of neuroglancer, which this machine alone can open, and serves it until
    Ctrl-C. Pixels are read as they are looked at, whatever the size of the image; each channel,
    class and kind of labels is a layer to be shown, hidden and recoloured on its own. The image
    is found by what the prediction says it was made of; its contrast goes from the 1st to the
    99.5th percentile of a small copy.

    Parameters
    ----------
    prediction : str
        A prediction, an image with or without labels, a dataset or a plate.
    *more : str
        Others of the same image to be shown over it, such as its truth.
    image : str, optional
        The image of the prediction, where it is no longer beside it.
    sample : str, optional
        Which sample of a dataset, or image of a plate.
    channels : str, optional
        Which channels of the image: `0,2` or `DAPI,GFP`.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    points : str, optional
        A table of places to go through with the keys j and k: what ``unetkit measure`` wrote, the
        errors among what ``unetkit eval --objects`` wrote, or the windows that ``unetkit suggest``
        wrote.
    open_page : bool
        Open the page in the browser at once.
    napari : bool
        Show the layers in napari instead.
    annotations : str, optional
        Keep what is drawn on the page in this file, each time that it changes, as GeoJSON for
        ``unetkit correct --from``: windows that were judged, and objects. What an earlier view
        kept in it is there to go on with.
    png : str, optional
        Draw the first view as a picture, by a browser without a window, and end.
    overwrite : bool
        Replace an earlier picture.
    progress : Progress
        Told what is worth knowing.

    Returns
    -------
    View

    Raises
    ------
    InputError
        If there is nothing to be shown, a dataset has several samples and none is named, or what
        is shown together is of another size.
    UsageError
        If options exclude each other.
    ResourceError
        If neuroglancer, napari or a browser is needed and not installed.
    """
    if sum((napari, open_page, png is not None)) > 1:
        raise UsageError(
            "napari, open and png must be given one at a time, got several; choose one of them"
        )
    check_annotations(annotations, napari=napari, png=png)
    if png is not None:
        check_output(png, inputs=[prediction, *more], overwrite=overwrite)
        find_browser()
    elif overwrite:
        raise UsageError("overwrite must be given with a picture, got none; add --png FILE.png")
    opened = [_open(url, sample, axes) for url in (prediction, *more)]
    shown = _scene(opened, (image, channels, axes), progress)
    if points is not None:
        shown = replace(shown, marks=_marks(points, opened[0], shown, progress))
    if napari:
        napari_view.show(shown)
        return View(None, None, shown)
    drawn = None
    if annotations is not None:
        drawn = Annotations(
            annotations, _drawn_classes(opened[0].sample), progress.note, frozenset(shown.marks)
        )
    window = PANE if png is None else SIZE
    server = Shown(shown, window=window, told=progress.note, drawn=drawn)
    if png is None:
        if open_page and not webbrowser.open(server.url):
            warn(progress, "no browser could be opened; open the link yourself")
        return View(server.url, None, shown, shown=server)
    try:
        _draw(png, server)
    finally:
        server.close()
    return View(None, png, shown)


def _drawn_classes(sample: Sample) -> Sequence[str]:
    """Name what is drawn: objects of classes, of none, or the classes of pixels."""
    names = object_class_names(sample.image)
    if not names and "instances" not in sample.image.labels:
        names = sample.class_names
    return names[1:] or (OBJECTS,)


def _draw(path: str, server: Shown) -> None:
    with headless(server.url, size=SIZE):
        found = server.picture(size=SIZE, seconds=PATIENCE)
    if found is None:
        raise ResourceError(
            f"the browser must draw the page within {PATIENCE:.0f} s, got nothing from it; leave"
            " --png out and open the page"
        )
    write_bytes(path, png_bytes(found))


@dataclass(frozen=True)
class _Opened:
    """One of the stores, with the sample of it that is shown."""

    dataset: Dataset
    sample: Sample

    @property
    def is_prediction(self) -> bool:
        return "prediction" in self.sample.image.attributes


def _open(url: str, name: str | None, axes: str | None) -> _Opened:
    axes = axes if detect(url) in ("stack", "array") else None
    found = open_dataset(url, axes=axes, mixed=True)
    if name is not None:
        chosen = found.samples[0] if len(found.samples) == 1 else found[name]
    elif len(found.samples) == 1:
        (chosen,) = found.samples
    else:
        raise InputError(
            f"{url} must be one image to be looked at, got {len(found.samples)}"
            f" ({listed_names(found.names)}); choose with --sample {found.names[0]}"
        )
    return _Opened(replace(found, samples=(chosen,)), chosen)


def _scene(
    opened: Sequence[_Opened], told: tuple[str | None, str | None, str | None], progress: Progress
) -> Scene:
    """Lay out the image of the first store, and over it what all of them hold."""
    first = opened[0].sample
    base = _image(opened[0], told, progress)
    for other in opened[1:]:
        check_same_image(other.sample.data, first.data, name=other.sample.name)
    layers: list[Layer] = []
    if base is not None:
        layers += image_layers(base, over=base.data)
    space = base or first.image
    for number, one in enumerate(opened):
        for layer in _layers(one, space, base):
            name = f"{one.sample.name}: {layer.name}" if number else layer.name
            layers.append(replace(layer, name=name))
    return scene_of(first.name, space, layers)


def _image(
    first: _Opened, told: tuple[str | None, str | None, str | None], progress: Progress
) -> Image | None:
    """Find the image of the first store; None where it is a prediction whose image is gone."""
    image, channels, axes = told
    if image is None and not first.is_prediction:
        return choose_channels(first.sample.image, channels)
    try:
        (found,) = predicted_images(first.dataset, image, channels=channels, axes=axes)
    except MissingError as error:
        if image is not None or channels is not None:
            raise
        warn(progress, str(error))
        return None
    return found


def _layers(one: _Opened, space: Image, base: Image | None) -> Iterator[Layer]:
    """Show probabilities, and labels over them."""
    image = one.sample.image
    labelled = "instances" in image.labels or "classes" in image.labels
    if one.is_prediction:
        yield from probability_layers(image, over=space.data, shown=not labelled)
        yield from uncertainty_layers(image, over=space.data)
    elif base is None or image.data.url != base.data.url:
        yield from (replace(a, shown=False) for a in image_layers(image, over=space.data))
    yield from label_layers(image, over=space.data)
    for number, name in enumerate(image.other_labels[:MOST_OTHERS]):
        chosen = choose_labels(image, name)
        shown = not labelled and number == 0
        for layer in label_layers(chosen, over=space.data, shown=shown):
            yield replace(layer, name=name)


def _marks(
    path: str, first: _Opened, shown: Scene, progress: Progress
) -> dict[str, tuple[Mark, ...]]:
    """Read the places of the sample, the errors alone where it says what is one."""
    image = first.sample.image
    found = read_marks(path, pixel_size=image.pixel_size)
    names = {mark.sample for mark in found}
    if len(names) > 1:
        found = [mark for mark in found if mark.sample == first.sample.name]
        if not found:
            raise InputError(
                f"{path} must have rows of sample {first.sample.name!r}, got those of"
                f" {listed_names(sorted(names))}; name its own table"
            )
    right = [mark for mark in found if mark.kind == "match"]
    wrong = [mark for mark in found if mark.kind != "match"]
    if right:
        left = "match of {} is" if len(right) == 1 else "matches of {} are"
        told = f"{len(right):,} {left.format(path)} left out; errors are shown: {len(wrong):,}"
        warn(progress, told)
    planes = image.data.planes
    lost = next((mark for mark in wrong if mark.plane >= planes), None)
    if lost is not None or not wrong:
        got = "no row" if lost is None else f"plane {lost.plane}"
        raise InputError(
            f"{path} must have places in planes below {planes}, got {got}; name the table of this"
            " image"
        )
    if len(wrong) > MOST_MARKS:
        warn(progress, f"the first {MOST_MARKS:,} of {len(wrong):,} places of {path} are shown")
    by_kind: defaultdict[str, list[Mark]] = defaultdict(list)
    scale = [shown.sizes[a] / image.data.size(a) for a in "yx"]
    for mark in wrong[:MOST_MARKS]:
        by_kind[mark.kind or urls.base_name(path)].append(_placed(mark, *scale))
    return {name: tuple(marks) for name, marks in by_kind.items()}


def _placed(mark: Mark, down: float, across: float) -> Mark:
    """Bring a place of labels of another scale to the pixels of the image."""
    y, x = mark.y * down + (down - 1) / 2, mark.x * across + (across - 1) / 2
    if mark.box is None:
        return replace(mark, y=y, x=x)
    y0, x0, y1, x1 = mark.box
    return replace(mark, y=y, x=x, box=(y0 * down, x0 * across, y1 * down, x1 * across))
