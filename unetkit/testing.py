"""Checks that the author of a model runs in their own tests; they know no model by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.geometry.tiles import cover, mirror
from unetkit.models.hardware import forward
from unetkit.models.losses import weighted_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def check_model(
    build: Callable[..., nn.Module], *, in_channels: int = 1, classes: int = 2, **options: Any
) -> None:
    """Build a model and check everything that unetkit relies on.

    That is: the sizes that come out are those that its contract says; evaluation has no chance in
    it and treats the images of a batch alone; fresh logits have both signs; every parameter
    learns; the weights survive a file; and where the contract says ``exact``, tiles equal one pass
    over the whole image to the bit.

    Parameters
    ----------
    build : callable
        What the entry point names.
    in_channels, classes : int
        What it is built with.
    **options
        Its own options; choose small ones, a check runs the model some thirty times.

    Raises
    ------
    CheckError
        If one of these does not hold; the message says which.

    Examples
    --------
    >>> from unetkit.models.unet import build
    >>> check_model(build, depth=1, width=2)
    """
    torch.manual_seed(0)
    module = build(in_channels=in_channels, classes=classes, **options)
    contract = getattr(module, "contract", None)
    _require(isinstance(module, nn.Module), "be a torch module", type(module).__name__)
    if not isinstance(contract, SizeContract):
        raise CheckError(
            f"a model must have a SizeContract as its contract, got {contract!r:.80};"
            " set self.contract"
        )
    least = contract.legal(contract.minimum + 2 * contract.need)
    batch = torch.randn(2, in_channels, least, least + contract.step)
    _check_sizes(module.eval(), contract, in_channels=in_channels, classes=classes)
    _check_evaluation(module, batch)
    _check_learning(module.train(), contract, batch)
    _make_uneven(module.eval())
    _check_weights(module, build(in_channels=in_channels, classes=classes, **options), batch)
    if contract.exact:
        _check_tiling(module, contract, in_channels=in_channels)


def whole_pass(module: nn.Module, image: Tensor, *, overlap: int) -> Tensor:
    """Run a network once over a whole image, mirrored by `overlap` pixels on every side.

    Parameters
    ----------
    module : nn.Module
        A network with a `contract`.
    image : Tensor of float32, shape (C, Y, X)
        A normalized image of any size.
    overlap : int
        Context on each side, at least the contract's need.

    Returns
    -------
    Tensor of float32, shape (K, Y, X)
        The logits, computed ``exact``.
    """
    contract: SizeContract = module.contract  # type: ignore[assignment]
    _, height, width = image.shape
    rows = mirror(-overlap, contract.legal(height + 2 * overlap) - overlap, height)
    columns = mirror(-overlap, contract.legal(width + 2 * overlap) - overlap, width)
    logits = _logits(module, image[:, rows][:, :, columns][None])[0]
    top = overlap - contract.margin
    return logits[:, top : top + height, top : top + width]


def tiled_pass(module: nn.Module, image: Tensor, *, tile: int, overlap: int) -> Tensor:
    """Run a network tile by tile; equals `whole_pass` where tiling is exact.

    Parameters
    ----------
    module : nn.Module
        A network with a `contract`.
    image : Tensor of float32, shape (C, Y, X)
        A normalized image of any size.
    tile : int
        Size of a tile. It is not checked against the step, so that a test can show what a size
        off the step does.
    overlap : int
        Context on each side, at least the contract's need.

    Returns
    -------
    Tensor of float32, shape (K, Y, X)
        The logits, computed ``exact``.
    """
    contract: SizeContract = module.contract  # type: ignore[assignment]
    _, height, width = image.shape
    size = contract.legal(tile + 2 * overlap)
    blocks = []
    for t in cover(height, width, tile=tile, overlap=overlap, size=size):
        rows = mirror(t.read_y0, t.read_y1, height)
        columns = mirror(t.read_x0, t.read_x1, width)
        logits = _logits(module, image[:, rows][:, :, columns][None])[0]
        blocks.append((t, logits[:, *t.crop(contract.margin)]))
    result = torch.empty(blocks[0][1].shape[0], height, width)
    for t, block in blocks:
        result[:, t.y0 : t.y1, t.x0 : t.x1] = block
    return result


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise CheckError(f"a model must {rule}, got {got}; correct the model or its contract")


def _logits(module: nn.Module, batch: Tensor) -> Tensor:
    with torch.inference_mode():
        return forward(module, batch, precision="exact")


def _check_sizes(
    module: nn.Module, contract: SizeContract, *, in_channels: int, classes: int
) -> None:
    sizes = [contract.minimum + k * contract.step for k in (0, 1, 2, 5)]
    for height, width in zip(sizes, reversed(sizes), strict=True):
        logits = _logits(module, torch.randn(1, in_channels, height, width))
        promised = (1, classes, contract.output(height), contract.output(width))
        _require(
            tuple(logits.shape) == promised,
            f"return {promised} for an input of {height} x {width}",
            tuple(logits.shape),
        )


def _check_evaluation(module: nn.Module, batch: Tensor) -> None:
    both, alone = _logits(module, batch), _logits(module, batch[:1])
    _require(bool(both.isfinite().all()), "return finite logits", "NaN or Inf")
    _require(torch.equal(both, _logits(module, batch)), "repeat itself in evaluation", "a change")
    gap = float((both[:1] - alone).abs().max())
    _require(
        gap <= 1e-5 * max(1.0, float(both.abs().max())),
        "treat each image of a batch alone in evaluation",
        f"a difference of {gap:.2g}",
    )
    signs = bool((both > 0).any()) and bool((both < 0).any())
    _require(signs, "return logits of both signs (no activation after the last layer)", "one sign")


def _check_learning(module: nn.Module, contract: SizeContract, batch: Tensor) -> None:
    # Drop-out can silence a narrow network as a whole; a few passes make that unlikely.
    for _ in range(4):
        logits = module(batch)
        target = torch.randint(logits.shape[1], (logits.shape[0], *logits.shape[2:]))
        loss: Any = weighted_cross_entropy(logits, target, torch.ones(target.shape))
        loss.backward()
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        learns = gradient is not None and bool(gradient.isfinite().all())
        _require(
            learns or not parameter.requires_grad,
            f"give every parameter a finite gradient, also {name!r}",
            "none" if gradient is None else "NaN or Inf",
        )
    module.zero_grad(set_to_none=True)


def _check_weights(module: nn.Module, fresh: nn.Module, batch: Tensor) -> None:
    state = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)), strict=True)
    same = torch.equal(_logits(module, batch), _logits(fresh.eval(), batch))
    _require(same, "compute the same after its weights went through a file", "a difference")


def _check_tiling(module: nn.Module, contract: SizeContract, *, in_channels: int) -> None:
    step, overlap = contract.step, contract.need
    image = torch.randn(in_channels, 3 * step + 1, 2 * step + step // 2 + 1)
    whole = whole_pass(module, image, overlap=overlap)
    for tile, context in ((step, overlap), (2 * step, overlap), (step, overlap + step)):
        tiled = tiled_pass(module, image, tile=tile, overlap=context)
        reference = whole if context == overlap else whole_pass(module, image, overlap=context)
        gap = float((tiled - reference).abs().max())
        _require(
            torch.equal(tiled, reference),
            f"equal one whole pass in tiles of {tile} with {context} pixels of context, or say"
            " exact=False",
            f"a difference of {gap:.2g}",
        )


def _make_uneven(module: nn.Module) -> None:
    """Disturb biases and statistics, so that a wrong order or a lost one shows."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
