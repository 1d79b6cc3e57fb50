"""Which device, which precision, and how a network is run on it; it does not know any network."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch

from unetkit.errors import ResourceError, UsageError
from unetkit.machine import check_device, processor_count
from unetkit.models.convolutions import FixedOrder
from unetkit.models.fusion import computed, fused_kind, fusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    Undo = Callable[[], object]


PRECISIONS = ("exact", "float32", "bfloat16", "float16")

# torch gives these settings no types.
_BACKENDS: Any = torch.backends


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Let torch compute in `precision`, one of `PRECISIONS`, inside a ``with`` block.

    Several threads may be inside at once, each with its own precision. ``exact`` is float32 with
    convolutions that give a pixel the same bits wherever it lies in a tile of whatever size, with
    any number of threads. On a GPU it means deterministic kernels: the same bits for the same tile.
    With gradients the processor uses torch's own kernels.
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
    return tensor.to(_wide(tensor.dtype))


def _wide(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind in (torch.bfloat16, torch.float16) else kind


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

_LAYOUT_LOCK = threading.Lock()


def pick_device(name: str) -> torch.device:
    """Return the device that a user's word names.

    ``auto`` is the first GPU, or the processor where there is none.
    """
    check_device(name)
    kind, _, number = name.partition(":")
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}
    if kind == "auto":
        kind = next(k for k in ("cuda", "mps", "cpu") if present[k])
    if int(number or 0) >= present[kind]:
        raise ResourceError(
            f"device must be there, got {name!r} with {present[kind]} {kind} devices on this"
            " machine; use --device cpu"
        )
    return torch.device(kind, int(number)) if number else torch.device(kind)


def low_precision(device: torch.device) -> Literal["bfloat16", "float16"] | None:
    """Return the 16-bit precision that `device` computes in hardware, or None.

    A processor without such instructions would only emulate it, more slowly than float32.
    """
    if device.type == "cpu":
        return "bfloat16" if _processor_has_bfloat16() else None
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        # bfloat16 came with compute capability 8.0, fast float16 with 7.0.
        return "bfloat16" if major >= 8 else "float16" if major >= 7 else None
    return "float16" if device.type == "mps" else None


def forward(module: nn.Module, batch: Tensor, *, precision: str) -> Tensor:
    """Return the logits of a batch (N, C, Y, X); train and predict both go through here.

    The network's weights are laid out in memory as the precision wants them, once. Whether
    gradients are kept is the caller's choice: predict under ``torch.inference_mode()``. Logits are
    of float32, or of float64 where the network is.
    """
    with computing(batch.device, precision):
        lay_out(module, precision=precision)
        image = batch.contiguous(memory_format=_layout(precision))
        with fusing(fused_kind(image)):
            logits: Tensor = computed(module(image))
    # Both at once, since logits are large.
    return logits.to(_wide(logits.dtype), memory_format=torch.contiguous_format).contiguous()


def lay_out(module: nn.Module, *, precision: str) -> None:
    """Lay a network's weights out in memory as `forward` wants them for a precision."""
    layout = _layout(precision)
    if _is_laid_out(module, layout):
        return
    # Weights made in inference mode could never be trained again.
    with _LAYOUT_LOCK, torch.inference_mode(False), torch.no_grad():
        module.to(memory_format=layout)


def upload(batch: Tensor, device: torch.device) -> Tensor:
    """Copy a batch from the processor's memory to where it is computed on.

    Work that is given to the device afterwards finds it complete.
    """
    if device.type != "cuda":
        return batch.to(device)
    # From pinned memory the copy goes on while this process does something else.
    return batch.pin_memory().to(device, non_blocking=True)


def free_unused(device: torch.device | str) -> None:
    """Give memory that torch keeps back to a device; on a GPU, what is left lies in pieces."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


@functools.cache
def tune_allocator() -> bool:
    """Keep large blocks of memory in the process instead of giving them back each time.

    By default glibc returns every large activation to the kernel, which then hands out and
    clears fresh pages for the next one. Of several heaps it keeps large blocks in its main one
    alone, so that threads which start from now on get that. Call it before the first tensor and
    before other threads; later calls do nothing. Returns whether the C library took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # M_ARENA_MAX, M_MMAP_MAX and M_TRIM_THRESHOLD in glibc's malloc.h; mallopt returns 1 for done.
    return bool(mallopt(-8, 1) and mallopt(-4, 0) and mallopt(-1, 2**31 - 1))


# So much of the heap is to come in large pages: less than the 2 GiB that glibc, as `tune_allocator`
# sets it, gives back where they are free at the heap's end.
LARGE_PAGES = 3 * 2**29
# Of the Linux kernel, on the processors where torch runs; and its word for them.
_LARGE_PAGE, _MADV_HUGEPAGE = 2**21, 14


@functools.cache
def ask_for_large_pages() -> bool:
    """Let the kernel back what the heap takes next by large pages, where it has them to give.

    A network's features lie on very many small pages, and to look up where those are took a
    fifteenth of a step of training. Large ones cost up to a second until all are there, which a
    short prediction does not win back. Nothing is taken yet. Returns whether it was asked for,
    which it is not where memory counts for a limit before it is used; later calls do nothing.
    """
    if not tune_allocator() or _address_space_is_limited():
        return False
    library: Any = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    place = library.malloc(ctypes.c_size_t(LARGE_PAGES))
    if not place:
        return False
    first = -(-place // _LARGE_PAGE) * _LARGE_PAGE
    length = ctypes.c_size_t(place + LARGE_PAGES - first)
    # A kernel that has no such pages refuses, which changes nothing.
    refused = library.madvise(ctypes.c_void_p(first), length, _MADV_HUGEPAGE)
    library.free(ctypes.c_void_p(place))
    return not refused


def _address_space_is_limited() -> bool:
    import resource

    limits = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)


def thread_count(workers: int = 1) -> int:
    """Return how many threads torch should use in each of `workers` that compute at once.

    At least 1; ``OMP_NUM_THREADS``, where it is set, counts for all of them together.
    """
    count = processor_count()
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdecimal() and int(requested) > 0:
        count = min(count, int(requested))
    return max(1, count // max(1, workers))


def processor_features() -> frozenset[str]:
    """Return the instructions that torch finds in the processor, as it calls them."""
    facts = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return frozenset(name for name, there in facts.items() if there is True)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _processor_has_bfloat16() -> bool:
    # The instructions' names: x86 AVX-512, x86 AMX, ARM.
    names = ("avx512_bf16", "amx_bf16", "bf16")
    onednn: Any = torch.backends.mkldnn
    return bool(onednn.is_available()) and not processor_features().isdisjoint(names)


def _layout(precision: str) -> torch.memory_format:
    return torch.contiguous_format if precision == "exact" else torch.channels_last


def _is_laid_out(module: nn.Module, layout: torch.memory_format) -> bool:
    kernels = (p for p in module.parameters() if p.dim() == 4)
    return all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)
