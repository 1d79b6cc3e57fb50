"""Installed models by name: their options, their networks, and the shapes of these."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unetkit.errors import ResourceError, UnetkitError
from unetkit.geometry.sizes import SizeContract
from unetkit.options import complete, parse_texts
from unetkit.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What fills a tensor with random numbers; on shapes torch would load its compiler for it.
DRAWS = frozenset(
    {
        torch.nn.init.normal_,
        torch.nn.init.trunc_normal_,
        torch.nn.init.uniform_,
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
    }
)

# Where a model's own code does not lie.
OURS = frozenset({"torch", "unetkit"})


def models() -> Registry:
    """Return the models that are installed, by name."""
    return Registry("unetkit.models", noun="model")


def parse_options(texts: Sequence[str], name: str) -> dict[str, Any]:
    """Read ``key=value`` texts as options of a model, typed from its build function.

    Parameters
    ----------
    texts : sequence of str
        Such as ``width=16``.
    name : str
        The model's registry name.

    Returns
    -------
    dict of str to object
        What was set, and no defaults.

    Raises
    ------
    UsageError
        If the model, an option or a value is unknown; the message lists the options.
    """
    return parse_texts(texts, models().get(name), model=name)


def build_model(
    name: str, *, in_channels: int, classes: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build an installed model with fresh weights.

    Parameters
    ----------
    name : str
        Its registry name, or ``distribution/name``.
    in_channels : int
        Channels of the images.
    classes : int
        Classes to tell apart.
    options : mapping of str to object, optional
        The model's own options; those left out take their defaults.

    Returns
    -------
    nn.Module
        With a `SizeContract` as its `contract`.

    Raises
    ------
    UsageError
        If the model or an option is unknown, or a value is of another type or out of its range.
    ResourceError
        If the model can't be built: its distribution is broken, or memory does not suffice.
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

    Parameters
    ----------
    name, in_channels, classes, options
        As `build_model` takes them.

    Returns
    -------
    nn.Module or None
        On torch's device ``meta``; None for the few networks that compute with numbers while they
        are built, which shapes don't have.

    Raises
    ------
    UsageError
        If the model or an option is unknown, or a value is of another type or out of its range.
    """
    try:
        with torch.device("meta"), SkipInit():
            return build_model(name, in_channels=in_channels, classes=classes, options=options)
    except ResourceError:
        return None


def error_with_line(error: BaseException) -> str:
    """Tell an error of a model's own code, with the line that its author has to look at.

    Parameters
    ----------
    error : BaseException
        As it was caught.

    Returns
    -------
    str
        Its kind and message, and the innermost file and line that are neither torch's nor ours.
    """
    what = f"{type(error).__name__}: {error!s:.200}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in OURS:
            return f"{what} (in {frame.f_code.co_filename}, line {line})"
    return what


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
