"""Padded encoder-decoder networks behind the size contract; it knows no library of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from unetkit.errors import InputError, MissingError
from unetkit.models.build import check_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unetkit.geometry.sizes import SizeContract


class EncoderDecoder(nn.Module):
    """A zero-padded network with an encoder, out of which come as many pixels as go in."""

    rebuilt_with: Mapping[str, Any] = {}
    """Options that a model file stores in place of those that it was built with."""

    def __init__(self, network: nn.Module, contract: SizeContract, *, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.contract = contract
        self.in_channels = in_channels

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, K, Y, X) of images (N, C, Y, X) of legal sizes."""
        check_input(image, self.in_channels, self.contract)
        logits: Tensor = self.network(image)
        return logits

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is: neither its weights nor its statistics learn."""
        self.network.freeze_encoder()  # type: ignore[operator]

    def unfreeze_encoder(self) -> None:
        """Let the encoder learn again."""
        self.network.unfreeze_encoder()  # type: ignore[operator]


class FallbackBatchNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a batch has one value a channel.

    After global pooling a batch of one image has no spread to divide by.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalize (N, C, Y, X)."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def remove_size_dependence(network: nn.Module) -> None:
    """Make a network's output independent of the tile's size and of the batch's, in place.

    Up-sampling with aligned corners would move a pixel by where it lies in its tile, so corners
    are not aligned; and batch norm becomes `FallbackBatchNorm`.
    """
    for parent in list(network.modules()):
        if getattr(parent, "align_corners", None) is True:
            setattr(parent, "align_corners", False)  # noqa: B010 - torch types it as a tensor
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                patient = FallbackBatchNorm(
                    child.num_features, eps=child.eps, momentum=child.momentum
                )
                patient.load_state_dict(child.state_dict())
                setattr(parent, name, patient.train(child.training))


def drop_unused_layers(network: nn.Module, image: Tensor) -> None:
    """Drop layers, in place, on whose weights the output for an image (1, C, Y, X) depends not.

    Such are the deep end of an encoder whose middle is used, and the last norm of a transformer:
    they would be stored and never learn.
    """
    with torch.enable_grad():
        outcome: Any = network.eval()(image)
        outcome.sum().backward()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            own = list(child.parameters())
            if own and all(parameter.grad is None for parameter in own):
                setattr(parent, name, nn.Identity())
    network.train().zero_grad(set_to_none=True)


# Colours of the photographs that published encoders were trained on.
PHOTO_CHANNELS = 3


def load_encoder(encoder: nn.Module, path: str) -> None:
    """Fill an encoder with the weights of a .safetensors file; nothing in it can run code.

    It may hold the encoder alone, as the model hubs have it, with or without the layers
    that told photographs apart; or a whole network whose encoder's names begin with
    ``encoder.``, such as a model file of unetkit. Dots and underscores in names count as none,
    since the libraries that write such files place them differently.

    Where the file's first layer takes the 3 colours of photographs and the encoder another number
    of channels, its kernels are summed for one channel, and repeated in turn and scaled for more,
    which keeps the size of what comes out of it.
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
