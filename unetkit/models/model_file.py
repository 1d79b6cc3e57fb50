"""Models by name and models in files: one .safetensors file with a JSON header, never a pickle."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from unetkit.arrays.meanings import TARGETS, target_names
from unetkit.arrays.normalization import METHODS
from unetkit.errors import InputError, NonFiniteError, ResourceError, UsageError
from unetkit.models.build import SkipInit, build_model, build_shapes, models
from unetkit.models.model_header import (
    HELD_OUT,
    KEY,
    ModelHeader,
    check_prefix,
    damaged,
    open_model,
    parse_header,
)
from unetkit.options import complete

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from unetkit.models.decision import Decision


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to predict."""

    module: nn.Module  # in evaluation mode, on the processor
    header: ModelHeader
    sha256: str  # of the file


def to_bytes(module: nn.Module, header: ModelHeader) -> bytes:
    """Return a model as the bytes of a model file; the same model gives the same bytes.

    Who offers the model, its number of parameters and the defaults of its options are added to the
    header. Weights that are not finite are refused.
    """
    if getattr(module, "contract", None) != header.contract:
        raise UsageError(
            f"the header must have the contract of its module, got {header.contract};"
            " copy module.contract"
        )
    state = {name: _plain(tensor) for name, tensor in module.state_dict().items()}
    if (name := _first_nonfinite(state)) is not None:
        raise NonFiniteError(
            f"weights must be finite, got NaN or Inf in {name!r}; train with a lower learning rate"
        )
    registry = models()
    entry = registry.entry(header.full_name)
    options = complete(header.options, registry.get(entry.full_name), model=header.model)
    full = replace(
        header,
        # What only fetched the first weights must not be asked for when the file is loaded.
        options={**options, **getattr(module, "rebuilt_with", {})},
        distribution=entry.distribution,
        version=header.version or entry.version,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        checksum=checksum_of(state),
    )
    content: bytes = safetensors.torch.save(state, metadata={KEY: full.to_json()})
    return content


def load(path: str) -> LoadedModel:
    """Read a model file and build its network; nothing in the file can run code.

    What is damaged, none of ours or does not fit its network is refused.
    """
    with open_model(path) as stream:
        prefix = stream.read(9)
        size = check_prefix(prefix, path=path)
        content = prefix + stream.read()
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise damaged(path, error) from error
    header = parse_header(content[8 : 8 + size], path=path)
    _check_meaning(header, path=path)
    header = replace(header, options=rebuild_options(header, path=path))
    module = _rebuild(header, state, path=path)
    module.load_state_dict(state, strict=True)
    if (name := _first_nonfinite(state)) is not None:
        raise InputError(
            f"weights in model file {path!r} must be finite, got NaN or Inf in {name!r};"
            " train it again"
        )
    _check_sum(header, state, path=path)
    return LoadedModel(module.eval(), header, hashlib.sha256(content).hexdigest())


def check_content(content: bytes, *, path: str) -> ModelHeader:
    """Make sure that bytes are a model file as it was written, and return its header.

    Its network is not built.
    """
    size = check_prefix(content[:9], path=path)
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise damaged(path, error) from error
    header = parse_header(content[8 : 8 + size], path=path)
    _check_sum(header, state, path=path)
    return header


def with_decision(
    content: bytes,
    decision: Decision | None,
    *,
    path: str,
    held_out: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    steps: int | None = None,
) -> bytes:
    """Return the bytes of a model file with another decision; its weights stay as they are.

    What another decision scored on held-out images goes; `held_out` says what this one did.
    `warnings`, where there are any, take the place of those that it has, and so do `steps`.
    """
    header = check_content(content, path=path)
    told = {name: value for name, value in header.provenance.items() if name != HELD_OUT}
    if held_out is not None:
        told[HELD_OUT] = held_out
    if warnings:
        told["warnings"] = list(warnings)
    if steps is not None:
        told["steps"] = steps
    header = replace(header, decision=decision, provenance=told)
    state = safetensors.torch.load(content)
    changed: bytes = safetensors.torch.save(state, metadata={KEY: header.to_json()})
    return changed


