"""What must be alike on every machine that takes part in a prediction."""

from __future__ import annotations

import importlib.metadata
import os
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unetkit.errors import ResourceError
from unetkit.storage.lock import lock_path
from unetkit.storage.urls import is_remote
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unetkit.engine.pools import Scheduler
    from unetkit.models.model_header import ModelHeader
    from unetkit.storage.datasets import Dataset

# So much of a file tells whether it is the same one; the whole is hashed where it is loaded.
FIRST_BYTES = 2**16
NOTHING = "nothing there"


def surroundings(*, packages: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """Tell what a prediction needs of its machine: versions, and what lies at each path."""
    found = {"unetkit": __version__, "torch": torch.__version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "that is not installed"
    return found | {path: _content(path) for path in paths}


def _content(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return f"file {zlib.crc32(file.read(FIRST_BYTES)):08x}"
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        return os.strerror(error.errno or 0).lower()


def environment_of(
    files: Sequence[str], headers: Sequence[ModelHeader], dataset: Dataset, *, partial_url: str
) -> Callable[[], dict[str, str]]:
    """Say what every worker must find: packages, model files, images, and where the output goes.

    The lock beside the partial is there while this process works, and no two are alike, so that
    who reads it sees this very folder.
    """
    arrays = dict.fromkeys(sample.data.with_absolute_url().url for sample in dataset.samples[:1])
    names = [*files, *(_document(url) for url in arrays), lock_path(partial_url)]
    paths = [str(Path(name).absolute()) for name in names if not is_remote(name)]
    packages = dict.fromkeys(header.distribution for header in headers if header.distribution)
    others = [name for name in packages if name != "unetkit"]
    return partial(surroundings, packages=others, paths=paths)


def _document(url: str) -> str:
    """Name the document of an array, in either format."""
    if is_remote(url):
        return url
    names = (str(Path(url, name)) for name in ("zarr.json", ".zarray"))
    return next((name for name in names if Path(name).is_file()), url)


# So many differences are named; the first is mostly the cause of the others.
NAMED = 3


def compare_workers(scheduler: Scheduler, look: Callable[[], Mapping[str, str]]) -> None:
    """Make sure that every worker of a cluster finds what this process finds.

    Workers of this machine's own pools share everything with this process and are not asked.
    """
    if scheduler.kind != "cluster":
        return
    here = look()
    # Loaded where it is used, as `schedulers` does.
    from unetkit.engine import clusters

    found = clusters.ask_workers(scheduler, look)
    for address in sorted(found):
        there = found[address]
        if isinstance(there, BaseException):
            raise ResourceError(
                f"worker {address} must be able to do what this process does, got "
                f"{type(there).__name__}: {there!s:.200}; install the same versions there"
            ) from there
        differences = [
            f"{name} {there.get(name, 'unknown')} instead of {value}"
            for name, value in here.items()
            if there.get(name) != value
        ]
        if differences:
            raise ResourceError(
                f"worker {address} must find what is found here, got "
                f"{', '.join(differences[:NAMED])}; install the same versions everywhere, and "
                "give paths that all machines share"
            )
