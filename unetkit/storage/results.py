"""What jobs returned, kept beside a journal, so that a later run need not ask again.

What this module does not know: which jobs, and what their results mean.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from unetkit.errors import SurroundingsError
from unetkit.storage.atomic import make_folder
from unetkit.storage.journal import Journal
from unetkit.storage.urls import is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

# The entry of a file that says how its arrays are put together.
_TREE = "tree"


class Results:
    """Results of an unfinished run, a file each, in a folder with a journal.

    A result counts once the journal has its checksum; one that was torn or altered is not there.

    Parameters
    ----------
    folder : str
        Of the unfinished run.
    """

    def __init__(self, folder: str) -> None:
        self.journal = Journal(folder)
        self._folder = Path(folder)
        self._done = self.journal.done()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def put(self, key: str, tree: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep a result.

        Parameters
        ----------
        key : str
            Of the job.
        tree : object
            What JSON can hold.
        arrays : mapping of str to ndarray
            Of plain numbers.

        Raises
        ------
        SurroundingsError
            If the disk is full or refuses.
        """
        stream = io.BytesIO()
        text = np.frombuffer(json.dumps(tree, allow_nan=False).encode(), np.uint8)
        np.savez_compressed(stream, allow_pickle=False, **{_TREE: text}, **arrays)
        data = stream.getvalue()
        make_folder(str(self._folder))
        try:
            self._path(key).write_bytes(data)
        except OSError as error:
            raise SurroundingsError(f"{self._folder} must be writable, got: {error}") from error
        self.journal.record(key, checksum=zlib.crc32(data))

    def get(self, key: str) -> tuple[Any, dict[str, np.ndarray[Any, Any]]] | None:
        """Return the tree and the arrays of a result that an earlier run kept.

        Parameters
        ----------
        key : str

        Returns
        -------
        tuple of object and dict, or None
            None where there is none, or not as it was written.
        """
        if key not in self._done:
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        if zlib.crc32(data) != self._done[key]:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return json.loads(arrays.pop(_TREE).tobytes()), arrays

    def _path(self, key: str) -> Path:
        return self._folder / f"{sha256(key.encode()).hexdigest()[:32]}.npz"


def stamp(url: str) -> dict[str, int]:
    """Say how many files a stored array has, their bytes, and when the last of them was written.

    Parameters
    ----------
    url : str

    Returns
    -------
    dict of str to int
        `files`, `bytes` and `newest` in nanoseconds; empty for what lies elsewhere.
    """
    if is_remote(url):
        return {}
    found = {"files": 0, "bytes": 0, "newest": 0}
    for folder, _, names in os.walk(url):
        for name in names:
            entry = Path(folder, name).stat()
            found["files"] += 1
            found["bytes"] += entry.st_size
            found["newest"] = max(found["newest"], entry.st_mtime_ns)
    return found
