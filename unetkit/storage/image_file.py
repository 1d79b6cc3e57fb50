"""What a reader makes of an image file: what is in it, and its pixels strip by strip."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unetkit.errors import InputError, MissingError, UnetkitError, UsageError
from unetkit.storage.urls import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    # Gives (C, Y, X) of `plane, y0, y1, x0, x1`, planes along t and z one after the other.
    Region = Callable[[int, int, int, int, int], NDArray[Any]]

# The letters that axes have, in stored order.
AXES = "tczyx"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Strip = tuple[int, int, NDArray[Any]]
STRIP = 512  # rows that are read at once where only strips can be
LISTED = 20  # scenes that a message names

# What an image is stored as; every other kind of number becomes float32.
STORED = {"uint8": "uint8", "bool": "uint8", "uint16": "uint16"}


@dataclass
class Damage:
    """Parts of a file that can't be decoded, known once they are met."""

    parts: int = 0  # that the file has
    fill: bool = False  # whether they read as 0 instead of being refused
    # Where each lies, as plane along t and z, y0, y1, x0, x1; by its page and its number there.
    found: dict[tuple[int, int], tuple[int, int, int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFile:
    """An image file that was opened, looked at and closed again.

    Parameters
    ----------
    path : str
        Where the file lies.
    axes : str
        The letters of its axes, in the order t, c, z, y, x; at least y and x.
    shape : tuple of int
        Sizes along `axes`.
    dtype : numpy.dtype
        Of the pixels.
    strips : callable
        `strips(height)` opens the file again and yields `(plane, y0, block)`: the planes along t
        and z one after the other, each in full-width blocks (C, Y, X) of `height` rows from row
        `y0` on, the last one lower. A reader holds one block and what it must decode for it.
    pixel_size : dict of str to float, optional
        Micrometres along y, x and perhaps z, where the file says so in a form meant for
        microscopy; a printing resolution is not one.
    channel_names : tuple of str
        One name a channel, or none at all.
    alpha_dropped : bool
        Whether the file has an alpha channel, which is not among the channels.
    alpha : bool
        Whether the last channel is alpha, as it is kept of labels, where it may be the mask.
    turned : bool
        Whether the file says that its pixels are to be shown turned or mirrored, which they are
        not here.
    lossy : bool
        Whether the pixels were compressed with loss, so that they can't be labels.
    remarks : tuple of str
        What a user should know, each as the end of the sentence "3 files ...".
    files : tuple of str
        The other files that its pixels come from: those of its set.
    absent : int
        How many tiles or strips were never written, and read as 0.
    parts : int
        How many tiles or strips the file speaks of.
    damage : sequence of Damage
        Where its parts can be decoded one by one, what of them can't be; one for each file.
    is_damaged : callable, optional
        Looks at all data of the file and tells whether they are other than an encoder writes, where
        decoding them does not. It may take longer than decoding does.
    regions : callable, optional
        `with regions() as region` opens the file again, and `region(plane, y0, y1, x0, x1)` gives
        (C, Y, X) of that part alone; `ImageFile.of_regions` makes the strips of it.
    unjudged : tuple of int
        Planes that nobody judged, of a mask that others of its stack alone have.
    scenes : tuple of str
        Names of all images that the file holds, where it may hold several; different ones.
    scene : str
        Which of them this is.
    """

    path: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strips: Callable[[int], Iterator[Strip]]
    pixel_size: dict[str, float] | None = None
    channel_names: tuple[str, ...] = ()
    alpha_dropped: bool = False
    alpha: bool = False
    turned: bool = False
    lossy: bool = False
    remarks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    absent: int = 0
    parts: int = 0
    damage: tuple[Damage, ...] = ()
    is_damaged: Callable[[], bool] | None = None
    regions: Callable[[], AbstractContextManager[Region]] | None = None
    scenes: tuple[str, ...] = ()
    scene: str = ""
    unjudged: tuple[int, ...] = ()

    @classmethod
    def of_regions(
        cls,
        path: str,
        regions: Callable[[], AbstractContextManager[Region]],
        *,
        axes: str,
        shape: Sequence[int],
        dtype: Any,
        **told: Any,
    ) -> ImageFile:
        """Return an image file whose reader gives any part of it.

        Parameters
        ----------
        path : str
            Where it lies.
        regions : callable
            As above; the file is open only inside of its context.
        axes, shape, dtype, **told
            As above.

        Returns
        -------
        ImageFile
        """
        sizes = dict(zip(axes, shape, strict=True))

        def strips(height: int) -> Iterator[Strip]:
            rows, width = sizes["y"], sizes["x"]
            with regions() as region:
                for plane in range(math.prod(sizes.get(axis, 1) for axis in "tz")):
                    for y0 in range(0, rows, height):
                        yield plane, y0, region(plane, y0, min(y0 + height, rows), 0, width)

        whole, kind = tuple(map(int, shape)), np.dtype(dtype)
        return cls(path, axes, whole, kind, strips, regions=regions, **told)

    def size(self, axis: str) -> int:
        """Return the size along an axis; 1 where the file has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; their numbers where they have none."""
        return self.channel_names or tuple(map(str, range(self.size("c"))))

    @property
    def planes(self) -> int:
        """How many planes (Y, X) there are along t and z."""
        return self.size("t") * self.size("z")

    def read(self, plane: int, *, y: tuple[int, int], x: tuple[int, int]) -> NDArray[Any]:
        """Read a part of one plane, and no more of the file where its reader can.

        Parameters
        ----------
        plane : int
            Its number along t and z.
        y, x : tuple of int
            First row or column, and the one after the last.

        Returns
        -------
        ndarray, shape (C, Y, X)

        Raises
        ------
        UsageError
            If the part does not lie inside.
        """
        inside = all(0 <= a < b <= self.size(n) for n, (a, b) in {"y": y, "x": x}.items())
        if not inside or not 0 <= plane < self.planes:
            raise UsageError(
                f"a part must lie in the {self.planes} planes of {self.size('y')} x"
                f" {self.size('x')} of {self.path!r}, got plane {plane}, rows {y}, columns {x}"
            )
        if self.regions is not None:
            with self.regions() as region:
                return region(plane, *y, *x)
        found = []
        for n, y0, block in self.strips(min(STRIP, self.size("y"))):
            if n == plane and y0 < y[1] and y0 + block.shape[1] > y[0]:
                found.append(block[:, max(y[0] - y0, 0) : y[1] - y0, x[0] : x[1]])
            if n > plane or (n == plane and y0 >= y[1]):
                break
        return np.concatenate(found, axis=1)

    def load(self) -> NDArray[Any]:
        """Read everything.

        Returns
        -------
        ndarray, shape as `axes` says
        """
        sizes = tuple(self.size(axis) for axis in "tzcyx")
        whole = np.empty((self.planes, *sizes[2:]), dtype=self.dtype)
        for plane, y0, block in self.strips(sizes[3]):
            whole[plane, :, y0 : y0 + block.shape[1]] = block
        return whole.reshape(sizes).transpose(0, 2, 1, 3, 4).reshape(self.shape)

    def filled(self, masks: Sequence[ImageFile] = ()) -> NDArray[np.bool_] | None:
        """Tell which pixels of what was read were filled in, here or in masks, or nobody judged.

        Returns
        -------
        ndarray of bool, shape as `axes` says without c; None where there are none
        """
        boxes = [b for f in (self, *masks) for one in f.damage for b in one.found.values()]
        whole = (0, self.size("y"), 0, self.size("x"))
        boxes += [(plane, *whole) for mask in masks for plane in mask.unjudged]
        if not boxes:
            return None
        where = np.zeros((self.planes, self.size("y"), self.size("x")), dtype=bool)
        for plane, y0, y1, x0, x1 in boxes:
            # A mask may have a page for each object of one plane.
            where[min(plane, self.planes - 1), y0:y1, x0:x1] = True
        return where.reshape([self.size(axis) for axis in self.axes if axis != "c"])

    def stored(self) -> ImageFile:
        """Return this file with pixels of a type that images are stored as.

        Returns
        -------
        ImageFile
            Of uint8, uint16 or float32; integers that have more or signed bits become float32,
            which is exact up to 2^24.

        Raises
        ------
        InputError
            If the pixels are not real numbers.
        """
        if self.dtype.kind not in "buif":
            raise InputError(
                f"pixels of {self.path!r} must be real numbers, got {self.dtype};"
                " save them as integers or floats"
            )
        dtype = np.dtype(STORED.get(self.dtype.name, "float32"))
        if dtype == self.dtype:
            return self
        remarks = self.remarks
        if self.dtype.kind != "b":
            remarks = (*remarks, f"came in as float32 instead of {self.dtype}")
        return replace(
            self._changed(lambda block: _converted(block, dtype)), dtype=dtype, remarks=remarks
        )

    def pick(self, channels: list[int]) -> ImageFile:
        """Return this file with the chosen channels, in the chosen order."""
        at = self.axes.index("c")
        return replace(
            self._changed(lambda block: block[channels]),
            shape=(*self.shape[:at], len(channels), *self.shape[at + 1 :]),
            channel_names=tuple(self.channel_names[c] for c in channels if self.channel_names),
        )

    def _changed(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> ImageFile:
        """Return this file with every block as a function of it gives it."""
        opened = self.regions

        def strips(height: int) -> Iterator[Strip]:
            for plane, y0, block in self.strips(height):
                yield plane, y0, change(block)

        @contextmanager
        def regions() -> Iterator[Region]:
            with opened() as region:  # type: ignore[misc]
                yield lambda *where: change(region(*where))

        return replace(self, strips=strips, regions=regions if opened else None)


def indices_remark(colour: Sequence[int]) -> str:
    """Say that labels are the indices of a palette, of which 0 is shown in a colour.

    >>> indices_remark([255, 255, 255])
    'carry a palette, whose indices came in, 0 (white) as background'
    """
    code = "#" + "".join(f"{int(part):02x}" for part in colour)
    shown = {"#000000": "black", "#ffffff": "white"}.get(code, code)
    return f"carry a palette, whose indices came in, 0 ({shown}) as background"


def joined(files: Sequence[ImageFile], names: Sequence[str]) -> ImageFile:
    """Return several files of one channel each as one image with these channels.

    Raises
    ------
    InputError
        If one has several channels, or they differ in size, axes or type.
    """
    first = files[0]
    for file in files:
        grey = file.size("c") == 1
        alike = [(f.dtype, [(a, f.size(a)) for a in "tzyx" if a in f.axes]) for f in (file, first)]
        if not grey or alike[0] != alike[1]:
            raise InputError(
                "files of an image's channels must be grey, of one size and one type, got"
                f" {file.shape} of {file.dtype} in {file.path!r} for {first.shape} of"
                f" {first.dtype} in {first.path!r}"
            )

    def strips(height: int) -> Iterator[Strip]:
        for parts in zip(*(file.strips(height) for file in files), strict=True):
            plane, y0, _ = parts[0]
            yield plane, y0, np.concatenate([block for _, _, block in parts])

    axes = "".join(axis for axis in AXES if axis in first.axes or axis == "c")
    return replace(
        first,
        axes=axes,
        shape=tuple(len(files) if axis == "c" else first.size(axis) for axis in axes),
        strips=strips,
        regions=None,
        channel_names=() if all(map(str.isdecimal, names)) else tuple(names),
        alpha_dropped=any(file.alpha_dropped for file in files),
        turned=any(file.turned for file in files),
        absent=sum(file.absent for file in files),
        parts=sum(file.parts for file in files),
        damage=tuple(one for file in files for one in file.damage),
        is_damaged=lambda: any(file.is_damaged and file.is_damaged() for file in files),
        lossy=any(file.lossy for file in files),
        remarks=tuple(dict.fromkeys(remark for file in files for remark in file.remarks)),
    )


def _converted(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    # A float64 beyond float32 becomes infinite, which is judged where images are used.
    with np.errstate(over="ignore"):
        return block.astype(dtype)


def choose_scene(scene: str | None, scenes: Sequence[str], *, path: str) -> int:
    """Return the number of the scene that is named, of those that a file holds.

    Parameters
    ----------
    scene : str or None
        A name, or where none is so called, a number; None is the first.
    scenes : sequence of str
        The names of all.
    path : str
        The file.

    Returns
    -------
    int

    Raises
    ------
    UsageError
        If there is none of that name; the message lists those that there are.

    Examples
    --------
    >>> choose_scene("day 2", ["day 1", "day 2"], path="a.czi")
    1
    """
    if scene is None or scene in scenes:
        return 0 if scene is None else list(scenes).index(scene)
    if scene.isdecimal() and int(scene) < len(scenes):
        return int(scene)
    listed = [f"{n} ({name})" if name != str(n) else name for n, name in enumerate(scenes)]
    more = f" and {len(listed) - LISTED:,} more" if len(listed) > LISTED else ""
    raise UsageError(
        f"scene must be one of {path!r}, got {scene!r}; it has"
        f" {', '.join(listed[:LISTED]) or 'one image without a name: leave it out'}{more}"
    )


def are_axes(axes: str, ndim: int) -> bool:
    """Tell whether these are letters for the axes of an image of `ndim` dimensions.

    >>> are_axes("cyx", 3), are_axes("cyx", 2), are_axes("czy", 3)
    (True, False, False)
    """
    return len(axes) == len(set(axes)) == ndim and set("yx") <= set(axes) <= set(AXES)


def check_axes(axes: str) -> str:
    """Return axes in lower case; refuse an unknown letter, one twice, or none for y or x."""
    letters = axes.lower()
    if not are_axes(letters, len(letters)):
        raise UsageError(
            f"axes must be different letters of {AXES} with y and x among them, got {axes!r};"
            " for example zyx"
        )
    return letters


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever a decoder raises over a damaged file into one sentence."""
    try:
        yield
    except (UnetkitError, MemoryError):
        raise
    except FileNotFoundError as error:
        hint = did_you_mean(path)
        raise MissingError(f"image file must exist, got nothing at {path!r}; {hint}") from error
    # Decoders raise errors of every kind over foreign bytes, their own base classes included.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"image file must be readable, got {path!r} ({reason});"
            " it may be damaged or cut short: save or copy it again"
        ) from error
