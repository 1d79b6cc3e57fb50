"""The networks of a prediction: one model file, or several whose probabilities are averaged."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch

from unetkit.commands.tile_predict.averaging import Averaging, EnsembleMember
from unetkit.engine.pools import worker_number
from unetkit.errors import InputError, UsageError
from unetkit.models import hardware, model_file, model_header
from unetkit.models.fusion import fuse
from unetkit.models.joint_header import common_header
from unetkit.models.model_header import DEFAULT_MODEL, HELD_OUT, folds
from unetkit.storage import urls
from unetkit.storage.urls import absolute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from unetkit.commands.tile_predict.averaging import Merge, Tta
    from unetkit.models.model_file import LoadedModel
    from unetkit.models.model_header import ModelHeader
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample

# Models of this process by file, hash, device and whether they are fused; those of the last call
# are kept for the next, and others are found as long as somebody holds them.
_Key = tuple[str, str, str, bool]
_LOADED: OrderedDict[_Key, LoadedModel] = OrderedDict()
_HELD: WeakValueDictionary[_Key, LoadedModel] = WeakValueDictionary()
_LOADING = threading.Lock()


def load_model(
    path: str, *, device: str, sha256: str | None = None, keep: int = 1, fused: bool = True
) -> LoadedModel:
    """Load a model file onto a device, ready to predict, once in each process.

    The device `cuda` is a GPU for each of the workers of this machine. The bytes must hash to
    `sha256` where it is given. The last `keep` models that were asked for stay loaded. A `fused`
    one computes several layers in one step where it can, but for precision `exact`, which computes
    to the last bit what the network computes anywhere else.
    """
    path = absolute(path)
    if device == "cuda":
        device = assign_gpu(worker_number(), torch.cuda.device_count())
    with _LOADING:
        known = None if sha256 is None else _HELD.get((path, sha256, device, fused))
        if known is not None:
            return _kept(known, (path, known.sha256, device, fused), keep=keep)
        hardware.tune_allocator()
        found = model_file.load(path)
        if sha256 not in (None, found.sha256):
            raise InputError(
                f"{path} must stay as it was when the prediction began, got other bytes; "
                "put the model file back, or start again"
            )
        module = found.module.to(device).eval()
        ready = replace(found, module=fuse(module) if fused else module)
        return _kept(ready, (path, found.sha256, device, fused), keep=keep)


def _kept(model: LoadedModel, key: _Key, *, keep: int) -> LoadedModel:
    """Keep a model, and no more than the last `keep` of them unless somebody else holds them."""
    _LOADED[key] = _HELD[key] = model
    _LOADED.move_to_end(key)
    while len(_LOADED) > keep:
        _LOADED.popitem(last=False)
    return model


def assign_gpu(number: int | None, count: int) -> str:
    """Return the GPU of a worker, where any of several would do.

    >>> [assign_gpu(number, 2) for number in (0, 1, 2, None)]
    ['cuda:0', 'cuda:1', 'cuda:0', 'cuda']
    """
    return "cuda" if number is None else f"cuda:{number % max(1, count)}"


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads inside a `with` block; None changes nothing."""
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(count: int | None) -> None:
    """Let torch use `count` threads from now on in this process; None changes nothing."""
    if count is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)


@lru_cache(maxsize=8)
def compute_slots(count: int | None) -> AbstractContextManager[Any]:
    """Let at most `count` threads of this process compute at once; None for any number.

    A network that has all cores gains nothing from a second beside it, which would double the
    memory, while reading and writing of other tiles go on meanwhile.
    """
    return nullcontext() if count is None else threading.BoundedSemaphore(count)


@dataclass(frozen=True)
class ModelFile:
    """What a plan must know of a model file."""

    header: ModelHeader
    sha256: str


