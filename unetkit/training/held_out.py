"""Held-out planes, and what a network says of them as parts of their whole images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unetkit.models.inference import predict_array
from unetkit.training.split import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from unetkit.arrays.boxes import Plane
    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.sizes import SizeContract

# Pixels that are scored at most: enough for a steady score, few enough for memory and time.
LARGEST = 4096
MOST = 2**26
# Pixels a side of a tile, before the context.
TILE = 512


class NormalizedImage(Protocol):
    """An image, and how its intensities become a network's input."""

    @property
    def image(self) -> Plane:
        """What is read."""

    @property
    def normalization(self) -> Normalization:
        """How it is normalized."""

    @property
    def replace_nonfinite(self) -> bool:
        """Whether NaN and Inf count as 0."""


@dataclass(frozen=True)
class HeldOutPlane:
    """One plane of a held-out region."""

    region: Region
    plane: int

    def window(self, image: Plane, contract: SizeContract) -> Region:
        """Return the region with its true surroundings, on the pooling grid of the whole image."""
        region, need, step = self.region, contract.need, contract.step
        top, left = (max(0, start - need) // step * step for start in (region.y0, region.x0))
        bottom, right = (stop + need + step for stop in (region.y1, region.x1))
        return Region(region.sample, top, left, min(bottom, image.height), min(right, image.width))

    def predict(
        self,
        network: nn.Module,
        source: NormalizedImage,
        *,
        contract: SizeContract,
        precision: str,
        read: Callable[[Plane, Region], NDArray[Any]],
    ) -> NDArray[np.float32]:
        """Predict the region as a part of its whole image; `read` gives a box of it."""
        region, window = self.region, self.window(source.image, contract)
        raw = read(source.image, window)
        whole = predict_array(
            network,
            source.normalization.apply(raw, replace_nonfinite=source.replace_nonfinite),
            contract=contract,
            tile=tile_of(window, contract),
            precision=precision,
        )
        y, x = region.y0 - window.y0, region.x0 - window.x0
        return whole[:, y : y + region.height, x : x + region.width]


def tile_of(window: Region, contract: SizeContract) -> int:
    """Choose one tile for what is small, as a prediction does."""
    return -(-min(TILE, max(window.height, window.width)) // contract.step) * contract.step


def choose_planes(regions: Sequence[Region], planes: Mapping[str, int]) -> list[HeldOutPlane]:
    """Take every plane of every region, or an evenly spaced choice of what is too much.

    `planes` says how many each sample has.
    """
    found = [
        HeldOutPlane(_inner(region), plane)
        for region in regions
        for plane in range(planes[region.sample])
    ]
    return thinned(found, most=MOST)


def thinned(planes: Sequence[HeldOutPlane], *, most: int) -> list[HeldOutPlane]:
    """Return an evenly spaced choice of planes of at most so many pixels, at least one of any."""
    pixels = sum(held_out.region.height * held_out.region.width for held_out in planes)
    keep = min(len(planes), max(1, len(planes) * most // max(pixels, 1)))
    return [planes[k * len(planes) // keep] for k in range(keep)]


def _inner(region: Region) -> Region:
    """Cut a very large region to its middle."""

    def cut(start: int, stop: int) -> tuple[int, int]:
        size = min(stop - start, LARGEST)
        first = start + (stop - start - size) // 2
        return first, first + size

    (y0, y1), (x0, x1) = cut(region.y0, region.y1), cut(region.x0, region.x1)
    return Region(region.sample, y0, x0, y1, x1)
