"""What a prediction finds out about images: their normalization, and which precision will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from unetkit.arrays.boxes import read_tile
from unetkit.commands.tile_predict.ensemble import torch_threads
from unetkit.commands.tile_predict.resources import largest_tile
from unetkit.engine.block_io import fit_image
from unetkit.geometry.tiles import cover
from unetkit.models import hardware
from unetkit.models.inference import tile_logits, to_classes, to_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.sizes import SizeContract
    from unetkit.geometry.tiles import Tile
    from unetkit.models.model_file import LoadedModel
    from unetkit.storage.datasets import Sample

# A low precision may change this share of the labels: our own choice, far below the difference
# between two people who annotate the same image.
FLIPS = 1e-4
PROBES = 16
# The two runs that are compared may cost this share of the work, on tiles of at least the last of
# these sizes; float32 counts as three times a low precision.
PROBE_SHARE = 0.05
PROBE_TILES = (256, 128)


def read_size(contract: SizeContract, tile: int, overlap: int) -> int:
    """Return the size that a network reads to write `tile` pixels with that context."""
    return contract.legal(tile + 2 * overlap)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def fit_normalizations(
    sample: Sample, methods: Sequence[str], *, nonfinite: Literal["error", "fill"]
) -> tuple[Normalization, ...]:
    """Fit the normalization that each network wants; those that want the same share one.

    Raises
    ------
    NonFiniteError
        If the image has NaN or Inf and they are not to be filled.
    """
    fitted = {
        method: fit_image(sample.data, method, nonfinite) for method in dict.fromkeys(methods)
    }
    return tuple(fitted[method] for method in methods)


@dataclass(frozen=True)
class Precision:
    """A precision that was chosen, and why.

    Parameters
    ----------
    name : str
        As for `hardware.forward`.
    low : str, optional
        The one of 16 bits that was compared with float32, where there is one.
    flips : float
        The share of the labels that it changes, on the tile that was compared.
    """

    name: str
    low: str | None = None
    flips: float = 0.0

    @property
    def reason(self) -> str | None:
        """What speaks against a low precision that is there."""
        if self.low is None or self.name == self.low:
            return None
        return f"{self.low} would change {self.flips:.2%} of the labels"


def choose_precision(
    models: Sequence[LoadedModel],
    samples: Sequence[Sample],
    normalizations: Sequence[Sequence[Normalization]],
    *,
    overlap: int | None,
    fill: bool,
    max_size: int,
) -> Precision:
    """Choose a precision that suits each of several networks; it has to be the same for all.

    Parameters
    ----------
    models, samples, fill, max_size
        As for `choose_precision`.
    normalizations : sequence
        For each sample, one for each network.
    overlap : int, optional
        Context that was asked for on each side, in pixels.
    """
    chosen = Precision("float32")
    for number, model in enumerate(models):
        chosen = precision_of_network(
            model,
            samples,
            [each[number] for each in normalizations],
            overlap=model.header.contract.overlap(overlap, model=model.header.model),
            fill=fill,
            max_size=max_size,
        )
        if chosen.name == "float32":
            break
    return chosen


def precision_of_network(
    model: LoadedModel,
    samples: Sequence[Sample],
    normalizations: Sequence[Normalization],
    *,
    overlap: int,
    fill: bool,
    max_size: int,
) -> Precision:
    """Choose a low precision where the hardware has one and the labels stay as they are.

    The network is run in both precisions on the most varied of 16 evenly spaced tiles.

    Parameters
    ----------
    model : LoadedModel
        On the device that is to compute.
    samples, normalizations : sequence
        What is to be predicted.
    overlap : int
        Context on each side, in pixels.
    fill : bool
        Whether NaN and Inf count as 0.
    max_size : int
        The largest read box that fits into memory, in pixels a side.

    Returns
    -------
    Precision
    """
    low = hardware.low_precision(next(model.module.parameters()).device)
    if low is None:
        return Precision("float32")
    places = _probes(samples, contract=model.header.contract, overlap=overlap, max_size=max_size)
    blocks = (
        (
            normalizations[number].apply(
                read_tile(samples[number].data, plane, tile), replace_nonfinite=fill
            ),
            tile,
        )
        for number, plane, tile in places
    )
    block, tile = max(blocks, key=lambda probe: float(probe[0].std()))
    flips = _flips(model, block, tile, low=low)
    return Precision(low if flips < FLIPS else "float32", low, flips)


def _probes(
    samples: Sequence[Sample], *, contract: SizeContract, overlap: int, max_size: int
) -> Iterator[tuple[int, int, Tile]]:
    """Yield evenly spaced tiles of all samples: the sample's number, the plane, the tile."""
    side = _probe_side(samples, contract=contract, overlap=overlap, max_size=max_size)
    size = read_size(contract, side, overlap)
    covers = [
        cover(s.data.height, s.data.width, tile=side, overlap=overlap, size=size) for s in samples
    ]
    ends = np.cumsum([len(c) * s.data.planes for c, s in zip(covers, samples, strict=True)])
    total = int(ends[-1])
    for number in range(min(PROBES, total)):
        index = number * total // min(PROBES, total)
        place = int(np.searchsorted(ends, index, side="right"))
        start = int(ends[place - 1]) if place else 0
        plane, tile = divmod(index - start, len(covers[place]))
        yield place, plane, covers[place][tile]


def _probe_side(
    samples: Sequence[Sample], *, contract: SizeContract, overlap: int, max_size: int
) -> int:
    """Return the size of the tiles that are compared: large where there is much to predict."""
    pixels = sum(s.data.planes * s.data.height * s.data.width for s in samples)
    sides = [_round_up(side, contract.step) for side in PROBE_TILES]
    for side in sides:
        size = read_size(contract, side, overlap)
        if size <= max_size and 4 * size**2 <= PROBE_SHARE * pixels:
            return side
    return min(
        sides[-1], largest_tile(max_size, contract=contract, overlap=overlap) or contract.step
    )


def _flips(model: LoadedModel, block: NDArray[np.float32], tile: Tile, *, low: str) -> float:
    """Return the share of pixels whose class a low precision changes."""
    margin = model.header.contract.margin
    # More than two threads would mostly wait for each other on so small an input.
    small = tile.y1 - tile.y0 <= PROBE_TILES[-1]
    with torch_threads(min(2, torch.get_num_threads()) if small else None):
        maps = [
            to_classes(
                to_probabilities(
                    tile_logits(model.module, block, tile, margin=margin, precision=precision)
                )
            )
            for precision in ("float32", low)
        ]
    return float(np.mean(maps[0] != maps[1]))
