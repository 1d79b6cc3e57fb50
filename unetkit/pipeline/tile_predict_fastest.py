"""The fastest tile among those that fit into memory; how long one takes is asked, not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.pipeline.tile_predict_memory import largest_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unetkit.geometry.sizes import SizeContract

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
    shapes: Sequence[tuple[int, int]], *, contract: SizeContract, overlap: int, most: int
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
    most : int
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
    fitting = [tile for tile in sizes if contract.legal(tile + 2 * overlap) <= most]
    return fitting or [largest_tile(most, contract=contract, overlap=overlap) or step]


@dataclass(frozen=True)
class Choice:
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


def choose_fastest(
    tiles: Sequence[int],
    *,
    count: Callable[[int], int],
    estimate: Callable[[int], float],
    measure: Callable[[int], float],
    step: int,
) -> Choice:
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
    return Choice(best, seconds[best])


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
