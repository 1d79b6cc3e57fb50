"""Windows of an image that were judged: boxes of whole pixels, joined where they overlap."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unetkit.storage.image_file import ImageFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.storage.image_file import Region

AXES = "tzyx"


@dataclass(frozen=True)
class Window:
    """A box along t, z, y and x: first and last, the last one excluded."""

    sides: tuple[tuple[int, int], ...]  # one pair an axis of `AXES`

    def __getitem__(self, axis: str) -> tuple[int, int]:
        return self.sides[AXES.index(axis)]

    def size(self, axis: str) -> int:
        """Return how long it is along an axis."""
        first, last = self[axis]
        return last - first

    def meets(self, other: Window) -> bool:
        """Tell whether two share a pixel."""
        pairs = zip(self.sides, other.sides, strict=True)
        return all(a < d and c < b for (a, b), (c, d) in pairs)

    def shared(self, other: Window) -> Window:
        """Return what two share that meet."""
        pairs = zip(self.sides, other.sides, strict=True)
        return Window(tuple((max(a, c), min(b, d)) for (a, b), (c, d) in pairs))

    def around(self, other: Window) -> Window:
        """Return the smallest that holds both."""
        pairs = zip(self.sides, other.sides, strict=True)
        return Window(tuple((min(a, c), max(b, d)) for (a, b), (c, d) in pairs))

    def grown(self, pixels: int, sizes: Mapping[str, int]) -> Window:
        """Return it with so many pixels more along y and x, as far as the image goes."""
        more = {"t": 0, "z": 0, "y": pixels, "x": pixels}
        return Window(
            tuple(
                (max(0, self[axis][0] - more[axis]), min(sizes[axis], self[axis][1] + more[axis]))
                for axis in AXES
            )
        )

    def within(self, other: Window) -> Window:
        """Return the same, counted from the corner of another."""
        pairs = zip(self.sides, other.sides, strict=True)
        return Window(tuple((a - c, b - c) for (a, b), (c, _) in pairs))

    def planes(self, depth: int) -> list[int]:
        """List its planes in an image of so many along z, those of one t after those of another."""
        return [t * depth + z for t in range(*self["t"]) for z in range(*self["z"])]


def joined_windows(windows: Iterable[Window]) -> list[Window]:
    """Join windows until no two share a pixel, from the first plane, row and column on.

    >>> boxes = [(0, 4), (3, 9), (9, 12)]
    >>> found = joined_windows(Window(((0, 1), (0, 1), (0, 5), x)) for x in boxes)
    >>> [one["x"] for one in found]
    [(0, 9), (9, 12)]
    """
    found: list[Window] = []
    for window in windows:
        one, rest = window, found
        while met := [other for other in rest if one.meets(other)]:
            rest = [other for other in rest if other not in met]
            for other in met:
                one = one.around(other)
        found = [*rest, one]
    return sorted(found, key=lambda one: one.sides)


def cropped(file: ImageFile, window: Window) -> ImageFile:
    """Return a part of an image file as one; along t and z that it does not have, all of it."""
    top, left = window["y"][0], window["x"][0]
    planes = window.planes(file.size("z"))

    def whole() -> Any:
        return lambda plane, y0, y1, x0, x1: file.read(plane, y=(y0, y1), x=(x0, x1))

    @contextmanager
    def regions() -> Iterator[Region]:
        with file.regions() if file.regions else nullcontext(whole()) as region:

            def part(plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
                return region(planes[plane], top + y0, top + y1, left + x0, left + x1)

            yield part

    shape = [window.size(axis) if axis in AXES else file.size(axis) for axis in file.axes]
    part = ImageFile.of_regions(file.path, regions, axes=file.axes, shape=shape, dtype=file.dtype)
    return replace(file, shape=part.shape, strips=part.strips, regions=part.regions)


def window_of(box: Sequence[float], *, plane: int | None, sizes: Mapping[str, int]) -> Window:
    """Return the pixels that a box (x0, y0, x1, y1) of a plane touches; of all planes for None."""
    x0, y0, x1, y1 = (int(edge // 1) if n < 2 else int(-(-edge // 1)) for n, edge in enumerate(box))
    rows, columns = ((max(a, 0), min(b, sizes[n])) for n, a, b in (("y", y0, y1), ("x", x0, x1)))
    if plane is None:
        return Window(((0, sizes["t"]), (0, sizes["z"]), rows, columns))
    t, z = divmod(plane, sizes["z"])
    return Window(((t, t + 1), (z, z + 1), rows, columns))
