"""Which tile, batch and threads memory and speed allow, from top to bottom as they are chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from unetkit.commands.tile_predict.averaging import BLEND_SIDE, BLEND_TILES
from unetkit.commands.tile_predict.ensemble import torch_threads
from unetkit.commands.tile_predict.speeds import speed_of
from unetkit.engine.rescaling import RescaledPlanes
from unetkit.errors import ResourceError
from unetkit.machine import free_memory, held_memory
from unetkit.models import hardware
from unetkit.models.cost import largest_tensor, run_layers
from unetkit.progress import format_bytes, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.plan import Plan, PredictOptions
    from unetkit.geometry.sizes import SizeContract
    from unetkit.models.cost import LayerRun
    from unetkit.models.model_file import LoadedModel
    from unetkit.storage.datasets import Sample

# 1. How many at once, and with how many threads.

# Threads that read, write and turn logits into probabilities while one GPU computes: it is so much
# faster than a core that one could not keep it busy. More would only wait for it.
BESIDE_GPU = 8


@dataclass(frozen=True)
class Parallelism:
    """How the cores of a machine are shared out."""

    jobs: int | None  # tiles in work at once; None leaves it to the scheduler
    networks: int  # how many of them may be in a network at once on one machine
    threads: int | None  # torch threads for each network; None leaves a worker's own number
    concurrency: int | None  # networks at once in one process; None for all its jobs

    @property
    def elsewhere(self) -> bool:
        """Whether the tiles go to workers of whom this process knows nothing."""
        return self.threads is None and self.concurrency is None

    @property
    def processes(self) -> int:
        """How many processes there are beside this one."""
        return 0 if self.concurrency is None or self.networks == 1 else self.networks


def plan_parallelism(scheduler: str, workers: int | None, *, device: torch.device) -> Parallelism:
    """Share out the cores of this machine, or leave them to the workers of a cluster."""
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
        threads = hardware.thread_count(count)
        return Parallelism(count, networks=count, threads=threads, concurrency=1)
    if scheduler.startswith("local:"):
        count = int(scheduler.removeprefix("local:"))
        threads = hardware.thread_count(count)
        several = count * max(2, min(BESIDE_GPU, threads)) if on_gpu else None
        return Parallelism(workers or several, networks=count, threads=threads, concurrency=1)
    # Whoever starts a worker says how many threads it has.
    return Parallelism(workers, networks=1, threads=None, concurrency=None)


# 2. What fits into memory.

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


@dataclass(frozen=True)
class Memory:
    """What a prediction may take and needs in bytes, all its processes on this machine together."""

    limit: int  # what it may take
    base: int  # what it takes before the first tile is read
    pixel: float  # for each pixel of a read box
    extra_bytes: float = 0.0  # for each pixel of each further one that a network sees at once
    batch: int = 1  # how many of them it sees at once

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
        """Refuse a tile that can't fit, before anything is done, and name the largest that does."""
        size = contract.read_size(tile, overlap)
        if size <= self.largest:
            return
        fitting = largest_tile(self.largest, contract=contract, overlap=overlap)
        remedy = f"use --tile {fitting}" if fitting else "use fewer --workers"
        least = size if fitting else contract.read_size(contract.step, overlap)
        what = "a tile" if self.batch == 1 else f"{self.batch} tiles at once, each"
        if self.batch > 1:
            remedy = f"use a lower --batch, {remedy.removeprefix('use ')}"
        raise ResourceError(
            f"memory must hold {what} of {tile} pixels, which takes "
            f"{format_bytes(self.peak(size))}, got {format_bytes(self.limit)}; {remedy}, or "
            f"--max-memory {_enough(self.peak(least)) // 2**20}M"
        )


def _enough(peak: int) -> int:
    """Add what a process may hold more when it is started again: a hundredth and 64 MiB."""
    return peak + peak // 100 + 2**26


def largest_tile(max_size: int, *, contract: SizeContract, overlap: int) -> int:
    """Return the largest tile whose read box has at most `max_size` pixels a side, or 0."""
    tile = max(0, max_size - 2 * overlap) // contract.step * contract.step
    while tile and contract.read_size(tile, overlap) > max_size:
        tile -= contract.step
    return tile


