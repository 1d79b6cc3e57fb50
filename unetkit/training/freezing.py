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
    """Freeze the encoder of a network, where any step asks for it, or refuse one that has none."""
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

    `start` is the step of the first batch, counted from 0.
    """
    frozen = steps > 0
    for number, batch in enumerate(batches, start):
        if frozen and number >= steps:
            network.unfreeze_encoder()
            frozen = False
        yield batch
