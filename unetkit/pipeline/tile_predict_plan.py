"""What a prediction will do, settled before it begins: tile, context, precision, normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import unetkit
from unetkit.engine.tileio import fit_image
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Cover, cover
from unetkit.models import hardware
from unetkit.pipeline.tile_predict_choices import (
    choose_precision,
    choose_tile,
    read_size,
)
from unetkit.pipeline.tile_predict_hands import Hands
from unetkit.pipeline.tile_predict_input import take_stock
from unetkit.pipeline.tile_predict_memory import Memory, memory_for, parse_size

if TYPE_CHECKING:
    from unetkit.arrays.normalization import Normalization
    from unetkit.models.modelfile import LoadedModel
    from unetkit.models.modelheader import ModelHeader
    from unetkit.pipeline.tile_predict_empty import Mask
    from unetkit.pipeline.tile_predict_resume import Earlier
    from unetkit.storage.census import Census
    from unetkit.storage.datasets import Dataset, Sample

LARGEST_CHUNK = 1024
# Labelling and growing are quick, so that blocks much smaller would cost more than their work.
BLOCK = 1024
ONE = Hands(1, networks=1, threads=None, at_once=1)


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; None and "auto" leave the choice to `Plan`."""

    tile: int | None = None
    overlap: int | None = None
    precision: str = "auto"
    probabilities: Literal["uint8", "float32"] = "uint8"
    threshold: float = 0.5
    grow: int = 1
    min_size: int = 0
    nonfinite: Literal["error", "fill"] = "error"
    max_memory: str | None = None
    skip_below: float | None = None
    require_complete_input: bool = False

    def check(self) -> None:
        """Refuse what no model can do.

        Raises
        ------
        UsageError
            If a value is out of its range.
        """
        if self.probabilities not in ("uint8", "float32"):
            raise UsageError(
                f"probabilities must be uint8 or float32, got {self.probabilities!r}; "
                "leave it out to use uint8"
            )
        if self.nonfinite not in ("error", "fill"):
            raise UsageError(
                f"nonfinite must be error or fill, got {self.nonfinite!r}; leave it out to stop"
            )
        if self.precision not in ("auto", *hardware.PRECISIONS):
            words = ", ".join(("auto", *hardware.PRECISIONS))
            raise UsageError(
                f"precision must be one of {words}, got {self.precision!r}; leave it out for auto"
            )
        if not 0 < self.threshold < 1:
            raise UsageError(
                f"threshold must lie between 0 and 1, got {self.threshold}; leave it out to use 0.5"
            )
        if self.max_memory is not None:
            parse_size(self.max_memory)
        for name in ("grow", "min_size"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"{name} must be at least 0 pixels, got {getattr(self, name)}; use 0 for none"
                )


