"""Layers of a network that predicts on the processor, computed together where torch takes steps.

A network is fused once its weights are fixed. What it computes stays the same but for rounding:

- batch normalization becomes part of the convolution before it, and a ReLU one step with it;
- weights are kept in the type and order that the kernels want, instead of being brought there in
  every call;
- an image that is enlarged twofold, joined with others and convolved is never enlarged. Nothing
  but sums lies between the enlarging and the convolution, so that both together are one convolution
  of the small image, whose outputs are the four pixels that each of its pixels became. For the
  up-convolution of a U-Net that is 8 multiplications where there were 11, for nearest neighbours
  4 where there were 9, and the joined image is never written.
- 2 x 2 pooling notes no places that only gradients would need, and compares bfloat16 that a ReLU
  made as the integers of the same order that their bits are.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function
from torch.utils._pytree import tree_map

from unetkit.models.feature_bounds import FeatureBounds, Growth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# torch gives its backends no types.
_ONEDNN: Any = torch.backends.mkldnn
# What torch's own compiler calls for this; they are none of its documented functions.
_OPERATORS: Any = getattr(torch.ops, "mkldnn", None)

# What fused layers compute in, None where each layer computes for itself.
_KIND: ContextVar[torch.dtype | None] = ContextVar("kind", default=None)
_KINDS = (torch.float32, torch.bfloat16)
# What was put off, as long as somebody holds it.
_WAITING: ContextVar[list[ref[Deferred]]] = ContextVar("waiting")
_BOUNDS: ContextVar[FeatureBounds] = ContextVar("bounds")


def fused_kind(image: Tensor) -> torch.dtype | None:
    """Return what fused layers would compute in here, of an image; None where they can't."""
    # Precision `exact` switches oneDNN off.
    usable = bool(_ONEDNN.is_available()) and bool(_ONEDNN.enabled)
    if not usable or image.device.type != "cpu" or torch.is_grad_enabled():
        return None
    wanted = (
        *("_convolution_pointwise", "_convolution_pointwise_"),
        "_reorder_convolution_weight",
    )
    if not all(hasattr(_OPERATORS, name) for name in wanted):
        return None
    autocast = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if autocast else image.dtype
    # Unlike torch's own convolution, the fused one refuses bfloat16 on a processor without AVX-512.
    if kind is torch.bfloat16 and not _OPERATORS._is_mkldnn_bf16_supported():
        return None
    return kind if kind in _KINDS else None


@contextmanager
def fusing(kind: torch.dtype | None) -> Iterator[None]:
    """Let fused layers of this thread compute in `kind` inside a ``with`` block, or as they were.

    Outside of it each layer computes for itself, by torch's own functions.
    """
    before, waiting, bounds = _KIND.set(kind), _WAITING.set([]), _BOUNDS.set(FeatureBounds())
    try:
        with nullcontext() if kind is None else _WithoutDetours():
            yield
    finally:
        _KIND.reset(before)
        _WAITING.reset(waiting)
        _BOUNDS.reset(bounds)


def fuse(module: nn.Module) -> nn.Module:
    """Let a network that predicts, whose weights are fixed, compute layers together, in place.

    Batch normalization and ReLU are taken along where they follow a convolution in an
    ``nn.Sequential``. The layers then compute together inside of `fusing`; elsewhere each computes
    what it did before.
    """
    for chain in module.modules():
        if isinstance(chain, nn.Sequential):
            _absorb_norms(chain)
            _absorb_relus(chain)
    for layer in module.modules():
        if _can_fuse(layer):
            layer.__class__ = Convolution
        elif _doubles(layer):
            layer.__class__ = UpConvolution
    return module


def _absorb_norms(chain: nn.Sequential) -> None:
    for place in range(len(chain) - 1):
        layer, norm = chain[place], chain[place + 1]
        if type(layer) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d):
            continue
        # Without statistics it would normalize by what it sees.
        if norm.track_running_stats and not norm.training:
            chain[place] = fuse_conv_bn_eval(layer, norm)
            chain[place + 1] = nn.Identity()


