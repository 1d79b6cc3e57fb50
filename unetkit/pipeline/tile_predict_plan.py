"""What a prediction will do, settled before it begins: tile, context, precision, normalization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import unetkit
from unetkit.geometry.tiles import Cover, cover
from unetkit.pipeline.tile_predict_average import BLEND_TILES
from unetkit.pipeline.tile_predict_choices import choose_for_all, fit_each
from unetkit.pipeline.tile_predict_ensemble import alike
from unetkit.pipeline.tile_predict_hands import Hands
from unetkit.pipeline.tile_predict_input import take_stock
from unetkit.pipeline.tile_predict_memory import Memory, memory_for, parse_size
from unetkit.pipeline.tile_predict_work import Work

if TYPE_CHECKING:
    from unetkit.arrays.normalization import Normalization
    from unetkit.pipeline.tile_predict_average import Averaging
    from unetkit.pipeline.tile_predict_empty import Mask
    from unetkit.pipeline.tile_predict_ensemble import Ensemble
    from unetkit.pipeline.tile_predict_resume import Earlier
    from unetkit.pipeline.tile_predict_wishes import Wishes
    from unetkit.storage.census import Census
    from unetkit.storage.datasets import Dataset, Sample

LARGEST_CHUNK = 1024
# Labelling and growing are quick, so that blocks much smaller would cost more than their work.
BLOCK = 1024
ONE = Hands(1, networks=1, threads=None, at_once=1)


@dataclass(frozen=True)
class Plan:
    """Everything that decides about the pixels of a prediction.

    Parameters
    ----------
    model : Ensemble
        The networks, and what they have in common.
    samples : tuple of Sample
        What is predicted, in order.
    normalizations : tuple of tuple of Normalization
        For each sample, one for each network.
    tile : int
        Size of the tiles that networks write, in pixels.
    precision : str
        As for `hardware.forward`.
    wishes : Wishes
        What was asked for; holds what needs no choice.
    batch : int
        How many tiles, or windows of a block that is blended, a network sees at once.
    memory : Memory
        What it takes and may take; it decides about no pixel.
    mask : Mask, optional
        Where to look; left out, everywhere.
    censuses : tuple of Census
        What is stored of each sample.
    seconds : float, optional
        How long the networks are expected to take; None where others compute.
    reason : str, optional
        What speaks against a lower precision, where that was asked.
    """

    model: Ensemble
    samples: tuple[Sample, ...]
    normalizations: tuple[tuple[Normalization, ...], ...]
    tile: int
    precision: str
    batch: int
    wishes: Wishes
    memory: Memory
    mask: Mask | None = None
    censuses: tuple[Census, ...] = ()
    seconds: float | None = None
    reason: str | None = None

    @property
    def averaging(self) -> Averaging:
        """Where the networks look, and how what they say is averaged."""
        return self.work.averaging(self.tile)

    @property
    def work(self) -> Work:
        """What there is to do, whatever the tile."""
        return Work(self.model, self.samples, self.wishes)

    @property
    def overlap(self) -> int:
        """Context on each side in pixels; the most that a network gets."""
        return self.averaging.overlap

    @property
    def size(self) -> int:
        """The most that a network reads for a tile, in pixels."""
        return self.averaging.size

    @property
    def chunk(self) -> int:
        """Size of the output's chunks: the tile up to 1024, else the largest part of it."""
        parts = -(-self.tile // LARGEST_CHUNK)
        while self.tile % parts:
            parts += 1
        return self.tile // parts

    def tiles(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with what one task writes."""
        return self.averaging.tiles(sample.data.height, sample.data.width)

    def blocks(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with blocks of whole chunks for what follows."""
        side = self.chunk * max(1, BLOCK // self.chunk)
        return cover(sample.data.height, sample.data.width, tile=side)

    @property
    def tiles_total(self) -> int:
        """How many tiles all samples have together."""
        return self.work.tasks(self.tile)

    @property
    def wasted(self) -> float:
        """The share of the networks' work that is context or overhang."""
        averaging = self.averaging
        looks = len(averaging.members) * len(averaging.turns)
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        computed = sum(
            s.data.planes * averaging.computed(s.data.height, s.data.width) for s in self.samples
        )
        return 1 - looks * pixels / computed

    @property
    def passes_total(self) -> int:
        """How often networks are run, over all tiles, turns, models and windows."""
        return self.work.passes(self.tile)

    @property
    def cost_factor(self) -> float:
        """How many times the work is that of one model that looks once at each tile."""
        plain = sum(
            s.data.planes * len(cover(s.data.height, s.data.width, tile=self.tile))
            for s in self.samples
        )
        return self.passes_total / plain

    @property
    def output_bytes(self) -> int:
        """The most that the output can take, before compression, with its pyramid."""
        value = np.dtype(self.wishes.probabilities).itemsize
        # A class map of one byte and instances of four; smaller levels add a third.
        pixel = len(self.model.header.class_names) * value + 1 + 4
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        return pixels * pixel * 4 // 3

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides about the pixels, as JSON can hold it."""
        wishes = self.wishes
        return {
            "unetkit": unetkit.__version__,
            "model": self.model.sha256,
            "tile": self.tile,
            "overlap": alike([member.overlap for member in self.averaging.members]),
            "tta": wishes.tta,
            "merge": wishes.merge,
            "precision": self.precision,
            "batch": self.batch,
            "probabilities": wishes.probabilities,
            "threshold": wishes.threshold,
            "grow": wishes.grow,
            "min_size": wishes.min_size,
            "ome_version": wishes.ome_version,
            "nonfinite": wishes.nonfinite,
            "skip_below": wishes.skip_below,
            "mask": None if self.mask is None else self.mask.checksum,
            "input": {
                sample.name: {
                    "axes": sample.data.axes,
                    "shape": list(sample.data.shape),
                    "dtype": sample.data.dtype.name,
                    "channels": list(sample.data.picked or ()),
                    "normalization": alike([one.to_dict() for one in normalizations]),
                    "chunks": census.to_dict(),
                }
                for sample, normalizations, census in zip(
                    self.samples, self.normalizations, self.censuses, strict=True
                )
            },
        }


def make_plan(
    model: Ensemble,
    dataset: Dataset,
    wishes: Wishes,
    *,
    hands: Hands = ONE,
    earlier: Earlier | None = None,
    mask: Mask | None = None,
) -> Plan:
    """Settle everything that decides about the pixels; reads the images, writes nothing.

    Parameters
    ----------
    model : Ensemble
        On the device that is to compute.
    dataset : Dataset
        What is to be predicted.
    wishes : Wishes
        What the user asked for.
    hands : Hands
        How many tiles and networks are to run at the same time, for the memory that they take.
    earlier : Earlier, optional
        A run that is to be resumed; its automatic choices are taken over.
    mask : Mask, optional
        Where to look.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If a chunk of an image is absent and none may be.
    NumbersError
        If an image has NaN or Inf and they are not to be filled.
    OutputError
        If the plan is not that of the earlier run.
    SurroundingsError
        If there is too little memory for it.
    """
    samples = dataset.samples
    censuses = take_stock(samples, complete=wishes.require_complete_input)
    tile, precision, batch = _settled(wishes, earlier, sha256=model.sha256)
    memory = memory_for(
        model,
        samples,
        hands=hands,
        precision=precision or "auto",
        limit=None if wishes.max_memory is None else parse_size(wishes.max_memory),
        blend=BLEND_TILES if wishes.merge == "gaussian" else 0,
        batch=batch or 1,
    )
    work = Work(model, samples, wishes)
    tiles = work.candidates(most=memory.largest)
    memory.check(tile or tiles[0], work.overlap, contract=model.header.contract)
    normalizations = tuple(
        fit_each(sample, model.methods, nonfinite=wishes.nonfinite) for sample in samples
    )
    reason = None
    if precision is None:
        chosen = choose_for_all(
            model.models,
            samples,
            normalizations,
            overlap=wishes.overlap,
            fill=wishes.nonfinite == "fill",
            most=memory.largest,
        )
        precision, reason = chosen.name, chosen.reason
    choice = work.fastest(tile or tiles, precision=precision, most=memory.largest)
    batch = batch or work.batch(choice.tile, memory)
    plan = Plan(
        model,
        samples,
        normalizations,
        choice.tile,
        precision,
        batch,
        wishes,
        replace(memory, batch=batch),
        mask=mask,
        censuses=censuses,
        reason=reason,
    )
    if earlier is not None:
        earlier.check(plan.fingerprint())
    if hands.elsewhere:
        return plan
    return replace(plan, seconds=plan.tiles_total * choice.seconds / hands.networks)


def _settled(
    wishes: Wishes, earlier: Earlier | None, *, sha256: str
) -> tuple[int | None, str | None, int | None]:
    """Return tile, precision and batch as they are wished or were chosen before, else None."""
    tile, precision, batch = wishes.tile, wishes.precision, wishes.batch
    known = None if precision == "auto" else precision
    if earlier is None:
        return tile, known, batch
    return (
        tile or earlier.choice("tile", int, sha256=sha256),
        known or earlier.choice("precision", str, sha256=sha256),
        batch or earlier.choice("batch", int, sha256=sha256),
    )
