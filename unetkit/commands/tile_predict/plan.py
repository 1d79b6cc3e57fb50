"""What a prediction will do, settled before it begins: tile, context, precision, normalization."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.commands.tile_predict.averaging import BLEND_SIDE, BLEND_TILES, SYMMETRIES, Merge, Tta
from unetkit.commands.tile_predict.ensemble import common_value
from unetkit.commands.tile_predict.precision import choose_precision, fit_normalizations, read_size
from unetkit.commands.tile_predict.resources import (
    EnsembleThroughput,
    Memory,
    Parallelism,
    TileSize,
    candidates,
    choose_tile_size,
    estimate_throughput,
    memory_for,
    parse_size,
)
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Cover, cover
from unetkit.models import hardware
from unetkit.storage.atomic import write_text
from unetkit.storage.chunks import ChunkInventory, inventory
from unetkit.storage.ome import FORMATS, OmeVersion
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.averaging import Averaging
    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.models.model_header import ModelHeader
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.partial import PreviousRun


@dataclass(frozen=True)
class PredictOptions:
    """What the user asked for; None and "auto" leave the choice to `Plan`."""

    tile: int | None = None
    overlap: int | None = None
    precision: str = "auto"
    batch: int | None = None
    probabilities: Literal["uint8", "float32"] = "uint8"
    threshold: float = 0.5
    grow: int = 1
    min_size: int = 0
    nonfinite: Literal["error", "fill"] = "error"
    max_memory: str | None = None
    skip_below: float | None = None
    require_complete_input: bool = False
    strict: bool = False
    tta: Tta = "none"
    merge: Merge = "crop"
    audit: int = 0
    ome_version: OmeVersion = "0.5"

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> PredictOptions:
        """Pick the wishes out of all options, which bear the same names."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

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
        if self.tta not in SYMMETRIES:
            words = ", ".join(SYMMETRIES)
            raise UsageError(f"tta must be one of {words}, got {self.tta!r}; leave it out for none")
        if self.merge not in ("crop", "gaussian"):
            raise UsageError(
                f"merge must be crop or gaussian, got {self.merge!r}; leave it out to crop"
            )
        if self.ome_version not in FORMATS:
            raise UsageError(
                f"ome-version must be one of {', '.join(FORMATS)}, got {self.ome_version!r}; "
                "leave it out for 0.5"
            )
        if not 0 < self.threshold < 1:
            raise UsageError(
                f"threshold must lie between 0 and 1, got {self.threshold}; leave it out to use 0.5"
            )
        if self.max_memory is not None:
            parse_size(self.max_memory)
        if self.batch is not None and self.batch < 1:
            raise UsageError(
                f"batch must be at least 1 tile, got {self.batch}; leave it out to choose by device"
            )
        if self.audit < 0:
            raise UsageError(f"audit must be at least 0 windows, got {self.audit}; use 0 for none")
        for name in ("grow", "min_size"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"{name} must be at least 0 pixels, got {getattr(self, name)}; use 0 for none"
                )


