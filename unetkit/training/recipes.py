"""How to learn, as numbers: one frozen record for each recipe, with the source of every number."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training, apart from its length.

    Parameters
    ----------
    source : str
        Where they come from.
    optimizer : {"adamw", "sgd"}
        Adam with decoupled weight decay, or gradient descent with momentum.
    rate : float
        The highest learning rate.
    momentum : float
        Of the gradient's running mean; the beta1 of Adam.
    weight_decay : float
        As torch defines it for the optimizer.
    warm_up : float
        Share of the steps in which the rate rises from 0.
    decay : {"cosine", "none"}
        How the rate falls afterwards.
    clip : float
        Longer gradients are cut to this length; inf for none.
    batch : int
        Tiles a step.
    tile : int
        Pixels of output a side, at least; a model's legal sizes round it up, small images down.
    average : float
        Decay of the running mean of the weights, which is what is validated and kept; 0 for none.
    foreground : float
        Share of the tiles that are drawn so that they hold a pixel of a class above 0.
    class_balance : float
        How much of the class weights w_c counts: they are raised to this power and scaled to a
        mean of 1. 1 is the paper's full balance, 0 none.
    elastic : float
        Share of the tiles that are deformed elastically.
    elastic_sigma, rotation, shift, scale, flips
        As in `unetkit.arrays.deformation.draw_deformation`.
    grey : float
        As `strength` in `unetkit.arrays.appearance.draw_appearance`.
    """

    source: str
    optimizer: Literal["adamw", "sgd"]
    rate: float
    momentum: float
    weight_decay: float
    warm_up: float
    decay: Literal["cosine", "none"]
    clip: float
    batch: int
    tile: int
    average: float
    foreground: float
    class_balance: float
    elastic: float
    elastic_sigma: float
    rotation: float
    shift: float
    scale: float
    flips: bool
    grey: float

    def rate_at(self, step: int, *, steps: int) -> float:
        """Return the learning rate of a step, the first being 0, out of `steps`."""
        rising = max(1, round(steps * self.warm_up))
        if step < rising and self.warm_up:
            return self.rate * (step + 1) / rising
        if self.decay == "none":
            return self.rate
        done = (step - rising) / max(1, steps - rising)
        return self.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def balance(self, class_weight: Sequence[float], counts: Sequence[int]) -> tuple[float, ...]:
        """Damp class weights as `class_balance` says, so that their mean over pixels is 1.

        Parameters
        ----------
        class_weight : sequence of float
            w_c in full, one a class.
        counts : sequence of int
            Annotated pixels of each class.
        """
        damped = [weight**self.class_balance for weight in class_weight]
        mean = sum(w * n for w, n in zip(damped, counts, strict=True)) / max(1, sum(counts))
        return tuple(weight / mean if mean else 1.0 for weight in damped)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        values = asdict(self)
        return {**values, "clip": None if math.isinf(self.clip) else self.clip}


RECIPES = {
    "default": Recipe(
        source="our own measurements on the demo pair, DIC-HeLa and ISBI 2012",
        optimizer="adamw",
        rate=1e-3,
        momentum=0.9,
        weight_decay=1e-2,
        warm_up=0.05,
        decay="cosine",
        clip=1.0,
        batch=2,
        tile=164,
        average=0.98,
        foreground=0.33,
        class_balance=0.0,
        elastic=0.5,
        elastic_sigma=10.0,
        rotation=15.0,
        shift=0.0,
        scale=1.25,
        flips=True,
        grey=0.1,
    ),
    "paper": Recipe(
        source="Ronneberger, Fischer, Brox (2015), U-Net, section 3",
        optimizer="sgd",
        rate=1e-4,
        momentum=0.99,
        weight_decay=0.0,
        warm_up=0.0,
        decay="none",
        clip=math.inf,
        batch=1,
        tile=388,
        average=0.0,
        foreground=0.0,
        class_balance=1.0,
        elastic=1.0,
        elastic_sigma=10.0,
        rotation=15.0,
        shift=10.0,
        scale=1.0,
        flips=True,
        grey=0.1,
    ),
}


def choose_recipe(name: str) -> Recipe:
    """Look up a recipe.

    Raises
    ------
    UsageError
        If there is no such recipe.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
