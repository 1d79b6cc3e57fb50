"""How much each pixel counts in the loss: borders between cells, class balance, their reach.

A tile read with `Preset.halo` pixels of context gives the same bits as the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from unetkit.arrays.targets import integer_labels
from unetkit.errors import UsageError
from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# Stands for "no cell"; its square is beyond any reach.
_NONE = np.int16(32767)
# Pixels that are looked at together: some vectors wide, and mostly alike in how far they look.
PIECE = 64
# Numba need not ask whether an unsigned index counts from the end.
_PIECE = np.uintp(PIECE)
# Up to here the squares of whole distances, and their sums, have a single-precision number.
_EXACT = 2048


def distance_terms(
    labels: NDArray[Any],
    *,
    pair: tuple[float, float],
    pair_reach: float,
    single: tuple[float, float] = (0.0, 1.0),
    single_reach: float = 0.0,
    tolerance: float,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.float32]:
    """Sum, on background, a Gaussian of d1 + d2 and a Gaussian of d1.

    d1 and d2 are the Euclidean distances, between pixel centres, to the nearest and the second
    nearest cell; a term without its cell is 0. The cost does not depend on the number of cells.

    `labels` (Y, X) are C-contiguous. `pair` and `single` are height and standard deviation of the
    Gaussian of d1 + d2, and of d1; each has a reach beyond which it is below the tolerance, and is
    then exactly 0. `spacing` is height and width of a pixel, in the unit of the distances.
    """
    out = np.zeros(labels.shape, np.float32)
    farthest = max(pair_reach, single_reach)
    if not labels.any():
        return out
    # No distance is longer than the row, and 32767 stands for "none".
    limit = min(math.floor(farthest / spacing[1]), labels.shape[1], 32766)
    across = np.full((2, *labels.shape), _NONE, np.int16)
    ids = np.zeros((2, *labels.shape), np.int32)
    _sweep(_short_ids(labels), limit, across, ids)
    exact = spacing == (1.0, 1.0) and farthest < _EXACT
    real = np.dtype(np.float32 if exact else np.float64)
    metric = np.array([*spacing, farthest, pair_reach / 2 if single[0] == 0 else math.inf], real)
    terms = (pair, single, tolerance)
    _add_terms(labels, (across, ids), metric, terms, out)
    return out


def _short_ids(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Name the cells by 32 bits, so that twice as many are compared at once."""
    if labels.dtype.itemsize == 4:
        return labels.view(np.int32)
    if labels.dtype.itemsize < 4 or (labels.min() >= 0 and labels.max() < 2**31):
        return labels.astype(np.int32)
    names, short = np.unique(labels, return_inverse=True)
    numbers = np.arange(1, len(names) + 1, dtype=np.int32)
    numbers[names == 0] = 0
    return numbers[short.reshape(labels.shape)]


