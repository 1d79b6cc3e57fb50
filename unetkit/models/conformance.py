"""What every model must keep, held against one model; it knows no model by name."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.build import error_with_line
from unetkit.models.inference import logits_of, share, tile_gap
from unetkit.models.losses import weighted_cross_entropy
from unetkit.models.receptive_field import receptive_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A model on trial."""

    build: Callable[..., nn.Module]
    module: nn.Module  # in evaluation mode
    in_channels: int
    classes: int
    options: Mapping[str, Any]

    @property
    def contract(self) -> SizeContract:
        """What the model says of its sizes."""
        contract: SizeContract = self.module.contract  # type: ignore[assignment]
        return contract

    def fresh(self, *, seed: int = 0) -> nn.Module:
        """Build the model again, from a seed."""
        given = {"in_channels": self.in_channels, "classes": self.classes, **self.options}
        return built(self.build, given, seed=seed)

    def batch(self, count: int = 2) -> Tensor:
        """Draw images of a small legal size, the same for the same model."""
        side = self.contract.legal(self.contract.minimum + max(16, self.contract.step))
        generator = torch.Generator().manual_seed(0)
        shape = (count, self.in_channels, side, side + self.contract.step)
        return torch.randn(shape, generator=generator)

    def uneven(self) -> nn.Module:
        """Copy the model with biases and statistics disturbed, so that a lost one shows."""
        module = copy.deepcopy(self.module)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.dim() == 1 and tensor.is_floating_point():
                    tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
        return module


def built(build: Callable[..., nn.Module], arguments: Mapping[str, Any], *, seed: int) -> nn.Module:
    """Build a model from a seed, and leave the random numbers of others alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**arguments)


# Our choices: what rounding may do to logits, as a share of the largest one.
_FLOAT32_SHARE = 1e-5
_BFLOAT16_SHARE = 0.1


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Parameters
    ----------
    check : str
        Its name.
    holds : bool
        Whether the model keeps the rule.
    found : str
        What was measured, or which rule is broken.
    """

    check: str
    holds: bool
    found: str


def findings(
    build: Callable[..., nn.Module],
    *,
    in_channels: int = 1,
    classes: int = 2,
    options: Mapping[str, Any] | None = None,
    module: nn.Module | None = None,
) -> Iterator[Finding]:
    """Hold a model to everything that unetkit relies on, one check after the other.

    Parameters
    ----------
    build : callable
        What the entry point names.
    in_channels, classes : int
        What it is built with.
    options : mapping of str to object, optional
        Its own options.
    module : nn.Module, optional
        A trained model that `build` made; left out, a fresh one.

    Yields
    ------
    Finding
        One for each of `CHECKS`; the first two end the trial where they fail.
    """
    options = options or {}
    if module is None:
        given = {"in_channels": in_channels, "classes": classes, **options}
        module = built(build, given, seed=0)
    trial = Trial(
        build=build, module=module, in_channels=in_channels, classes=classes, options=options
    )
    for name, check in CHECKS.items():
        finding = _held(name, check, trial)
        yield finding
        if not finding.holds and check in (check_interface, check_sizes):
            return


def _held(name: str, check: Callable[[Trial], str], trial: Trial) -> Finding:
    # The model may fail in any way; drawing is left as if nobody had looked.
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Finding(name, holds=True, found=check(trial))
    except CheckError as error:
        return Finding(name, holds=False, found=str(error))
    except Exception as error:
        return Finding(
            name,
            holds=False,
            found=f"a model must run, got {error_with_line(error)}; correct it",
        )


def check_interface(trial: Trial) -> str:
    """Require a torch module with a size contract and one dtype of images."""
    _require(isinstance(trial.module, nn.Module), "be a torch module", type(trial.module).__name__)
    contract = getattr(trial.module, "contract", None)
    if not isinstance(contract, SizeContract):
        raise CheckError(
            f"a model must have a SizeContract as its contract, got {contract!r:.80};"
            " set self.contract"
        )
    trial.module.eval()
    parameters = sum(parameter.numel() for parameter in trial.module.parameters())
    return f"a torch module with {parameters} parameters and {contract}"