def _absorb_relus(chain: nn.Sequential) -> None:
    # What was absorbed before is passed over.
    places = [place for place in range(len(chain)) if type(chain[place]) is not nn.Identity]
    for place, following in pairwise(places):
        layer = chain[place]
        if _can_fuse(layer) and type(chain[following]) is nn.ReLU:
            layer.__class__ = ConvolutionReLU
            chain[following] = nn.Identity()


def _can_fuse(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _doubles(layer: nn.Module) -> bool:
    """Tell whether a layer makes 2 x 2 pixels of each, of which none sees another."""
    return (
        type(layer) is nn.ConvTranspose2d
        and (layer.kernel_size, layer.stride) == ((2, 2), (2, 2))
        and (layer.padding, layer.output_padding) == ((0, 0), (0, 0))
        and (layer.dilation, layer.groups) == ((1, 1), 1)
    )


class Convolution(nn.Conv2d):
    """A convolution with fixed weights, which are kept as its kernels want them."""

    activation = "none"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Compute (N, K, Y', X') from (N, C, Y, X)."""
        kind = _KIND.get()
        if kind is None:
            return self._activated(super().forward(input))
        if has_torch_function((input,)):
            # To a mode it is one function: else each that it calls is asked about by itself.
            fused = Convolution._fused
            found: Tensor = handle_torch_function(fused, (input,), self, input, kind)
            return found
        return self._fused(input, kind)

    def _fused(self, input: Tensor, kind: torch.dtype) -> Tensor:  # noqa: A002
        if isinstance(input, Deferred):
            place = input.worth_splitting(self)
            if place is not None:
                return self._of_parts(input.parts, place, kind)
        whole = self._kept(kind, lambda: self._whole(kind))
        image = computed(input).to(kind)
        return self._summed(
            [(image, whole.growth)],
            lambda activation: _convolve(
                image, whole.weight, whole.bias, self._numbers, activation=activation
            ),
        )

    def _summed(
        self, parts: Sequence[tuple[Tensor, Growth]], compute: Callable[[str], Tensor]
    ) -> Tensor:
        """Compute with an activation and remember how large the result is, or activate alone."""
        bounds = _BOUNDS.get()
        largest = bounds.of_sum(*parts)
        if largest == math.inf:
            return self._activated(compute("none"))
        found = compute(self.activation)
        bounds.note(found, largest=largest, positive=self.activation == "relu")
        return found

    @property
    def _numbers(self) -> _Numbers:
        # None has a word for its padding, see `_can_fuse`.
        return self.padding, self.stride, self.dilation, self.groups

    def _activated(self, features: Tensor) -> Tensor:
        return features

    def _of_parts(
        self, parts: tuple[Tensor | Enlarged, ...], place: int, kind: torch.dtype
    ) -> Tensor:
        """Convolve one part as it was before it was enlarged, and add what the others give."""
        source, others = parts[place], [*parts[:place], *parts[place + 1 :]]
        assert isinstance(source, Enlarged)
        before = sum(part.shape[1] for part in parts[:place])
        own = slice(before, before + source.shape[1])
        # The enlarging layer's weights are fixed, too.
        split = self._kept((kind, own.start, source.layer), lambda: self._split(own, source, kind))
        small, padded = source.small.to(kind), self.padding == (1, 1)
        edges: _Numbers = ((int(padded), int(padded)), *_PLAIN[1:])
        grown = small, split.growth
        if not others and split.beyond is None:
            biases = split.bias.repeat(4)

            def unfolded(activation: str) -> Tensor:
                four = _convolve(small, split.composite, biases, edges, activation=activation)
                return unfold_pixels(four, padded=padded)

            return self._summed([grown], unfolded)
        enlarged = unfold_pixels(_convolve(small, split.composite, None, edges), padded=padded)
        if split.beyond is not None:
            _subtract_beyond(enlarged, split.beyond)
        if not others:
            return self._activated(enlarged.add_(split.bias[:, None, None]))
        images = [computed(part).to(kind) for part in others]
        beside = torch.cat(images, 1) if len(images) > 1 else images[0]
        return self._summed(
            [grown, (beside, split.rest_growth)],
            lambda activation: _convolve(
                *(beside, split.rest, split.bias, self._numbers),
                activation=activation,
                add=enlarged,
            ),
        )

    def _whole(self, kind: torch.dtype) -> _Whole:
        bias = None if self.bias is None else self.bias.detach().to(kind)
        return _Whole(self._ordered(self.weight, kind), bias, Growth.of(self.weight, bias))

    def _split(self, own: slice, source: Enlarged, kind: torch.dtype) -> _Split:
        # What is composed in few bits would be rounded twice.
        with torch.autocast("cpu", enabled=False):
            part, layer = self.weight[:, own], source.layer
            composite, beyond = compose(part, layer)
            bias = beyond.sum((1, 2))
            if self.bias is not None:
                bias = bias + self.bias
            rest = torch.cat([self.weight[:, : own.start], self.weight[:, own.stop :]], 1)
            counts = self.padding == (1, 1) and layer is not None and layer.bias is not None
            return _Split(
                self._ordered(composite, kind),
                bias.detach().to(kind),
                self._ordered(rest, kind) if rest.shape[1] else None,
                beyond.to(kind) if counts else None,
                # At a corner of the image three taps' sums are taken or given back.
                Growth.of(composite, bias, beyond.abs().sum((1, 2))),
                Growth.of(rest) if rest.shape[1] else Growth(),
            )

    def _ordered(self, weight: Tensor, kind: torch.dtype) -> Tensor:
        """Return weights in a type, and in the order of oneDNN's kernels, which it alone reads."""
        weight = weight.detach().to(kind).contiguous(memory_format=torch.channels_last)
        ordered: Tensor = _OPERATORS._reorder_convolution_weight(weight, *self._numbers)
        return ordered

    def _kept(self, what: Any, make: Callable[[], Any]) -> Any:
        """Return what was made of the weights before, or make it."""
        # None of the network's state, so that it is no buffer.
        known = self.__dict__.setdefault("_made", {})
        if what not in known:
            known[what] = make()
        return known[what]


class ConvolutionReLU(Convolution):
    """A convolution whose result is 0 where it would be negative."""

    activation = "relu"

    def _activated(self, features: Tensor) -> Tensor:
        return functional.relu(features, inplace=True)


@dataclass(frozen=True)
class _Whole:
    """A convolution of features as they are."""

    weight: Tensor  # as the kernels want it
    bias: Tensor | None
    growth: Growth


@dataclass(frozen=True)
class _Split:
    """A convolution of joined features, of which some were enlarged, in two."""

    composite: Tensor  # for the small image, see `compose`
    bias: Tensor  # (K,)
    rest: Tensor | None  # for the others
    beyond: Tensor | None  # where something is beyond the rim that enlarging makes of nothing
    growth: Growth  # of the small image, with bias and what is beyond
    rest_growth: Growth


# Padding, stride, dilation and groups.
_Numbers = tuple[Any, tuple[int, ...], tuple[int, ...], int]
_PLAIN: _Numbers = ((0, 0), (1, 1), (1, 1), 1)


def _convolve(
    image: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    numbers: _Numbers,
    *,
    activation: str = "none",
    add: Tensor | None = None,
) -> Tensor:
    """Convolve, add to another result where there is one, and activate, in one step of oneDNN."""
    image = image.contiguous(memory_format=torch.channels_last)
    if add is None:
        found = _OPERATORS._convolution_pointwise(image, weight, bias, *numbers, activation, [], "")
    else:
        after = None if activation == "none" else activation
        found = _OPERATORS._convolution_pointwise_.binary(
            add, image, weight, bias, *numbers, "add", None, after, [], ""
        )
    result: Tensor = found
    return result


# Images that are enlarged later, or never.


class UpConvolution(nn.ConvTranspose2d):
    """A transposed convolution of 2 x 2 and stride 2 with fixed weights, which is put off."""

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:  # noqa: A002
        """Stand for (N, K, 2 Y, 2 X) of (N, C, Y, X)."""
        kind = None if output_size is not None else _KIND.get()
        if kind is None:
            return super().forward(input, output_size)
        return Deferred([Enlarged(computed(input).to(kind), self)])

    def enlarge(self, image: Tensor) -> Tensor:
        """Compute what was put off, in the type of the image; nobody casts for it any more."""
        weight = self.weight.to(image.dtype)
        bias = None if self.bias is None else self.bias.to(image.dtype)
        return functional.conv_transpose2d(image, weight, bias, stride=2)


@dataclass(frozen=True)
class Enlarged:
    """An image (N, C, Y, X) that stands for one of twice its height and width."""

    small: Tensor
    layer: UpConvolution | None  # what enlarges it; None repeats each pixel

    @property
    def shape(self) -> torch.Size:
        """(N, K, 2 Y, 2 X)."""
        count, channels, height, width = self.small.shape
        if self.layer is not None:
            channels = self.layer.out_channels
        return torch.Size((count, channels, 2 * height, 2 * width))

    def computed(self) -> Tensor:
        """Enlarge it."""
        if self.layer is not None:
            return self.layer.enlarge(self.small)
        return functional.interpolate(self.small, scale_factor=2, mode="nearest")


class Deferred(Tensor):
    """Images that are joined along their channels as soon as anything but a fused layer asks."""

    parts: tuple[Tensor | Enlarged, ...]

    @staticmethod
    def __new__(cls, parts: Sequence[Tensor | Enlarged]) -> Deferred:
        """Know size and type, and hold no numbers."""
        first = parts[0]
        kind = (first.small if isinstance(first, Enlarged) else first).dtype
        count, _, height, width = first.shape
        size = (count, sum(part.shape[1] for part in parts), height, width)
        place = torch.device("cpu")
        made: Deferred = Tensor._make_wrapper_subclass(cls, size, dtype=kind, device=place)
        made.parts = tuple(parts)
        _WAITING.get().append(ref(made))
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Join with more images; compute before anything is done but to ask for size and type."""
        named = dict(kwargs or {})
        if func in _JOINING:
            joined = cls._joined(*args, **named)
            if joined is not None:
                return joined
        if func in _ASKING:
            return super().__torch_function__(func, types, args, named)  # type: ignore[no-untyped-call]
        return func(*tree_map(computed, args), **tree_map(computed, named))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch leaves it open
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute for whoever comes past torch's functions."""
        return func(*tree_map(computed, args), **tree_map(computed, dict(kwargs or {})))

    @classmethod
    def _joined(cls, images: Sequence[Tensor], dim: int = 0, **others: Any) -> Deferred | None:
        parts = [part for one in images for part in getattr(one, "parts", (one,))]
        shapes = {(len(part.shape), part.shape[0], *part.shape[2:]) for part in parts}
        return None if dim not in (1, -3) or len(shapes) > 1 or others else cls(parts)

    def computed(self) -> Tensor:
        """Enlarge and join, once: who changes the result in place finds it changed."""
        parts = [part.computed() if isinstance(part, Enlarged) else part for part in self.parts]
        whole = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        self.parts = (whole,)
        return whole

    def is_made_of(self, image: Tensor) -> bool:
        """Tell whether it would be another if an image were changed in place."""
        given = [part.small if isinstance(part, Enlarged) else part for part in self.parts]
        return any(_place_of(one) == _place_of(image) for one in given)

    def worth_splitting(self, layer: nn.Conv2d) -> int | None:
        """Return which part is convolved with fewer multiplications before it is enlarged."""
        shape = (layer.kernel_size, layer.stride, layer.dilation, layer.groups)
        if shape != ((3, 3), (1, 1), (1, 1), 1) or layer.padding not in ((0, 0), (1, 1)):
            return None
        if self.shape[2] < 4 or self.shape[3] < 4:
            return None
        for place, part in enumerate(self.parts):
            if isinstance(part, Enlarged):
                inputs, features, outputs = part.small.shape[1], part.shape[1], layer.out_channels
                enlarging = 0 if part.layer is None else inputs * features
                if 4 * inputs * outputs < enlarging + 9 * features * outputs:
                    return place
        return None


def _place_of(image: Tensor) -> int:
    return image.untyped_storage().data_ptr()


_JOINING = (torch.cat, torch.concat, torch.concatenate)
# What is known of an image without its numbers.
_ASKING = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "requires_grad")
    ),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "__len__")),
}


