"""A labelled sample as training sees it; it does not know where its arrays lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unetkit.arrays.normalization import Normalization
    from unetkit.training.blocks import Planes
    from unetkit.training.tally import Tally


@dataclass(frozen=True, eq=False)
class Material:
    """A labelled sample as training sees it.

    Parameters
    ----------
    image, target, weights : Planes
        Raw intensities, (C, Y, X); the class of each pixel, uint8, (Y, X); the weight of each
        pixel, float32, (Y, X), 0 where nobody annotated.
    normalization : Normalization
        Fitted on the whole image.
    tally : Tally
        Which classes are where.
    background : int
        The class that is not foreground.
    fill : bool
        Take NaN and Inf for 0.
    """

    image: Planes
    target: Planes
    weights: Planes
    normalization: Normalization
    tally: Tally
    background: int = 0
    fill: bool = False
