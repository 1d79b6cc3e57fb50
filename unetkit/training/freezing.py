"""An encoder that stays as it is for the first steps, so that its first weights are not spoilt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Batch = TypeVar("Batch")


@runtime_checkable
class Freezable(Protocol):
    """A network whose encoder can be kept from learning."""

    def freeze_encoder(self) -> None:
        """Keep the encoder's weights and statistics as they are."""

    def unfreeze_encoder(self) -> None:
        """Let the encoder learn again."""


def freeze(network: Any, *, model: str, steps: int) -> None:
    """Freeze the encoder of a network, where any step asks for it.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    model : str
        Its name, for the message.
    steps : int
        For how many steps; 0 leaves the network alone.

    Raises
    ------
    UsageError
        If the network has no encoder that can be frozen.
    """
    if not steps:
        return
    if not isinstance(network, Freezable):
        raise UsageError(
            f"freeze-encoder must be 0 for model {model!r}, which has no encoder to freeze, got"
            f" {steps}; leave it out, or train a model such as smp-unet"
        )
    network.freeze_encoder()


def unfreeze_after(
    network: Any, batches: Iterator[Batch], *, steps: int, start: int = 0
) -> Iterator[Batch]:
    """Hand on batches, and let a frozen encoder learn from all but the first `steps`.

    Parameters
    ----------
    network : nn.Module
        Changed in place, just before the batch after those is handed on.
    batches : iterator
        One a step.
    steps : int
        For how many the encoder stays frozen; 0: it was never frozen.
    start : int
        The step of the first batch, counted from 0.

    Yields
    ------
    Batch
    """
    frozen = steps > 0
    for number, batch in enumerate(batches, start):
        if frozen and number >= steps:
            network.unfreeze_encoder()
            frozen = False
        yield batch
