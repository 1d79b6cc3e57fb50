"""What is decided about a training before any data is opened."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.arrays.normalization import METHODS
from unetkit.errors import UsageError
from unetkit.models import hardware
from unetkit.models.modelfile import models, parse_options
from unetkit.models.options import complete, options_of
from unetkit.training.recipes import RECIPES, Recipe, choose_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from unetkit.models.modelheader import ModelHeader
    from unetkit.training.split import Fold

# Threads that draw tiles: more than a fast GPU needs would only hold memory.
MOST_WORKERS = 8
# The network that is trained where none is named.
USUAL = "unet"


@dataclass(frozen=True)
class Plan:
    """How to train.

    Parameters
    ----------
    model : str
        Registry name of the network.
    options : dict
        All of its options.
    recipe : str
        Its name.
    numbers : Recipe
        The recipe of that name, with what was changed of it.
    steps : int
        Steps to make; with a budget a first guess.
    budget : float, optional
        Seconds.
    seed : int
        Of all random numbers.
    channels : str, optional
        Which channels, in which order.
    device : str
        Where to compute, as torch names it.
    precision : str
        As for `hardware.forward`.
    workers : int
        Threads that draw tiles.
    freeze_encoder : int
        Steps at the start in which the encoder does not learn.
    normalization : str
        One of `unetkit.arrays.normalization.METHODS`.
    accumulate : int
        Parts in which a batch is computed.
    fold : Fold, optional
        Which part of the data is held out.
    """

    model: str
    options: dict[str, Any]
    recipe: str
    numbers: Recipe
    steps: int
    budget: float | None
    seed: int
    channels: str | None
    device: str
    precision: str
    workers: int
    freeze_encoder: int = 0
    normalization: str = METHODS[0]
    accumulate: int = 1
    fold: Fold | None = None

    @property
    def changed(self) -> dict[str, Any]:
        """What was changed of the recipe besides its loss."""
        usual, now = asdict(RECIPES[self.recipe]), asdict(self.numbers)
        return {key: value for key, value in now.items() if key != "loss" and value != usual[key]}


def make_plan(
    *,
    model: str | None,
    options: Sequence[str],
    recipe: str,
    steps: int,
    time_budget: str | None,
    seed: int,
    channels: str | None,
    device: str,
    precision: str,
    workers: int | None,
    freeze_encoder: int = 0,
    accumulate: int = 1,
    loss: str | None = None,
    recipe_set: Sequence[str] = (),
    normalization: str | None = None,
    start: ModelHeader | None = None,
    fold: Fold | None = None,
) -> Plan:
    """Judge the options of `train`, and choose what is left to choose.

    What is left out is as in `start`, where there is an earlier model to begin with.

    Returns
    -------
    Plan

    Raises
    ------
    UsageError
        If an option can't be used.
    SurroundingsError
        If this machine has no such device.
    """
    least = {"steps": (steps, 1), "seed": (seed, 0), "workers": (workers, 0)}
    least |= {"freeze-encoder": (freeze_encoder, 0), "accumulate": (accumulate, 1)}
    for name, (value, bound) in least.items():
        if value is not None and value < bound:
            raise UsageError(f"{name} must be at least {bound}, got {value}; use {bound} or more")
    numbers = choose_recipe(recipe, recipe_set, loss=loss)
    name, chosen = _network(model, options, start, usual=numbers.options)
    method = normalization or (METHODS[0] if start is None else start.normalization)
    if method not in METHODS:
        raise UsageError(f"normalization must be one of {', '.join(METHODS)}, got {method!r}")
    where = hardware.pick_device(device)
    share = 1 if fold is None else fold.count
    budget = None if time_budget is None else seconds(time_budget) / share
    return Plan(
        model=name,
        options=chosen,
        recipe=recipe,
        numbers=numbers,
        steps=steps,
        budget=budget,
        seed=seed,
        channels=channels,
        device=str(where),
        precision=_precision(precision, where),
        workers=min(MOST_WORKERS, hardware.thread_count()) if workers is None else workers,
        freeze_encoder=freeze_encoder,
        normalization=method,
        accumulate=accumulate,
        fold=fold,
    )


def _precision(wish: str, where: torch.device) -> str:
    if wish == "auto":
        return hardware.low_precision(where) or "float32"
    if wish not in hardware.PRECISIONS:
        known = ", ".join(("auto", *hardware.PRECISIONS))
        raise UsageError(f"precision must be one of {known}, got {wish!r}")
    return wish


def _network(
    model: str | None,
    options: Sequence[str],
    start: ModelHeader | None,
    *,
    usual: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Name the network and all of its options; `usual` are for networks that have such options."""
    if start is None:
        name = model or USUAL
        known = options_of(models().get(name))
        base = {key: value for key, value in usual.items() if key in known}
    else:
        # Names of our own can't be taken by others, and are shown as they are.
        name = start.model if start.distribution == "unetkit" else start.full_name
        base = start.options
        if model is not None and models().entry(model).full_name != start.full_name:
            raise UsageError(
                f"model must be that of init, {name!r}, or be left out, got {model!r}; weights of"
                " one network mean nothing in another"
            )
    given = {**base, **parse_options(options, name)}
    return name, complete(given, models().get(name), model=name)


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``20m``, ``1.5h`` or ``120``.

    Raises
    ------
    UsageError
        If it is none, or not more than 0.

    Examples
    --------
    >>> seconds("20m")
    1200.0
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h)?", text.strip())
    value = float(found[1]) * {"m": 60, "min": 60, "h": 3600}.get(found[2], 1) if found else 0.0
    if value <= 0:
        raise UsageError(f"time-budget must be a time such as 90s, 20m or 1h, got {text!r}")
    return value
