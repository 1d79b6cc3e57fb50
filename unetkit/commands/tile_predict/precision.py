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
from unetkit.engine.input_shift import known_by_method, limited
from unetkit.geometry.tiles import cover
from unetkit.models import hardware
from unetkit.models.inference import tile_logits, to_classes, to_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.plan import Plan
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


def fit_normalizations(
    sample: Sample, ensemble: Ensemble, *, nonfinite: Literal["error", "fill"]
) -> tuple[Normalization, ...]:
    """Fit the normalization that each network wants; those that want the same share one."""
    known = known_by_method(file.header for file in ensemble.files)
    fitted = {
        method: limited(
            *(fit_image(sample.data, method, nonfinite), sample.data, seen),
            replace_nonfinite=nonfinite == "fill",
        )
        for method, seen in known.items()
    }
    return tuple(fitted[method] for method in ensemble.methods)


@dataclass(frozen=True)
class Precision:
    """A precision that was chosen, and why."""

    name: str  # as for `hardware.forward`
    low: str | None = None  # the one of 16 bits that was compared with float32, where there is one
    flips: float = 0.0  # the share of the labels that it changes, on the tile that was compared

    @property
    def reason(self) -> str | None:
        """What speaks against a low precision that is there."""
        if self.low is None or self.name == self.low:
            return None
        return f"{self.low} would change {self.flips:.2%} of the labels"


def choose_precision(plan: Plan, *, max_size: int) -> Precision:
    """Choose a low precision where the hardware has one and the labels of all networks stay.

    Each network is run in both precisions on the most varied of 16 evenly spaced tiles. The
    precision has to be the same for all of them. No read box exceeds `max_size` pixels a side.
    """
    chosen = Precision("float32")
    for number, model in enumerate(plan.model.models):
        low = hardware.low_precision(next(model.module.parameters()).device)
        if low is None:
            return Precision("float32")
        block, tile = max(
            _probe_blocks(plan, number, max_size=max_size), key=lambda probe: float(probe[0].std())
        )
        flips = _flips(model, block, tile, low=low)
        chosen = Precision(low if flips < FLIPS else "float32", low, flips)
        if chosen.name == "float32":
            break
    return chosen


def _probe_blocks(
    plan: Plan, number: int, *, max_size: int
) -> Iterator[tuple[NDArray[np.float32], Tile]]:
    """Read the tiles that are compared, as a network is to see them."""
    contract = plan.model.models[number].header.contract
    overlap = plan.averaging.members[number].overlap
    fill = plan.options.replace_nonfinite
    places = _probes(plan.samples, contract, overlap=overlap, max_size=max_size)
    for place, plane, tile in places:
        raw = read_tile(plan.samples[place].data, plane, tile)
        yield plan.normalizations[place][number].apply(raw, replace_nonfinite=fill), tile


def _probes(
    samples: Sequence[Sample], contract: SizeContract, *, overlap: int, max_size: int
) -> Iterator[tuple[int, int, Tile]]:
    """Yield evenly spaced tiles of all samples: the sample's number, the plane, the tile."""
    side = _probe_side(samples, contract, overlap=overlap, max_size=max_size)
    size = contract.read_size(side, overlap)
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
    samples: Sequence[Sample], contract: SizeContract, *, overlap: int, max_size: int
) -> int:
    """Return the size of the tiles that are compared: large where there is much to predict."""
    pixels = sum(s.data.planes * s.data.height * s.data.width for s in samples)
    sides = [-(-side // contract.step) * contract.step for side in PROBE_TILES]
    for side in sides:
        size = contract.read_size(side, overlap)
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
