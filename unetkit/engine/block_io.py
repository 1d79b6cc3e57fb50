"""Read a tile with its mirrored surroundings, write its box, and look at a whole image once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from unetkit.arrays import normalization
from unetkit.geometry.tiles import Cover, cover
from unetkit.storage.planes import whole_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.tiles import Tile
    from unetkit.storage.planes import PlaneArray


def write_tile(data: PlaneArray, plane: int, tile: Tile, block: NDArray[Any]) -> None:
    """Write a block (C, Y, X) or (Y, X), without context, at a tile's write box.

    The box has to be made of whole chunks, or end at the plane's edge.
    """
    data.write(plane, tile.y0, tile.x0, block)


def fit_image(
    data: PlaneArray,
    method: str = "percentile",
    nonfinite: Literal["error", "fill"] = "error",
) -> Normalization:
    """Fit a normalization to a whole image, so that every tile of it is treated alike."""
    return normalization.fit(
        data.blocks, method=method, where=data.url, boxes=data.boxes, nonfinite=nonfinite
    )


BLOCK = 1024


def blocks_of(labels: PlaneArray, side: int | None = None) -> Cover:
    """Cut a plane into blocks of whole chunks of about `side`, so that few are decoded twice."""
    side = side or BLOCK
    side = min(whole_chunks(max(labels.chunk), side), 2 * side)
    return cover(labels.height, labels.width, tile=side)