@numba.njit(nogil=True, cache=is_kept())
def _sweep(labels, limit, across, ids):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Store, for each pixel, how far in x the two nearest cells of its row are, and which."""
    height, width = labels.shape
    for y in range(height):
        # The last pixel passed of any cell, and the last one of another cell than that.
        near, far, near_id, far_id = -1, -1, labels.dtype.type(0), labels.dtype.type(0)
        for x in range(width):
            own = labels[y, x]
            if own != 0:
                if near >= 0 and own != near_id:
                    far, far_id = near, near_id
                near, near_id = x, own
            if near >= 0 and x - near <= limit:
                across[0, y, x], ids[0, y, x] = x - near, near_id
                if far >= 0 and x - far <= limit:
                    across[1, y, x], ids[1, y, x] = x - far, far_id
        near, far = -1, -1
        for x in range(width - 1, -1, -1):
            own = labels[y, x]
            if own != 0:
                if near >= 0 and own != near_id:
                    far, far_id = near, near_id
                near, near_id = x, own
            if near < 0 or near - x > limit:
                continue
            offset = near - x
            if near_id == ids[0, y, x]:
                across[0, y, x] = min(offset, across[0, y, x])
            elif offset < across[0, y, x]:
                across[1, y, x], ids[1, y, x] = across[0, y, x], ids[0, y, x]
                across[0, y, x], ids[0, y, x] = offset, near_id
            elif offset < across[1, y, x]:
                across[1, y, x], ids[1, y, x] = offset, near_id
            # Whatever is first now is no farther than `near`, and `far` is farther than that.
            offset = far - x
            if far >= 0 and offset < across[1, y, x] and offset <= limit and far_id != ids[0, y, x]:
                across[1, y, x], ids[1, y, x] = offset, far_id


@numba.njit(nogil=True, cache=is_kept())
def _add_terms(labels, rows, metric, terms, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = labels.shape
    pair, single, tolerance = terms
    across, ids = rows
    flat = (across.reshape(across.size), ids.reshape(ids.size), height, width)
    beyond = np.nextafter(metric[2] * metric[2], metric.dtype.type(np.inf))
    # The distance to the nearest, then the one to the second: in one array, since vectors are made
    # only where few arrays might overlap.
    best = np.empty(2 * PIECE, metric.dtype)
    cell = np.empty(PIECE, np.int32)
    for y in range(height):
        for x0 in range(0, width, PIECE):
            size = min(PIECE, width - x0)
            background = False
            for i in range(size):
                # A cell's own pixels look for nothing.
                free = labels[y, x0 + i] == 0
                best[i] = best[i + PIECE] = beyond if free else 0
                cell[i] = 0
                background |= free
            if not background:
                continue
            _look_around(flat, (y, x0, size), metric, (best, cell))
            for i in range(size):
                first, second = best[i], best[i + PIECE]
                total = 0.0
                if 0 < second < beyond:
                    d = math.sqrt(first) + math.sqrt(second)
                    term = pair[0] * math.exp(-d * d / (2 * pair[1] * pair[1]))
                    total += term if term >= tolerance else 0.0
                if single[0] > 0 and 0 < first < beyond:
                    term = single[0] * math.exp(-first / (2 * single[1] * single[1]))
                    total += term if term >= tolerance else 0.0
                out[y, x0 + i] = total


@numba.njit(nogil=True, cache=is_kept())
def _look_around(rows, piece, metric, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Find the squared distances of a piece of a row to the two nearest cells, row by row."""
    across, ids, height, width = rows
    y, x0, size = piece
    best, _ = found
    high, wide, farthest, half = metric[0], metric[1], metric[2], metric[3]
    for step in range(height):
        dy = metric.dtype.type(step) * high
        down = dy * dy
        if dy > farthest:
            break
        if dy > half:
            # Of a pair within reach one is no farther than half the reach, and found by now.
            for i in range(size):
                if best[i] > half * half:
                    best[i] = best[i + PIECE] = 0
        worst = best[PIECE]
        for i in range(size):
            worst = max(worst, best[i + PIECE])
        if down >= worst:
            break
        for side in range(2 if step else 1):
            v = y + step if side else y - step
            if 0 <= v < height:
                for k in range(2):
                    start = (k * height + v) * width + x0
                    _compare(across, ids, (np.uintp(start), np.uintp(size)), (down, wide), found)


