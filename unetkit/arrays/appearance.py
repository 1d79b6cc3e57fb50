"""Draw a random change of grey values, and apply it; where pixels are is `deformation`'s affair."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.dtypes import cast
from unetkit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.arrays.normalization import Normalization

SEEDS = 2**32
# Noise is drawn in squares of so many pixels, so that any part of an image has that of the whole.
NOISE_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Appearance:
    """A change of grey values, in units of an image's range: its darkest is 0, its brightest 1.

    A value v becomes ``(v**gamma - 0.5) * gain + 0.5 + bias``, and noise is added; below 0 there is
    no gamma.

    Parameters
    ----------
    gain : float
        Factor of the contrast about the middle.
    bias : float
        Added brightness.
    gamma : float
        Exponent; above 1 the middle tones become darker.
    noise_sigma : float
        Standard deviation of the Gaussian noise.
    noise_seed : int
        Where the noise comes from.
    """

    gain: float = 1.0
    bias: float = 0.0
    gamma: float = 1.0
    noise_sigma: float = 0.0
    noise_seed: int = 0

    @property
    def changes(self) -> bool:
        """Whether any value becomes another."""
        return (self.gain, self.bias, self.gamma, self.noise_sigma) != (1, 0, 1, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Appearance:
        """Make it again from what `to_dict` returned."""
        return cls(**values)


def draw_appearance(
    rng: np.random.Generator, *, strength: float = 0.1, noise: float | None = None
) -> Appearance:
    """Draw a change of grey values.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the numbers come from.
    strength : float
        Standard deviation of the added brightness and of the logarithm of the gain; that of gamma
        is twice as large. The paper asks for "gray value variations" and gives no number; 0.1, a
        tenth of the range, is our own choice: visible, and rarely saturating.
    noise : float, optional
        Largest standard deviation of the noise, drawn evenly from 0; left out: a quarter of
        `strength`.

    Returns
    -------
    Appearance

    Raises
    ------
    UsageError
        If a strength is negative or not finite.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), U-Net, section 3.1.
    """
    noise = strength / 4 if noise is None else noise
    for name, value in (("grey", strength), ("noise", noise)):
        if not 0 <= value <= 10:
            raise UsageError(f"{name} must be within 0 to 10, got {value}; 0 switches it off")
    gain, bias, gamma = (float(value) for value in rng.standard_normal(3) * strength)
    return Appearance(
        gain=math.exp(gain),
        bias=bias,
        gamma=math.exp(2 * gamma),
        noise_sigma=float(rng.uniform() * noise),
        noise_seed=int(rng.integers(SEEDS)),
    )


def apply_appearance(
    image: NDArray[Any],
    appearance: Appearance,
    *,
    normalization: Normalization | None = None,
    stream: int = 0,
    corner: tuple[int, int] = (0, 0),
) -> NDArray[Any]:
    """Change the grey values of an image, all its channels alike.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X)
        Normalized to about 0 to 1, or raw together with `normalization`.
    appearance : Appearance
        The change.
    normalization : Normalization, optional
        Says where a raw image's range begins and ends; a constant channel stays as it is.
    stream : int
        Tells apart images that share an appearance and must not share its noise, such as the
        planes of a stack.
    corner : tuple of int
        First row and column of `image`, where it is a part of a larger one.

    Returns
    -------
    ndarray, shape (C, Y, X)
        A new array of the same dtype; integers are rounded and clipped to their range.
    """
    if not appearance.changes:
        return image.copy()
    values = image.astype(np.float32) if normalization is None else normalization.apply(image)
    values = _changed(values, appearance, stream=stream, corner=corner)
    if normalization is None:
        return cast(values, image.dtype)
    out = image.copy()
    for c, (offset, scale) in enumerate(
        zip(normalization.offset, normalization.scale, strict=True)
    ):
        if scale > 0:
            out[c] = cast(values[c] / np.float32(scale) + np.float32(offset), image.dtype)
    return out


def _changed(
    values: NDArray[np.float32],
    appearance: Appearance,
    *,
    stream: int,
    corner: tuple[int, int],
) -> NDArray[np.float32]:
    if appearance.gamma != 1:
        positive = np.maximum(values, np.float32(0))
        # What lies below 0 is left as it is.
        values = values - positive + np.power(positive, np.float32(appearance.gamma))
    values = (values - np.float32(0.5)) * np.float32(appearance.gain)
    values += np.float32(0.5 + appearance.bias)
    if appearance.noise_sigma > 0:
        noise = _noise(values.shape, [appearance.noise_seed, stream], corner=corner)
        values += noise * np.float32(appearance.noise_sigma)
    return values


def _noise(
    shape: tuple[int, ...], seeds: list[int], *, corner: tuple[int, int]
) -> NDArray[np.float32]:
    """Draw the noise of a box of an image from the squares that it touches."""
    channels, height, width = shape
    out = np.empty(shape, np.float32)
    side = NOISE_SIDE
    for row in range(corner[0] // side, -(-(corner[0] + height) // side)):
        for column in range(corner[1] // side, -(-(corner[1] + width) // side)):
            rng = np.random.default_rng([*seeds, row, column])
            square = rng.standard_normal((channels, side, side), dtype=np.float32)
            y, x = row * side - corner[0], column * side - corner[1]
            top, left = max(y, 0), max(x, 0)
            part = square[:, top - y : height - y, left - x : width - x]
            out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return out
