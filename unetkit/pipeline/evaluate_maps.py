"""Find the probability map of a prediction: which of its channels speak of which labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from unetkit.storage.opening import Image
    from unetkit.storage.planes import PlaneArray

# Which channel of a prediction says how surely a pixel is inside an object.
INSIDE = ("interior", "inside", "foreground")


@dataclass(frozen=True)
class Map:
    """A stored probability map.

    Parameters
    ----------
    array : PlaneArray
        One channel a label.
    labels : tuple of int
        Which class each channel speaks of; 1 is the foreground of instances.
    names : tuple of str
        What the channels are called.
    scale : float
        What a stored number is multiplied with.
    foreground : bool
        Whether it speaks of the foreground of instances.
    """

    array: PlaneArray
    labels: tuple[int, ...]
    names: tuple[str, ...]
    scale: float
    foreground: bool

    def read(self, plane: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray[Any, Any]:
        """Read probabilities of a box, 0 to 1, shape (L, Y, X)."""
        return np.asarray(self.array.read(plane, y0, y1, x0, x1) * self.scale)


def map_of(image: Image, kind: str) -> Map | None:
    """Find the probability map that an image of predicted labels stands for.

    Parameters
    ----------
    image : Image
    kind : str
        Which labels are compared.

    Returns
    -------
    Map or None
        None where the image is no map of that kind.
    """
    names = tuple(image.channel_names)
    scale = float(image.attributes.get("scale", 1.0))
    if kind == "instances":
        place = next((names.index(name) for name in INSIDE if name in names), None)
        if place is None:
            return None
        return Map(image.data.pick([place]), (1,), (names[place],), scale, True)
    classes = tuple(range(1, image.data.channel_count))
    if "prediction" not in image.attributes or not classes:
        return None
    return Map(image.data.pick(classes), classes, names[1:], scale, False)
