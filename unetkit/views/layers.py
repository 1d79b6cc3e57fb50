"""What a viewer draws: images, probabilities, labels and marks as layers in one space.

The space is counted in pixels of the first image, whose first pixel's centre is 0; no viewer is
known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.storage.pyramids import levels_of, thumbnail
from unetkit.views.drawing import PALETTE, channel_colours, contrast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from unetkit.storage.images import Image
    from unetkit.storage.marks import Mark
    from unetkit.storage.planes import PlaneArray

# Our choices: what a graphics card adds up to a picture at once; what is read to find a contrast.
MOST_SHOWN, SAMPLED = 6, 1024
WHITE, UNSURE = (255, 255, 255), (255, 60, 60)
# Of labels the first pixel of a block stands for it, of all else the mean.
LABELS = ("instances", "classes")


@dataclass(frozen=True)
class Level:
    """One stored resolution of a layer, and where it lies along t, z, y and x."""

    data: PlaneArray
    scale: Mapping[str, float]  # the length of its pixels in those of the space
    shift: Mapping[str, float]  # the centre of its first pixel

    def read(
        self, channel: int, plane: int, box: tuple[int, int, int, int]
    ) -> np.ndarray[Any, Any]:
        """Read rows y0 to y1 and columns x0 to x1 of a plane, shape (Y, X)."""
        if not self.data.has_channels:
            return self.data.read(plane, *box)
        found: np.ndarray[Any, Any] = self.data.pick([channel]).read(plane, *box)[0]
        return found


@dataclass(frozen=True)
class Layer:
    """Something of an image that can be shown or hidden by itself."""

    name: str
    kind: Literal["image", "probability", "uncertainty", "classes", "instances"]
    source: str  # the store
    levels: tuple[Level, ...]
    channel: int = 0
    colour: tuple[int, int, int] = WHITE
    contrast: tuple[float, float] = (0.0, 1.0)  # what becomes black, and what becomes white
    shown: bool = True
    names: Mapping[int, str] = field(default_factory=dict)  # of classes

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which viewers take its pixels: they know no float16, float64 or int64."""
        stored = self.levels[0].data.dtype
        if self.kind in LABELS:
            return np.dtype(np.uint32 if stored.itemsize <= 4 else np.uint64)
        known = stored == np.float32 or (stored.kind in "iu" and stored.itemsize <= 4)
        return stored if known else np.dtype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {"name": self.name, "kind": self.kind, "source": self.source, "shown": self.shown}
        ends = {} if self.kind in LABELS else {"contrast": list(self.contrast)}
        return {**told, "levels": len(self.levels), **ends}


@dataclass(frozen=True)
class Scene:
    """All that is drawn, and the space in which it lies."""

    title: str
    sizes: Mapping[str, int]  # along those of t, z, y and x that are more than one pixel, and y, x
    pixel: Mapping[str, float]  # micrometres along the axes for which they are known
    layers: tuple[Layer, ...]
    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)

    @property
    def plane(self) -> int:
        """The plane that is shown first: the middle one."""
        return self.sizes.get("t", 1) * self.sizes.get("z", 1) // 2

    def place(self, plane: int) -> dict[str, int]:
        """Say where a plane is along t and z."""
        t, z = divmod(plane, self.sizes.get("z", 1))
        return {"t": t, "z": z}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        marks = [{"name": name, "kind": "marks", "marks": len(m)} for name, m in self.marks.items()]
        return {"layers": [*(layer.to_dict() for layer in self.layers), *marks]}


def scene_of(title: str, image: Image, layers: Iterable[Layer]) -> Scene:
    """Lay layers into the space of an image, each with a name of its own."""
    sizes = {axis: image.data.size(axis) for axis in "tzyx"}
    sizes = {axis: size for axis, size in sizes.items() if size > 1 or axis in "yx"}
    named: dict[str, Layer] = {}
    for layer in layers:
        name, number = layer.name, 2
        while name in named:
            name, number = f"{layer.name} {number}", number + 1
        named[name] = replace(layer, name=name)
    return Scene(title, sizes, dict(image.pixel_size or {}), tuple(named.values()))


