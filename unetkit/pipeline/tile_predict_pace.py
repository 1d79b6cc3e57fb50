"""How long a network takes over a tile on this machine: reckoned from a small input, or measured.

A network's work grows with its input as a polynomial of the second degree, which three of its
smallest inputs settle; one run on a small input says how fast that work is done here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from unetkit.models import hardware
from unetkit.models.layers import run_layers
from unetkit.pipeline.tile_predict_memory import largest_tile
from unetkit.pipeline.tile_predict_worker import torch_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.geometry.sizes import SizeContract
    from unetkit.models.layers import LayerRun
    from unetkit.models.modelfile import LoadedModel

# What is written of the input that shows the pace, in pixels: our own choice. It is small enough
# to be quick on any machine, and layers are large enough to be computed as in a tile.
PACE_TILE = 128


@dataclass(frozen=True)
class Pace:
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
class Paces:
    """How fast the networks of an ensemble run here, one after another.

    Parameters
    ----------
    each : tuple of Pace
        One for each network.
    looks : callable
        Says how often each of them is run for what one task writes, given a tile.
    """

    each: tuple[Pace, ...]
    looks: Callable[[int], float]

    def estimate(self, tile: int) -> float:
        """Reckon the seconds that a task takes with tiles of `tile` pixels a side."""
        return self.looks(tile) * sum(pace.estimate(tile) for pace in self.each)

    def measure(self, tile: int) -> float:
        """Measure each network on one tile, and reckon the seconds of a task from that."""
        return self.looks(tile) * sum(pace.measure(tile) for pace in self.each)


def find_pace(model: LoadedModel, *, overlap: int, precision: str, most: int) -> Pace:
    """Find out how fast a network runs here, on inputs that take a fraction of a second.

    Parameters
    ----------
    model : LoadedModel
        On the device that is to compute.
    overlap : int
        Its context on each side, in pixels.
    precision : str
        As for `hardware.forward`.
    most : int
        The largest read box that fits into memory, in pixels a side.
    """
    contract, channels = model.header.contract, model.header.in_channels
    work = work_of(model.module, in_channels=channels, contract=contract)
    tile = min(PACE_TILE, largest_tile(most, contract=contract, overlap=overlap))
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
    return Pace(model, overlap, precision, work, float(np.polyval(work, size)) / min(times))


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