def memory_for(
    ensemble: Ensemble,
    samples: Sequence[Sample],
    options: PredictOptions,
    *,
    parallelism: Parallelism,
) -> Memory:
    """Say what a prediction needs and may take; `options` hold what is known of its choices."""
    device, batch = ensemble.device, options.batch or 1
    channels = ensemble.header.in_channels
    one = max(
        network_bytes(
            model.module,
            in_channels=channels,
            contract=model.header.contract,
            precision=options.precision,
        )
        for model in ensemble.models
    )
    network = one * parallelism.networks
    if device.type != "cpu":
        # The network is in the device's own memory, which the user's limit is not about.
        free = int(available_memory(device) * MEMORY_SHARE)
        return Memory(free, 0, network, extra_bytes=network, batch=batch)
    blend = BLEND_TILES if options.merge == "gaussian" else 0
    itemsize = max(sample.data.dtype.itemsize for sample in samples)
    # Pixels as stored, gathered, normalized for each network and laid out for it. A block that is
    # blended reads a tile's length more on each side.
    seen = channels * (2 * itemsize + 4 + 4 * len(set(ensemble.methods)))
    # Logits, their powers, probabilities, their sums, and what is stored of them.
    found = len(ensemble.header.class_names) * 24 + (24 if options.uncertainty else 0)
    beside = seen * ((blend + 2) ** 2 if blend else 1) + found * max(1, blend**2)
    held = held_memory()
    if options.max_memory is None:
        limit = held + int(available_memory(device) * MEMORY_SHARE)
    else:
        limit = parse_size(options.max_memory)
    pixel = network + beside * (parallelism.jobs or parallelism.networks)
    # Of a block that is blended only what the network sees is there several times.
    extra = (one + 4 * channels) * parallelism.networks if blend else pixel
    reading = max(sample.data.reading_bytes() for sample in samples)
    base = (held + reading) * (1 + parallelism.processes) + BESIDE
    resampled = [s.data.part_bytes() for s in samples if isinstance(s.data, RescaledPlanes)]
    base += max(resampled, default=0) * (parallelism.jobs or parallelism.networks)
    return Memory(limit, base, pixel, extra_bytes=extra, batch=batch)


def network_bytes(
    module: nn.Module, *, in_channels: int, contract: SizeContract, precision: str
) -> float:
    """Estimate the bytes that a network takes for each pixel of its input.

    Of its smallest input, the largest tensor that is made is counted as often as `HELD` says;
    "auto" counts as float32, of which a part is always computed.
    """
    largest = largest_tensor(module, in_channels=in_channels, size=contract.minimum)
    return HELD.get(precision, HELD["float32"]) * 4 * largest / contract.minimum**2


def available_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


# 3. How fast each tile size is.

# What is written of the input that shows the speed, in pixels: our own choice. It is small enough
# to be quick on any machine, and layers are large enough to be computed as in a tile.
PROBE_TILE = 128


@dataclass(frozen=True)
class Throughput:
    """How fast one network runs here."""

    model: LoadedModel  # on its device
    overlap: int  # its context on each side, in pixels
    precision: str
    work: tuple[float, float, float]  # see `work_of`
    rate: float  # multiplications a second
    remembered: bool = False  # whether an earlier run found that out

    def estimate(self, tile: int) -> float:
        """Reckon the seconds that the network takes over a tile of `tile` pixels a side."""
        return float(np.polyval(self.work, self._size(tile))) / self.rate

    def measure(self, tile: int) -> float:
        """Measure them, or remember them; the network is run twice, since the first run is slow."""
        size = self._size(tile)

        def run() -> float:
            return [_timed(self.model, size, precision=self.precision) for _ in "ab"][-1]

        return speed_of(self.model, size, precision=self.precision, measure=run).seconds

    def _size(self, tile: int) -> int:
        return self.model.header.contract.read_size(tile, self.overlap)


def estimate_throughput(
    model: LoadedModel, *, overlap: int, precision: str, max_size: int
) -> Throughput:
    """Find out how fast a network runs here, on inputs that take a fraction of a second.

    None has more than `max_size` pixels a side, what fits into memory.
    """
    contract, channels = model.header.contract, model.header.in_channels
    work = work_of(model.module, in_channels=channels, contract=contract)
    tile = min(PROBE_TILE, largest_tile(max_size, contract=contract, overlap=overlap))
    size = contract.read_size(tile, overlap)

    def run() -> float:
        times = []
        if next(model.module.parameters()).device.type == "cpu":
            # Threads that take longer together than one needs alone wait for other programs here.
            # Over a whole tile they do so far less.
            with torch_threads(1):
                times.append(_timed(model, size, precision=precision, clock=time.thread_time))
        else:
            _timed(model, size, precision=precision)
        # The first run of a size is slow; this is the second.
        times.append(_timed(model, size, precision=precision))
        return min(times)

    speed = speed_of(model, size, precision=precision, measure=run)
    rate = float(np.polyval(work, size)) / speed.seconds
    return Throughput(model, overlap, precision, work, rate, remembered=speed.remembered)


