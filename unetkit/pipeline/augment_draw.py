"""What `augment` draws for each copy, from nothing but the seed and the copy's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.appearance import Appearance, draw_appearance
from unetkit.arrays.deformation import Deformation, draw_deformation
from unetkit.pipeline.lengths import in_pixels, split_length

if TYPE_CHECKING:
    from unetkit.storage.datasets import Sample


@dataclass(frozen=True)
class Default:
    """The value of an option that is left out, and where it comes from."""

    value: Any
    source: str


PAPER = "Ronneberger, Fischer, Brox (2015), U-Net, section 3.1"
DEFAULTS = {
    "copies": Default(10, "our own choice: the paper deforms anew in every step"),
    "grid": Default(3, f"{PAPER}: a coarse 3 by 3 grid"),
    "sigma": Default(10.0, f"{PAPER}: 10 pixels standard deviation"),
    "shift": Default(10.0, f"{PAPER} asks for shift invariance; as large as sigma: our own choice"),
    "rotation": Default(
        15.0, f"{PAPER} asks for rotation invariance; 15 degrees beside quarter turns: our own"
    ),
    "flips": Default(True, "our own choice: few microscopes know an up or a left"),
    "grey": Default(0.1, f"{PAPER} asks for grey value variations; a tenth of the range: our own"),
}
# The second number of a seed: what is drawn. No two draws of the library share one.
DRAW_DEFORMATION, DRAW_APPEARANCE = 101, 102


@dataclass(frozen=True)
class Strengths:
    """How much is drawn; the options of the same names."""

    grid: int
    sigma: float | str
    shift: float
    rotation: float
    flips: bool
    grey: float
    allow_folds: bool = False

    def check(self) -> None:
        """Judge the strengths before anything is read or written.

        Raises
        ------
        UsageError
            If one can't be used.
        """
        self._draw([0], [0], sigma=(split_length(self.sigma, name="sigma")[0],) * 2, shape=None)

    def draw(
        self, seed: int, place: tuple[int, int], sample: Sample
    ) -> tuple[Deformation, Appearance]:
        """Draw the change of one copy.

        Parameters
        ----------
        seed : int
            Of all that is drawn.
        place : tuple of int
            Number of the sample, number of the copy.
        sample : Sample
            Its pixel size says how many pixels a micrometre is; its size, what folds it.
        """
        return self._draw(
            [seed, DRAW_DEFORMATION, *place],
            [seed, DRAW_APPEARANCE, *place],
            sigma=in_pixels(self.sigma, sample, name="sigma"),
            shape=None if self.allow_folds else (sample.data.height, sample.data.width),
        )

    def _draw(
        self,
        movement: list[int],
        greys: list[int],
        *,
        sigma: tuple[float, float],
        shape: tuple[int, int] | None,
    ) -> tuple[Deformation, Appearance]:
        deformation = draw_deformation(
            np.random.default_rng(movement),
            points=self.grid,
            sigma=sigma,
            rotation=self.rotation,
            shift=self.shift,
            flips=self.flips,
            unfolded_in=shape,
        )
        return deformation, draw_appearance(np.random.default_rng(greys), strength=self.grey)
