"""How much memory a prediction takes, and how large a tile may be for it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unetkit.errors import SurroundingsError, UsageError
from unetkit.models.layers import largest_tensor

if TYPE_CHECKING:
    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.tile_predict_ensemble import Ensemble
    from unetkit.pipeline.tile_predict_hands import Hands
    from unetkit.storage.datasets import Sample

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
# Where the system does not say how much a process holds.
USUAL_BASE = 2**30

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
    more : float
        Bytes for each pixel of each further one that a network sees at once.
    batch : int
        How many of them it sees at once.
    """

    limit: int
    base: int
    pixel: float
    more: float = 0.0
    batch: int = 1

    @property
    def largest(self) -> int:
        """The largest read box that fits, in pixels a side."""
        return int((max(0, self.limit - self.base) / self._each) ** 0.5)

    @property
    def _each(self) -> float:
        return self.pixel + self.more * (self.batch - 1)

    def peak(self, size: int) -> int:
        """Estimate the bytes that are taken with read boxes of `size` pixels a side."""
        return int(self.base + self._each * size**2)

    def fitting(self, size: int, *, most: int) -> int:
        """Return how many read boxes of a size fit at once, at least 1 and at most `most`."""
        counts = range(most, 1, -1)
        return next((n for n in counts if replace(self, batch=n).peak(size) <= self.limit), 1)

    def check(self, tile: int, overlap: int, *, contract: SizeContract) -> None:
        """Refuse a tile that can't fit, before anything is done.

        Raises
        ------
        SurroundingsError
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
        raise SurroundingsError(
            f"memory must hold {what} of {tile} pixels, which takes {in_units(self.peak(size))}, "
            f"got {in_units(self.limit)}; {remedy}, or --max-memory "
            f"{-(-self.peak(least) // 2**20)}M"
        )


def largest_tile(most: int, *, contract: SizeContract, overlap: int) -> int:
    """Return the largest tile whose read box is at most `most` pixels a side; 0 where none is."""
    tile = max(0, most - 2 * overlap) // contract.step * contract.step
    while tile and contract.legal(tile + 2 * overlap) > most:
        tile -= contract.step
    return tile


def in_units(size: int) -> str:
    """Write an amount of memory for people.

    >>> in_units(3 * 2**29), in_units(2**20)
    ('1.50 GiB', '0.00 GiB')
    """
    return f"{size / 2**30:.2f} GiB"


def memory_for(
    ensemble: Ensemble,
    samples: tuple[Sample, ...],
    *,
    hands: Hands,
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
    hands : Hands
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
        pixel = network * hands.networks
        return Memory(free, 0, pixel, more=pixel, batch=batch)
    itemsize = max(sample.data.dtype.itemsize for sample in samples)
    classes = len(ensemble.header.class_names)
    # Pixels as stored, gathered, normalized for each network and laid out for it. A block that is
    # blended reads a tile's length more on each side.
    seen = channels * (2 * itemsize + 4 + 4 * len(set(ensemble.methods)))
    # Logits, their powers, probabilities, their sums, and what is stored of them.
    found = classes * 24
    beside = seen * ((blend + 2) ** 2 if blend else 1) + found * max(1, blend**2)
    processes = 0 if hands.at_once is None or hands.networks == 1 else hands.networks
    held = resident()
    if limit is None:
        limit = held + int(available_memory(device) * MEMORY_SHARE)
    jobs = hands.jobs or hands.networks
    pixel = network * hands.networks + beside * jobs
    # Of a block that is blended only what the network sees is there several times.
    more = (network + 4 * channels) * hands.networks if blend else pixel
    return Memory(limit, held * (1 + processes) + BESIDE, pixel, more=more, batch=batch)


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


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith("VmRSS"))
    except (OSError, ValueError, StopIteration):
        return USUAL_BASE