def computed(image: Any) -> Any:
    """Return an image whose numbers are there; anything else as it is."""
    return image.computed() if isinstance(image, Deferred) else image


def compose(weight: Tensor, layer: UpConvolution | None) -> tuple[Tensor, Tensor]:
    """Make one convolution of a 2 x 2 enlarging and a 3 x 3 convolution of what it enlarges.

    Parameters
    ----------
    weight : Tensor, shape (K, C, 3, 3)
        Of the convolution.
    layer : UpConvolution or None
        What enlarges, from C' to C channels; None repeats each pixel.

    Returns
    -------
    composite : Tensor, shape (4 K, C', 2, 2)
        Of a convolution of the small image. Its output ``(2 p + q) K + k`` around the corner
        before small pixel (i, j) is pixel (2 i - 1 + p, 2 j - 1 + q) of the enlarged image.
    beyond : Tensor, shape (K, 3, 3)
        What each tap makes of the enlarging layer's bias.
    """
    inputs = weight.shape[1] if layer is None else layer.in_channels
    taps = weight.permute(2, 3, 0, 1).contiguous()
    enlarging = None if layer is None else layer.weight.permute(2, 3, 1, 0).contiguous()
    composite = weight.new_zeros(2, 2, 2, 2, len(weight), inputs)
    for p, q, y, x in product((0, 1), (0, 1), range(3), range(3)):
        # Which small pixel around the corner the tap falls on, and which of its four.
        row, a = divmod(p + y, 2)
        column, b = divmod(q + x, 2)
        total = composite[p, q, row, column]
        if enlarging is None:
            total += taps[y, x]
        else:
            total.addmm_(taps[y, x], enlarging[a, b])
    beyond = weight.new_zeros(len(weight), 3, 3)
    if layer is not None and layer.bias is not None:
        beyond = torch.einsum("kcyx,c->kyx", weight, layer.bias)
    return composite.permute(0, 1, 4, 5, 2, 3).reshape(-1, inputs, 2, 2), beyond


