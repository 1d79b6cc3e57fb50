"""Several processes that train one network together; each sees its share of every batch.

`torchrun` starts them and says who is who. All make the same steps with the same numbers, since
gradients are summed over all of them; only the first one writes and validates.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from unetkit.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor, nn

# The others wait while the first one validates.
PATIENCE = timedelta(hours=12)
# What was sent last. The thread of gloo that sent it holds it a moment longer than the sending
# lasts, and needs the interpreter to let it go: ended before that, it aborts the process.
_sent: deque[weakref.ref[Tensor]] = deque(maxlen=16)
SETTLE_S = 5.0


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that train together, as one of them sees it."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and validates."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return which of `count` things are this process's.

        Examples
        --------
        >>> [list(ProcessGroup(rank, 2).share(5)) for rank in (0, 1)]
        [[0, 1], [2, 3, 4]]
        """
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, value: float) -> float:
        """Return the sum of everyone's value."""
        if self.size == 1:
            return value
        return self._reduced(value, "SUM")

    def highest(self, value: float) -> float:
        """Return the highest of everyone's values."""
        if self.size == 1:
            return value
        return self._reduced(value, "MAX")

    def first(self, values: Sequence[float]) -> list[float]:
        """Return the values of the main process."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._place)
        _send(tensor, distributed.broadcast, src=0)
        return [float(value) for value in tensor.tolist()]

    def first_bytes(self, content: bytes | None) -> bytes | None:
        """Return the content that the main process has, or None where it has none."""
        if self.size == 1:
            return content
        (size,) = self.first([-1 if content is None else len(content)])
        if size < 0:
            return None
        own = bytearray(content or b"") if self.is_main else bytearray(int(size))
        tensor = torch.frombuffer(own, dtype=torch.uint8).to(self._place)
        _send(tensor, distributed.broadcast, src=0)
        return tensor.cpu().numpy().tobytes()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum of everyone's."""
        if self.size == 1:
            return
        by_kind: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_kind.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_kind.values():
            # One message for all: a network has many tensors, most of them small.
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))

    @property
    def _place(self) -> torch.device:
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def _reduced(self, value: float, how: str) -> float:
        tensor = torch.tensor(value, dtype=torch.float64, device=self._place)
        _send(tensor, distributed.all_reduce, op=getattr(distributed.ReduceOp, how))
        return float(tensor)


SINGLE = ProcessGroup()


@contextmanager
def init_distributed(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started; without it be alone.

    Of several GPUs each process takes the one of its number.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(device=device)
        return
    own = _own_device(device)
    backend = "nccl" if own.type == "cuda" else "gloo"
    with _together():
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ProcessGroup(distributed.get_rank(), size, own)
    finally:
        _settle()
        distributed.destroy_process_group()


def all_reduce(tensor: Tensor) -> None:
    """Replace the values of `tensor` by the sums over all processes of the group."""
    _send(tensor, distributed.all_reduce)


def _send(tensor: Tensor, how: Callable[..., Any], **options: Any) -> None:
    # Another name of the same numbers, which nothing but the sending holds.
    sent = tensor.detach()
    with _together():
        how(sent, **options)
    _sent.append(weakref.ref(sent))


def _settle() -> None:
    """Wait until the threads that send have let go of everything."""
    end = time.monotonic() + SETTLE_S
    while any(sent() is not None for sent in _sent) and time.monotonic() < end:
        time.sleep(0.001)
    _sent.clear()


def _own_device(device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise UsageError(
            f"nproc-per-node must be at most {count}, the GPUs of this machine, got more;"
            " start fewer processes, or add --device cpu"
        )
    own = torch.device("cuda", number)
    torch.cuda.set_device(own)
    return own


@contextmanager
def _together() -> Iterator[Any]:
    """Say in a sentence that another process of the group ended."""
    try:
        yield
    except RuntimeError as error:
        raise ResourceError(
            "all processes of a training must stay at work, got an end of another one"
            f" ({error!s:.120}); go on with --resume"
        ) from error
