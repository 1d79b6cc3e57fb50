"""Whether something on disk is an earlier output of this library, by the mark that it carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

from unetkit import remote as stores
from unetkit.errors import InputError
from unetkit.remote import is_remote
from unetkit.storage.metadata import marks
from unetkit.storage.nodes import read_node
from unetkit.storage.urls import exists, join

# Longer headers than this are no model's; the format itself allows more.
HEADER_LIMIT = 2**24
HEAD = 4096
MARKS = {
    ".png": re.compile(rb"\x89PNG\r\n\x1a\n.*Software\0unetkit", re.DOTALL),
    ".html": re.compile(rb'<!.*name="generator" content="unetkit', re.DOTALL),
    ".json": re.compile(rb'\{.*"unetkit"', re.DOTALL),
    ".jsonl": re.compile(rb'\{.*"unetkit"', re.DOTALL),
    ".geojson": re.compile(rb'\{.*"unetkit"', re.DOTALL),
    ".tif": re.compile(rb"II[*+]\0.*unetkit", re.DOTALL),
    ".tiff": re.compile(rb"II[*+]\0.*unetkit", re.DOTALL),
}

# Formats whose notes come last: the directory of an archive, the properties of an ONNX model.
TAIL = 2**16
LAST_MARKS = {".pt2": b"extra/unetkit.json", ".onnx": b"\x0a\x07unetkit"}


def is_ours(path: str) -> bool:
    """Tell whether an earlier run made what lies at a path or URL, so that it may be replaced.

    A folder is known by `unetkit` in its Zarr attributes or by a `.unetkit` inside it, a model by
    its header, other files by a mark near their beginning or end. A link is never ours.
    """
    place = Path(path)
    if is_remote(path):
        is_file = stores.is_object(path)
    elif place.is_symlink():
        return False
    else:
        is_file = place.is_file()
    if not is_file:
        return _is_our_folder(path)
    if place.suffix == ".safetensors":
        return _is_our_model(path)
    if place.suffix in LAST_MARKS and not is_remote(path):
        return LAST_MARKS[place.suffix] in _tail(place)
    mark = MARKS.get(place.suffix)
    return mark is not None and mark.match(_head(path, HEAD)) is not None


def _head(path: str, length: int) -> bytes:
    if is_remote(path):
        return stores.read(path, stop=length)
    with Path(path).open("rb") as file:
        return file.read(length)


def _tail(place: Path) -> bytes:
    with place.open("rb") as file:
        file.seek(max(0, place.stat().st_size - TAIL))
        return file.read()


def _is_our_folder(path: str) -> bool:
    if exists(join(path, ".unetkit")):
        return True
    try:
        node = read_node(path)
    except InputError:
        return False
    return node is not None and bool(marks(node))


def _is_our_model(path: str) -> bool:
    length = int.from_bytes(_head(path, 8), "little")
    if length > HEADER_LIMIT:
        return False
    text = _head(path, 8 + length)[8:]
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and any(key.startswith("unetkit") for key in metadata)
