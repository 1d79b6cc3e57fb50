"""A network over one tile: from pixels with their context to probabilities and classes.

Whatever is predicted, a slide on a cluster or a validation image in memory, goes through here.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unetkit.arrays.boxes import gather
from unetkit.arrays.instances import object_class, object_probability
from unetkit.arrays.meanings import has_threshold, meaning_of
from unetkit.errors import NonFiniteError, OutOfMemoryError
from unetkit.geometry.tiles import cover, mirror
from unetkit.models import hardware
from unetkit.models.hardware import forward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from unetkit.geometry.sizes import SizeContract
    from unetkit.geometry.tiles import Tile


def tile_logits(
    module: torch.nn.Module,
    block: NDArray[np.float32],
    tile: Tile,
    *,
    margin: int,
    precision: str,
) -> torch.Tensor:
    """Run a network on a normalized read box (C, Y, X) and keep the logits of the write box.

    `margin` is how many pixels the network takes off each side.
    """
    return batch_logits(module, block[None], [tile], margin=margin, precision=precision)[0]


def batch_logits(
    module: torch.nn.Module,
    batch: NDArray[np.float32],
    tiles: Sequence[Tile],
    *,
    margin: int,
    precision: str,
) -> list[torch.Tensor]:
    """Run a network once on read boxes (N, C, Y, X) and keep the logits of each write box.

    Logits (K, Y, X) come back in the processor's memory.
    """
    device = next(module.parameters()).device
    with torch.inference_mode(), enough_memory(tiles[0], device):
        there = hardware.upload(torch.from_numpy(batch), device)
        logits = hardware.forward(module, there, precision=precision)
        crops = [tile.crop(margin) for tile in tiles]
        return [
            each[:, rows, columns].contiguous().cpu()
            for each, (rows, columns) in zip(logits, crops, strict=True)
        ]


@contextmanager
def enough_memory(tile: Tile, device: torch.device | str) -> Iterator[None]:
    """Say which tile was too large, and for what, where torch or NumPy can't have memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On a GPU and in NumPy it is an error of its own; in torch on the processor only the
        # words tell.
        own = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not own and "allocate" not in str(error):
            raise
        size = tile.read_y1 - tile.read_y0
        raise OutOfMemoryError(
            f"memory of {device} must hold the network for {size} x {size} pixels, got too little; "
            "use a smaller --tile, a lower --max-memory or fewer --workers"
        ) from error


def to_probabilities(logits: torch.Tensor) -> NDArray[np.float32]:
    """Turn logits (K, Y, X) into probabilities that add up to 1 at each pixel.

    Each pixel is computed alike wherever it lies in the tile. torch's soft-max is not so: its
    last bit depends on how the tile is shared out among threads, and NumPy's sum over an axis
    on the other axes' sizes.
    """
    values = logits.numpy()
    result = np.empty(values.shape, np.float32)
    for rows in _strips(values):
        part = values[:, rows]
        powers = np.exp(part - part.max(axis=0))
        np.divide(powers, _sum(powers), out=result[:, rows])
    return result


# So many values of a strip stay in the processor's caches through all steps.
STRIP = 2**17


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Cut an array (K, Y, X) into strips of rows."""
    rows = max(1, STRIP // max(1, values[:, :1].size))
    return (slice(first, first + rows) for first in range(0, values.shape[1], rows))


def _sum(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add up along the first axis, in its order."""
    total: NDArray[np.float32] = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def to_classes(
    probabilities: NDArray[Any], *, threshold: float = 0.5, target: str = "foreground"
) -> NDArray[Any]:
    """Choose a class for each pixel of probabilities (K, Y, X), as uint8, or uint16 above 256.

    Of several that are equally probable the lowest is chosen; of two classes the one of objects,
    where it is at least as probable as `threshold`. Probabilities may be stored ones where a
    threshold decides. Where several classes are of objects, a pixel is of an object where their
    sum is above each of the others, or for bands of distance at least `threshold`, and then of the
    most probable one.
    """
    dtype: np.dtype[Any] = np.min_scalar_type(len(probabilities) - 1)
    first, several = object_class(target), meaning_of(target).several
    if has_threshold(target, classes=len(probabilities)):
        lowest = lowest_stored(threshold, probabilities.dtype)
        inside = object_probability(probabilities, target) >= lowest
        if not several:
            return np.asarray(inside if first else ~inside).astype(dtype)
    elif several:
        inside = object_probability(probabilities, target) > probabilities[:first].max(axis=0)
    else:
        return _first_largest(probabilities, dtype)
    own = _first_largest(probabilities[first:], dtype) + dtype.type(first)
    return np.where(inside, own, _first_largest(probabilities[:first], dtype))


