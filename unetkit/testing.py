"""What the author of a model or a reader runs in their own tests."""

from __future__ import annotations

import gc
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import CheckError, InputError, MissingError, UnetkitError, UsageError
from unetkit.models.conformance import Finding, findings
from unetkit.models.inference import tiled_pass, whole_pass
from unetkit.models.receptive_field import ReceptiveField, receptive_field
from unetkit.storage.image_file import AXES, LISTED, are_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from unetkit.storage.image_file import ImageFile

__all__ = [
    "Finding",
    "ReceptiveField",
    "check_model",
    "check_reader",
    "findings",
    "receptive_field",
    "tiled_pass",
    "whole_pass",
]


def check_model(
    build: Callable[..., Any], *, in_channels: int = 1, classes: int = 2, **options: Any
) -> None:
    """Build a model and check everything that unetkit relies on.

    That is: the sizes that come out are those that its contract says; fresh logits have both
    signs; evaluation has no chance in it and treats the images of a batch alone; every parameter
    learns, from batches of two and of one; bfloat16 gives about what float32 gives; weights and
    options survive a file; it looks no farther than its contract says; and where the contract
    says ``exact``, tiles equal one pass over the whole to the bit.

    Parameters
    ----------
    build : callable
        What the entry point names.
    in_channels, classes : int
        What it is built with.
    **options
        Its own options; choose small ones, a check runs the model some fifty times.

    Raises
    ------
    CheckError
        If one of these does not hold; the message says which.

    Examples
    --------
    >>> from unetkit.models.unet import build
    >>> check_model(build, depth=1, width=2)
    """
    for finding in findings(build, in_channels=in_channels, classes=classes, options=options):
        if not finding.holds:
            raise CheckError(finding.found)