@dataclass(frozen=True)
class Ensemble:
    """One network, or several whose probabilities are averaged."""

    paths: tuple[str, ...]  # the model files, as any process finds them
    files: tuple[ModelFile, ...]  # in the order in which they are added up
    header: ModelHeader  # of the first; its contract is the one that all of them keep
    models: tuple[LoadedModel, ...] = ()  # the networks of the files, where they were loaded

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks out of what travels to another process: it loads them itself."""
        return {**self.__dict__, "models": ()}

    @property
    def sha256(self) -> str:
        """The hash of the model file; those of several with `+` between them."""
        return "+".join(file.sha256 for file in self.files)

    @property
    def networks(self) -> dict[str, Any]:
        """What tells the networks again once another decision was fitted, scored as this one is.

        Without scores of the decision the hash of the file tells them, as it always did.
        """
        if not any(HELD_OUT in file.header.provenance for file in self.files):
            return {}
        return {"networks": common_value([file.header.network_hash for file in self.files])}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.models[0].module.parameters()).device

    @property
    def names(self) -> str:
        """The registry names; once where all have the same."""
        names = dict.fromkeys(file.header.full_name for file in self.files)
        return ", ".join(names)

    @property
    def methods(self) -> tuple[str, ...]:
        """How each of the networks wants its input normalized."""
        return tuple(file.header.normalization for file in self.files)

    def told_of_learned(self, source: str, samples: Sequence[Sample]) -> str:
        """Say that some network has learned from images; empty where none has."""
        known = {name for file in self.files for name in file.header.learned_from(source)}
        seen = [sample.name for sample in samples if sample.name in known]
        if not seen:
            return ""
        some = ", ".join(seen[:3]) + (", ..." if len(seen) > 3 else "")
        return (
            f"the model has learned from {len(seen)} of the {len(samples)} images ({some}): scores"
            " on these say little of others"
        )

    def averaging(
        self, tile: int, *, overlap: int | None, tta: Tta = "none", merge: Merge = "crop"
    ) -> Averaging:
        """Say where the networks look, each with the context that it would have alone."""
        members = [
            EnsembleMember(
                path=path,
                sha256=file.sha256,
                contract=file.header.contract,
                overlap=file.header.contract.overlap(overlap, model=file.header.model),
            )
            for path, file in zip(self.paths, self.files, strict=True)
        ]
        return Averaging(tuple(members), tile, tta, merge)


def common_value(values: Sequence[Any]) -> Any:
    """Return what all networks have alike, else a list of what each one has.

    >>> common_value([92, 92]), common_value([92, 40])
    (92, [92, 40])
    """
    return values[0] if all(value == values[0] for value in values) else list(values)


def find_models(model: str | Sequence[str], *, progress: Progress) -> tuple[str, ...]:
    """Return the model files that a user's word means.

    Where a file is absent, but the folds of a cross-validation lie in its place, such as
    `model.fold1.safetensors` and `model.fold2.safetensors`, those are meant.
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


def read_header(paths: Sequence[str]) -> ModelHeader:
    """Read what the models of an ensemble have in common, without their weights."""
    return common_header(paths, [model_header.read_header(path) for path in paths])


def load_ensemble(paths: Sequence[str], *, device: str, fused: bool = True) -> Ensemble:
    """Load the networks of an ensemble onto a device, ready to predict; see `load_model`."""
    models = tuple(load_model(path, device=device, keep=len(paths), fused=fused) for path in paths)
    files = [ModelFile(model.header, model.sha256) for model in models]
    return replace(_ensemble(paths, files), models=models)


def read_ensemble(paths: Sequence[str]) -> Ensemble:
    """Read what a plan must know of the networks of an ensemble, without loading them."""
    files = []
    for path in paths:
        with model_header.open_model(path) as stream:
            sha256 = hashlib.sha256(stream.read()).hexdigest()
        files.append(ModelFile(model_header.read_header(path), sha256))
    return _ensemble(paths, files)


def _ensemble(paths: Sequence[str], files: Sequence[ModelFile]) -> Ensemble:
    header = common_header(paths, [file.header for file in files])
    # A worker may have another working folder.
    return Ensemble(tuple(map(urls.absolute, paths)), tuple(files), header)