@numba.njit(nogil=True, cache=is_kept())
def _compare(across, ids, where, metric, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take over what is nearer in another row; nothing here depends on a branch."""
    start, size = where
    down, wide = metric
    best, cell = found
    for i in range(size):
        dx = best.dtype.type(across[start + i]) * wide
        square, name = down + dx * dx, ids[start + i]
        first, second = best[i], best[i + _PIECE]
        closer, same = square < first, name == cell[i]
        rival = first if closer else square
        best[i] = square if closer else first
        best[i + _PIECE] = rival if (rival < second) & (not same) else second
        cell[i] = name if closer else cell[i]


# What is stored as a weight or a width is no larger than this.
_LARGEST = 1e9
TOLERANCE = 1e-6
"""Where a term is smaller than this it is exactly 0: our own choice; it bounds the reach."""


@dataclass(frozen=True)
class Preset:
    """The numbers of one published weight map.

    Parameters
    ----------
    source : str
        Where the numbers come from.
    w0, sigma : float
        Height and width (in pixels) of the border term w0·exp(-(d1 + d2)²/(2·sigma²)).
    background : float, optional
        The weight of background far from any cell. None: classes are balanced by w_c instead.
    near_sigma : float
        Width, in pixels, of (1 - background)·exp(-d1²/(2·near_sigma²)), by which the background
        near a cell counts more; used where `background` is given.
    spacing : tuple of float
        Height and width of a pixel in the unit of `sigma`: 1 where that is the pixel itself.
    """

    source: str
    w0: float
    sigma: float
    background: float | None = None
    near_sigma: float = 0.0
    spacing: tuple[float, float] = (1.0, 1.0)

    @property
    def near(self) -> float:
        """Height of the term around single cells."""
        return 0.0 if self.background is None else 1.0 - self.background

    @property
    def halo(self) -> int:
        """How many pixels of context a tile needs; two of them for the gaps cut at its rim."""
        border = reach(w0=self.w0, sigma=self.sigma)
        near = reach(w0=self.near, sigma=self.near_sigma)
        return math.floor(max(border, near) / min(self.spacing)) + 2

    def measured(self, sigma: float, pixel: tuple[float, float]) -> Preset:
        """Return the same with distances in a unit of length.

        Parameters
        ----------
        sigma : float
            Width of the border term in that unit. The width of the other term keeps its ratio to
            it.
        pixel : tuple of float
            Height and width of a pixel in that unit.
        """
        near = self.near_sigma * sigma / self.sigma
        return replace(self, sigma=sigma, near_sigma=near, spacing=pixel)


def stored_preset(attributes: Mapping[str, Any]) -> Preset | None:
    """Return the numbers that weights were stored with; None where they aren't `weights`' own.

    Parameters
    ----------
    attributes : mapping
        What is stored beside the weights, which may be anybody's.
    """
    numbers = {name: attributes.get(name) for name in ("w0", "sigma", "near_sigma")}
    background, spacing = attributes.get("background"), attributes.get("spacing", (1.0, 1.0))
    try:
        high, wide = (float(size) for size in spacing)
        found = {name: float(value) for name, value in numbers.items()}  # type: ignore[arg-type]
        flat = None if background is None else float(background)
    except (TypeError, ValueError, OverflowError):
        return None
    values = [*found.values(), high, wide, 0.0 if flat is None else flat]
    if not all(0 <= value < _LARGEST for value in values) or not (found["sigma"] and high and wide):
        return None
    return Preset(source="", background=flat, spacing=(high, wide), **found)


def stored_balance(
    attributes: Mapping[str, Any], class_names: Sequence[str]
) -> tuple[float, ...] | None:
    """Return the w_c of classes that is part of stored weights; None where it isn't told.

    Parameters
    ----------
    attributes : mapping
        What is stored beside the weights, which may be anybody's.
    class_names : sequence of str
        The classes, in the order of their numbers; any further ones are called by their numbers.
    """
    by_name = attributes.get("class_weight")
    if not isinstance(by_name, dict):
        return None
    names = (*class_names, *(str(k) for k in range(len(class_names), len(by_name))))
    if set(by_name) != set(names):
        return None
    values = [by_name[name] for name in names]
    if not all(isinstance(v, int | float) and 0 <= v < _LARGEST for v in values):
        return None
    return tuple(float(value) for value in values)


PRESETS = {
    "paper2015": Preset(
        source="Ronneberger, Fischer, Brox (2015), U-Net, equation 2", w0=10.0, sigma=5.0
    ),
    "freiburg2019": Preset(
        source="Unet-Segmentation (2019), ModelDefinition.java: "
        "borderWeightFactor, borderWeightSigmaPx, v_bal, sigma1",
        w0=50.0,
        sigma=6.0,
        background=0.1,
        near_sigma=10.0,
    ),
}


def choose_preset(name: str, *, w0: float | None = None, sigma: float | None = None) -> Preset:
    """Look up a preset, and replace its border term's numbers where others are given.

    Raises
    ------
    UsageError
        If there is no such preset, `w0` is negative or `sigma` is not positive.
    """
    if name not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    preset = PRESETS[name]
    preset = replace(
        preset,
        w0=preset.w0 if w0 is None else w0,
        sigma=preset.sigma if sigma is None else sigma,
    )
    if not 0 <= preset.w0 < math.inf:
        raise UsageError(f"w0 must be 0 or more, got {preset.w0}")
    if not 0 < preset.sigma < math.inf:
        raise UsageError(f"sigma must be more than 0 pixels, got {preset.sigma}")
    return preset


def reach(*, w0: float = 10.0, sigma: float = 5.0, tolerance: float = TOLERANCE) -> float:
    """Distance in pixels at which w0·exp(-d²/(2·sigma²)) falls to the tolerance.

    Examples
    --------
    >>> round(reach(w0=10.0, sigma=5.0), 1)
    28.4
    """
    return sigma * math.sqrt(2 * math.log(w0 / tolerance)) if w0 > tolerance else 0.0


def border_weight(
    labels: NDArray[Any],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    tolerance: float = TOLERANCE,
) -> NDArray[np.float32]:
    """Weight each background pixel by how narrow the gap between two cells is there.

    The term is w0·exp(-(d1 + d2)²/(2·sigma²)), with d1 and d2 the distances to the nearest pixels
    of the nearest and the second nearest cell::

        1 1 . 2      d1 + d2 = 2: 10·exp(-4/50) = 9.2312

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        Instance ids; 0 is background. Taken as they are: gaps are cut before, by
        `unetkit.arrays.targets.cut_gaps`.
    w0 : float
        Weight in a gap of zero width.
    sigma : float
        Width of the fall-off, in pixels.
    tolerance : float
        Where the term would be smaller it is exactly 0.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        0 on cells, and everywhere with fewer than two cells.

    Raises
    ------
    LabelError
        If `labels` is not two-dimensional or not of an integer dtype.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 2.
    """
    preset = Preset(source="", w0=w0, sigma=sigma)
    return _terms(labels, preset, tolerance=tolerance)


def class_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Balance classes by their inverse frequency, with a mean of 1 over all pixels.

    Parameters
    ----------
    counts : sequence of int
        Annotated pixels of each class.

    Returns
    -------
    tuple of float
        w_c; 1 for a class without pixels.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, equation 2, says that w_c balances the classes, not
    how; the inverse frequency is our own reading.

    Examples
    --------
    >>> class_weights([300, 100])
    (0.6666666666666666, 2.0)
    """
    present = sum(1 for count in counts if count)
    total = sum(counts)
    return tuple(total / (present * count) if count else 1.0 for count in counts)


def weight_map(
    labels: NDArray[Any] | None,
    *,
    target: NDArray[np.uint8],
    class_weight: Sequence[float],
    preset: Preset | str = "paper2015",
    w0: float | None = None,
    sigma: float | None = None,
    ignore: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Make the weight of every pixel in the loss.

    With ``paper2015``: w_c + the border term. With ``freiburg2019``: 1 in cells and, in the
    background, 0.1 + the border term + a term that is higher near cells; `class_weight` is not
    used then. Class maps (no `labels`): w_c alone. Ignored pixels: 0.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X), or None
        Instance ids with gaps cut; None for class maps.
    target : ndarray of uint8, shape (Y, X)
        The class of each pixel.
    class_weight : sequence of float
        w_c, one number a class.
    preset : Preset or str
        The numbers, or one of `PRESETS`.
    w0, sigma : float, optional
        Other numbers for the border term.
    ignore : ndarray, shape (Y, X), optional
        Nonzero where a pixel must not count.

    Returns
    -------
    ndarray of float32, shape (Y, X)

    Raises
    ------
    UsageError
        If there is no such preset, or `w0` or `sigma` can't be used.
    LabelError
        If `labels` is not two-dimensional or not of an integer dtype.
    """
    if isinstance(preset, str):
        preset = choose_preset(preset, w0=w0, sigma=sigma)
    elif w0 is not None or sigma is not None:
        raise UsageError("w0 and sigma must come with the name of a preset, got a Preset as well")
    balance = np.asarray(class_weight, np.float32)
    if labels is None:
        weights = balance[target]
    elif preset.background is None:
        weights = balance[target] + _terms(labels, preset)
    else:
        flat = np.where(labels > 0, np.float32(1), np.float32(preset.background))
        weights = flat + _terms(labels, preset)
    if ignore is not None:
        weights[ignore != 0] = 0
    return weights


def _terms(
    labels: NDArray[Any], preset: Preset, *, tolerance: float = TOLERANCE
) -> NDArray[np.float32]:
    """Add up the terms that depend on distances; 0 on cells."""
    return distance_terms(
        integer_labels(labels),
        pair=(preset.w0, preset.sigma),
        pair_reach=reach(w0=preset.w0, sigma=preset.sigma, tolerance=tolerance),
        single=(preset.near, preset.near_sigma),
        single_reach=reach(w0=preset.near, sigma=preset.near_sigma, tolerance=tolerance),
        tolerance=tolerance,
        spacing=preset.spacing,
    )
