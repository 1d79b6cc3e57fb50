"""Read a tile with its mirrored surroundings, write its box, and look at a whole image once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from unetkit.arrays import normalization
from unetkit.arrays.boxes import gather
from unetkit.geometry.tiles import mirror

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.tiles import Tile
    from unetkit.storage.planes import PlaneArray


class Plane(Protocol):
    """What `read_tile` asks of its input; a `PlaneArray` is one."""

    @property
    def height(self) -> int:
        """Rows of a plane."""

    @property
    def width(self) -> int:
        """Columns of a plane."""

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """Read a box that lies inside the plane."""


def read_tile(data: Plane, plane: int, tile: Tile) -> NDArray[Any]:
    """Read a tile's read box; what overhangs the plane is mirrored at its edges.

    Parameters
    ----------
    data : Plane
        An image, labels or weights, stored or in memory.
    plane : int
        Which of the planes along t and z.
    tile : Tile
        Its read box may overhang the plane by any amount.

    Returns
    -------
    ndarray, shape (C, Y, X) or (Y, X)
        As `data` reads. Equal to the same box of the plane padded with
        `numpy.pad(mode="reflect")`.
    """
    return gather(
        lambda y0, y1, x0, x1: data.read(plane, y0, y1, x0, x1),
        mirror(tile.read_y0, tile.read_y1, data.height),
        mirror(tile.read_x0, tile.read_x1, data.width),
    )


def write_tile(data: PlaneArray, plane: int, tile: Tile, block: NDArray[Any]) -> None:
    """Write a tile's write box.

    Parameters
    ----------
    data : PlaneArray
        The output; the box has to be made of whole chunks of it, or end at the plane's edge.
    plane : int
        Which of the planes along t and z.
    tile : Tile
        Says where.
    block : ndarray, shape (C, Y, X) or (Y, X)
        The write box alone, without context.
    """
    data.write(plane, tile.y0, tile.x0, block)


def fit_image(
    data: PlaneArray,
    method: str = "percentile",
    nonfinite: Literal["error", "fill"] = "error",
) -> Normalization:
    """Fit a normalization to a whole image, so that every tile of it is treated alike.

    Parameters
    ----------
    data : PlaneArray
        The image.
    method : str
        One of `arrays.normalization.METHODS`.
    nonfinite : {"error", "fill"}
        What to do about NaN and Inf: refuse, or count them as 0.

    Raises
    ------
    NumbersError
        If the image has NaN or Inf and `nonfinite` is "error".
    """
    return normalization.fit(
        data.blocks, method=method, where=data.url, boxes=data.boxes, nonfinite=nonfinite
    )
