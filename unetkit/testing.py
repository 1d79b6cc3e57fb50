"""What the author of a model runs in their own tests: what `unetkit models check` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unetkit.errors import CheckError
from unetkit.models.conformance import Finding, findings
from unetkit.models.inference import tiled_pass, whole_pass
from unetkit.models.receptive_field import ReceptiveField, receptive_field

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Finding",
    "ReceptiveField",
    "check_model",
    "findings",
    "receptive_field",
    "tiled_pass",
    "whole_pass",
]


def check_model(
    build: Callable[..., Any], *, in_channels: int = 1, classes: int = 2, **options: Any
) -> None:
    """Build a model and check everything that unetkit relies on.

    That is: the sizes that come out are those that its contract says; fresh logits have both
    signs; evaluation has no chance in it and treats the images of a batch alone; every parameter
    learns, from batches of two and of one; bfloat16 gives about what float32 gives; weights and
    options survive a file; it looks no farther than its contract says; and where the contract
    says ``exact``, tiles equal one pass over the whole to the bit.

    Parameters
    ----------
    build : callable
        What the entry point names.
    in_channels, classes : int
        What it is built with.
    **options
        Its own options; choose small ones, a check runs the model some fifty times.

    Raises
    ------
    CheckError
        If one of these does not hold; the message says which.

    Examples
    --------
    >>> from unetkit.models.unet import build
    >>> check_model(build, depth=1, width=2)
    """
    for finding in findings(build, in_channels=in_channels, classes=classes, options=options):
        if not finding.holds:
            raise CheckError(finding.found)
