"""Images and labels at another pixel size, read as if they were stored so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.dtypes import cast
from unetkit.arrays.scaling import Kernel, scale, scaled_length, taps, vote
from unetkit.engine.input_shift import PIXEL_TOLERANCE
from unetkit.errors import InputError
from unetkit.storage import urls
from unetkit.storage.ome import Placement, Steps, placement_of
from unetkit.storage.pixel_size import plane_pixel
from unetkit.storage.planes import PlaneArray
from unetkit.storage.pyramids import levels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.scaling import Taps
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import Box

# Pixels that a part of a read takes at once, of the source or of the result.
PART = 2**22
# Fractions are no finer: along 100,000 pixels it makes less than a tenth of a pixel.
FINEST = 1000
# Pixels that are smaller by more show nothing any more, and larger ones too little.
SMALLEST, LARGEST = 1 / 64, 8.0
# A level whose pixels differ by no more from those that are wanted is read as it is.
ALIKE = 0.01

Ratios = tuple[Fraction, Fraction]


@dataclass(frozen=True, kw_only=True)
class RescaledPlanes(PlaneArray):
    """A stored array, read as if its pixels had another size; nothing can be written to it.

    Every pixel depends on its own coordinates alone, so that parts equal the whole to the last bit.
    """

    source: PlaneArray
    ratios: Ratios  # along y and x: the size of the source's pixels, divided by that of these
    kernel: Kernel = "cubic"

    def with_absolute_url(self) -> RescaledPlanes:
        """Name the array so that a worker with another working folder finds it too."""
        return replace(self, url=urls.absolute(self.url), source=self.source.with_absolute_url())

    def pick(self, channels: Sequence[int]) -> RescaledPlanes:
        """Return the same array with these channels only, in this order."""
        source = self.source.pick(channels)
        return replace(self, source=source, picked=source.picked)

    def over(self, image: PlaneArray) -> RescaledPlanes:
        """Return labels as those of every t and z of an image where they are stored once."""
        return rescaled(
            self.source.over(image), self.ratios, shape=self.plane_shape, kernel=self.kernel
        )

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box of a plane, as `PlaneArray.read` does."""
        kept = self.is_exact
        return self._in_parts(
            (plane, y0, y1, x0, x1), lambda found: found if kept else cast(found, self.dtype)
        )

    def read_floats(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box without rounding it to the numbers of the source."""
        return self._in_parts((plane, y0, y1, x0, x1), lambda found: found)

    def _in_parts(self, box: Box, finish: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        plane, y0, y1, x0, x1 = box
        high, wide = (max(1.0, 1 / float(ratio)) for ratio in self.ratios)
        # No fewer rows at once than are stored together, which would be decoded again.
        rows = max(PART / ((x1 - x0) * wide), self.source.chunk[0]) / high
        step = max(1, int(rows))
        columns = self._taps(1, x0, x1)
        parts = [
            finish(self._sampled(plane, self._taps(0, y, min(y + step, y1)), columns))
            for y in range(y0, y1, step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)

    def write(self, plane: int, y0: int, x0: int, block: NDArray[Any]) -> None:
        """Refuse to be written."""
        raise ValueError(f"{self.url} is read at another pixel size and can't be written so")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read block after block, for statistics; see `PlaneArray.blocks`."""
        for box in self.boxes:
            yield self.read(*box)

    @property
    def is_exact(self) -> bool:
        """Whether pixels are kept as they are, as labels have to be."""
        return self.kernel in ("vote", "nearest")

    def part_bytes(self) -> int:
        """Return what a read takes beside its result, at most."""
        (_, wide), (chunk, _) = self.ratios, self.source.chunk
        columns = min(self.source.width, int(2048 / min(1.0, float(wide))))
        numbers = max(PART, chunk * columns) * self.channel_count
        # As it is stored, and twice in single precision.
        return numbers * (self.dtype.itemsize + 8)

    def _taps(self, axis: int, start: int, stop: int) -> Taps:
        length = (self.source.height, self.source.width)[axis]
        return taps(start, stop, length=length, ratio=self.ratios[axis], kernel=self.kernel)

    def _sampled(self, plane: int, rows: Taps, columns: Taps) -> NDArray[Any]:
        (y0, y1), (x0, x1) = rows.reach, columns.reach
        block = self.source.read(plane, y0, y1, x0, x1)
        found = (rows.moved(y0), columns.moved(x0))
        return vote(block, *found) if self.is_exact else scale(block, *found)


def rescaled(
    source: PlaneArray,
    ratios: Ratios,
    *,
    shape: tuple[int, int] | None = None,
    kernel: Kernel = "cubic",
) -> RescaledPlanes:
    """See an array at another pixel size; `shape` is height and width, where something else says.

    `ratios` are the sizes of its pixels along y and x, divided by those of the result.
    """
    lengths = (source.height, source.width)
    found = shape or tuple(map(scaled_length, lengths, ratios))
    sizes = dict(zip("yx", found, strict=True))
    scales = dict(zip("yx", ratios, strict=True))

    def chunks(stored: tuple[int, ...]) -> tuple[int, ...]:
        # What is about the same part of the image.
        return tuple(
            max(1, round(chunk * scales.get(axis, 1)))
            for axis, chunk in zip(source.axes, stored, strict=True)
        )

    return RescaledPlanes(
        url=source.url,
        axes=source.axes,
        shape=tuple(sizes.get(axis, source.size(axis)) for axis in source.axes),
        dtype=source.dtype,
        chunks=chunks(source.chunks),
        has_channels=source.has_channels,
        picked=source.picked,
        read_chunks=chunks(source.read_chunks or source.chunks),
        repeated=source.repeated,
        item=source.item,
        zarr_format=source.zarr_format,
        version=source.version,
        source=source,
        ratios=ratios,
        kernel=kernel,
    )


@dataclass(frozen=True)
class View:
    """An image at another pixel size."""

    image: Image
    level: int  # of the pyramid, that is read
    ratios: Ratios  # along y and x: the size of its own pixels, divided by that of these


def at_ratios(image: Image, ratios: tuple[float, float]) -> View:
    """See an image at another pixel size, by the level of its pyramid that is best for it.

    That is the level whose pixels have that size, by one in a hundred; else the smallest that has
    the details, made smaller by means, or the largest one, made larger by cubic interpolation. What
    belongs to the image is left out.
    """
    wanted = tuple(Fraction(ratio).limit_denominator(FINEST) for ratio in ratios)
    number, data, found = _level(image.data, (wanted[0], wanted[1]))
    # The corner of the first pixel stays where it is.
    smaller = {axis: float(1 / ratio) for axis, ratio in zip("yx", found, strict=True)}
    shift = {axis: (factor - 1) / 2 for axis, factor in smaller.items()}
    placement = image.placement or placement_of(image.pixel_size)
    level = Steps(smaller, shift).then(placement.level)
    known = image.pixel_size
    pixel_size = known and {axis: size * smaller.get(axis, 1) for axis, size in known.items()}
    view = replace(
        image,
        data=data,
        pixel_size=pixel_size,
        placement=Placement(level, placement.whole, placement.units),
        levels=1,
        labels={},
        label_attributes={},
        weights=None,
        weights_attributes={},
    )
    return View(view, number, found)


def at_pixel_size(dataset: Dataset, wanted: Mapping[str, float]) -> Dataset:
    """See the images of a dataset at one pixel size, with their labels, and without weights.

    A label is that of the pixel in its middle. What has that size by 1 % stays as it is.
    """
    samples = (_at_pixel_size(sample, wanted) for sample in dataset.samples)
    return replace(dataset, samples=tuple(samples))


def _at_pixel_size(sample: Sample, wanted: Mapping[str, float]) -> Sample:
    image = sample.image
    own = plane_pixel(image.pixel_size)
    if own is None:
        raise InputError(
            f"sample {sample.name!r} must have a pixel size to be read at {wanted['y']:.4g}"
            " micrometres, got none; import it again with --pixel-size"
        )
    ratios = own[0] / wanted["y"], own[1] / wanted["x"]
    if all(abs(ratio - 1) <= ALIKE for ratio in ratios):
        return sample
    if not all(SMALLEST <= ratio <= LARGEST for ratio in ratios):
        raise InputError(
            f"pixels of sample {sample.name!r} must be 1/64 to {LARGEST:g} times as large as"
            f" {wanted['y']:.4g} micrometres, got {own[0]:.4g}; import it again with the size that"
            " they have, or name another --pixel-size"
        )
    return with_labels_at(sample, ratios)


def ratios_to(
    sample: Sample, wanted: Mapping[str, float] | None, *, advice: str
) -> tuple[float, float] | None:
    """Return by what an image is brought to a model's pixel size; None where it stays as it is.

    Sizes that differ by less than is warned of count as the same, and so do unknown ones.
    """
    own, other = plane_pixel(sample.image.pixel_size), plane_pixel(wanted)
    if own is None or other is None:
        return None
    ratios = own[0] / other[0], own[1] / other[1]
    if all(abs(ratio - 1) <= PIXEL_TOLERANCE for ratio in ratios):
        return None
    for ratio, size, model in zip(ratios, own, other, strict=True):
        if not SMALLEST <= ratio <= LARGEST:
            raise InputError(
                f"pixels of sample {sample.name!r} must be 1/64 to {LARGEST:g} times as large as"
                f" the model's of {model:.4g} micrometres, got {size:.4g}; {advice}"
            )
    return ratios


def with_labels_at(sample: Sample, ratios: tuple[float, float]) -> Sample:
    """See a sample at another pixel size, and labels as that of the pixel in its middle each."""
    image = sample.image
    view = at_ratios(image, ratios)
    shape = view.image.data.height, view.image.data.width
    labels: dict[str, PlaneArray] = {
        name: rescaled(array, view.ratios, shape=shape, kernel="nearest")
        for name, array in image.labels.items()
    }
    seen = replace(view.image, labels=labels, label_attributes=image.label_attributes)
    return replace(sample, image=seen)


def _level(data: PlaneArray, wanted: Ratios) -> tuple[int, PlaneArray, Ratios]:
    """Choose a level, and see it at the pixel size that is wanted, or at its own where it is."""
    best = (0, data, wanted)
    for number, level, factors in _usable_levels(data):
        ratios = tuple(ratio * factor for ratio, factor in zip(wanted, factors, strict=True))
        if all(abs(ratio - 1) <= ALIKE for ratio in ratios):
            return number, level, (1 / factors[0], 1 / factors[1])
        if all(ratio <= 1 for ratio in ratios):
            exact = [ratio.limit_denominator(FINEST) for ratio in ratios]
            best = (number, level, (exact[0], exact[1]))
    shape = (scaled_length(data.height, wanted[0]), scaled_length(data.width, wanted[1]))
    return best[0], rescaled(best[1], best[2], shape=shape), wanted


def _usable_levels(data: PlaneArray) -> Iterator[tuple[int, PlaneArray, Ratios]]:
    """Yield the levels that show the whole plane smaller, and how large their pixels are.

    What a level says of itself counts where it is about what its size says.
    """
    for number, (level, told) in enumerate(levels_of(data)):
        if any(level.size(axis) != data.size(axis) for axis in "tcz"):
            continue
        factors = []
        for axis in "yx":
            factor, length = told.get(axis, 0.0), data.size(axis)
            if abs(factor * level.size(axis) - length) > factor + 0.01 * length:
                factor = 0.0
            # A side that rounds makes a level a pixel shorter or longer.
            whole = round(length / level.size(axis))
            fits = abs(whole * level.size(axis) - length) < whole
            factors.append(factor or (whole if fits else length / level.size(axis)))
        exact = [Fraction(factor).limit_denominator(FINEST) for factor in factors]
        if min(exact) > 0:
            yield number, level, (exact[0], exact[1])