def _subtract_beyond(image: Tensor, beyond: Tensor) -> None:
    """Take from the rim of (N, K, Y, X), in place, what taps outside of the image have added."""
    ends = ((0, 0), (-1, 2))
    for place, tap in ends:
        image[:, :, place] -= beyond[:, tap].sum(1)[:, None]
        image[:, :, :, place] -= beyond[:, :, tap].sum(1)[:, None]
    for (y, down), (x, right) in product(ends, ends):
        # Taps at a corner were taken twice.
        image[:, :, y, x] += beyond[:, down, right]


class _WithoutDetours(TorchFunctionMode):
    """Puts off repeating pixels twice, and pools without noting places; the results are torch's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace two functions; hand on every other."""
        named, bounds = dict(kwargs or {}), _BOUNDS.get()
        changed = _changed_in_place(func, args, named)
        if isinstance(changed, Tensor) and not isinstance(changed, Deferred):
            for one in [reference() for reference in _WAITING.get()]:
                if one is not None and one.is_made_of(changed):
                    one.computed()
            bounds.forget(changed)
        if func in _POOLING and _is_pooling_by_two(*args, **named):
            pooled = pool(args[0], positive=bounds.is_positive(args[0]))
            bounds.copy(args[0], to=pooled)
            return pooled
        if func is Tensor.__getitem__ and not isinstance(args[0], Deferred):
            part = func(*args, **named)
            bounds.copy(args[0], to=part)
            return part
        if func is functional.interpolate and _is_repeating_twice(*args, **named):
            return Deferred([Enlarged(computed(args[0]), None)])
        return func(*args, **named)


