"""How much each pixel counts in the loss: borders between cells, class balance, their reach.

A tile read with `Preset.halo` pixels of context gives the same bits as the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.nearest_cells import distance_terms
from unetkit.arrays.targets import integer_labels
from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
