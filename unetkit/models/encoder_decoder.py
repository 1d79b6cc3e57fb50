"""Padded encoder-decoder networks behind the size contract; it knows no library of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from unetkit.geometry.sizes import SizeContract


class EncoderDecoder(nn.Module):
    """A zero-padded network with an encoder, out of which come as many pixels as go in.

    Parameters
    ----------
    network : nn.Module
        With the methods `freeze_encoder` and `unfreeze_encoder`.
    contract : SizeContract
        The input sizes that it takes.
    in_channels : int
        Channels of the image.

    Attributes
    ----------
    rebuilt_with : dict of str to object
        Options that a model file stores in place of those that it was built with: its encoder's
        first weights need not be fetched again.
    """

    rebuilt_with = {"encoder_weights": "none"}  # noqa: RUF012

    def __init__(self, network: nn.Module, contract: SizeContract, *, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.contract = contract
        self.in_channels = in_channels

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of every class for every pixel.

        Parameters
        ----------
        image : Tensor of float, shape (N, C, Y, X)
            Normalized images; Y and X of legal sizes.

        Returns
        -------
        Tensor of float, shape (N, K, Y, X)

        Raises
        ------
        UsageError
            If Y or X is not legal, or C is not what the network was built for.
        """
        if image.shape[1] != self.in_channels:
            raise UsageError(
                f"input must have {self.in_channels} channels, got {image.shape[1]};"
                " choose channels, or build the model for these"
            )
        for size in image.shape[2:]:
            self.contract.output(size)
        logits: Tensor = self.network(image)
        return logits

    def freeze_encoder(self) -> None:
        """Keep the encoder as it is: neither its weights nor its statistics learn."""
        self.network.freeze_encoder()  # type: ignore[operator]

    def unfreeze_encoder(self) -> None:
        """Let the encoder learn again."""
        self.network.unfreeze_encoder()  # type: ignore[operator]


class PatientNorm(nn.BatchNorm2d):
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


def settle(network: nn.Module) -> None:
    """Make a network's output independent of the tile's size and of the batch's.

    Up-sampling with aligned corners would move a pixel by where it lies in its tile, so corners
    are not aligned; and batch norm becomes `PatientNorm`.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    """
    for parent in list(network.modules()):
        if getattr(parent, "align_corners", None) is True:
            setattr(parent, "align_corners", False)  # noqa: B010 - torch types it as a tensor
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                patient = PatientNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                patient.load_state_dict(child.state_dict())
                setattr(parent, name, patient.train(child.training))


def drop_idle(network: nn.Module, image: Tensor) -> None:
    """Drop layers whose weights the output does not depend on.

    Such are the deep end of an encoder whose middle is used, and the last norm of a transformer:
    they would be stored and never learn.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    image : Tensor of float, shape (1, C, Y, X)
        An input that it takes.
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