def _first_largest(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Do what ``values.argmax(axis=0)`` does of finite (K, Y, X), but sooner."""
    found = np.zeros(values.shape[1:], dtype)
    for rows in _strips(values):
        most = values[0, rows].copy()
        for number, one in enumerate(values[1:, rows], start=1):
            np.copyto(found[rows], dtype.type(number), where=one > most)
            np.maximum(most, one, out=most)
    return found


def stored(probabilities: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return probabilities (K, Y, X) as an array of `dtype` holds them; uint8 counts 255ths."""
    if dtype != np.uint8:
        return probabilities
    result = np.empty(probabilities.shape, dtype)
    for rows in _strips(probabilities):
        result[:, rows] = np.rint(probabilities[:, rows] * 255)
    return result


def lowest_stored(threshold: float, dtype: np.dtype[Any]) -> float:
    """Return the lowest value of an array of `dtype` that stands for at least a probability.

    >>> lowest_stored(0.6, np.dtype("uint8")), lowest_stored(0.6, np.dtype("float32"))
    (153, 0.6)
    """
    if dtype != np.uint8:
        return threshold
    return int(np.searchsorted(np.arange(256) / 255, threshold))


def stored_and_classes(
    probabilities: NDArray[np.float32], dtype: np.dtype[Any], *, threshold: float, target: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is stored of probabilities (K, Y, X): in `dtype`, and the classes.

    Where there is a threshold it is decided by what is stored, so that it can be decided again; the
    most probable of several classes may lead by less than is stored.
    """
    kept = stored(probabilities, dtype)
    judged = kept if has_threshold(target, classes=len(kept)) else probabilities
    return kept, to_classes(judged, threshold=threshold, target=target)


def predict_array(
    module: torch.nn.Module,
    image: NDArray[np.float32],
    *,
    contract: SizeContract,
    tile: int | None = None,
    overlap: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "float32",
) -> NDArray[np.float32]:
    """Predict a normalized image (C, Y, X) in memory, exactly as `tile_predict` does a stored one.

    Returns class probabilities (K, Y, X). Left out, a tile is the whole image up to 512 pixels,
    the overlap what the contract needs, and the device where the network is. The network predicts
    in evaluation mode, and is given back in the mode it came in.
    """
    name = type(module).__name__
    if tile is None:
        tile = -(-min(512, max(image.shape[1:])) // contract.step) * contract.step
    contract.check_tile(tile, model=name)
    context = contract.overlap(overlap, model=name)

    def finish(logits: torch.Tensor, box: Tile) -> NDArray[np.float32]:
        check_finite(logits, box)
        return to_probabilities(logits)

    if device is not None:
        module.to(device)
    training = module.training
    module.eval()
    try:
        return _by_tiles(
            module,
            image,
            contract=contract,
            tile=tile,
            overlap=context,
            precision=precision,
            finish=finish,
        )
    finally:
        module.train(training)


def _by_tiles(
    module: torch.nn.Module,
    image: NDArray[Any],
    *,
    contract: SizeContract,
    tile: int,
    overlap: int,
    precision: str,
    finish: Callable[[torch.Tensor, Tile], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Run a network tile by tile, and put together what `finish` makes of the logits of each."""
    _, height, width = image.shape
    size = contract.legal(tile + 2 * overlap)
    result = np.empty((0, height, width), np.float32)
    for box in cover(height, width, tile=tile, overlap=overlap, size=size):
        rows = mirror(box.read_y0, box.read_y1, height)
        columns = mirror(box.read_x0, box.read_x1, width)
        block = gather(lambda y0, y1, x0, x1: image[:, y0:y1, x0:x1], rows, columns)
        block = np.array(block, np.float32, order="C")
        logits = tile_logits(module, block, box, margin=contract.margin, precision=precision)
        made = finish(logits, box)
        if len(result) != len(made):
            result = np.empty((len(made), height, width), np.float32)
        result[:, box.y0 : box.y1, box.x0 : box.x1] = made
    return result


def check_finite(logits: torch.Tensor, tile: Tile) -> None:
    """Refuse what a network computed when it is NaN or Inf.

    An argmax over NaN is class 0, so that damage would pass for background.
    """
    if bool(torch.isfinite(logits).all()):
        return
    bad = int((~torch.isfinite(logits)).any(dim=0).sum())
    raise NonFiniteError(
        f"the network's output must be finite, got NaN or Inf at {bad} pixels of the tile at "
        f"row {tile.y0}, column {tile.x0}; use --precision float32, or train the model again"
    )


def logits_of(module: nn.Module, batch: Tensor, *, precision: str = "exact") -> Tensor:
    """Return the logits of a batch (N, C, Y, X) as a prediction computes them."""
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
    logits = _by_tiles(
        module,
        image.numpy(),
        contract=contract,
        tile=tile,
        overlap=overlap,
        precision="exact",
        finish=lambda logits, _: logits.numpy(),
    )
    return torch.from_numpy(logits)


def tile_gap(module: nn.Module, *, in_channels: int, axis: int, start: int) -> float:
    """Return the largest difference of a tile and its strip, as a share of the largest logit.

    The tile is cut along one axis (2 for y, 3 for x), the other has the least legal size; its read
    box begins at `start`, on the step grid or off it. It is 0 where tiling is exact.
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