def check_sizes(trial: Trial) -> str:
    """Require the sizes that the contract promises, from real passes."""
    contract = trial.contract
    sizes = [contract.minimum + k * contract.step for k in (0, 1, 2, 5)]
    for height, width in zip(sizes, reversed(sizes), strict=True):
        logits = logits_of(trial.module, torch.randn(1, trial.in_channels, height, width))
        promised = (1, trial.classes, contract.output(height), contract.output(width))
        _require(
            tuple(logits.shape) == promised,
            f"return {promised} for an input of {height} x {width}",
            tuple(logits.shape),
        )
    return f"as promised for {', '.join(map(str, sizes))}"


def check_logits(trial: Trial) -> str:
    """Require finite logits of both signs."""
    logits = logits_of(trial.module, trial.batch())
    _require(bool(logits.isfinite().all()), "return finite logits", "NaN or Inf")
    seen = [logits]
    # One small network may be all of one sign by chance, eight of them not.
    for seed in range(1, 8):
        if any((s > 0).any() for s in seen) and any((s < 0).any() for s in seen):
            break
        seen.append(logits_of(trial.fresh(seed=seed).eval(), trial.batch()))
    else:
        _require(False, "return logits of both signs (no activation at its end)", "one sign")
    return f"from {float(logits.min()):.3g} to {float(logits.max()):.3g}"


def check_repetition(trial: Trial) -> str:
    """Require the same logits twice, and the same network from the same seed."""
    first, second = (logits_of(trial.module, trial.batch()) for _ in range(2))
    _require(torch.equal(first, second), "repeat itself in evaluation", "a change")
    one, other = trial.fresh().state_dict(), trial.fresh().state_dict()
    odd = [name for name in one if not torch.equal(one[name], other[name])]
    _require(not odd, "draw the same weights from the same seed", f"a change in {odd[:1]}")
    return "the same logits twice, the same weights from the same seed"


def check_batch(trial: Trial) -> str:
    """Require that evaluation treats the images of a batch alone."""
    both = logits_of(trial.module, trial.batch())
    alone = logits_of(trial.module, trial.batch()[:1])
    gap = share(both[:1] - alone, of=both)
    _require(
        gap <= _FLOAT32_SHARE,
        "treat each image of a batch alone in evaluation",
        f"a difference of {gap:.2g}",
    )
    return f"one image alone differs by {gap:.2g} of the largest logit"


def check_learning(trial: Trial) -> str:
    """Require finite gradients for every parameter, from batches of two and of one."""
    for count in (2, 1):
        module = copy.deepcopy(trial.module).train()
        try:
            _learn(module, trial.batch(count))
        except (ValueError, RuntimeError) as error:
            raise CheckError(
                f"a model must take a batch of {count} in training, got {error!s:.200}; layers"
                " that need several images, such as batch norm of one pixel, can't train here"
            ) from error
        for name, parameter in module.named_parameters():
            gradient = parameter.grad
            learns = gradient is not None and bool(gradient.isfinite().all())
            _require(
                learns or not parameter.requires_grad,
                f"give every parameter a finite gradient, also {name!r}",
                "none" if gradient is None else "NaN or Inf",
            )
    return "finite gradients from batches of two and of one"


def check_low_precision(trial: Trial) -> str:
    """Require that bfloat16 gives about the logits of float32."""
    batch = trial.batch(1)
    full = logits_of(trial.module, batch, precision="float32")
    low = logits_of(trial.module, batch, precision="bfloat16")
    gap = share(low - full, of=full)
    _require(
        gap <= _BFLOAT16_SHARE,
        f"give in bfloat16 what it gives in float32 to {_BFLOAT16_SHARE} of the largest logit",
        f"a difference of {gap:.2g}",
    )
    return f"bfloat16 differs by {gap:.2g} of the largest logit"


