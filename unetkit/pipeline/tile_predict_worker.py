"""What a process that predicts tiles keeps between them: the model, its threads, its turns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from unetkit.engine.pools import worker_number
from unetkit.errors import InputError
from unetkit.models import hardware, modelfile
from unetkit.models.fusing import fuse
from unetkit.storage.urls import anywhere

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from unetkit.models.modelfile import LoadedModel

# Models of this process by file, hash, device and whether they are fused; those of the last call
# are kept for the next.
_LOADED: OrderedDict[tuple[str, str, str, bool], LoadedModel] = OrderedDict()
_LOADING = threading.Lock()


def load_model(
    path: str, *, device: str, sha256: str | None = None, keep: int = 1, fused: bool = True
) -> LoadedModel:
    """Load a model file onto a device, ready to predict, once in each process.

    Parameters
    ----------
    path : str
        The model file, as this process finds it.
    device : str
        Where the network computes; `cuda` is a GPU for each of the workers of this machine.
    sha256 : str, optional
        What the file's bytes must hash to; left out, whatever they are.
    keep : int
        How many models stay loaded, this one included; those that were asked for last.
    fused : bool
        Let it compute several layers in one step where it can. With precision `exact` it computes
        them as they are, to the last bit what the network computes anywhere else.

    Returns
    -------
    LoadedModel

    Raises
    ------
    InputError
        If the file is damaged or not the one that was meant.
    """
    path = anywhere(path)
    if device == "cuda":
        device = own_gpu(worker_number(), torch.cuda.device_count())
    with _LOADING:
        if sha256 is not None and (path, sha256, device, fused) in _LOADED:
            _LOADED.move_to_end((path, sha256, device, fused))
            return _LOADED[path, sha256, device, fused]
        hardware.tune_allocator()
        found = modelfile.load(path)
        if sha256 not in (None, found.sha256):
            raise InputError(
                f"{path} must stay as it was when the prediction began, got other bytes; "
                "put the model file back, or start again"
            )
        module = found.module.to(device).eval()
        ready = replace(found, module=fuse(module) if fused else module)
        _LOADED[path, found.sha256, device, fused] = ready
        _LOADED.move_to_end((path, found.sha256, device, fused))
        while len(_LOADED) > keep:
            _LOADED.popitem(last=False)
        return ready


def own_gpu(number: int | None, count: int) -> str:
    """Return the GPU of a worker, where any of several would do.

    Parameters
    ----------
    number : int or None
        Which of the workers of this machine it is; None for a process that is none.
    count : int
        How many GPUs there are.

    Examples
    --------
    >>> [own_gpu(number, 2) for number in (0, 1, 2, None)]
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
def turns(count: int | None) -> AbstractContextManager[Any]:
    """Let at most `count` threads of this process compute at once; None for any number.

    A network that has all cores gains nothing from a second beside it, which would double the
    memory, while reading and writing of other tiles go on meanwhile.
    """
    return nullcontext() if count is None else threading.BoundedSemaphore(count)
