"""What a model file says about itself; read without torch and without trusting the file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zlib
from dataclasses import asdict, dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from safetensors import SafetensorError, safe_open

from unetkit.errors import InputError, MissingError, UnavailableError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.decision import Decision
from unetkit.options import declared, parse_texts
from unetkit.registry import Registry, is_distribution_name
from unetkit.storage import urls
from unetkit.storage.outputs import check_new
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A header of ours takes a few kilobytes; the list of a large model's tensors some more.
LARGEST_HEADER = 16 * 2**20

_FOREIGN = {
    b"PK": "a zip file (PyTorch, TorchScript and Keras write these; PyTorch's hold a pickle)",
    b"\x80": "a Python pickle (old PyTorch files are such)",
    b"\x89HDF": "an HDF5 file (Keras writes these)",
    b"\x1f\x8b": "a gzip file",
    b"{": "a JSON file",
}


SUFFIX = ".safetensors"
# The model file that lies in a package for bioimage.io, and how such packages end.
PACKED, PACKAGE_SUFFIX = f"model{SUFFIX}", ".zip"
# What weights never shrink by, and what was made to fill somebody's memory does.
MOST_SHRUNK = 100
# What is taken where no model is named.
DEFAULT_MODEL = f"model{SUFFIX}"


def check_suffix(path: str) -> None:
    """Refuse the name of a model file to write that has another suffix."""
    if not path.endswith(SUFFIX):
        raise UsageError(f"output must end in {SUFFIX}, as model files do, got {path}; add it")


def check_model_options(texts: Sequence[str], *, model: str | None, init: str | None) -> None:
    """Refuse options that a model of our own does not take, by its declaration; none is built.

    Which model it is may be said by the file to begin with, and is asked for later then.
    """
    if not texts or (model is None and init is not None):
        return
    name = model or "unet"
    entry = Registry("unetkit.models", noun="model").entry(name)
    if not entry.is_own:
        return
    try:
        build = declared(entry.point.value)
    except LookupError:
        # Made in a loop, in a module that loads no network.
        build = entry.point.load()
    parse_texts(texts, build, model=name)


def fold_paths(output: str, folds: int) -> list[str]:
    """Name the model files of a training, one where there is one fold only.

    >>> fold_paths("model.safetensors", 2)
    ['model.fold1.safetensors', 'model.fold2.safetensors']
    """
    stem = output.removesuffix(SUFFIX)
    # What has another suffix is refused where it is about to be made.
    suffix = output[len(stem) :]
    return [f"{stem}.fold{k}{suffix}" for k in range(1, folds + 1)] if folds > 1 else [output]


def check_new_models(overwrite: bool, *, output: str, folds: int, resume: bool) -> None:
    """Refuse model files that are there, unless a training goes on."""
    for path in fold_paths(output, folds) if not resume else ():
        check_new(path, overwrite=overwrite)


def export_path(model: str, to: str) -> str:
    """Name what a model file is exported to, beside it.

    >>> export_path("cells/model.safetensors", "onnx"), export_path("m.safetensors", "bioimageio")
    ('cells/model.onnx', 'm.bioimageio.zip')
    """
    ending = f"{to}{PACKAGE_SUFFIX}" if to == "bioimageio" else to
    return f"{model.removesuffix(SUFFIX)}.{ending}"


def check_new_model_export(overwrite: bool, *, source: str, to: str, output: str | None) -> None:
    """Refuse the export of a model that is there."""
    check_new(output or export_path(source, to), overwrite=overwrite)


def check_places(places: Sequence[str]) -> None:
    """Refuse less than a model file and a dataset."""
    if len(places) < 2:
        raise UsageError(
            f"tune must get a model file and a dataset with labels, got {len(places)} names; try"
            " 'unetkit tune model.safetensors data.zarr'"
        )
    urls.check_there(places[-1])


def check_installed(name: str) -> None:
    """Refuse the name of a model that nobody offers; none is loaded."""
    Registry("unetkit.models", noun="model").entry(name)


def open_model(path: str, *, max_size: int | None = None) -> Any:
    """Open a model file, by path or URL; of a store no more than `max_size` bytes are fetched."""
    try:
        if is_package(path):
            return BytesIO(_unpacked(path))
        if urls.is_remote(path):
            return BytesIO(urls.read(path, stop=max_size))
        return Path(path).open("rb")
    except UnavailableError:
        raise  # it is an OSError too
    except FileNotFoundError as error:
        known = Registry("unetkit.models", noun="model").offers(os.fspath(path))
        hint = ", an installed model where a file is meant" if known else ""
        near = "" if known else f" {urls.did_you_mean(os.fspath(path), otherwise='')}".rstrip()
        raise MissingError(
            f"the model file must exist, got {os.fspath(path)!r}{hint};"
            f"{near} 'unetkit train' writes one, and"
            " tile-predict takes it by --model"
        ) from error
    except OSError as error:
        raise InputError(
            f"the model must be a file that can be read, got {os.fspath(path)!r}"
            f" ({error.strerror}); name one that 'unetkit train' wrote"
        ) from error


def is_package(path: str) -> bool:
    """Tell by its name whether a model lies in a package for bioimage.io."""
    return os.fspath(path).endswith(PACKAGE_SUFFIX)


def _unpacked(path: str) -> bytes:
    """Return the model file of a package for bioimage.io."""
    try:
        with ZipFile(BytesIO(urls.read(path))) as package:
            if PACKED not in package.namelist():
                raise InputError(
                    f"a package must hold the model file that 'unetkit models export' puts into it,"
                    f" got no {PACKED} in {path!r}; those of other programs can't be begun with"
                )
            found = package.getinfo(PACKED)
            if found.file_size > MOST_SHRUNK * max(found.compress_size, 1):
                raise damaged(path, "it would grow more than weights ever do")
            return package.read(found)
    except (BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise damaged(path, error) from error


def folds(path: str) -> list[str]:
    """List the folds that lie where a model file is absent, by their numbers."""
    place = Path(path)
    if urls.is_remote(path) or place.exists() or not place.parent.is_dir():
        return []
    pattern = re.compile(rf"{re.escape(place.stem)}\.fold(\d+){re.escape(place.suffix)}")
    named = [(pattern.fullmatch(other.name), other) for other in place.parent.iterdir()]
    numbered = sorted((int(match[1]), str(other)) for match, other in named if match)
    return [other for _, other in numbered]


def check_models(paths: Sequence[str]) -> None:
    """Refuse model files that are not there, nor folds of them; URLs are not asked for."""
    for path in paths or [DEFAULT_MODEL]:
        if not (urls.is_remote(path) or os.path.lexists(path) or folds(path)):
            open_model(path)


def check_prefix(prefix: bytes, *, path: str) -> int:
    """Return the length of a safetensors header from the first 9 bytes of the file.

    Another format is refused by its name, and so is a header larger than any real one.
    """
    size = int.from_bytes(prefix[:8], "little")
    if prefix[8:] == b"{" and 2 <= size <= LARGEST_HEADER:
        return size
    raise InputError(
        f"a model file must be a .safetensors file written by 'unetkit train', got"
        f" {_foreign(path, prefix)} in {path!r}; nothing else is opened, since a pickle can run"
        " code"
    )


def damaged(path: str, error: Exception | str) -> InputError:
    """Return the error that says that a model file is damaged."""
    return InputError(
        f"a model file must be whole, got a damaged one in {path!r} ({error!s:.200}); copy it"
        " again or train it again"
    )


def _foreign(path: str, prefix: bytes) -> str:
    with open_model(path, max_size=262) as stream:
        # A tar file names its first member before it says what it is.
        if stream.read(262)[257:] == b"ustar":
            return "a tar file (the oldest PyTorch files are such)"
    return next((n for magic, n in _FOREIGN.items() if prefix.startswith(magic)), "something else")


KEY = "unetkit"
SCHEMA = 1
# What the decision scored on held-out images, with intervals: in the provenance, whose names are
# free, so that earlier versions read these files.
HELD_OUT = "held_out"


@dataclass(frozen=True, kw_only=True)
class ModelHeader:
    """Everything that a prediction must know about a model besides its weights."""

    model: str
    options: dict[str, Any]  # `unetkit.models.model_file.to_bytes` adds the defaults
    in_channels: int
    class_names: tuple[str, ...]  # in the order of the logits
    target: str  # one of `unetkit.arrays.meanings.TARGETS`
    contract: SizeContract
    normalization: str  # the method that makes its input from raw intensities
    # Of the images that it was trained with: the choice of channels, micrometres along y, x and
    # perhaps z, and intensities, as `unetkit.arrays.intensities.Typical` writes them.
    channels: str | None = None
    pixel_size: dict[str, float] | None = None
    intensities: dict[str, Any] | None = None
    scores: dict[str, Any] = field(default_factory=dict)  # reached on the validation images
    decision: Decision | None = None  # how to make classes and objects of what it says
    provenance: dict[str, Any] = field(default_factory=dict)  # data, recipe, versions
    # Who offers the model, how many numbers were learned, and which; filled in on writing.
    distribution: str = ""
    version: str = ""
    parameters: int = 0
    checksum: str = ""  # of the tensors, as `unetkit.models.model_file.checksum_of` finds it
    schema: int = SCHEMA  # the version of this list

    @property
    def origin(self) -> str:
        """Who offers the model, for a sentence; what is no version is left out."""
        return f"{self.distribution or 'unetkit'} {self.version if _VERSION(self.version) else ''}"

    @property
    def full_name(self) -> str:
        """The registry name that is never ambiguous."""
        return f"{self.distribution}/{self.model}" if self.distribution else self.model

    @property
    def network_hash(self) -> str:
        """The SHA-256 of all but the decision and what it scored: of one network it is the same."""
        told = {name: value for name, value in self.provenance.items() if name != HELD_OUT}
        own = replace(self, decision=None, provenance=told)
        return hashlib.sha256(own.to_json().encode()).hexdigest()

    def learned_from(self, source: str) -> frozenset[str]:
        """Name the samples of a dataset that it learned from; it is known by its name alone."""
        names = self.provenance.get("trained_on")
        if self.provenance.get("data") != source or not isinstance(names, list):
            return frozenset()
        return frozenset(map(str, names))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        decision = None if self.decision is None else self.decision.to_dict()
        return {**asdict(self), "class_names": list(self.class_names), "decision": decision}

    def to_json(self) -> str:
        """Return the header as strict JSON, without NaN, the same text for the same header."""
        try:
            return json.dumps(self.to_dict(), allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"a model header must hold what JSON can, got {error}; use null where a number"
                " is missing"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> ModelHeader:
        """Rebuild a header from what `to_json` returned, if schema, fields and types are right."""
        try:
            stored = json.loads(
                text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_real
            )
            _check_depth(stored)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the header must be strict JSON, got {error!s:.200}") from error
        schema = stored.get("schema") if isinstance(stored, dict) else None
        if schema != SCHEMA:
            raise InputError(f"the header must be of schema {SCHEMA}, got {schema!r:.80}")
        # Files from before these were kept do without.
        stored = {"intensities": None, "checksum": "", "decision": None, **stored}
        if set(stored) != {f.name for f in fields(cls)}:
            odd = sorted(set(stored) ^ {f.name for f in fields(cls)})
            raise InputError(f"the header must have all its fields and no other, got {odd!r:.200}")
        for name, holds in _CHECKS.items():
            if not holds(stored[name]):
                raise InputError(f"{name} of the header is unfit, got {stored[name]!r:.200}")
        contract = SizeContract.from_dict(stored["contract"])
        decision = stored["decision"]
        decision = None if decision is None else Decision.from_dict(decision)
        header = cls(**{**stored, "contract": contract, "decision": decision})
        return replace(header, class_names=tuple(header.class_names))


def read_header(path: str) -> ModelHeader:
    """Read what a model file says about itself, without its weights and without torch."""
    with open_model(path, max_size=9) as stream:
        size = check_prefix(stream.read(9), path=path)
    with open_model(path, max_size=8 + size) as stream:
        content = stream.read(8 + size)[8:]
    # From a store only the header is fetched; whoever loads the model sees whether all is there.
    if not is_remote(path) and not is_package(path):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise damaged(path, error) from error
    return parse_header(content, path=path)


def parse_header(content: bytes, *, path: str) -> ModelHeader:
    """Return our header from the JSON at the start of a checked safetensors file."""
    try:
        text = json.loads(content).get("__metadata__", {}).get(KEY)
    except (ValueError, RecursionError, AttributeError) as error:
        raise damaged(path, error) from error
    if not isinstance(text, str):
        raise InputError(
            f"a model file must be written by 'unetkit train', got a .safetensors file without"
            f" its header in {path!r}; name one that it wrote"
        )
    try:
        return ModelHeader.from_json(text)
    except InputError as error:
        raise InputError(
            f"model file {path!r} can't be read: {error}; train it again, or use the version of"
            " unetkit that wrote it"
        ) from error


# As PEP 440 has them, roughly; a file may say anything.
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,60}").fullmatch


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"the number {text:.20}...")
    return value


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.20}")
    return value


# A header that is nested deeper than this was not written by a training.
_DEEPEST = 32


def _check_depth(value: Any, left: int = _DEEPEST) -> None:
    """Refuse what is nested so deep that whoever walks through it may come to grief."""
    if left == 0:
        raise ValueError(f"more than {_DEEPEST} levels")
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            _check_depth(entry, left - 1)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number_of(value: Any) -> bool:
    return _is_count(value) and 0 < value <= _MOST


# More channels or classes than this were never trained, and arithmetic on shapes could overflow.
_MOST = 2**16


def _are_names(value: Any) -> bool:
    enough = isinstance(value, list) and 1 < len(value) <= _MOST
    return enough and all(isinstance(name, str) for name in value)


# Micrometres; no microscope shows a metre in a pixel.
LARGEST_PIXEL = 1e6


def _are_sizes(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        type(size) in (int, float) and 0 < size < LARGEST_PIXEL for size in value.values()
    )


def _is(kind: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "model": _is(str),
    "options": _is(dict),
    "in_channels": _is_number_of,
    "class_names": _are_names,
    "target": _is(str),
    "contract": _is(dict),
    "normalization": _is(str),
    "channels": _is(str | None),
    "pixel_size": _are_sizes,
    "intensities": _is(dict | None),
    "scores": _is(dict),
    "decision": _is(dict | None),
    "provenance": _is(dict),
    "distribution": lambda value: value == "" or is_distribution_name(value),
    "version": _is(str),
    "parameters": _is_count,
    "checksum": _is(str),
}
