"""Weights of an encoder from a local .safetensors file; it knows no hub and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError

from unetkit.errors import InputError, MissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

# Colours of the photographs that published encoders were trained on.
PHOTO_CHANNELS = 3


def load_encoder(encoder: nn.Module, path: str) -> None:
    """Fill an encoder with the weights of a file; nothing in the file can run code.

    The file may hold the encoder alone, as the model hubs have it, with or without the layers
    that told photographs apart; or a whole network whose encoder's names begin with
    ``encoder.``, such as a model file of unetkit. Dots and underscores in names count as none,
    since the libraries that write such files place them differently.

    Where the file's first layer takes the 3 colours of photographs and the encoder another number
    of channels, its kernels are summed for one channel, and repeated in turn and scaled for more,
    which keeps the size of what comes out of it.

    Parameters
    ----------
    encoder : nn.Module
        Filled in place.
    path : str
        A .safetensors file.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If it is no .safetensors file, is damaged, or lacks weights of the encoder.
    """
    found = _by_plain_name(_read(path))
    state, lacking = {}, []
    for name, own in encoder.state_dict().items():
        tensor = found.get(_plain(name))
        if tensor is not None and tensor.dim() == own.dim() == 4:
            tensor = _with_channels(tensor, own.shape[1])
        if tensor is not None and tensor.shape == own.shape:
            state[name] = tensor
        elif not name.endswith("num_batches_tracked"):
            lacking.append(name)
    if lacking:
        raise InputError(
            f"encoder weights {path!r} must hold every weight of the encoder in its shape, got none"
            f" for {len(lacking)} ({lacking[0]!r}); name the encoder that the file is of with"
            " encoder=NAME"
        )
    encoder.load_state_dict({**encoder.state_dict(), **state})


def _read(path: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise MissingError(
            f"encoder_weights must be none, imagenet or a .safetensors file, got {path!r}, which"
            " is not there; leave it out to start from chance"
        ) from error
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"encoder weights must be a whole .safetensors file, got {path!r} ({error!s:.200});"
            " copy or convert it again: other formats may hold code and are not opened"
        ) from error
    if not all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point()):
        raise InputError(f"encoder weights must be finite, got NaN or Inf in {path!r}; copy again")
    return state


def _by_plain_name(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's part by names without what differs between libraries."""
    inside = {
        name.partition("encoder.")[2]: tensor
        for name, tensor in state.items()
        if name.startswith("encoder.") or ".encoder." in name
    }
    return {_plain(name): tensor for name, tensor in (inside or state).items()}


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace(".", "").replace("_", "")


def _with_channels(kernels: Tensor, channels: int) -> Tensor:
    """Let kernels for photographs take another number of channels."""
    if kernels.shape[1] != PHOTO_CHANNELS or channels == PHOTO_CHANNELS:
        return kernels
    if channels == 1:
        return kernels.sum(dim=1, keepdim=True)
    turns = [c % PHOTO_CHANNELS for c in range(channels)]
    return torch.mul(kernels[:, turns], PHOTO_CHANNELS / channels)