def check_fit(header: ModelHeader, dataset: Dataset, options: PredictOptions) -> None:
    """Make sure that a model can predict a dataset as it is wished.

    Raises
    ------
    InputError
        If the images have another number of channels than the model takes.
    UsageError
        If tile, overlap, merge or threshold don't suit the model.
    """
    found = dataset.samples[0].data.channel_count
    if found != header.in_channels:
        raise InputError(
            f"{dataset.url} must have {header.in_channels} channels, as the model "
            f"{header.model!r} takes, got {found}; choose with --channels, or name another --model"
        )
    if options.tile is not None:
        header.contract.check_tile(options.tile, model=header.model)
    header.contract.overlap(options.overlap, model=header.model)
    if options.merge == "gaussian" and header.contract.halo == 0:
        raise UsageError(
            "merge must be crop for models without a halo, whose windows meet without overlap, "
            "got gaussian; leave it out"
        )
    if options.threshold != 0.5 and len(header.class_names) != 2:
        raise UsageError(
            f"threshold must be left out for a model of {len(header.class_names)} classes, got "
            f"{options.threshold}; the most probable class is taken"
        )


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
    options : PredictOptions
        What the user asked for.
    """

    model: Ensemble
    samples: tuple[Sample, ...]
    options: PredictOptions

    @property
    def overlap(self) -> int:
        """The context that a tile of the ensemble has on each side, in pixels."""
        header = self.model.header
        return header.contract.overlap(self.options.overlap, model=header.model)

    def averaging(self, tile: int) -> Averaging:
        """Say where the networks look with tiles of `tile` pixels a side."""
        options = self.options
        return self.model.averaging(
            tile, overlap=options.overlap, tta=options.tta, merge=options.merge
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

    def candidates(self, *, max_size: int) -> list[int]:
        """List the tiles that come into question, from the smallest on.

        Parameters
        ----------
        most : int
            The largest read box that fits into memory, in pixels a side.
        """
        contract = self.model.header.contract
        if self.options.merge == "gaussian":
            # The more tiles there are in a block, the fewer windows are run twice.
            max_size = min(max_size, read_size(contract, BLEND_SIDE // BLEND_TILES, self.overlap))
        shapes = [(sample.data.height, sample.data.width) for sample in self.samples]
        return candidates(shapes, contract=contract, overlap=self.overlap, max_size=max_size)

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
        windows = self.passes(tile) // (len(averaging.members) * len(averaging.symmetries))
        max_batch = min(BATCH, BATCH_PIXELS // tile**2, windows)
        return memory.fitting(averaging.size, max_batch=max_batch)

    def fastest(self, tiles: int | Sequence[int], *, precision: str, max_size: int) -> TileSize:
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
        throughputs = [
            estimate_throughput(
                model, overlap=member.overlap, precision=precision, max_size=max_size
            )
            for model, member in zip(self.model.models, members, strict=True)
        ]
        # Networks are run alike often, but for windows at the edges of an image.
        time = EnsembleThroughput(
            tuple(throughputs),
            runs=lambda tile: self.passes(tile) / len(members) / self.tasks(tile),
        )
        if isinstance(tiles, int):
            return TileSize(tiles, time.estimate(tiles))
        return choose_tile_size(
            tiles,
            count=self.tasks,
            estimate=time.estimate,
            measure=time.measure,
            step=self.model.header.contract.step,
        )


ABSENT_LIST = "absent-input.jsonl"
NO_INVENTORY = ChunkInventory(0, 0, (), 0, 0)


def count_missing_chunks(
    samples: Sequence[Sample], *, complete: bool
) -> tuple[ChunkInventory, ...]:
    """Count the stored chunks of every sample, from the listing of its store.

    Parameters
    ----------
    samples : sequence of Sample
        What is to be predicted.
    complete : bool
        Whether every chunk has to be there.

    Returns
    -------
    tuple of ChunkInventory
        One for each sample; all zeros where the store lists nothing. Samples of one array, as in
        a stack, share one.

    Raises
    ------
    InputError
        If a chunk is absent and none may be, or a store can't tell.
    """
    found: dict[str, ChunkInventory | None] = {}
    for sample in samples:
        url = sample.data.url
        if url in found:
            continue
        found[url] = stored = inventory(sample.data)
        if complete and stored is None:
            raise InputError(
                f"{url} must list its chunks to be known as complete, got a store that lists "
                "nothing; copy it to a disk first, or leave out --require-complete-input"
            )
        if complete and stored is not None and stored.missing:
            raise InputError(
                f"{url} must have all of its {stored.total} chunks, got {stored.missing} absent, "
                f"such as {stored.absent[0]}; copy it again, or leave out "
                "--require-complete-input if they are empty"
            )
    return tuple(found[sample.data.url] or NO_INVENTORY for sample in samples)


def missing_chunks(inventories: Sequence[ChunkInventory]) -> tuple[int, int]:
    """Return the chunks of all samples, and how many of them are missing."""
    once = set(inventories)
    return sum(stored.total for stored in once), sum(stored.missing for stored in once)


def list_absent(
    path: str, samples: Sequence[Sample], inventories: Sequence[ChunkInventory]
) -> None:
    """Write down which chunks are absent, [sample, key] a line; no file where none is."""
    lines = [
        json.dumps([sample.name, key]) + "\n"
        for sample, stored in zip(samples, inventories, strict=True)
        for key in stored.absent
    ]
    if lines:
        write_text(path, "".join(lines))


LARGEST_CHUNK = 1024
# Labelling and growing are quick, so that blocks much smaller would cost more than their work.
BLOCK = 1024
ONE = Parallelism(1, networks=1, threads=None, concurrency=1)


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
    options : PredictOptions
        What was asked for; holds what needs no choice.
    batch : int
        How many tiles, or windows of a block that is blended, a network sees at once.
    memory : Memory
        What it takes and may take; it decides about no pixel.
    mask : Mask, optional
        Where to look; left out, everywhere.
    inventories : tuple of ChunkInventory
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
    options: PredictOptions
    memory: Memory
    mask: Mask | None = None
    inventories: tuple[ChunkInventory, ...] = ()
    seconds: float | None = None
    reason: str | None = None

    @property
    def averaging(self) -> Averaging:
        """Where the networks look, and how what they say is averaged."""
        return self.work.averaging(self.tile)

    @property
    def work(self) -> Work:
        """What there is to do, whatever the tile."""
        return Work(self.model, self.samples, self.options)

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
        runs = len(averaging.members) * len(averaging.symmetries)
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        computed = sum(
            s.data.planes * averaging.computed(s.data.height, s.data.width) for s in self.samples
        )
        return 1 - runs * pixels / computed

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
        value = np.dtype(self.options.probabilities).itemsize
        # A class map of one byte and instances of four; smaller levels add a third.
        pixel = len(self.model.header.class_names) * value + 1 + 4
        pixels = sum(s.data.planes * s.data.height * s.data.width for s in self.samples)
        return pixels * pixel * 4 // 3

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides about the pixels, as JSON can hold it."""
        options = self.options
        return {
            "unetkit": __version__,
            "model": self.model.sha256,
            "tile": self.tile,
            "overlap": common_value([member.overlap for member in self.averaging.members]),
            "tta": options.tta,
            "merge": options.merge,
            "precision": self.precision,
            "batch": self.batch,
            "probabilities": options.probabilities,
            "threshold": options.threshold,
            "grow": options.grow,
            "min_size": options.min_size,
            "ome_version": options.ome_version,
            "nonfinite": options.nonfinite,
            "skip_below": options.skip_below,
            "mask": None if self.mask is None else self.mask.checksum,
            "input": {
                sample.name: {
                    "axes": sample.data.axes,
                    "shape": list(sample.data.shape),
                    "dtype": sample.data.dtype.name,
                    "channels": list(sample.data.picked or ()),
                    "normalization": common_value([one.to_dict() for one in normalizations]),
                    "chunks": stored.to_dict(),
                }
                for sample, normalizations, stored in zip(
                    self.samples, self.normalizations, self.inventories, strict=True
                )
            },
        }


