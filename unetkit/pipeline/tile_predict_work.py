"""What there is to do in a prediction whatever the tile, and with which tile it is done first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.pipeline.tile_predict_average import BLEND_SIDE, BLEND_TILES
from unetkit.pipeline.tile_predict_choices import read_size
from unetkit.pipeline.tile_predict_fastest import Choice, candidates, choose_fastest
from unetkit.pipeline.tile_predict_pace import Paces, find_pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.pipeline.tile_predict_average import Averaging
    from unetkit.pipeline.tile_predict_ensemble import Ensemble
    from unetkit.pipeline.tile_predict_memory import Memory
    from unetkit.pipeline.tile_predict_wishes import Wishes
    from unetkit.storage.datasets import Sample

# What is chosen for a GPU: our own choice. Beyond it there is little to gain, and what is together
# is lost together.
BATCH = 8
BATCH_PIXELS = 2048**2


@dataclass(frozen=True)
class Work:
    """Networks, images, and how the ones are to look at the others.

    Parameters
    ----------
    model : Ensemble
        The networks.
    samples : tuple of Sample
        The images.
    wishes : Wishes
        What the user asked for.
    """

    model: Ensemble
    samples: tuple[Sample, ...]
    wishes: Wishes

    @property
    def overlap(self) -> int:
        """The context that a tile of the ensemble has on each side, in pixels."""
        header = self.model.header
        return header.contract.overlap(self.wishes.overlap, model=header.model)

    def averaging(self, tile: int) -> Averaging:
        """Say where the networks look with tiles of `tile` pixels a side."""
        wishes = self.wishes
        return self.model.averaging(
            tile, overlap=wishes.overlap, tta=wishes.tta, merge=wishes.merge
        )

    def tasks(self, tile: int) -> int:
        """Count what tasks write, over all planes of all images."""
        averaging = self.averaging(tile)
        return sum(
            s.data.planes * len(averaging.tiles(s.data.height, s.data.width)) for s in self.samples
        )

    def passes(self, tile: int) -> int:
        """Count how often networks are run."""
        averaging = self.averaging(tile)
        return sum(
            s.data.planes * averaging.passes(s.data.height, s.data.width) for s in self.samples
        )

    def candidates(self, *, most: int) -> list[int]:
        """List the tiles that come into question, from the smallest on.

        Parameters
        ----------
        most : int
            The largest read box that fits into memory, in pixels a side.
        """
        contract = self.model.header.contract
        if self.wishes.merge == "gaussian":
            # The more tiles there are in a block, the fewer windows are run twice.
            most = min(most, read_size(contract, BLEND_SIDE // BLEND_TILES, self.overlap))
        shapes = [(sample.data.height, sample.data.width) for sample in self.samples]
        return candidates(shapes, contract=contract, overlap=self.overlap, most=most)

    def batch(self, tile: int, memory: Memory) -> int:
        """Choose how many tiles, or windows of a block, networks see at once.

        A processor is busy with one. On a GPU small tiles take less time together, as long as
        they fit.

        Parameters
        ----------
        tile : int
            In pixels a side.
        memory : Memory
            What there is.
        """
        if self.model.device.type == "cpu":
            return 1
        averaging = self.averaging(tile)
        windows = self.passes(tile) // (len(averaging.members) * len(averaging.turns))
        most = min(BATCH, BATCH_PIXELS // tile**2, windows)
        return memory.fitting(averaging.size, most=most)

    def fastest(self, tiles: int | Sequence[int], *, precision: str, most: int) -> Choice:
        """Choose the tile with which all is done first, and say how long a task takes with it.

        Parameters
        ----------
        tiles : int or sequence of int
            The one that is settled, or those that come into question, from the smallest on.
        precision : str
            As for `hardware.forward`.
        most : int
            The largest read box that fits into memory, in pixels a side.
        """
        members = self.averaging(self.model.header.contract.step).members
        paces = [
            find_pace(model, overlap=member.overlap, precision=precision, most=most)
            for model, member in zip(self.model.models, members, strict=True)
        ]
        # Networks are run alike often, but for windows at the edges of an image.
        time = Paces(tuple(paces), lambda tile: self.passes(tile) / len(members) / self.tasks(tile))
        if isinstance(tiles, int):
            return Choice(tiles, time.estimate(tiles))
        return choose_fastest(
            tiles,
            count=self.tasks,
            estimate=time.estimate,
            measure=time.measure,
            step=self.model.header.contract.step,
        )
