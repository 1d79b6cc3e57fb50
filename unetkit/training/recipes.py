"""How to learn, as numbers; each recipe says where its numbers come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import UsageError
from unetkit.models.losses import parse_loss
from unetkit.options import options_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training."""

    source: str  # where they come from
    loss: str = "unet"  # as `unetkit.models.losses.parse_loss` reads it
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3  # the highest
    schedule: Literal["cosine", "constant"] = "cosine"  # how it falls after the warm-up
    warm_up: float = 0.05  # share of the steps in which it rises from 0
    momentum: float = 0.99  # of "sgd"
    weight_decay: float = 1e-2  # of "adamw"
    batch: int = 2  # tiles a step
    tile: int = 164  # labelled pixels a side of a tile; the model's next legal size is taken
    clip: float = 1.0  # largest norm of the gradient; infinite for none
    # Share of the average of the weights that is kept at each step; 0 for no average. The average
    # is what is validated and kept.
    averaging: float = 0.98
    balance: float = 0.0  # power of the class weights w_c: 1 is the paper's, 0 is none
    foreground: float = 0.33  # share of tiles that are drawn until one holds foreground
    elastic: float = 0.5  # share of tiles that are deformed elastically
    sigma: float = 10.0  # standard deviation of the displacements of the 3x3 grid, in pixels
    rotated: float = 0.3  # share of tiles that are turned by any angle and scaled
    scale: float = 1.33  # largest factor of growing or shrinking of those
    flips: bool = True  # and quarter turns: all eight orientations equally often
    # Share of the steps, the last ones, in which the statistics of batch normalization stay as they
    # are, so that the network learns with those that it predicts with.
    frozen: float = 0.0
    grey: float = 0.1  # strength of the variation of grey values, in units of the normalized range
    # Of those networks that have them; what the user sets counts more.
    options: dict[str, Any] = field(default_factory=dict)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, of `steps`."""
        rising = max(1, round(self.warm_up * steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - rising) / max(1, steps - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def freezes(self, step: int, steps: int) -> bool:
        """Say whether a step, counted from 0, of `steps` leaves statistics as they are."""
        return step >= round((1 - self.frozen) * steps)


# "default" was chosen by training twelve candidates for two minutes each on cells that touch and on
# slices of neurons, with frames held out that no table of results is scored on; the README of
# `examples/` has the table. Batch normalization with one large tile a step is by far the best on
# the cells; on the neurons, whose tiles differ more, it fails unless the network learns for half of
# the way with the statistics that it predicts with. Drop-out changes what these statistics see, so
# that it is left out. That classes are not balanced was measured on the demo image: average
# precision at 0.5 on its held-out quarter 0.69 with the balance of the paper, 0.74 with half of it,
# 0.79 without.
RECIPES = {
    "default": Recipe(
        source="our own measurements on cells that touch and on slices of neurons",
        batch=1,
        tile=324,
        frozen=0.5,
        options={"norm": "batch", "dropout": 0.0},
    ),
    "paper": Recipe(
        source="Ronneberger, Fischer, Brox (2015), section 3: one large tile a step, momentum "
        "0.99, weighted cross-entropy. The paper names no learning rate; 1e-4 is our own choice",
        optimizer="sgd",
        learning_rate=1e-4,
        schedule="constant",
        warm_up=0.0,
        batch=1,
        tile=388,
        clip=math.inf,
        averaging=0.0,
        balance=1.0,
        foreground=0.0,
        elastic=1.0,
        rotated=1.0,
        scale=1.0,
    ),
}


# What of a recipe is no number that `--recipe-set` changes.
_FIXED = ("source", "options")
# The least and the most of what may be set.
_RANGES = {
    "learning_rate": (1e-12, 1e3),
    "warm_up": (0.0, 1.0),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1e3),
    "batch": (1, 4096),
    "tile": (1, 65536),
    "clip": (1e-12, math.inf),
    "averaging": (0.0, 0.9999),
    "balance": (0.0, 4.0),
    "foreground": (0.0, 1.0),
    "elastic": (0.0, 1.0),
    "sigma": (0.0, 1e3),
    "rotated": (0.0, 1.0),
    "scale": (1.0, 16.0),
    "frozen": (0.0, 1.0),
    "grey": (0.0, 16.0),
}


def check_changes(texts: Sequence[str], *, loss: str | None) -> None:
    """Refuse changes that no recipe takes; `loss` is what is asked for besides."""
    choose_recipe("default", texts, loss=loss)


def choose_recipe(name: str, changes: Sequence[str] = (), *, loss: str | None = None) -> Recipe:
    """Look a recipe up, and change some of its numbers by texts such as ``batch=4``."""
    if name not in RECIPES:
        raise UsageError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}")
    values: dict[str, Any] = {}
    for text in changes:
        key, value = _read(text)
        if key in values or (key == "loss" and loss is not None):
            raise UsageError(
                f"{key} of the recipe must be set once, got {text!r} besides; drop one"
            )
        values[key] = value
    if loss is not None:
        values["loss"] = loss
    chosen = replace(RECIPES[name], **values)
    # As it is written everywhere, whatever spaces and zeros it was given with.
    return replace(chosen, loss=str(parse_loss(chosen.loss)))


def _read(text: str) -> tuple[str, Any]:
    """Read one ``key=value`` as a field of a recipe."""
    options = {name: option for name, option in options_of(Recipe).items() if name not in _FIXED}
    name, equals, word = (part.strip() for part in text.partition("="))
    if not equals or name not in options:
        raise UsageError(
            f"recipe-set must be key=value with one of {', '.join(options)}, got {text!r:.80}"
        )
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    try:
        value = options[name].parse(word)
        fits = name not in _RANGES or low <= value <= high
    except (ValueError, StopIteration):
        fits = False
    if not fits:
        bounds = f" from {low:g} to {high:g}" if name in _RANGES else ""
        raise UsageError(
            f"{name} of the recipe must be {options[name].rule}{bounds}, got {word!r:.80};"
            f" leave it out for {getattr(RECIPES['default'], name)}"
        )
    return name, value


def check_mix(mix: float | None, *, more: Sequence[str] | None) -> None:
    """Refuse a share of tiles from a dataset that is not there."""
    if mix is None:
        return
    if not more:
        raise UsageError(
            f"mix must come with two datasets or more, got {mix:g} for one; name the new one last,"
            " or leave --mix out"
        )
    if not 0 < mix <= 1:
        raise UsageError(f"mix must be above 0 and at most 1, got {mix:g}; use 0.5")


def check_keep_old(keep_old: bool, *, init: str | None, more: Sequence[str] | None) -> None:
    """Refuse to hold on to old scores where there are none."""
    if keep_old and (init is None or not more):
        raise UsageError(
            "keep-old must come with a model to begin with and two datasets, of which the last is"
            f" new, got {'one dataset' if init is not None else 'no model'}; leave --keep-old out"
        )