@dataclass(frozen=True)
class Plan:
    """Everything that decides about the pixels of a prediction.

    Parameters
    ----------
    model : LoadedModel
        The network, its header and the hash of its file.
    samples : tuple of Sample
        What is predicted, in order.
    normalizations : tuple of Normalization
        One for each sample.
    tile, overlap : int
        Size of the write boxes and the context on each side, in pixels.
    precision : str
        As for `hardware.forward`.
    wishes : Wishes
        What was asked for; holds what needs no choice.
    memory : Memory
        What it takes and may take; it decides about no pixel.
    mask : Mask, optional
        Where to look; left out, everywhere.
    censuses : tuple of Census
        What is stored of each sample.
    """

    model: LoadedModel
    samples: tuple[Sample, ...]
    normalizations: tuple[Normalization, ...]
    tile: int
    overlap: int
    precision: str
    wishes: Wishes
    memory: Memory
    mask: Mask | None = None
    censuses: tuple[Census, ...] = ()

    @property
    def size(self) -> int:
        """What the network reads for a tile, in pixels."""
        return read_size(self.model.header.contract, self.tile, self.overlap)

    @property
    def chunk(self) -> int:
        """Size of the output's chunks: the tile up to 1024, else the largest part of it."""
        parts = -(-self.tile // LARGEST_CHUNK)
        while self.tile % parts:
            parts += 1
        return self.tile // parts

    def tiles(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with tiles for the network."""
        data = sample.data
        return cover(data.height, data.width, tile=self.tile, overlap=self.overlap, size=self.size)

    def blocks(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with blocks of whole chunks for what follows."""
        side = self.chunk * max(1, BLOCK // self.chunk)
        return cover(sample.data.height, sample.data.width, tile=side)

    @property
    def tiles_total(self) -> int:
        """How many tiles all samples have together."""
        return sum(len(self.tiles(sample)) * sample.data.planes for sample in self.samples)

    @property
    def wasted(self) -> float:
        """The share of the network's work that is context or overhang."""
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        return 1 - pixels / (self.tiles_total * self.size**2)

    @property
    def output_bytes(self) -> int:
        """The most that the output can take, before compression, with its pyramid."""
        value = np.dtype(self.wishes.probabilities).itemsize
        # A class map of one byte and instances of four; smaller levels add a third.
        pixel = len(self.model.header.class_names) * value + 1 + 4
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        return pixels * pixel * 4 // 3

    def summary(self) -> str:
        """Say in one sentence what the plan is."""
        count = "1 tile" if self.tiles_total == 1 else f"{self.tiles_total} tiles"
        return (
            f"{count} of {self.tile} pixels, each read with {self.overlap} pixels "
            f"of context as {self.size}, in {self.precision}"
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides about the pixels, as JSON can hold it."""
        wishes = self.wishes
        return {
            "unetkit": unetkit.__version__,
            "model": self.model.sha256,
            "tile": self.tile,
            "overlap": self.overlap,
            "precision": self.precision,
            "probabilities": wishes.probabilities,
            "threshold": wishes.threshold,
            "grow": wishes.grow,
            "min_size": wishes.min_size,
            "nonfinite": wishes.nonfinite,
            "skip_below": wishes.skip_below,
            "mask": None if self.mask is None else self.mask.checksum,
            "input": {
                sample.name: {
                    "axes": sample.data.axes,
                    "shape": list(sample.data.shape),
                    "dtype": sample.data.dtype.name,
                    "channels": list(sample.data.picked or ()),
                    "normalization": normalization.to_dict(),
                    "chunks": census.to_dict(),
                }
                for sample, normalization, census in zip(
                    self.samples, self.normalizations, self.censuses, strict=True
                )
            },
        }


def check_fit(header: ModelHeader, dataset: Dataset, wishes: Wishes) -> None:
    """Make sure that a model can predict a dataset as it is wished.

    Raises
    ------
    InputError
        If the images have another number of channels than the model takes.
    UsageError
        If tile, overlap or threshold don't suit the model.
    """
    found = dataset.samples[0].data.channel_count
    if found != header.in_channels:
        raise InputError(
            f"{dataset.url} must have {header.in_channels} channels, as the model "
            f"{header.model!r} takes, got {found}; choose with --channels, or name another --model"
        )
    if wishes.tile is not None:
        header.contract.check_tile(wishes.tile, model=header.model)
    header.contract.overlap(wishes.overlap, model=header.model)
    if wishes.threshold != 0.5 and len(header.class_names) != 2:
        raise UsageError(
            f"threshold must be left out for a model of {len(header.class_names)} classes, got "
            f"{wishes.threshold}; the most probable class is taken"
        )


def make_plan(
    model: LoadedModel,
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
    model : LoadedModel
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
    header, samples = model.header, dataset.samples
    censuses = take_stock(samples, complete=wishes.require_complete_input)
    overlap = header.contract.overlap(wishes.overlap, model=header.model)
    tile, precision = wishes.tile, None if wishes.precision == "auto" else wishes.precision
    if earlier is not None:
        tile = tile or earlier.choice("tile", int, sha256=model.sha256)
        precision = precision or earlier.choice("precision", str, sha256=model.sha256)
    limit = None if wishes.max_memory is None else parse_size(wishes.max_memory)
    memory = memory_for(model, samples, hands=hands, precision=precision or "auto", limit=limit)
    if tile is None:
        shapes = [(sample.data.height, sample.data.width) for sample in samples]
        tile = choose_tile(shapes, contract=header.contract, overlap=overlap, most=memory.largest)
    memory.check(tile, overlap, contract=header.contract)
    normalizations = tuple(
        fit_image(sample.data, header.normalization, wishes.nonfinite) for sample in samples
    )
    if precision is None:
        fill = wishes.nonfinite == "fill"
        precision = choose_precision(model, samples, normalizations, overlap=overlap, fill=fill)
    choices = (normalizations, tile, overlap, precision)
    plan = Plan(model, samples, *choices, wishes, memory, mask, censuses)
    if earlier is not None:
        earlier.check(plan.fingerprint())
    return plan