def check_file(trial: Trial) -> str:
    """Require that weights and options survive a model file."""
    module = trial.uneven()
    state = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    content = safetensors.torch.save(state)
    fresh = trial.fresh(seed=1).eval()
    fresh.load_state_dict(safetensors.torch.load(content), strict=True)
    same = torch.equal(logits_of(module, trial.batch()), logits_of(fresh, trial.batch()))
    _require(same, "compute the same after its weights went through a file", "a difference")
    try:
        kept = json.loads(json.dumps(dict(trial.options), allow_nan=False)) == trial.options
    except (TypeError, ValueError):
        kept = False
    _require(kept, "have options that JSON can hold", dict(trial.options))
    return f"the same logits after a file of {len(content)} bytes"


def check_context(trial: Trial) -> str:
    """Measure how far the model looks, and hold its claim to it."""
    contract = trial.contract
    field = receptive_field(trial.module, in_channels=trial.in_channels)
    if field.reach is None:
        _require(not contract.exact, "look at its surroundings only, or say exact=False", "no end")
        return f"looks at the whole tile; the contract says {contract.need} and exact=False"
    before, after = field.reach
    context, least = field.context(contract, need=contract.need), field.least_need(contract)
    looks = (
        f"a pixel of the output depends on up to {before} pixels of the input above or left of it"
        f" and {after} below or right of it"
    )
    _require(
        context <= contract.need or not contract.exact,
        f"need no more context than the {contract.need} pixels of its contract (margin + halo), or"
        " tiles show seams",
        f"{context}: {looks}; {least} would make tiles exact, which is"
        f" halo={(least or 0) - contract.margin} in the contract",
    )
    spare = contract.need - (least or 0)
    more = f"; {spare} less would make tiles cheaper and no worse" if spare > 0 else ""
    return (
        f"{looks}; {least} pixels of context make tiles exact, which begin on the grid of its step"
        f" so that what looks farther lies inside; the contract says {contract.need}{more}"
    )


def check_tiling(trial: Trial) -> str:
    """Compare tiles with one pass over the whole, on the step grid and off it."""
    contract, step = trial.contract, trial.contract.step
    module = trial.uneven()

    def gap(*starts: int) -> float:
        """Return the largest difference of tiles that start there, along both axes."""
        return max(
            tile_gap(module, in_channels=trial.in_channels, axis=axis, start=start)
            for axis in (2, 3)
            for start in starts
        )

    aligned = gap(step, 2 * step)
    _require(
        aligned == 0 or not contract.exact,
        f"equal one pass over the whole in tiles with {contract.need} pixels of context, or say"
        " exact=False",
        f"a difference of {aligned:.2g} of the largest logit",
    )
    off = f", {gap(step + step // 2):.2g} off the step grid" if step > 1 else ""
    return f"tiles differ from the whole by {aligned:.2g} of the largest logit{off}"


CHECKS: dict[str, Callable[[Trial], str]] = {
    "interface": check_interface,
    "sizes": check_sizes,
    "logits": check_logits,
    "repetition": check_repetition,
    "batch": check_batch,
    "learning": check_learning,
    "bfloat16": check_low_precision,
    "file": check_file,
    "context": check_context,
    "tiling": check_tiling,
}


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise CheckError(f"a model must {rule}, got {got}; correct the model or its contract")


def _learn(module: nn.Module, batch: Tensor) -> None:
    # Drop-out can silence a narrow network as a whole; a few passes make that unlikely.
    for _ in range(4):
        logits = module(batch)
        target = torch.randint(logits.shape[1], (logits.shape[0], *logits.shape[2:]))
        loss: Any = weighted_cross_entropy(logits, target, torch.ones(target.shape))
        loss.backward()
