"""Convolutions whose sums run in one order, whatever the input's size; nothing else of a network.

A matrix library adds up products in another order where a matrix is small or narrow, or where a
column lies at its edge, so the last bit of a pixel depends on the tile that it lies in. Here every
pixel is the sum over input channels, kernel rows and kernel columns, in that order, each product
and each sum rounded by itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unetkit.kernel_cache import is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

# Columns that one pass of the kernel holds in the processor's first cache, and bytes of unfolded
# input that are held at once.
BLOCK = 512
STRIP_BYTES = 1 << 26


class FixedOrder(TorchFunctionMode):
    """Inside a ``with`` block, compute two-dimensional convolutions in one order of sums.

    Holds for float32 on the processor where no gradients are kept, and for the calling thread
    alone; everything else is left to torch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the two convolutions; hand on every other function."""
        replacement = _REPLACEMENTS.get(func)
        if replacement is not None and _is_ours(args):
            return replacement(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def convolve(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Do what ``torch.nn.functional.conv2d`` does, with its parameters."""
    weight = _as_it_lies(weight)
    steps, gaps = _pair(stride), _pair(dilation)
    kernel = (weight.shape[2], weight.shape[3])
    image = functional.pad(image, _borders(padding, kernel, gaps))
    reach = [gap * (size - 1) + 1 for gap, size in zip(gaps, kernel, strict=True)]
    height = (image.shape[2] - reach[0]) // steps[0] + 1
    width = (image.shape[3] - reach[1]) // steps[1] + 1
    result = torch.empty(image.shape[0], weight.shape[0], height, width)
    rows = max(1, STRIP_BYTES // (4 * image.shape[1] * kernel[0] * kernel[1] * width))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        strip = image[:, :, first * steps[0] : (last - 1) * steps[0] + reach[0]]
        columns = functional.unfold(strip, kernel, dilation=gaps, stride=steps)
        sums = _products(weight.flatten(1), columns, groups=groups)
        result[:, :, first:last] = sums.view(*sums.shape[:2], last - first, width)
    return result if bias is None else result.add_(bias[:, None, None])


def convolve_transposed(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Do what ``torch.nn.functional.conv_transpose2d`` does, with its parameters."""
    weight = _as_it_lies(weight)
    steps, gaps, edges = _pair(stride), _pair(dilation), _pair(padding)
    kernel = (weight.shape[2], weight.shape[3])
    height, width = (
        (image.shape[2 + i] - 1) * steps[i]
        - 2 * edges[i]
        + gaps[i] * (kernel[i] - 1)
        + _pair(output_padding)[i]
        + 1
        for i in (0, 1)
    )
    # (C, K // groups * kernel) to (K * kernel, C // groups), the groups one after another.
    turned = torch.cat([part.flatten(1).T for part in weight.chunk(groups)])
    sums = _products(turned, image.flatten(2), groups=groups)
    result = functional.fold(
        sums, (height, width), kernel, dilation=gaps, padding=edges, stride=steps
    )
    return result if bias is None else result.add_(bias[:, None, None])


def _as_it_lies(weight: Tensor) -> Tensor:
    """Return weights that stay in place where another thread lays the network's out anew.

    A parameter's memory and its strides are exchanged while the interpreter is held, and so is this
    read of both; torch's own functions let it go.
    """
    return weight.data


def _products(weights: Tensor, columns: Tensor, *, groups: int) -> Tensor:
    """Multiply (M, K) by (N, groups * K, P), each group of rows with its own columns."""
    result = torch.empty(columns.shape[0], weights.shape[0], columns.shape[2])
    for sums, image in zip(result, columns, strict=True):
        chunks = zip(weights.chunk(groups), image.chunk(groups), sums.chunk(groups), strict=True)
        for a, b, out in chunks:
            _multiply_in_threads(a.contiguous().numpy(), b.contiguous().numpy(), out.numpy())
    return result


def _multiply_in_threads(
    a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    padded = np.zeros((-(-a.shape[0] // 4) * 4, a.shape[1]), np.float32)
    padded[: a.shape[0]] = a
    # Which thread takes which columns changes nothing, since each column stands alone.
    threads = torch.get_num_threads()
    share = -(-b.shape[1] // (threads * BLOCK)) * BLOCK
    starts = range(0, b.shape[1], share)
    if len(starts) == 1:
        _multiply(padded, b, out, 0, b.shape[1])
        return
    with ThreadPoolExecutor(threads) as pool:
        stops = [min(start + share, b.shape[1]) for start in starts]
        list(pool.map(lambda start, stop: _multiply(padded, b, out, start, stop), starts, stops))


@numba.njit(nogil=True, cache=is_kept())  # without fastmath, which would reorder the sums
def _multiply(a, b, out, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write columns of ``a @ b`` to `out`, adding up from the first row of `b` to the last."""
    sums = np.empty((4, BLOCK), np.float32)
    s0, s1, s2, s3 = sums[0], sums[1], sums[2], sums[3]
    for first in range(start, stop, BLOCK):
        count = min(BLOCK, stop - first)
        for row in range(0, a.shape[0], 4):
            sums[:] = 0
            for k in range(a.shape[1]):
                a0, a1, a2, a3 = a[row, k], a[row + 1, k], a[row + 2, k], a[row + 3, k]
                values = b[k, first : first + count]
                for i in range(count):
                    value = values[i]
                    s0[i] += a0 * value
                    s1[i] += a1 * value
                    s2[i] += a2 * value
                    s3[i] += a3 * value
            for r in range(row, min(row + 4, out.shape[0])):
                out[r, first : first + count] = sums[r - row, :count]


def _is_ours(args: tuple[Any, ...]) -> bool:
    tensors = [a for a in args[:3] if isinstance(a, torch.Tensor)]
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return fits and not learns and len(tensors) >= 2 and tensors[0].dim() == 4


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _borders(
    padding: int | str | Sequence[int], kernel: tuple[int, int], gaps: tuple[int, int]
) -> list[int]:
    """Return zeros to add left, right, top and bottom."""
    if padding == "same":
        spans = [gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True)]
        return [n for span in reversed(spans) for n in (span // 2, span - span // 2)]
    top, left = (0, 0) if isinstance(padding, str) else _pair(padding)
    return [left, left, top, top]


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    functional.conv2d: convolve,
    functional.conv_transpose2d: convolve_transposed,
}
