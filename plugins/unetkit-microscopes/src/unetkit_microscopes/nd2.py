"""Nikon ND2, position by position, by nd2."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nd2
import numpy as np

from unetkit import ImageFile, choose_scene, reading
from unetkit.errors import InputError
from unetkit_microscopes.asked import arranged, check_there, known_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def open_nd2(
    path: str, *, axes: str | None = None, labels: bool = False, scene: str | None = None
) -> ImageFile:
    """Look into one position of an ND2; one that says that it lacks frames is refused.

    The rest is as `asked` says of every reader.
    """
    check_there(path, labels=labels)
    with reading(path), nd2.ND2File(path) as file:
        told = file.attributes
        loops = {axis: size for axis, size in file.sizes.items() if axis not in "CYXS"}
        positions = loops.get("P", 1)
        names = _position_names(file, positions) if positions > 1 else ()
        number = choose_scene(scene, names, path=path)
        stops, samples = told.channelCount or 1, file.components_per_channel
        sizes = {axis.lower(): size for axis, size in loops.items() if axis != "P"}
        sizes = {**sizes, "c": stops * samples, "y": told.heightPx, "x": told.widthPx or 1}
        letters = arranged(sizes, path, axes=axes)
        _check_frames(file, loops, path)
        dtype, pixel_size = file.dtype, _pixel_size(file)
        channels = _channel_names(file, stops, samples)
    raw = (stops, told.heightPx, told.widthPx or 1, samples)

    @contextmanager
    def regions() -> Iterator[Any]:
        with reading(path), nd2.ND2File(path) as file:

            def region(plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
                depth = sizes.get("z", 1)
                at = {"T": plane // depth, "Z": plane % depth, "P": number}
                where = [at[axis] for axis in loops]
                frame = np.ravel_multi_index(where, list(loops.values())) if loops else 0
                block = file.read_frame(int(frame)).reshape(raw)[:, y0:y1, x0:x1]
                return np.array(np.moveaxis(block, -1, 1).reshape(-1, y1 - y0, x1 - x0))

            yield region

    return ImageFile.of_regions(
        path,
        regions,
        axes=letters,
        shape=[sizes.get(axis, 1) for axis in letters],
        dtype=dtype,
        pixel_size=pixel_size,
        channel_names=channels if "c" in letters else (),
        scenes=names,
        scene=names[number] if names else "",
    )


def _position_names(file: Any, count: int) -> tuple[str, ...]:
    """Return the names of positions, or their numbers where not all have names of their own."""
    points = [
        point.name or ""
        for loop in file.experiment
        if loop.type == "XYPosLoop"
        for point in loop.parameters.points
    ]
    numbers = tuple(map(str, range(count)))
    return tuple(points) if len(set(points)) == count == len(points) and all(points) else numbers


def _check_frames(file: Any, loops: dict[str, int], path: str) -> None:
    """Refuse a file that says that it holds fewer frames than its loops have.

    A frame that is lost without that being said comes in as nd2 gives it: black.
    """
    promised = int(np.prod(list(loops.values()), dtype=np.int64))
    held = file.attributes.sequenceCount
    if held < promised:
        raise InputError(
            f"ND2 must hold all of its {promised} frames, got {held} in {path!r}; the run was"
            " stopped, or the file cut short: save what there is as OME-TIFF"
        )


def _channel_names(file: Any, stops: int, samples: int) -> tuple[str, ...]:
    if samples == 3 and stops == 1:
        return ("red", "green", "blue")
    names = tuple(channel.channel.name or "" for channel in file.metadata.channels or ())
    return names if len(set(names)) == len(names) == stops * samples and all(names) else ()


def _pixel_size(file: Any) -> dict[str, float] | None:
    """Return micrometres, where the file was calibrated."""
    channels = file.metadata.channels or ()
    known = channels[0].volume.axesCalibrated if channels else (False,) * 3
    size = file.voxel_size()
    return known_sizes(
        {
            axis: float(getattr(size, axis))
            for axis, calibrated in zip("xyz", known, strict=True)
            if calibrated and 0 < getattr(size, axis) < np.inf
        }
    )
