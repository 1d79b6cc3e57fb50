"""Whether something on disk is an earlier output of this library, by the mark that it carries."""

from __future__ import annotations

import json
from pathlib import Path

from unetkit.errors import InputError
from unetkit.storage.metadata import marks
from unetkit.storage.nodes import read_node

# Longer headers than this are no model's; the format itself allows more.
HEADER_LIMIT = 2**24
HEAD = 4096
MARKS = {
    ".png": (b"\x89PNG\r\n\x1a\n", b"Software\0unetkit"),
    ".html": (b"<!", b'name="generator" content="unetkit'),
    ".json": (b"{", b'"unetkit"'),
    ".jsonl": (b"{", b'"unetkit"'),
}


def is_ours(path: str) -> bool:
    """Tell whether an earlier run made what lies at a local path, so that it may be replaced.

    A folder is known by `unetkit` in its Zarr attributes or by a `.unetkit` inside it, a model by
    its header, other files by a mark near their beginning. A link is never ours.
    """
    place = Path(path)
    if place.is_symlink():
        return False
    if place.is_dir():
        return _is_our_folder(place)
    if not place.is_file():
        return False
    if place.suffix == ".safetensors":
        return _is_our_model(place)
    start, mark = MARKS.get(place.suffix, (b"", b""))
    if not mark:
        return False
    with place.open("rb") as file:
        head = file.read(HEAD)
    return head.startswith(start) and mark in head


def _is_our_folder(place: Path) -> bool:
    if (place / ".unetkit").exists():
        return True
    try:
        node = read_node(str(place))
    except InputError:
        return False
    return node is not None and bool(marks(node))


def _is_our_model(place: Path) -> bool:
    with place.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            return False
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and any(key.startswith("unetkit") for key in metadata)
