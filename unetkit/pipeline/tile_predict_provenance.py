"""What a prediction was made with, written into its attributes for those who find it later."""

from __future__ import annotations

import platform
import shlex
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import unetkit
from unetkit.pipeline.tile_predict_ensemble import alike
from unetkit.pipeline.tile_predict_input import totals
from unetkit.pipeline.tile_predict_wishes import Wishes
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from unetkit.pipeline.tile_predict_plan import Plan

# What the numbers pass through.
PACKAGES = ("torch", "numpy", "zarr")
# These decide about no pixel.
UNSAID = ("max_memory", "require_complete_input", "strict")
# Settled by the plan, whether asked for or not.
SETTLED = ("tile", "precision", "batch")


def provenance(plan: Plan, *, origin: str) -> dict[str, Any]:
    """Say what a prediction is made with; files by their names only, since folders are private.

    Parameters
    ----------
    plan : Plan
        What is predicted, and how.
    origin : str
        What is read.

    Returns
    -------
    dict
        What JSON can hold. `command` makes the same pixels from the same files again, with the
        choices that were made automatically written out; `model_sha256` tells whether a model file
        is the same, and is a list where several were averaged.
    """
    header, wishes = plan.model.header, plan.wishes
    chunks, absent = totals(plan.censuses)
    return {
        "unetkit": unetkit.__version__,
        "command": command_of(plan, origin=origin),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "source": base_name(origin),
        "model": alike([model.header.full_name for model in plan.model.models]),
        "model_sha256": alike([model.sha256 for model in plan.model.models]),
        "target": header.target,
        "tile": plan.tile,
        "overlap": plan.overlap,
        "tta": wishes.tta,
        "merge": wishes.merge,
        "precision": plan.precision,
        "batch": plan.batch,
        "threshold": wishes.threshold,
        "grow": wishes.grow,
        "min_size": wishes.min_size,
        "input_chunks": chunks,
        "input_chunks_absent": absent,
    }


def command_of(plan: Plan, *, origin: str) -> str:
    """Write the command line that settles all that a plan settles about the pixels."""
    words = ["unetkit", "tile-predict", base_name(origin)]
    for path in plan.model.paths:
        words += ["--model", base_name(path)]
    for field in fields(Wishes):
        value = getattr(plan if field.name in SETTLED else plan.wishes, field.name)
        if field.name in SETTLED or (field.name not in UNSAID and value != field.default):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    picked = plan.samples[0].data.picked
    if picked is not None:
        words += ["--channels", ",".join(map(str, picked))]
    if plan.mask is not None:
        words += ["--mask", base_name(plan.mask.data.url.removesuffix("/0"))]
    return shlex.join(words)