def image_layers(image: Image, *, over: PlaneArray) -> Iterator[Layer]:
    """Show each channel of an image, those after the sixth only when asked for.

    `over` is what the space is counted in.
    """
    data, levels = image.data, _placed(image.data, over=over, nearest=False)
    colours = channel_colours(data.channel_count).tolist()
    ends = _limits(data)
    for channel, (name, colour, limits) in enumerate(
        zip(image.channel_names, colours, ends, strict=True)
    ):
        bare = name == str(channel)
        yield Layer(
            (image.name if data.channel_count == 1 else f"channel {name}") if bare else name,
            "image",
            image.url,
            levels,
            channel=channel,
            colour=tuple(colour),
            contrast=limits,
            shown=channel < MOST_SHOWN,
        )


def probability_layers(image: Image, *, over: PlaneArray, shown: bool) -> Iterator[Layer]:
    """Show the probability of each class as a colour that is as strong as it is high."""
    levels = _placed(image.data, over=over, nearest=False)
    most = 255.0 if image.data.dtype == np.uint8 else 1.0
    for channel, name in enumerate(image.channel_names):
        colour = WHITE if channel == 0 else class_colour(channel)
        yield Layer(
            f"probability of {name}",
            "probability",
            image.url,
            levels,
            channel=channel,
            colour=colour,
            contrast=(0.0, most),
            shown=shown and 0 < channel <= MOST_SHOWN,
        )


def uncertainty_layers(image: Image, *, over: PlaneArray) -> Iterator[Layer]:
    """Show where a prediction was unsure, if it says so, once that is asked for."""
    if image.uncertainty is not None:
        levels = _placed(image.uncertainty, over=over, nearest=False)
        look: dict[str, Any] = {"colour": UNSURE, "contrast": (0.0, 255.0), "shown": False}
        yield Layer("uncertainty", "uncertainty", image.url, levels, **look)


def label_layers(image: Image, *, over: PlaneArray, shown: bool = True) -> Iterator[Layer]:
    """Show instances or else classes; what is there besides can be asked for."""
    for kind in LABELS:
        if kind not in image.labels:
            continue
        names = image.class_names if kind == "classes" else ()
        levels = _placed(image.labels[kind], over=over, nearest=True)
        told = dict(enumerate(names))
        yield Layer(kind, kind, image.url, levels, shown=shown, names=told)  # type: ignore[arg-type]
        shown = False


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class, as in the pictures of the other commands."""
    red, green, blue = PALETTE[(number - 1) % len(PALETTE)].tolist()
    return red, green, blue


def _placed(data: PlaneArray, *, over: PlaneArray, nearest: bool) -> tuple[Level, ...]:
    """Say where each stored level of an array lies in the space of another, which it covers."""
    whole = {axis: over.size(axis) / data.size(axis) for axis in "tzyx"}
    found = []
    for level, factors in levels_of(data):
        own = {axis: _factor(data, level, axis, factors.get(axis)) for axis in "tzyx"}
        shift = {axis: 0.0 if nearest else (own[axis] - 1) / 2 for axis in "tzyx"}
        found.append(
            Level(
                level,
                {axis: own[axis] * whole[axis] for axis in "tzyx"},
                {axis: shift[axis] * whole[axis] + (whole[axis] - 1) / 2 for axis in "tzyx"},
            )
        )
    return tuple(found)


def _factor(data: PlaneArray, level: PlaneArray, axis: str, told: float | None) -> float:
    """Return how many pixels one of a level is long, as it is told where that can be."""
    size, own = data.size(axis), level.size(axis)
    if told is not None and abs(own * told - size) <= told:
        return told
    return size / own


def image_contrast(data: PlaneArray) -> NDArray[np.number]:
    """Find the contrast of each channel, from a small level or else from the middle of a plane.

    Shape (2, C, 1, 1), as of `views.drawing.contrast`.
    """
    plane = data.planes // 2
    smallest = levels_of(data)[-1][0]
    if max(smallest.height, smallest.width) <= 2 * SAMPLED:
        pixels = thumbnail(data, plane, side=SAMPLED // 2)
    else:
        ends = []
        for size in (data.height, data.width):
            first = max(0, (size - SAMPLED) // 2)
            ends += [first, min(first + SAMPLED, size)]
        pixels = data.read(plane, *ends)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return contrast(pixels)


def _limits(data: PlaneArray) -> list[tuple[float, float]]:
    """Give what becomes black and what becomes white of each channel."""
    low, high = image_contrast(data)
    limits = zip(low.ravel().tolist(), high.ravel().tolist(), strict=True)
    return [(bottom, top if top > bottom else _above(bottom)) for bottom, top in limits]


def _above(value: float) -> float:
    """Return a white for a constant channel, which then is black."""
    return value + max(1.0, math.ulp(value))