def _changed_in_place(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """Return what a function of torch writes into; None where it makes something new."""
    name = getattr(func, "__name__", "")
    writes = name.endswith("_") and not name.endswith("__")
    if writes or named.get("inplace") or name in _WRITING:
        return args[0] if args else None
    return named.get("out")


_WRITING = {
    f"__{name}__"
    for name in ("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow")
}
_POOLING = (functional.max_pool2d, torch.max_pool2d)


def _is_pooling_by_two(
    image: Any,
    kernel_size: Any = None,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> bool:
    numbers = (kernel_size, stride or kernel_size, padding, dilation)
    wanted = ((2, 2), (2, 2), (0, 0), (1, 1))
    if tuple(map(_pair, numbers)) != wanted or ceil_mode or return_indices:
        return False
    if isinstance(image, Deferred):
        return False
    fits = image.dtype in _KINDS and image.is_contiguous(memory_format=torch.channels_last)
    return fits and min(image.shape[2:]) >= 2


def _is_repeating_twice(
    image: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    **others: Any,
) -> bool:
    if mode not in ("nearest", "nearest-exact") or any(others.values()) or image.dim() != 4:
        return False
    if image.dtype not in _KINDS:
        return False
    if size is not None:
        return tuple(_pair(size)) == (2 * image.shape[2], 2 * image.shape[3])
    return tuple(_pair(scale_factor)) == (2, 2)


def _pair(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def unfold_pixels(four: Tensor, *, padded: bool) -> Tensor:
    """Put the four outputs of a composite convolution where they belong.

    Parameters
    ----------
    four : Tensor, shape (N, 4 K, Y + 1, X + 1) if padded, else (N, 4 K, Y - 1, X - 1)
        Of all corners of Y x X small pixels, or of those that have four, as `compose` orders them.
    padded : bool
        Which of them.

    Returns
    -------
    Tensor, shape (N, K, 2 Y, 2 X) or (N, K, 2 Y - 2, 2 X - 2)
        In the memory order ``channels_last``.
    """
    count, channels, height, width = four.shape
    features = channels // 4
    # Of the four, neighbours in a row lie side by side, so that both are copied as one.
    values = four.permute(0, 2, 3, 1).view(count, height, width, 2, 2 * features)
    if not padded:
        pixels = four.new_empty(count, height, 2, width, 2 * features)
        pixels[:, :, 0], pixels[:, :, 1] = values[:, :, :, 0], values[:, :, :, 1]
        whole = pixels.view(count, 2 * height, 2 * width, features)
        return whole.permute(0, 3, 1, 2)
    height, width = height - 1, width - 1
    pixels = four.new_empty(count, height, 2, 2 * width * features)
    for row, pairs in enumerate((values[:, :-1, :, 1], values[:, 1:, :, 0])):
        # Corners on the rim have one pixel of a row inside.
        inside = pixels[:, :, row, features:-features].view(count, height, -1, 2 * features)
        inside.copy_(pairs[:, :, 1:-1])
        pixels[:, :, row, :features] = pairs[:, :, 0, features:]
        pixels[:, :, row, -features:] = pairs[:, :, -1, :features]
    return pixels.view(count, 2 * height, 2 * width, features).permute(0, 3, 1, 2)


def pool(image: Tensor, *, positive: bool = False) -> Tensor:
    """Return the maxima of 2 x 2 pixels of (N, C, Y, X), NaN where there is one.

    torch's own pooling notes where each was, which takes three times as long in ``channels_last``.
    Of bfloat16 that is `positive`, nowhere below 0, the bits are compared, in half of the time.
    """
    if positive and image.dtype is torch.bfloat16:
        return pool(image.view(torch.int16)).view(torch.bfloat16)
    height, width = image.shape[2] // 2 * 2, image.shape[3] // 2 * 2
    rows = torch.maximum(image[:, :, 0:height:2], image[:, :, 1:height:2])
    return torch.maximum(rows[:, :, :, 0:width:2], rows[:, :, :, 1:width:2])
