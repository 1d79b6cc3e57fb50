"""How much memory a prediction takes, and how large a tile may be for it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from unetkit.commands.tile_predict.ensemble import torch_threads
from unetkit.errors import ResourceError, UsageError
from unetkit.machine import free_memory, held_memory
from unetkit.models import hardware
from unetkit.models.cost import largest_tensor, run_layers
from unetkit.progress import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.geometry.sizes import SizeContract
    from unetkit.models.cost import LayerRun
    from unetkit.models.model_file import LoadedModel
    from unetkit.storage.datasets import Sample

# Threads that read, write and turn logits into probabilities while one GPU computes: it is so much
# faster than a core that one could not keep it busy. More would only wait for it.
BESIDE_GPU = 8


@dataclass(frozen=True)
class Parallelism:
    """How the cores of a machine are shared out.

    Parameters
    ----------
    jobs : int or None
        Tiles in work at the same time; None leaves it to the scheduler.
    networks : int
        How many of them may be in a network at once on one machine.
    threads : int or None
        Torch threads for each network; None leaves a worker's own number.
    concurrency : int or None
        How many networks may run at once in one process; None for all its jobs.
    """

    jobs: int | None
    networks: int
    threads: int | None
    concurrency: int | None

    @property
    def elsewhere(self) -> bool:
        """Whether the tiles go to workers of whom this process knows nothing."""
        return self.threads is None and self.concurrency is None


def plan_parallelism(scheduler: str, workers: int | None, *, device: torch.device) -> Parallelism:
    """Share out the cores of this machine, or leave them to the workers of a cluster.

    Parameters
    ----------
    scheduler : str
        As for `open_scheduler`.
    workers : int, optional
        As the user gave it.
    device : torch.device
        Where networks compute.
    """
    everything = hardware.thread_count(1)
    on_gpu = device.type != "cpu"
    if scheduler == "sync":
        return Parallelism(1, networks=1, threads=everything, concurrency=1)
    if scheduler == "threads" and (workers is None or on_gpu):
        # One network has all cores, while the next tile is read and the last one written.
        jobs = max(2, min(BESIDE_GPU, everything)) if on_gpu else 2
        return Parallelism(workers or jobs, networks=1, threads=everything, concurrency=1)
    if scheduler == "threads" and workers:
        threads = hardware.thread_count(workers)
        return Parallelism(workers, networks=workers, threads=threads, concurrency=None)
    if scheduler == "processes":
        count = workers or everything
        return Parallelism(
            count, networks=count, threads=hardware.thread_count(count), concurrency=1
        )
    if scheduler.startswith("local:"):
        count = int(scheduler.removeprefix("local:"))
        threads = hardware.thread_count(count)
        several = count * max(2, min(BESIDE_GPU, threads)) if on_gpu else None
        return Parallelism(workers or several, networks=count, threads=threads, concurrency=1)
    # Whoever starts a worker says how many threads it has.
    return Parallelism(workers, networks=1, threads=None, concurrency=None)


# The share of the free memory that a prediction takes unless told otherwise.
MEMORY_SHARE = 0.5

# How often the largest tensor fits into what a network holds at once. At the widest place of a
# classic U-Net these are the skipped features, those from below, both concatenated (as much
# again), and a convolution's output, which makes five; the rest is work space of the kernels and
# what the allocator can't use, as it was measured at inputs of 572 to 1212 pixels. (Its smallest
# input leaves little to concatenate, so that the largest tensor there is its first features.)
HELD = {"float32": 8.0, "exact": 12.0, "bfloat16": 5.0, "float16": 5.0}

# What codecs, tables of chunks and libraries that load late take besides, in bytes.
BESIDE = 200 * 2**20

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Read an amount of memory as people write it.

    Parameters
    ----------
    text : str
        A number of bytes, or of K, M, G or T, which are powers of 1024; `GB` and `GiB` mean `G`.

    Raises
    ------
    UsageError
        If it is something else.

    Examples
    --------
    >>> parse_size("8G"), parse_size("1.5 GiB"), parse_size("4096")
    (8589934592, 1610612736, 4096)
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.I)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(
            f"max-memory must be an amount such as 8G or 500M, got {text!r}; "
            "leave it out to use half of what is free"
        )
    return size


@dataclass(frozen=True)
class Memory:
    """What a prediction may take and what it needs, all its processes on this machine together.

    Parameters
    ----------
    limit : int
        Bytes that it may take.
    base : int
        Bytes that it takes before the first tile is read.
    pixel : float
        Bytes for each pixel of a read box.
    extra_bytes : float
        Bytes for each pixel of each further one that a network sees at once.
    batch : int
        How many of them it sees at once.
    """

    limit: int
    base: int
    pixel: float
    extra_bytes: float = 0.0
    batch: int = 1

    @property
    def largest(self) -> int:
        """The largest read box that fits, in pixels a side."""
        return int((max(0, self.limit - self.base) / self._each) ** 0.5)

    @property
    def _each(self) -> float:
        return self.pixel + self.extra_bytes * (self.batch - 1)

    def peak(self, size: int) -> int:
        """Estimate the bytes that are taken with read boxes of `size` pixels a side."""
        return int(self.base + self._each * size**2)

    def fitting(self, size: int, *, max_batch: int) -> int:
        """Return how many read boxes of a size fit at once, at least 1 and at most `max_batch`."""
        counts = range(max_batch, 1, -1)
        return next((n for n in counts if replace(self, batch=n).peak(size) <= self.limit), 1)

    def check(self, tile: int, overlap: int, *, contract: SizeContract) -> None:
        """Refuse a tile that can't fit, before anything is done.

        Raises
        ------
        ResourceError
            Naming the largest tile that fits.
        """
        size = contract.legal(tile + 2 * overlap)
        if size <= self.largest:
            return
        fitting = largest_tile(self.largest, contract=contract, overlap=overlap)
        remedy = f"use --tile {fitting}" if fitting else "use fewer --workers"
        least = contract.legal(contract.step + 2 * overlap) if not fitting else size
        what = "a tile" if self.batch == 1 else f"{self.batch} tiles at once, each"
        if self.batch > 1:
            remedy = f"use a lower --batch, {remedy.removeprefix('use ')}"
        raise ResourceError(
            f"memory must hold {what} of {tile} pixels, which takes "
            f"{format_bytes(self.peak(size))}, got {format_bytes(self.limit)}; {remedy}, or "
            "--max-memory "
            f"{-(-self.peak(least) // 2**20)}M"
        )


def largest_tile(max_size: int, *, contract: SizeContract, overlap: int) -> int:
    """Return the largest tile whose read box has at most `max_size` pixels a side, or 0."""
    tile = max(0, max_size - 2 * overlap) // contract.step * contract.step
    while tile and contract.legal(tile + 2 * overlap) > max_size:
        tile -= contract.step
    return tile


def memory_for(
    ensemble: Ensemble,
    samples: tuple[Sample, ...],
    *,
    parallelism: Parallelism,
    precision: str,
    limit: int | None,
    blend: int = 0,
    batch: int = 1,
) -> Memory:
    """Say what a prediction needs and may take.

    Parameters
    ----------
    ensemble : Ensemble
        On the device that is to compute.
    samples : tuple of Sample
        What is read.
    parallelism : Parallelism
        How many tiles are in work, and how many of them in a network.
    precision : str
        What it will compute in, or "auto".
    limit : int, optional
        Bytes that it may take; left out, half of what is free.
    blend : int
        Tiles along a side of a block that is blended; 0 where tiles are cropped.
    batch : int
        How many tiles, or windows of a block, a network sees at once.
    """
    device = ensemble.device
    channels = ensemble.header.in_channels
    network = max(
        network_bytes(
            model.module,
            in_channels=channels,
            contract=model.header.contract,
            precision=precision,
        )
        for model in ensemble.models
    )
    if device.type != "cpu":
        # The network is in the device's own memory, which the user's limit is not about.
        free = int(available_memory(device) * MEMORY_SHARE)
        pixel = network * parallelism.networks
        return Memory(free, 0, pixel, extra_bytes=pixel, batch=batch)
    itemsize = max(sample.data.dtype.itemsize for sample in samples)
    classes = len(ensemble.header.class_names)
    # Pixels as stored, gathered, normalized for each network and laid out for it. A block that is
    # blended reads a tile's length more on each side.
    seen = channels * (2 * itemsize + 4 + 4 * len(set(ensemble.methods)))
    # Logits, their powers, probabilities, their sums, and what is stored of them.
    found = classes * 24
    beside = seen * ((blend + 2) ** 2 if blend else 1) + found * max(1, blend**2)
    processes = (
        0 if parallelism.concurrency is None or parallelism.networks == 1 else parallelism.networks
    )
    held = held_memory()
    if limit is None:
        limit = held + int(available_memory(device) * MEMORY_SHARE)
    jobs = parallelism.jobs or parallelism.networks
    pixel = network * parallelism.networks + beside * jobs
    # Of a block that is blended only what the network sees is there several times.
    extra_bytes = (network + 4 * channels) * parallelism.networks if blend else pixel
    return Memory(
        limit, held * (1 + processes) + BESIDE, pixel, extra_bytes=extra_bytes, batch=batch
    )


def network_bytes(
    module: torch.nn.Module, *, in_channels: int, contract: SizeContract, precision: str
) -> float:
    """Estimate the bytes that a network takes for each pixel of its input.

    Of its smallest input, the largest tensor that is made is counted as often as `HELD` says.

    Parameters
    ----------
    module : nn.Module
        The network, in evaluation mode.
    in_channels : int
        Channels of its input.
    contract : SizeContract
        The network's.
    precision : str
        What it will compute in; "auto" counts as float32, of which a part is always computed.
    """
    largest = largest_tensor(module, in_channels=in_channels, size=contract.minimum)
    return HELD.get(precision, HELD["float32"]) * 4 * largest / contract.minimum**2


def available_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


# What is written of the input that shows the pace, in pixels: our own choice. It is small enough
# to be quick on any machine, and layers are large enough to be computed as in a tile.
PACE_TILE = 128


@dataclass(frozen=True)
class Throughput:
    """How fast one network runs here.

    Parameters
    ----------
    model : LoadedModel
        The network, on its device.
    overlap : int
        Its context on each side, in pixels.
    precision : str
        As for `hardware.forward`.
    work : tuple of float
        Multiplications for an input of N pixels a side: the factors of N^2, N and 1.
    rate : float
        Multiplications a second.
    """

    model: LoadedModel
    overlap: int
    precision: str
    work: tuple[float, float, float]
    rate: float

    def estimate(self, tile: int) -> float:
        """Reckon the seconds that the network takes over a tile of `tile` pixels a side."""
        return float(np.polyval(self.work, self._size(tile))) / self.rate

    def measure(self, tile: int) -> float:
        """Measure them; the network is run twice, since the first run of a size is slow."""
        return [_timed(self.model, self._size(tile), precision=self.precision) for _ in "ab"][-1]

    def _size(self, tile: int) -> int:
        return self.model.header.contract.legal(tile + 2 * self.overlap)


@dataclass(frozen=True)
class EnsembleThroughput:
    """How fast the networks of an ensemble run here, one after another.

    Parameters
    ----------
    each : tuple of Pace
        One for each network.
    runs : callable
        Says how often each of them is run for what one task writes, given a tile.
    """

    each: tuple[Throughput, ...]
    runs: Callable[[int], float]

    def estimate(self, tile: int) -> float:
        """Reckon the seconds that a task takes with tiles of `tile` pixels a side."""
        return self.runs(tile) * sum(throughput.estimate(tile) for throughput in self.each)

    def measure(self, tile: int) -> float:
        """Measure each network on one tile, and reckon the seconds of a task from that."""
        return self.runs(tile) * sum(throughput.measure(tile) for throughput in self.each)


def estimate_throughput(
    model: LoadedModel, *, overlap: int, precision: str, max_size: int
) -> Throughput:
    """Find out how fast a network runs here, on inputs that take a fraction of a second.

    Parameters
    ----------
    model : LoadedModel
        On the device that is to compute.
    overlap : int
        Its context on each side, in pixels.
    precision : str
        As for `hardware.forward`.
    max_size : int
        The largest read box that fits into memory, in pixels a side.
    """
    contract, channels = model.header.contract, model.header.in_channels
    work = work_of(model.module, in_channels=channels, contract=contract)
    tile = min(PACE_TILE, largest_tile(max_size, contract=contract, overlap=overlap))
    size = contract.legal(tile + 2 * overlap)
    times = []
    if next(model.module.parameters()).device.type == "cpu":
        # Threads that take longer together than one needs alone wait for other programs here. Over
        # a whole tile they do so far less.
        with torch_threads(1):
            times.append(_timed(model, size, precision=precision, clock=time.thread_time))
    else:
        _timed(model, size, precision=precision)
    # The first run of a size is slow; this is the second.
    times.append(_timed(model, size, precision=precision))
    return Throughput(model, overlap, precision, work, float(np.polyval(work, size)) / min(times))


def work_of(
    module: nn.Module, *, in_channels: int, contract: SizeContract
) -> tuple[float, float, float]:
    """Count the multiplications of a network for any size of its input.

    Convolutions and linear layers are counted; what else there is takes little beside them. A
    network without any counts as one multiplication a pixel.

    Parameters
    ----------
    module : nn.Module
        The network, in evaluation mode.
    in_channels : int
        Channels of its input.
    contract : SizeContract
        Its own.

    Returns
    -------
    tuple of float
        The factors of N^2, N and 1, for an input of N pixels a side.

    Examples
    --------
    >>> from unetkit.models.unet import size_contract
    >>> layer = torch.nn.Conv2d(1, 4, kernel_size=3)
    >>> work = work_of(layer, in_channels=1, contract=size_contract(1))
    >>> print(round(float(np.polyval(work, 10))), 4 * 9 * 8 * 8)
    2304 2304
    """
    sizes = [contract.minimum + number * contract.step for number in range(3)]
    counts = [
        sum(map(_multiplications, run_layers(module, in_channels=in_channels, size=size)))
        for size in sizes
    ]
    if not any(counts):
        return 1.0, 0.0, 0.0
    square, linear, constant = np.polyfit(sizes, counts, 2).tolist()
    return square, linear, constant


def _multiplications(run: LayerRun) -> int:
    """Count what each number that goes in or comes out is multiplied by."""
    layer = run.layer
    if isinstance(layer, nn.Linear):
        return run.made.numel() * layer.in_features
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return 0
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):
        return run.given.numel() * layer.out_channels // layer.groups * kernel
    return run.made.numel() * layer.in_channels // layer.groups * kernel


def _timed(
    model: LoadedModel,
    size: int,
    *,
    precision: str,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    began = clock()
    _run(model.module, model.header.in_channels, size, precision=precision)
    return clock() - began


def _run(module: nn.Module, in_channels: int, size: int, *, precision: str) -> None:
    device = next(module.parameters()).device
    with torch.inference_mode():
        batch = torch.rand(1, in_channels, size, size, device=device)
        logits = hardware.forward(module, batch, precision=precision)
        # A GPU is done when its numbers can be read.
        float(logits[0, 0, 0, 0])


TILES = (512, 1024, 2048)
# A tile that is begun is finished, so that this is how long a signal may have to wait.
LONGEST = 10.0
# Below this no tile is halved to be quick: nearly all that is computed would be context.
SMALLEST = 128
# Measuring takes at most this share of what the whole is expected to take, and is not worth its
# while below so many tiles.
SHARE = 0.02
WORTHWHILE = 20
# The first tile takes this share of its time more, since its memory is handed out page by page;
# measured with the classic network on a processor.
FIRST = 1 / 3


def candidates(
    shapes: Sequence[tuple[int, int]], *, contract: SizeContract, overlap: int, max_size: int
) -> list[int]:
    """Return the tiles that come into question.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Height and width of every plane, in pixels.
    contract : SizeContract
        The network's.
    overlap : int
        Context on each side, in pixels.
    max_size : int
        The largest read box that fits into memory, in pixels a side.

    Returns
    -------
    list of int
        512, 1024 and 2048, rounded up to the contract's step; where all images are smaller, the
        longest of their sides rounded up so. The largest that fits where none of these does, or
        the step where nothing fits.
    """
    step = contract.step
    whole = _round_up(max(max(shape) for shape in shapes), step)
    sizes = sorted({min(whole, _round_up(tile, step)) for tile in TILES})
    fitting = [tile for tile in sizes if contract.legal(tile + 2 * overlap) <= max_size]
    return fitting or [largest_tile(max_size, contract=contract, overlap=overlap) or step]


@dataclass(frozen=True)
class TileSize:
    """A tile and how long it takes.

    Parameters
    ----------
    tile : int
        In pixels a side.
    seconds : float
        For each.
    """

    tile: int
    seconds: float


def choose_tile_size(
    tiles: Sequence[int],
    *,
    count: Callable[[int], int],
    estimate: Callable[[int], float],
    measure: Callable[[int], float],
    step: int,
) -> TileSize:
    """Choose the tile with which the whole is done first.

    Parameters
    ----------
    tiles : sequence of int
        What comes into question, from the smallest on.
    count : callable
        Says how many tiles of a size there are.
    estimate, measure : callable
        Reckon, or find out by doing it twice, how many seconds a tile of a size takes.
    step : int
        Tiles that are halved to be quick are multiples of it.

    Returns
    -------
    Choice
    """
    seconds = {tile: estimate(tile) for tile in tiles}
    best = _first_done(seconds, count)
    if len(tiles) > 1 and count(best) >= WORTHWHILE:
        seconds = _measured(seconds, measure, budget=SHARE * count(best) * seconds[best])
        best = _first_done(seconds, count)
    while seconds[best] > LONGEST and best // 2 >= SMALLEST:
        half = _round_up(best // 2, step)
        seconds[half] = seconds[best] * estimate(half) / estimate(best)
        best = half
    return TileSize(best, seconds[best])


def _first_done(seconds: dict[int, float], count: Callable[[int], int]) -> int:
    quick = [tile for tile, each in seconds.items() if each <= LONGEST] or [min(seconds)]
    return min(quick, key=lambda tile: (count(tile) + FIRST) * seconds[tile])


def _measured(
    seconds: dict[int, float], measure: Callable[[int], float], *, budget: float
) -> dict[int, float]:
    """Measure as many as the budget allows; larger ones are as wrong as the last one was."""
    found, wrong = {}, 1.0
    for tile in sorted(seconds):
        expected = seconds[tile] * wrong
        # It is run twice.
        if 2 * expected <= budget and expected <= LONGEST:
            found[tile] = measure(tile)
            budget -= 2 * found[tile]
            wrong = found[tile] / seconds[tile]
        else:
            found[tile] = expected
    return found


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
