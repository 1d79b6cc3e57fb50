"""The bytes of a model file, on disk or in a store, judged before anything is made of them."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

from unetkit import remote
from unetkit.errors import InputError, MissingError, TryAgainError
from unetkit.registry import Registry

# A header of ours takes a few kilobytes; the list of a large model's tensors some more.
LARGEST_HEADER = 16 * 2**20

_FOREIGN = {
    b"PK": "a zip file (PyTorch, TorchScript and Keras write these; PyTorch's hold a pickle)",
    b"\x80": "a Python pickle (old PyTorch files are such)",
    b"\x89HDF": "an HDF5 file (Keras writes these)",
    b"\x1f\x8b": "a gzip file",
    b"{": "a JSON file",
}


def open_model(path: str, *, most: int | None = None) -> Any:
    """Open a model file for reading bytes.

    Parameters
    ----------
    path : str
        A path or URL.
    most : int, optional
        How many bytes are going to be read, so that no more are fetched from a store.

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If it can't be read.
    TryAgainError
        If a remote store does not answer.
    """
    try:
        if remote.is_remote(path):
            return BytesIO(remote.read(path, stop=most))
        return Path(path).open("rb")
    except TryAgainError:
        raise  # it is an OSError too
    except FileNotFoundError as error:
        known = Registry("unetkit.models", noun="model").offers(os.fspath(path))
        hint = ", an installed model where a file is meant" if known else ""
        raise MissingError(
            f"the model file must exist, got {os.fspath(path)!r}{hint}; 'unetkit train' writes one,"
            " and tile-predict takes it by --model"
        ) from error
    except OSError as error:
        raise InputError(
            f"the model must be a file that can be read, got {os.fspath(path)!r}"
            f" ({error.strerror}); name one that 'unetkit train' wrote"
        ) from error


def check_prefix(prefix: bytes, *, path: str) -> int:
    """Return the length of a safetensors header from the first 9 bytes of the file.

    Raises
    ------
    InputError
        If the file is of another format, which the message names, or its header is larger than
        any real one.
    """
    size = int.from_bytes(prefix[:8], "little")
    if prefix[8:] == b"{" and 2 <= size <= LARGEST_HEADER:
        return size
    raise InputError(
        f"a model file must be a .safetensors file written by 'unetkit train', got"
        f" {_foreign(path, prefix)} in {path!r}; nothing else is opened, since a pickle can run"
        " code"
    )


def damaged(path: str, error: Exception) -> InputError:
    """Return the error that says that a model file is damaged."""
    return InputError(
        f"a model file must be whole, got a damaged one in {path!r} ({error!s:.200}); copy it"
        " again or train it again"
    )


def _foreign(path: str, prefix: bytes) -> str:
    with open_model(path, most=262) as stream:
        # A tar file names its first member before it says what it is.
        if stream.read(262)[257:] == b"ustar":
            return "a tar file (the oldest PyTorch files are such)"
    return next((n for magic, n in _FOREIGN.items() if prefix.startswith(magic)), "something else")
