"""Outlines of all objects of an image as GeoJSON, block by block; memory holds unfinished ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from unetkit.arrays.outlines import edges, polygons
from unetkit.geometry.tiles import Cover, Tile, cover
from unetkit.storage.urls import storing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.outlines import Polygon
    from unetkit.storage.planes import PlaneArray

BLOCK = 1024
# What the first class is called; a grown object's rim is background too.
BACKGROUND = "background"


@dataclass(frozen=True)
class Outlined:
    """What is outlined.

    Parameters
    ----------
    labels : PlaneArray
        Instances; or a class map, of which each class counts as one object.
    classes : PlaneArray, optional
        The class map that says what each instance is.
    class_names : sequence of str
        Names of the classes.
    """

    labels: PlaneArray
    classes: PlaneArray | None = None
    class_names: Sequence[str] = ()

    @property
    def blocks(self) -> Cover:
        """Blocks of whole chunks over one plane."""
        side = max(self.labels.chunk)
        side *= max(1, BLOCK // side)
        return cover(self.labels.height, self.labels.width, tile=side)

    @property
    def steps(self) -> int:
        """How often the work advances: each block is read twice."""
        return 2 * len(self.blocks) * self.labels.planes


def write_outlines(
    path: str, outlined: Outlined, *, about: Mapping[str, Any], advance: Callable[[], None]
) -> int:
    """Write a GeoJSON file with a feature for each object, in pixels, x before y.

    Parameters
    ----------
    path : str
        A local file.
    outlined : Outlined
        What to outline.
    about : mapping
        What the file says of itself, under `unetkit`.
    advance : callable
        Called after each step.

    Returns
    -------
    int
        How many features there are.

    References
    ----------
    RFC 7946; the properties are those that QuPath reads.
    """
    count = 0
    with storing(path), Path(path).open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps({"type": "FeatureCollection", "unetkit": dict(about)})
        file.write(f'{head[:-1]}, "features": [')
        for plane in range(outlined.labels.planes):
            for number, parts, name in _objects(outlined, plane, advance):
                _write(file, _feature(outlined, number, parts, plane=plane, name=name), count)
                count += 1
        file.write("\n]}\n")
    return count


def _write(file: TextIO, feature: dict[str, Any], before: int) -> None:
    text = json.dumps(feature, separators=(",", ":"), ensure_ascii=False)
    file.write(f"{',' if before else ''}\n{text}")


def _feature(
    outlined: Outlined, number: int, parts: list[Polygon], *, plane: int, name: str | None
) -> dict[str, Any]:
    coordinates = [[[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in parts]
    geometry: dict[str, Any] = {
        "type": "Polygon" if len(parts) == 1 else "MultiPolygon",
        "coordinates": coordinates[0] if len(parts) == 1 else coordinates,
    }
    if outlined.labels.planes > 1:
        t, z = divmod(plane, outlined.labels.size("z"))
        geometry["plane"] = {"c": -1, "z": z, "t": t}
    of_classes = outlined.classes is None and bool(outlined.class_names)
    properties: dict[str, Any] = {"objectType": "annotation" if of_classes else "detection"}
    if not of_classes:
        properties["name"] = str(number)
    if name is not None:
        properties["classification"] = {"name": name}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _objects(
    outlined: Outlined, plane: int, advance: Callable[[], None]
) -> Iterator[tuple[int, list[Polygon], str | None]]:
    """Outline the objects of a plane, each as soon as the last block that holds it was read."""
    labels, blocks = outlined.labels, outlined.blocks
    size = {"height": labels.height, "width": labels.width}
    outlines, votes = _Pending(), _Pending()
    for block, complete in zip(blocks, _completed(labels, plane, blocks, advance), strict=True):
        rimmed = _rimmed(labels, plane, block)
        outlines.add(*edges(rimmed, y0=block.y0, x0=block.x0, width=labels.width))
        votes.add(*_votes(outlined, plane, block, rimmed[1:-1, 1:-1]))
        names = _names(outlined, *votes.take(complete))
        ids, codes = outlines.take(complete)
        for number, parts in polygons(ids, codes, **size):
            yield number, parts, names.get(number, _only_name(outlined))
        advance()


class _Pending:
    """What was found of objects, until all is found."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], NDArray[np.int64]]] = []

    def add(self, ids: NDArray[Any], values: NDArray[np.int64]) -> None:
        """Keep a value, or a row of values, for each id."""
        self._parts.append((ids, values))

    def take(self, complete: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return and forget what was kept for some ids."""
        ids, values = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        chosen = np.isin(ids, complete)
        self._parts = [(ids[~chosen], values[~chosen])]
        return ids[chosen], values[chosen]


def _only_name(outlined: Outlined) -> str | None:
    names = [name for name in outlined.class_names if name != BACKGROUND]
    return names[0] if len(names) == 1 else None


def _votes(
    outlined: Outlined, plane: int, block: Tile, labels: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Count the pixels of each class in each object, where the class is in question."""
    if _only_name(outlined) is not None or not outlined.class_names:
        return labels[:0, 0], np.empty((0, 2), np.int64)
    classes = labels
    if outlined.classes is not None:
        classes = outlined.classes.read(plane, block.y0, block.y1, block.x0, block.x1)
    inside = labels != 0
    count = len(outlined.class_names)
    pairs, pixels = np.unique(
        labels[inside].astype(np.uint64) * np.uint64(count) + classes[inside].astype(np.uint64),
        return_counts=True,
    )
    ids, found = np.divmod(pairs, np.uint64(count))
    return ids, np.stack([found.astype(np.int64), pixels], axis=-1)


def _names(outlined: Outlined, ids: NDArray[Any], votes: NDArray[np.int64]) -> dict[int, str]:
    """Name each object's most frequent class but the background; of equal ones the first."""
    sums: dict[int, dict[int, int]] = {}
    for number, (which, pixels) in zip(ids.tolist(), votes.tolist(), strict=True):
        if outlined.class_names[which] != BACKGROUND:
            counts = sums.setdefault(number, {})
            counts[which] = counts.get(which, 0) + pixels
    return {
        number: outlined.class_names[min(counts, key=lambda which: (-counts[which], which))]
        for number, counts in sums.items()
    }


def _completed(
    labels: PlaneArray, plane: int, blocks: Cover, advance: Callable[[], None]
) -> list[NDArray[Any]]:
    """List for each block the objects that no later block holds."""
    found = []
    for block in blocks:
        found.append(np.unique(labels.read(plane, block.y0, block.y1, block.x0, block.x1)))
        advance()
    ids = np.concatenate(found)
    place = np.repeat(np.arange(len(found)), [len(part) for part in found])
    order = np.argsort(ids, kind="stable")
    ids, place = ids[order], place[order]
    is_last = np.append(ids[1:] != ids[:-1], True)
    ids, place = ids[is_last], place[is_last]
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(1, len(found)))
    return np.split(ids[order], starts)


def _rimmed(labels: PlaneArray, plane: int, block: Tile) -> NDArray[Any]:
    """Read a block with the pixels around it; beyond the image there is background."""
    y0, y1 = max(0, block.y0 - 1), min(labels.height, block.y1 + 1)
    x0, x1 = max(0, block.x0 - 1), min(labels.width, block.x1 + 1)
    rim = [(y0 - block.y0 + 1, block.y1 + 1 - y1), (x0 - block.x0 + 1, block.x1 + 1 - x1)]
    return np.pad(labels.read(plane, y0, y1, x0, x1), rim)
