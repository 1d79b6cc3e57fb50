"""Installed models by name: their options, their networks, and the shapes of these."""

from __future__ import annotations

import math
import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unetkit.errors import ResourceError, UnetkitError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.options import complete, parse_texts
from unetkit.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What fills a tensor with random numbers; on shapes torch would load its compiler for it.
DRAWS = frozenset(
    {
        torch.nn.init.kaiming_normal_,
        torch.nn.init.kaiming_uniform_,
        torch.nn.init.normal_,
        torch.nn.init.orthogonal_,
        torch.nn.init.trunc_normal_,
        torch.nn.init.uniform_,
        torch.nn.init.xavier_normal_,
        torch.nn.init.xavier_uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    }
)

# The least value of each option of our own networks, and the one that all must be below.
RANGES = {
    "in_channels": (1, math.inf),
    "classes": (2, math.inf),
    "depth": (1, 7),
    "width": (1, math.inf),
    "dropout": (0, 1),
}

# Where a model's own code does not lie.
OURS = frozenset({"torch", "unetkit"})


def models() -> Registry:
    """Return the models that are installed, by name."""
    return Registry("unetkit.models", noun="model")


def parse_options(texts: Sequence[str], name: str) -> dict[str, Any]:
    """Read ``key=value`` texts as a model's options, typed from its builder; adds no defaults."""
    return parse_texts(texts, models().get(name), model=name)


def build_model(
    name: str, *, in_channels: int, classes: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build an installed model, by its name or ``distribution/name``, with fresh weights.

    Options that are left out take their defaults. What comes back has a `SizeContract` as its
    `contract`.
    """
    build = models().get(name)
    chosen = complete(options or {}, build, model=name)
    try:
        module = build(in_channels=in_channels, classes=classes, **chosen)
    except UnetkitError:
        raise
    except Exception as error:
        raise ResourceError(
            f"model {name!r} must be able to be built, got {error_with_line(error)};"
            " give it smaller options, or install it again"
        ) from error
    contract = getattr(module, "contract", None)
    if not isinstance(module, nn.Module) or not isinstance(contract, SizeContract):
        raise ResourceError(
            f"model {name!r} must be a torch module with a size contract, got"
            f" {type(module).__name__}; run unetkit.testing.check_model on it"
        )
    return module


def build_shapes(
    name: str, *, in_channels: int, classes: int, options: Mapping[str, Any] | None = None
) -> nn.Module | None:
    """Build the shapes of an installed model without its numbers, whatever its size.

    On torch's device ``meta``; None for the few networks that compute with numbers while they are
    built, which shapes don't have.
    """
    try:
        with torch.device("meta"), SkipInit():
            return build_model(name, in_channels=in_channels, classes=classes, options=options)
    except ResourceError:
        return None


def error_with_line(error: BaseException) -> str:
    """Tell an error of a model's own code, with the line that its author has to look at.

    That is the innermost one that is neither torch's nor ours.
    """
    what = f"{type(error).__name__}: {error!s:.200}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in OURS:
            return f"{what} (in {frame.f_code.co_filename}, line {line})"
    return what


def check_ranges(model: str, **values: float) -> None:
    """Refuse an option of one of our own networks that is out of its range."""
    for name, value in values.items():
        least, below = RANGES[name]
        if not least <= value < below:
            rule = f"at least {least}" if below == math.inf else f"from {least} to "
            rule += {math.inf: "", 1: "below 1"}.get(below, f"{below - 1:g}")
            raise UsageError(
                f"{name} of model {model!r} must be {rule}, got {value}; choose one in that range"
            )


def check_input(image: Tensor, in_channels: int, contract: SizeContract) -> None:
    """Refuse images (N, C, Y, X) of another number of channels, or of a size that is not legal."""
    if image.shape[1] != in_channels:
        raise UsageError(
            f"input must have {in_channels} channels, got {image.shape[1]};"
            " choose channels, or build the model for these"
        )
    for size in image.shape[2:]:
        contract.output(size)


class SkipInit(TorchFunctionMode):
    """Leaves out random numbers; shapes, and networks that get other weights, need none."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
