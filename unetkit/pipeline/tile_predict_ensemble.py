"""The networks of a prediction: one model file, or several whose probabilities are averaged."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models import modelfile
from unetkit.pipeline.tile_predict_average import Averaging, Member
from unetkit.pipeline.tile_predict_worker import load_model
from unetkit.storage import urls

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from unetkit.models.modelfile import LoadedModel
    from unetkit.models.modelheader import ModelHeader
    from unetkit.pipeline.tile_predict_average import Merge, Turning
    from unetkit.progress import Progress

DEFAULT_MODEL = "model.safetensors"
# What models must share for an average of their probabilities to mean something.
SHARED = {
    "class_names": "classes",
    "target": "target",
    "in_channels": "number of channels",
    "channels": "choice of channels",
}


@dataclass(frozen=True)
class Ensemble:
    """One network, or several whose probabilities are averaged.

    Parameters
    ----------
    paths : tuple of str
        The model files, as any process finds them.
    models : tuple of LoadedModel
        In the order in which they are added up.
    header : ModelHeader
        Of the first; its contract is the one that all of them keep.
    """

    paths: tuple[str, ...]
    models: tuple[LoadedModel, ...]
    header: ModelHeader

    @property
    def sha256(self) -> str:
        """The hash of the model file; those of several with `+` between them."""
        return "+".join(model.sha256 for model in self.models)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.models[0].module.parameters()).device

    @property
    def names(self) -> str:
        """The registry names; once where all have the same."""
        names = dict.fromkeys(model.header.full_name for model in self.models)
        return ", ".join(names)

    @property
    def methods(self) -> tuple[str, ...]:
        """How each of the networks wants its input normalized."""
        return tuple(model.header.normalization for model in self.models)

    def averaging(
        self, tile: int, *, overlap: int | None, tta: Turning = "none", merge: Merge = "crop"
    ) -> Averaging:
        """Say where the networks look; each has the context that it would have alone.

        Parameters
        ----------
        tile, tta, merge
            As for `Averaging`.
        overlap : int, optional
            Context that was asked for on each side, in pixels; left out, what each one needs.

        Raises
        ------
        UsageError
            If one of them needs more than was asked for.
        """
        members = [
            Member(
                path=path,
                sha256=model.sha256,
                contract=model.header.contract,
                overlap=model.header.contract.overlap(overlap, model=model.header.model),
            )
            for path, model in zip(self.paths, self.models, strict=True)
        ]
        return Averaging(tuple(members), tile, tta, merge)


def alike(values: Sequence[Any]) -> Any:
    """Return what all networks have alike, else a list of what each one has.

    >>> alike([92, 92]), alike([92, 40])
    (92, [92, 40])
    """
    return values[0] if all(value == values[0] for value in values) else list(values)


def find_models(model: str | Sequence[str], *, progress: Progress) -> tuple[str, ...]:
    """Return the model files that a user's word means.

    Where a file is absent, but the folds of a cross-validation lie in its place, such as
    `model.fold1.safetensors` and `model.fold2.safetensors`, those are meant.

    Parameters
    ----------
    model : str or sequence of str
        What was given; nothing means `model.safetensors`.
    progress : Progress
        Told of folds.

    Returns
    -------
    tuple of str

    Raises
    ------
    UsageError
        If a file is named twice.
    """
    given = [model] if isinstance(model, str) else list(model) or [DEFAULT_MODEL]
    found: list[str] = []
    for path in given:
        parts = folds(path)
        if parts:
            progress.note(f"{path} is not there; its {len(parts)} folds are averaged")
        found += parts or [path]
    twice = next((path for path in found if found.count(path) > 1), None)
    if twice is not None:
        raise UsageError(
            f"model must name each file once, got {twice} twice; leave one of them out"
        )
    return tuple(found)


def folds(path: str) -> list[str]:
    """List the folds that lie where a model file is absent, by their numbers."""
    place = Path(path)
    if urls.is_remote(path) or place.exists() or not place.parent.is_dir():
        return []
    pattern = re.compile(rf"{re.escape(place.stem)}\.fold(\d+){re.escape(place.suffix)}")
    named = [(pattern.fullmatch(other.name), other) for other in place.parent.iterdir()]
    numbered = sorted((int(match[1]), str(other)) for match, other in named if match)
    return [other for _, other in numbered]


def read_header(paths: Sequence[str]) -> ModelHeader:
    """Read what the models of an ensemble have in common, without their weights.

    Raises
    ------
    InputError
        If a file is damaged, or two of them don't belong together.
    """
    return common_header(paths, [modelfile.read_header(path) for path in paths])


def load_ensemble(paths: Sequence[str], *, device: str, fused: bool = True) -> Ensemble:
    """Load the networks of an ensemble onto a device, ready to predict; see `load_model`.

    Raises
    ------
    InputError
        If a file is damaged, or two of them don't belong together.
    """
    models = tuple(load_model(path, device=device, keep=len(paths), fused=fused) for path in paths)
    # A worker may have another working folder.
    return Ensemble(
        tuple(map(urls.anywhere, paths)),
        models,
        common_header(paths, [model.header for model in models]),
    )


def common_header(paths: Sequence[str], headers: Sequence[ModelHeader]) -> ModelHeader:
    """Return the header that stands for all, once they are known to belong together.

    Parameters
    ----------
    paths : sequence of str
        Where the models lie, for the message.
    headers : sequence of ModelHeader
        What their files say.

    Returns
    -------
    ModelHeader
        The first, with the joint contract.

    Raises
    ------
    InputError
        Naming two that differ in classes, target or channels.
    """
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        for field, words in SHARED.items():
            ours, theirs = getattr(first, field), getattr(header, field)
            if ours != theirs:
                raise InputError(
                    f"models that are averaged must have the same {words}, got {_said(ours)} in "
                    f"{paths[0]} and {_said(theirs)} in {path}; leave one of them out"
                )
    return replace(first, contract=joint_contract([header.contract for header in headers]))


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def joint_contract(contracts: Sequence[SizeContract]) -> SizeContract:
    """Return the sizes on which all networks agree, for plans that know of one network only.

    The step is the least common multiple and the need the largest, so that a tile of the result
    suits each network. There is a halo only where each of them has one.

    Parameters
    ----------
    contracts : sequence of SizeContract
        One for each network.
    """
    first = contracts[0]
    if all(contract == first for contract in contracts):
        return first
    step = math.lcm(*(contract.step for contract in contracts))
    need = max(contract.need for contract in contracts)
    halo = min(contract.halo for contract in contracts)
    return SizeContract(
        step=step,
        minimum=max(contract.legal(step + 2 * contract.need) for contract in contracts),
        margin=need - halo,
        halo=halo,
        exact=all(contract.exact for contract in contracts),
    )