def make_plan(
    model: Ensemble,
    dataset: Dataset,
    options: PredictOptions,
    *,
    parallelism: Parallelism = ONE,
    earlier: PreviousRun | None = None,
    mask: Mask | None = None,
) -> Plan:
    """Settle everything that decides about the pixels; reads the images, writes nothing.

    Parameters
    ----------
    model : Ensemble
        On the device that is to compute.
    dataset : Dataset
        What is to be predicted.
    options : PredictOptions
        What the user asked for.
    parallelism : Parallelism
        How many tiles and networks are to run at the same time, for the memory that they take.
    earlier : PreviousRun, optional
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
    NonFiniteError
        If an image has NaN or Inf and they are not to be filled.
    OutputError
        If the plan is not that of the earlier run.
    ResourceError
        If there is too little memory for it.
    """
    samples = dataset.samples
    inventories = count_missing_chunks(samples, complete=options.require_complete_input)
    tile, precision, batch = _settled(options, earlier, sha256=model.sha256)
    memory = memory_for(
        model,
        samples,
        parallelism=parallelism,
        precision=precision or "auto",
        limit=None if options.max_memory is None else parse_size(options.max_memory),
        blend=BLEND_TILES if options.merge == "gaussian" else 0,
        batch=batch or 1,
    )
    work = Work(model, samples, options)
    tiles = work.candidates(max_size=memory.largest)
    memory.check(tile or tiles[0], work.overlap, contract=model.header.contract)
    normalizations = tuple(
        fit_normalizations(sample, model.methods, nonfinite=options.nonfinite) for sample in samples
    )
    reason = None
    if precision is None:
        chosen = choose_precision(
            model.models,
            samples,
            normalizations,
            overlap=options.overlap,
            fill=options.nonfinite == "fill",
            max_size=memory.largest,
        )
        precision, reason = chosen.name, chosen.reason
    choice = work.fastest(tile or tiles, precision=precision, max_size=memory.largest)
    batch = batch or work.batch(choice.tile, memory)
    plan = Plan(
        model,
        samples,
        normalizations,
        choice.tile,
        precision,
        batch,
        options,
        replace(memory, batch=batch),
        mask=mask,
        inventories=inventories,
        reason=reason,
    )
    if earlier is not None:
        earlier.check(plan.fingerprint())
    if parallelism.elsewhere:
        return plan
    return replace(plan, seconds=plan.tiles_total * choice.seconds / parallelism.networks)


def _settled(
    options: PredictOptions, earlier: PreviousRun | None, *, sha256: str
) -> tuple[int | None, str | None, int | None]:
    """Return tile, precision and batch as they are wished or were chosen before, else None."""
    tile, precision, batch = options.tile, options.precision, options.batch
    known = None if precision == "auto" else precision
    if earlier is None:
        return tile, known, batch
    return (
        tile or earlier.choice("tile", int, sha256=sha256),
        known or earlier.choice("precision", str, sha256=sha256),
        batch or earlier.choice("batch", int, sha256=sha256),
    )