def _check_sum(header: ModelHeader, state: Mapping[str, Tensor], *, path: str) -> None:
    """Compare weights with the checksum of them that a file has since it is kept."""
    if header.checksum not in ("", checksum_of(state)):
        raise damaged(path, "its weights have another checksum than it says")


def checksum_of(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the checksum of a text and of tensors, with their names, types and shapes."""
    found = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        said = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        found = zlib.crc32(said.encode(), found)
        if tensor.numel():
            found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def rebuild_options(header: ModelHeader, *, path: str) -> dict[str, Any]:
    """Return the options to build a file's network with: without those that only fetch.

    What a file says must not make anybody open another file or connect to anywhere.
    """
    build = models().get(installed_name(header, path=path))
    instead: Mapping[str, Any] = getattr(build, "rebuilt_with", {})
    return {**header.options, **{k: v for k, v in instead.items() if k in header.options}}


def _check_meaning(header: ModelHeader, *, path: str) -> None:
    """Refuse a header by which the classes of the network would mean something else."""
    wrong, expected = None, header.class_names
    if header.target in TARGETS:
        # Of what objects are called only their number is known, which is one at least.
        named = header.class_names[1:] if len(header.class_names) > 2 else ("", "a class")
        expected = target_names(header.target, named)
    if header.target not in TARGETS:
        wrong = f"a target out of {', '.join(TARGETS)}, got {header.target!r:.80}"
    elif header.target != "classes" and header.class_names != expected:
        names = ", ".join(expected)
        wrong = f"the classes {names} for target {header.target}, got {header.class_names!r:.80}"
    elif header.normalization not in METHODS:
        wrong = f"a normalization out of {', '.join(METHODS)}, got {header.normalization!r:.80}"
    if wrong is not None:
        raise InputError(f"model file {path!r} must have {wrong}; train it again")


def installed_name(header: ModelHeader, *, path: str) -> str:
    """Return the registry name of the network that a model file needs, or say what to install."""
    try:
        return models().entry(header.full_name).full_name
    except UsageError as error:
        raise ResourceError(
            f"model file {path!r} needs model {header.model!r:.80} of {header.origin}, which is not"
            " installed; install it from where you have the file, if you trust that place"
        ) from error


def _rebuild(header: ModelHeader, state: Mapping[str, Tensor], *, path: str) -> nn.Module:
    """Build the network that a header names, once its weights are known to fit."""
    name = installed_name(header, path=path)
    given = {"in_channels": header.in_channels, "classes": len(header.class_names)}
    try:
        # Shapes first: a forged header must not make this process fill its memory.
        shapes = build_shapes(name, options=header.options, **given)
    except UsageError as error:
        raise InputError(f"model file {path!r} can't be used: {error}") from error
    if shapes is not None:
        _check_fit(shapes, state, path=path)
    with torch.random.fork_rng(devices=[]), SkipInit():
        module = build_model(name, options=header.options, **given)
    _check_fit(module, state, path=path)
    if module.contract != header.contract:
        raise InputError(
            f"model file {path!r} must have the size contract of model {header.model!r}, got"
            f" {header.contract}; use {header.origin}, or train it again"
        )
    return module


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], *, path: str) -> None:
    want = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    have = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if want == have:
        return
    odd = {
        "missing": sorted(want.keys() - have.keys()),
        "unknown": sorted(have.keys() - want.keys()),
        "of another shape": sorted(k for k in want.keys() & have.keys() if want[k] != have[k]),
    }
    message = ", ".join(
        f"{len(names)} {what} ({names[0]!r:.80})" for what, names in odd.items() if names
    )
    raise InputError(
        f"model file {path!r} must hold exactly the weights of its network, got {message};"
        " train it again"
    )


def _plain(tensor: Tensor) -> Tensor:
    # A copy, since two names may share one tensor, which the format does not know.
    return tensor.detach().cpu().contiguous().clone()


def _first_nonfinite(state: Mapping[str, Tensor]) -> str | None:
    return next((name for name in sorted(state) if not bool(state[name].isfinite().all())), None)
