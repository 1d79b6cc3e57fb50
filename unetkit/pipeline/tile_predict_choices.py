"""The choices that a prediction makes where the user leaves them: tile size and precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unetkit.engine.tileio import read_tile
from unetkit.geometry.tiles import cover
from unetkit.models import hardware
from unetkit.pipeline.tile_predict_network import tile_logits, to_classes, to_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization
    from unetkit.geometry.sizes import SizeContract
    from unetkit.geometry.tiles import Tile
    from unetkit.models.modelfile import LoadedModel
    from unetkit.storage.datasets import Sample

TILES = (512, 1024, 2048)

# The share of the free memory that networks may take together; the rest is for what they read and
# write, and for what the estimate misses.
MEMORY_SHARE = 0.5

# A low precision may change this share of the labels: our own choice, far below the difference
# between two people who annotate the same image.
FLIPS = 1e-4
PROBES = 16
PROBE_TILE = 512


@dataclass(frozen=True)
class Hands:
    """How the cores of a machine are shared out.

    Parameters
    ----------
    jobs : int or None
        Tiles in work at the same time; None leaves it to the scheduler.
    networks : int
        How many of them may be in a network at once on one machine.
    threads : int or None
        Torch threads for each network; None leaves a worker's own number.
    at_once : int or None
        How many networks may run at once in one process; None for all its jobs.
    """

    jobs: int | None
    networks: int
    threads: int | None
    at_once: int | None


def share_cores(scheduler: str, workers: int | None, *, device: torch.device) -> Hands:
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
    if scheduler == "sync":
        return Hands(1, networks=1, threads=everything, at_once=1)
    if scheduler == "threads" and (workers is None or device.type != "cpu"):
        # One network has all cores, while the next tile is read and the last one written.
        return Hands(workers or 2, networks=1, threads=everything, at_once=1)
    if scheduler == "threads" and workers:
        threads = hardware.thread_count(workers)
        return Hands(workers, networks=workers, threads=threads, at_once=None)
    if scheduler == "processes":
        count = workers or everything
        return Hands(count, networks=count, threads=hardware.thread_count(count), at_once=1)
    if scheduler.startswith("local:"):
        count = int(scheduler.removeprefix("local:"))
        return Hands(workers, networks=count, threads=hardware.thread_count(count), at_once=1)
    # Whoever starts a worker says how many threads it has.
    return Hands(workers, networks=1, threads=None, at_once=None)


def read_size(contract: SizeContract, tile: int, overlap: int) -> int:
    """Return the size that a network reads to write `tile` pixels with that context."""
    return contract.legal(tile + 2 * overlap)


def choose_tile(
    shapes: Sequence[tuple[int, int]], *, contract: SizeContract, overlap: int, most: int
) -> int:
    """Choose the tile that computes the fewest pixels among those that fit into memory.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Height and width of every plane, in pixels.
    contract : SizeContract
        The network's.
    overlap : int
        Context on each side, in pixels.
    most : int
        The largest read box that fits into memory, in pixels a side.

    Returns
    -------
    int
        512, 1024 or 2048, rounded up to the contract's step; where all images are smaller, the
        longest of their sides rounded up so. The least of these where none fits.
    """
    whole = _round_up(max(max(shape) for shape in shapes), contract.step)
    choices = sorted({min(whole, _round_up(tile, contract.step)) for tile in TILES})
    fitting = [t for t in choices if read_size(contract, t, overlap) <= most] or choices[:1]

    def computed(tile: int) -> int:
        count = sum(len(cover(height, width, tile=tile)) for height, width in shapes)
        return count * read_size(contract, tile, overlap) ** 2

    return min(fitting, key=computed)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def largest_input(
    module: torch.nn.Module, *, in_channels: int, contract: SizeContract, memory: int
) -> int:
    """Estimate the largest input that a network can take in `memory` bytes.

    The estimate is six times the largest output of a layer: at the widest place of a U-Net the
    skipped features, those from below, both concatenated (as much again), and a convolution's
    output are held at once, which makes five, and the sixth is work space.

    Parameters
    ----------
    module : nn.Module
        It is run once, on its smallest input.
    in_channels : int
        Channels of its input.
    contract : SizeContract
        The network's.
    memory : int
        Bytes that it may take.

    Returns
    -------
    int
        Pixels a side.
    """
    largest = [in_channels * contract.minimum**2]

    def remember(layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            largest.append(output.numel())

    hooks = [layer.register_forward_hook(remember) for layer in module.modules()]
    try:
        device = next(module.parameters()).device
        with torch.inference_mode():
            batch = torch.zeros(1, in_channels, contract.minimum, contract.minimum, device=device)
            hardware.forward(module, batch, precision="float32")
    finally:
        for hook in hooks:
            hook.remove()
    bytes_per_pixel = 6 * 4 * max(largest) / contract.minimum**2
    return int((memory / bytes_per_pixel) ** 0.5)


def available_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        # Unlike the free pages it counts the file cache, which gives way.
        free = next(int(s.split()[1]) * 1024 for s in lines if s.startswith("MemAvailable"))
    except (OSError, ValueError, AttributeError, StopIteration):
        free = 4 * 2**30
    return min([free, *_container_memory()])


def _container_memory() -> list[int]:
    """Return what a container's limit leaves, if there is one."""
    room = Path("/sys/fs/cgroup")
    try:
        limit = int((room / "memory.max").read_text("ascii"))
        return [max(0, limit - int((room / "memory.current").read_text("ascii")))]
    except (OSError, ValueError):
        return []


def choose_precision(
    model: LoadedModel,
    samples: Sequence[Sample],
    normalizations: Sequence[Normalization],
    *,
    overlap: int,
    fill: bool,
) -> str:
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

    Returns
    -------
    str
        As for `hardware.forward`.
    """
    low = hardware.low_precision(next(model.module.parameters()).device)
    if low is None:
        return "float32"
    places = _probes(samples, contract=model.header.contract, overlap=overlap)
    blocks = (
        (
            normalizations[number].apply(read_tile(samples[number].data, plane, tile), fill=fill),
            tile,
        )
        for number, plane, tile in places
    )
    block, tile = max(blocks, key=lambda probe: float(probe[0].std()))
    return low if _flips(model, block, tile, low=low) < FLIPS else "float32"


def _probes(
    samples: Sequence[Sample], *, contract: SizeContract, overlap: int
) -> Iterator[tuple[int, int, Tile]]:
    """Yield evenly spaced tiles of all samples: the sample's number, the plane, the tile."""
    side = _round_up(PROBE_TILE, contract.step)
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


def _flips(model: LoadedModel, block: NDArray[np.float32], tile: Tile, *, low: str) -> float:
    """Return the share of pixels whose class a low precision changes."""
    margin = model.header.contract.margin
    maps = [
        to_classes(
            to_probabilities(
                tile_logits(model.module, block, tile, margin=margin, precision=precision)
            )
        )
        for precision in ("float32", low)
    ]
    return float(np.mean(maps[0] != maps[1]))
