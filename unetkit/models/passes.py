"""One pass over a whole image, and the same in tiles; what claims of exactness are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unetkit.geometry.tiles import cover, mirror
from unetkit.models.hardware import forward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unetkit.geometry.sizes import SizeContract


def logits_of(module: nn.Module, batch: Tensor, *, precision: str = "exact") -> Tensor:
    """Return the logits of a batch as a prediction computes them, without gradients.

    Parameters
    ----------
    module : nn.Module
        A network.
    batch : Tensor of float32, shape (N, C, Y, X)
        Normalized images of legal sizes.
    precision : str
        One of `unetkit.models.precision.PRECISIONS`.

    Returns
    -------
    Tensor of float32, shape (N, K, Y', X')
    """
    with torch.inference_mode():
        return forward(module, batch, precision=precision)


def whole_pass(module: nn.Module, image: Tensor, *, overlap: int) -> Tensor:
    """Run a network once over a whole image, mirrored by `overlap` pixels on every side.

    Parameters
    ----------
    module : nn.Module
        A network with a `contract`.
    image : Tensor of float32, shape (C, Y, X)
        A normalized image of any size.
    overlap : int
        Context on each side, at least the contract's need.

    Returns
    -------
    Tensor of float32, shape (K, Y, X)
        The logits, computed ``exact``.
    """
    contract: SizeContract = module.contract  # type: ignore[assignment]
    _, height, width = image.shape
    rows = mirror(-overlap, contract.legal(height + 2 * overlap) - overlap, height)
    columns = mirror(-overlap, contract.legal(width + 2 * overlap) - overlap, width)
    logits = logits_of(module, image[:, rows][:, :, columns][None])[0]
    top = overlap - contract.margin
    return logits[:, top : top + height, top : top + width]


def tiled_pass(module: nn.Module, image: Tensor, *, tile: int, overlap: int) -> Tensor:
    """Run a network tile by tile; equals `whole_pass` where tiling is exact.

    Parameters
    ----------
    module : nn.Module
        A network with a `contract`.
    image : Tensor of float32, shape (C, Y, X)
        A normalized image of any size.
    tile : int
        Size of a tile. It is not checked against the step, so that a test can show what a size
        off the step does.
    overlap : int
        Context on each side, at least the contract's need.

    Returns
    -------
    Tensor of float32, shape (K, Y, X)
        The logits, computed ``exact``.
    """
    contract: SizeContract = module.contract  # type: ignore[assignment]
    _, height, width = image.shape
    size = contract.legal(tile + 2 * overlap)
    blocks = []
    for t in cover(height, width, tile=tile, overlap=overlap, size=size):
        rows = mirror(t.read_y0, t.read_y1, height)
        columns = mirror(t.read_x0, t.read_x1, width)
        logits = logits_of(module, image[:, rows][:, :, columns][None])[0]
        blocks.append((t, logits[:, *t.crop(contract.margin)]))
    result = torch.empty(blocks[0][1].shape[0], height, width)
    for t, block in blocks:
        result[:, t.y0 : t.y1, t.x0 : t.x1] = block
    return result


def tile_gap(module: nn.Module, *, in_channels: int, axis: int, start: int) -> float:
    """Compare one tile of a strip with the strip as a whole; all that counts lies along one axis.

    Parameters
    ----------
    module : nn.Module
        A network with a `contract`.
    in_channels : int
        Channels of the images that it takes.
    axis : int
        The axis along which the tile is cut: 2 for y, 3 for x. The other has the least legal size.
    start : int
        Where the tile's read box begins in the strip, on the step grid or off it.

    Returns
    -------
    float
        The largest difference, as a share of the largest logit; 0 where tiling is exact.
    """
    contract: SizeContract = module.contract  # type: ignore[assignment]
    length = contract.legal(2 * contract.need + contract.step)
    tile = (length - 2 * contract.need) // contract.step * contract.step
    shape = [1, in_channels, contract.minimum, contract.minimum]
    shape[axis] = contract.legal(start + length + contract.step)
    strip = torch.randn(shape, generator=torch.Generator().manual_seed(start))
    whole = logits_of(module, strip)
    part = logits_of(module, strip.narrow(axis, start, length)).narrow(axis, contract.halo, tile)
    return share(part - whole.narrow(axis, start + contract.halo, tile), of=whole)


def share(difference: Tensor, *, of: Tensor) -> float:
    """Return the largest of some differences as a share of the largest logit, at least of 1."""
    return float(difference.abs().max()) / max(1.0, float(of.abs().max()))
