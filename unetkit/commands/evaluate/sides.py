"""Which of the stores that are compared are predictions, and which is the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetkit.errors import UsageError
from unetkit.scores.table import SCORES_BY_NAME
from unetkit.storage.urls import check_there

if TYPE_CHECKING:
    from collections.abc import Sequence


def sides(stores: Sequence[str], truth: str | None) -> tuple[Sequence[str], str]:
    """Tell the predictions from the truth."""
    needed = 1 if truth is not None else 2
    if len(stores) < needed or (truth is None and len(stores) > 2):
        raise UsageError(
            f"eval must get one prediction and its truth, or predictions and --truth, got "
            f"{len(stores)} stores; try 'unetkit eval a.zarr b.zarr --truth truth.zarr'"
        )
    return (stores, truth) if truth is not None else (stores[:1], stores[1])


def check_sides(stores: Sequence[str], *, truth: str | None) -> None:
    """Refuse what can't be told apart, or is not there."""
    predictions, against = sides(stores, truth)
    for store in (*predictions, against):
        check_there(store)


def check_one(file: str | None, *, stores: Sequence[str], truth: str | None) -> None:
    """Refuse a file that is of one prediction where there are several."""
    predictions, _ = sides(stores, truth)
    if file is not None and len(predictions) > 1:
        raise UsageError(
            f"--objects and --report must be of one prediction, got {len(predictions)}; "
            "ask for them one by one"
        )


def parse_bound(text: str) -> tuple[str, float]:
    """Read a bound such as `dice=0.9`; refuse what is no number, or of no score."""
    name, _, number = text.partition("=")
    try:
        bound = float(number)
    except ValueError as error:
        raise UsageError(
            f"--fail-under must give a number after '=', got {text!r}; try {name or 'dice'}=0.9"
        ) from error
    if name not in SCORES_BY_NAME:
        raise UsageError(
            f"--fail-under must name a score, got {name!r}; 'unetkit eval --list' shows them"
        )
    return name, bound