def check_reader(reader: Callable[..., ImageFile], path: str, *, axes: str | None = None) -> None:
    """Open a file with a reader and check everything that unetkit relies on.

    That is: the shape, type and channels that it tells are those of its pixels; strips of any
    height, parts at odd places and a second reading give the same pixels; the pixel size is
    positive or unknown; each scene that it lists opens by name and number, and any other is
    refused with their list; what is absent, empty, of another kind or cut short is refused in a
    sentence; and no file stays open.

    Parameters
    ----------
    reader : callable
        What the entry point names.
    path : str
        A file that it reads, best a small one: it is read some ten times.
    axes : str, optional
        What is given as ``--axes``, where the file needs it.

    Raises
    ------
    CheckError
        If one of these does not hold; the message says which.

    Examples
    --------
    >>> from unetkit.storage.readers import open_picture
    >>> check_reader(open_picture, "none.png")
    Traceback (most recent call last):
    ...
    unetkit.errors.MissingError: image file must exist, got nothing at 'none.png'; check the path
    """
    before = _held_open(path)
    file = reader(path, axes=axes, labels=False)
    _check_told(file)
    whole = _assembled(file, file.size("y"))
    for height in (max(1, file.size("y") // 3), file.size("y") + 1):
        _hold(_same(_assembled(file, height), whole), f"strips of {height} rows differ")
    _check_parts(file, whole)
    again = reader(path, axes=axes, labels=False)
    _hold(_same(_assembled(again, again.size("y")), whole), "a second reading differs")
    _check_scenes(reader, file, axes=axes)
    _check_refusals(reader, path, axes=axes)
    # One who reads may stop in the middle.
    next(iter(file.strips(1)))
    gc.collect()
    left = _held_open(path) - before
    _hold(not left, f"{left} handles of the file stay open after it was read")


def _hold(holds: bool, broken: str) -> None:
    if not holds:
        raise CheckError(f"reader must keep its contract, got one where {broken}")


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _check_told(file: ImageFile) -> None:
    _hold(are_axes(file.axes, len(file.shape)), f"axes are {file.axes!r} for {file.shape}")
    _hold([*file.axes] == sorted(file.axes, key=AXES.index), f"axes are not in order: {file.axes}")
    _hold(all(type(n) is int and n > 0 for n in file.shape), f"the shape is {file.shape}")
    _hold(np.dtype(file.dtype).isnative, f"the type is {file.dtype!r}, of another byte order")
    names = file.channel_names
    fit = not names or (len(names) == len(set(names)) == file.size("c") and all(names))
    _hold(fit, f"{file.size('c')} channels are called {names}")
    size = file.pixel_size
    known = size is None or (
        {"y", "x"} <= set(size) <= set("yxz") and all(0 < n < np.inf for n in size.values())
    )
    _hold(known, f"the pixel size is {size}")


def _assembled(file: ImageFile, height: int) -> NDArray[Any]:
    """Put the strips together: (planes, C, Y, X)."""
    rows, channels, width = file.size("y"), file.size("c"), file.size("x")
    whole = np.zeros((file.planes, channels, rows, width), dtype=file.dtype)
    expected = iter([(p, y0) for p in range(file.planes) for y0 in range(0, rows, height)])
    for plane, y0, block in file.strips(height):
        _hold((plane, y0) == next(expected, None), f"a strip is plane {plane}, row {y0}")
        shape = (channels, min(height, rows - y0), width)
        fits = (block.shape, block.dtype) == (shape, file.dtype)
        _hold(fits, f"a strip is {block.shape} of {block.dtype} for {shape} of {file.dtype}")
        whole[plane, :, y0 : y0 + height] = block
    _hold(next(expected, None) is None, "strips are lacking")
    return whole


def _check_parts(file: ImageFile, whole: NDArray[Any]) -> None:
    """Hold parts at odd places against the whole, and what is not inside against a refusal."""
    planes, rows, width = file.planes, file.size("y"), file.size("x")
    for plane in {0, planes // 2, planes - 1}:
        for y in {(0, 1), (rows // 3, rows // 2 + 1), (rows - 1, rows)}:
            for x in {(0, width), (width // 5, width // 2 + 1), (width - 1, width)}:
                part = file.read(plane, y=y, x=x)
                same = _same(part, whole[plane, :, slice(*y), slice(*x)])
                _hold(same, f"plane {plane}, rows {y}, columns {x} differ from the whole")
    for plane, y, x in (
        (planes, (0, 1), (0, 1)),
        (0, (0, rows + 1), (0, 1)),
        (0, (0, 1), (-1, 1)),
        (0, (1, 1), (0, 1)),
    ):
        told = _refusal(partial(file.read, plane, y=y, x=x))
        _hold(told is not None, f"plane {plane}, rows {y}, columns {x} are not refused")


def _check_scenes(reader: Callable[..., ImageFile], file: ImageFile, *, axes: str | None) -> None:
    if "scene" not in signature(reader).parameters:
        _hold(not file.scenes, "scenes are listed and can't be asked for")
        return
    names = file.scenes
    _hold(len(set(names)) == len(names) and all(names), f"scenes are called {names}")
    _hold(not names or file.scene == names[0], f"the first scene is {file.scene!r} of {names}")
    for number, name in enumerate(names):
        for asked in {name, name if str(number) in names else str(number)}:
            opened = _found_or_refused(partial(reader, file.path, axes=axes, scene=asked))
            # One that has other axes may be refused, in a sentence.
            found = opened is None or (opened.scene, opened.scenes) == (name, names)
            _hold(found, f"scene {asked!r} is {getattr(opened, 'scene', '')!r} of {names}")
    error = _refusal(lambda: reader(file.path, axes=axes, scene="no such scene"))
    _hold(isinstance(error, UsageError), f"a scene that is not there gives {error!r}")
    listed = all(name in str(error) for name in names[:LISTED])
    _hold(listed, f"a scene that is not there gives no list of them: {error}")


def _found_or_refused(opened: Callable[[], ImageFile]) -> ImageFile | None:
    try:
        return opened()
    except UnetkitError:
        return None


def _check_refusals(reader: Callable[..., ImageFile], path: str, *, axes: str | None) -> None:
    def read(name: Path) -> None:
        _assembled(reader(str(name), axes=axes, labels=False), 64)

    content = Path(path).read_bytes()
    with TemporaryDirectory() as folder:
        place = Path(folder) / f"other{Path(path).suffix}"
        error = _refusal(lambda: read(place))
        _hold(isinstance(error, MissingError), f"an absent file gives {error!r}")
        for what, held in {
            "an empty file": b"",
            "a file of text": b"no image\n" * 99,
            "a file of which half is lacking": content[: len(content) // 2],
        }.items():
            place.write_bytes(held)
            told = _refusal(lambda: read(place))
            _hold(isinstance(told, InputError), f"{what} gives {told!r} instead of a refusal")
    _refusal(lambda: reader(path, axes=axes, labels=True))


def _refusal(done: Callable[[], object]) -> UnetkitError | None:
    """Return the refusal that comes of it; whatever else is raised breaks the contract."""
    try:
        done()
    except UnetkitError as error:
        return error
    except Exception as error:
        raise CheckError(
            f"reader must refuse in a sentence of unetkit, got {type(error).__name__}: {error};"
            " read inside of unetkit.reading(path)"
        ) from error
    return None


def _held_open(path: str) -> int:
    """Count this process's handles and maps of a file, where the system tells of them."""
    own, here = Path("/proc/self"), Path(path).resolve()
    if not (own / "fd").is_dir():
        return 0
    links = []
    for link in (own / "fd").iterdir():
        with suppress(OSError):  # that of this very listing is gone by now
            links.append(link.readlink())
    maps = (own / "maps").read_text().splitlines()
    return links.count(here) + sum(line.endswith(f" {here}") for line in maps)