def work_of(
    module: nn.Module, *, in_channels: int, contract: SizeContract
) -> tuple[float, float, float]:
    """Count the multiplications for an input of N pixels a side: the factors of N^2, N and 1.

    Convolutions and linear layers are counted; what else there is takes little beside them. A
    network without any counts as one multiplication a pixel.

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
    device = next(model.module.parameters()).device
    with torch.inference_mode():
        batch = torch.rand(1, model.header.in_channels, size, size, device=device)
        logits = hardware.forward(model.module, batch, precision=precision)
        # A GPU is done when its numbers can be read.
        float(logits[0, 0, 0, 0])
    return clock() - began


# 4. Which tile and batch win.

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
# What is chosen for a GPU: our own choice. Beyond it there is little to gain, and what is together
# is lost together.
BATCH = 8
BATCH_PIXELS = 2048**2


def candidates(plan: Plan, memory: Memory) -> list[int]:
    """Return the tiles that come into question, from the smallest on.

    These are 512, 1024 and 2048, rounded up to the contract's step; where all images are smaller,
    the longest of their sides rounded up so. The largest that fits where none of these does, or
    the step where nothing fits.
    """
    contract, overlap = plan.model.header.contract, plan.overlap
    step, max_size = contract.step, memory.largest
    if plan.options.merge == "gaussian":
        # The more tiles there are in a block, the fewer windows are run twice.
        max_size = min(max_size, contract.read_size(BLEND_SIDE // BLEND_TILES, overlap))
    longest = max(max(sample.data.height, sample.data.width) for sample in plan.samples)
    sizes = sorted({_round_up(min(longest, tile), step) for tile in TILES})
    fitting = [tile for tile in sizes if contract.read_size(tile, overlap) <= max_size]
    return fitting or [largest_tile(max_size, contract=contract, overlap=overlap) or step]


@dataclass(frozen=True)
class TileSize:
    """A tile in pixels a side, and the seconds that one takes."""

    tile: int
    seconds: float
    remembered: bool = False  # whether an earlier run found out how fast its networks are


def fastest_tile(plan: Plan, tiles: Sequence[int], *, fixed: bool, max_size: int) -> TileSize:
    """Choose the tile with which all is done first, and say how long a task takes with it.

    A tile that is `fixed` is only estimated; no read box may exceed `max_size` pixels a side.
    """
    networks = [
        estimate_throughput(
            model,
            overlap=member.overlap,
            precision=plan.precision,
            max_size=max_size,
        )
        for model, member in zip(plan.model.models, plan.averaging.members, strict=True)
    ]

    def runs(tile: int) -> float:
        # Networks are run alike often, but for windows at the edges of an image.
        there = replace(plan, tile=tile)
        return there.passes / len(networks) / there.tiles_total

    def estimate(tile: int) -> float:
        return runs(tile) * sum(network.estimate(tile) for network in networks)

    def measure(tile: int) -> float:
        return runs(tile) * sum(network.measure(tile) for network in networks)

    if fixed:
        chosen = TileSize(tiles[0], estimate(tiles[0]))
    else:
        chosen = choose_tile_size(
            tiles,
            count=lambda tile: replace(plan, tile=tile).tiles_total,
            estimate=estimate,
            measure=measure,
            step=plan.model.header.contract.step,
        )
    return replace(chosen, remembered=all(network.remembered for network in networks))


def choose_tile_size(
    tiles: Sequence[int],
    *,
    count: Callable[[int], int],
    estimate: Callable[[int], float],
    measure: Callable[[int], float],
    step: int,
) -> TileSize:
    """Choose the tile with which the whole is done first.

    `count` says how many tiles of a size there are, `estimate` and `measure` (by doing it twice)
    how many seconds one takes; tiles that are halved to be quick are multiples of `step`.
    """
    seconds = {tile: estimate(tile) for tile in tiles}

    def best_of_all() -> int:
        quick = [tile for tile, each in seconds.items() if each <= LONGEST] or [min(seconds)]
        return min(quick, key=lambda tile: (count(tile) + FIRST) * seconds[tile])

    best = best_of_all()
    if len(tiles) > 1 and count(best) >= WORTHWHILE:
        seconds = _measured(seconds, measure, budget=SHARE * count(best) * seconds[best])
        best = best_of_all()
    while seconds[best] > LONGEST and best // 2 >= SMALLEST:
        half = _round_up(best // 2, step)
        seconds[half] = seconds[best] * estimate(half) / estimate(best)
        best = half
    return TileSize(best, seconds[best])


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


def choose_batch(plan: Plan, memory: Memory) -> int:
    """Choose how many tiles, or windows of a block, networks see at once.

    A processor is busy with one. On a GPU small tiles take less time together, as long as they
    fit.
    """
    if plan.model.device.type == "cpu":
        return 1
    averaging = plan.averaging
    windows = plan.passes // (len(averaging.members) * len(averaging.symmetries))
    max_batch = min(BATCH, BATCH_PIXELS // plan.tile**2, windows)
    return memory.fitting(plan.size, max_batch=max_batch)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
