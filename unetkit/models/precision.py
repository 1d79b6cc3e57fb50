"""The precisions that a network can run in, and the process-wide settings behind them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from unetkit.errors import UsageError
from unetkit.models.fixed_order import FixedOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    Undo = Callable[[], object]

PRECISIONS = ("exact", "float32", "bfloat16", "float16")

# torch gives these settings no types.
_BACKENDS: Any = torch.backends


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Let torch compute in `precision` inside a ``with`` block.

    Several threads may be inside at once, each with its own precision.

    Parameters
    ----------
    device : torch.device
        Where the work runs.
    precision : str
        One of `PRECISIONS`. ``exact`` is float32 with convolutions that give a pixel the same
        bits wherever it lies in a tile of whatever size, with any number of threads. On a GPU it
        means deterministic kernels: the same bits for the same tile. With gradients the processor
        uses torch's own kernels.

    Raises
    ------
    UsageError
        If `precision` is none of these words.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; leave it out"
            " for auto"
        )
    with ExitStack() as stack:
        if precision in ("bfloat16", "float16"):
            stack.enter_context(torch.autocast(device.type, dtype=getattr(torch, precision)))
        else:
            stack.enter_context(_FULL_FLOAT32)
        if precision == "exact":
            stack.enter_context(_REPEATABLE)
            stack.enter_context(FixedOrder())
        yield


def widened(tensor: Tensor) -> Tensor:
    """Return numbers of 16 bits in float32, and all others as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class _SharedSetting:
    """A process-wide setting that holds while at least one thread is inside.

    torch keeps these settings for the whole process, so a thread that leaves must not undo them
    for one that is still inside.
    """

    def __init__(self, apply: Callable[[], Undo]) -> None:
        self._apply = apply
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: Undo | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._undo = self._apply()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._undo is not None:
                self._undo()


def _switch_off_tf32() -> Undo:
    rooms = (_BACKENDS.cudnn.conv, _BACKENDS.cuda.matmul)
    before = [room.fp32_precision for room in rooms]
    for room in rooms:
        room.fp32_precision = "ieee"

    def undo() -> None:
        for room, value in zip(rooms, before, strict=True):
            room.fp32_precision = value

    return undo


def _choose_repeatable_kernels() -> Undo:
    deterministic = torch.are_deterministic_algorithms_enabled()
    onednn, benchmark = _BACKENDS.mkldnn.enabled, _BACKENDS.cudnn.benchmark
    (nnpack,) = _BACKENDS.nnpack.set_flags(False)
    torch.use_deterministic_algorithms(True)
    # oneDNN and cuDNN's benchmark choose another kernel for another size.
    _BACKENDS.mkldnn.enabled = False
    _BACKENDS.cudnn.benchmark = False

    def undo() -> None:
        _BACKENDS.nnpack.set_flags(nnpack)
        torch.use_deterministic_algorithms(deterministic)
        _BACKENDS.mkldnn.enabled = onednn
        _BACKENDS.cudnn.benchmark = benchmark

    return undo


_FULL_FLOAT32 = _SharedSetting(_switch_off_tf32)
_REPEATABLE = _SharedSetting(_choose_repeatable_kernels)
