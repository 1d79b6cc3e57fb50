"""Outputs without surprises: they appear whole, by rename, and nothing foreign is ever lost."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, OutputError, ResourceError, UsageError
from unetkit.signals import interruptible
from unetkit.storage import atomic, urls
from unetkit.storage.atomic import (
    check_parent,
    half_removed,
    is_stored,
    make_folder,
    remove,
    sync_folder,
    write_text,
)
from unetkit.storage.urls import base_name, colliding, exists, is_remote, is_segment, join, stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Longer headers than this are no model's; the format itself allows more.
HEADER_LIMIT = 2**24
HEAD = 4096
_JSON, _TIFF = rb'\{.*"unetkit"', rb"II[*+]\0.*unetkit"
# What an output of this library begins with, by its suffix.
SIGNATURES = {
    ".png": rb"\x89PNG\r\n\x1a\n.*Software\0unetkit",
    ".html": rb'<!.*name="generator" content="unetkit',
    **dict.fromkeys((".json", ".jsonl", ".geojson"), _JSON),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
}

# Formats whose notes come last: an archive's directory and comment, an ONNX model's properties.
TAIL = 2**16
LAST_MARKS = {
    ".pt2": b"extra/unetkit.json",
    ".onnx": b"\x0a\x07unetkit",
    ".zip": b'{"unetkit": {"version"',
}


def written_by_unetkit(path: str) -> bool:
    """Tell whether an earlier run made what lies at a path or URL, so that it may be replaced.

    A folder is known by `unetkit` in its Zarr attributes or by a `.unetkit` inside it, a model by
    its header, other files by a mark near their beginning or end. A link is never ours.
    """
    place = Path(path)
    if not is_remote(path) and place.is_symlink():
        return False
    if not urls.is_file(path):
        return _is_our_folder(path)
    if place.suffix == ".safetensors":
        return _is_our_model(path)
    if place.suffix in LAST_MARKS and not is_remote(path):
        start = max(0, place.stat().st_size - TAIL)
        return LAST_MARKS[place.suffix] in urls.read(path, start=start)
    signature = SIGNATURES.get(place.suffix)
    head = urls.read(path, stop=HEAD) if signature else b""
    return signature is not None and re.match(signature, head, re.DOTALL) is not None


def _is_our_folder(path: str) -> bool:
    return exists(join(path, ".unetkit")) or bool(_own_attributes(path))


def _own_attributes(path: str) -> dict[str, Any]:
    """Return what this library wrote into the attributes of a Zarr, by which it is known.

    No more than that is judged of a document, and no Zarr is loaded for it.
    """
    for name in ("zarr.json", ".zattrs"):
        try:
            text = urls.read_small(join(path, name), limit=HEADER_LIMIT)
            document = json.loads(text or b"null")
        except (InputError, ValueError, RecursionError):
            return {}
        if name == "zarr.json" and isinstance(document, dict):
            document = document.get("attributes")
        own = document.get("unetkit") if isinstance(document, dict) else None
        if isinstance(own, dict):
            return own
    return {}


def _is_our_model(path: str) -> bool:
    length = int.from_bytes(urls.read(path, stop=8), "little")
    if length > HEADER_LIMIT:
        return False
    text = urls.read(path, start=8, stop=8 + length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and any(key.startswith("unetkit") for key in metadata)


def check_local(url: str) -> None:
    """Refuse a URL where the work needs a disk."""
    if is_remote(url):
        raise UsageError(
            f"output must be a path on this machine, got {url}; write it here and copy it then"
        )


def check_output(url: str, *, inputs: Sequence[str] = (), overwrite: bool = False) -> None:
    """Refuse an output that would destroy something.

    It may be none of `inputs`, nor lie inside one or around one, by whatever path it is named. With
    `overwrite` an earlier output of this library may be replaced; nothing else ever may.
    """
    if (source := next(colliding(url, inputs), None)) is not None:
        raise OutputError(
            f"output {url} must lie apart from its input, got {source}; choose another name"
        )
    if not is_remote(url):
        check_parent(url)
    elif urls.is_read_only(url):
        raise UsageError(f"output must be where one can write, got {url}; name another with -o")
    if not is_there(url):
        return
    own = written_by_unetkit(url)
    if not overwrite:
        remedy = "add --overwrite to replace it" if own else "choose another name"
        raise OutputError(f"output {url} must not exist yet, got something there; {remedy}")
    _check_own(url, own)


def check_new(url: str, *, overwrite: bool) -> None:
    """Refuse an output that is there, before anything is loaded; URLs are asked for later."""
    if not is_remote(url):
        check_output(url, overwrite=overwrite)


def check_new_dataset(url: str, *, overwrite: bool, append: bool) -> None:
    """Refuse a dataset that is there, unless it is to be added to."""
    if not append:
        check_new(url, overwrite=overwrite)


def check_new_prediction(
    overwrite: bool, *, source: str, output: str | None, in_place: bool, resume: bool, dry_run: bool
) -> None:
    """Refuse a prediction that is there, unless a run goes on or only looks."""
    if not (in_place or resume or dry_run):
        check_new(output or output_name(source, ".prediction.zarr"), overwrite=overwrite)


# What a prediction is exported to, and how such files end, the first way being ours.
EXPORTED: dict[str, tuple[str, ...]] = {
    "tiff": (".tif", ".tiff"),
    "png": (".png",),
    "geojson": (".geojson", ".json"),
    "rois": (".zip",),
    "coco": (".json",),
    "labelme": (".json",),
}


def export_name(source: str, to: str, *, one_file: bool) -> str:
    """Name an export after what it is of: one file, or a folder of files."""
    return output_name(source, EXPORTED[to][0] if one_file else f"-{to}")


def check_new_export(overwrite: bool, *, prediction: str, to: str, output: str | None) -> None:
    """Refuse an export that is there; where its name depends on a foreign store, that comes later.

    That of several images is a folder, but for COCO.
    """
    kind = "coco" if to == "coco" else _own_attributes(prediction).get("kind")
    one_file = {"coco": True, "image": True, "dataset": False, "plate": False}.get(str(kind))
    if output is not None or one_file is not None:
        check_new(
            output or export_name(prediction, to, one_file=bool(one_file)), overwrite=overwrite
        )


def check_new_weights(overwrite: bool, *, source: str, resume: bool) -> None:
    """Refuse weights that are there in an image, or in a sample that a dataset lists."""
    if overwrite or resume or is_remote(source):
        return
    listed = _own_attributes(source).get("samples")
    listed = listed if isinstance(listed, list) else []
    names = [str(entry.get("name")) for entry in listed if isinstance(entry, dict)]
    samples = [join(source, name) for name in names if is_segment(name)] or [source]
    for place in (join(sample, "weights") for sample in samples):
        if exists(place):
            check_output(place)


def check_new_files(overwrite: bool, *, objects: str | None, report: str | None) -> None:
    """Refuse files that are there; what they are is asked for where they may be replaced."""
    for path in (objects, report):
        if path is not None and not overwrite:
            check_file(path, overwrite=False, begins="")


def check_new_review(
    overwrite: bool, *, prediction: str, score: str | None, output: str | None
) -> None:
    """Refuse a page that is there, where one is to be made."""
    if score is None and not overwrite:
        check_file(output or output_name(prediction, ".review.html"), overwrite=False, begins="")


def check_new_suggestion(
    overwrite: bool,
    *,
    prediction: str,
    output: str | None,
    geojson: str | None,
    sheet: str | None,
) -> None:
    """Refuse files of proposed windows that are there."""
    for path in (output or output_name(prediction, ".suggested.csv"), geojson, sheet):
        if path is not None and not overwrite:
            check_file(path, overwrite=False, begins="")


def check_new_curve(overwrite: bool, *, source: str, output: str | None, resume: bool) -> None:
    """Refuse the page of a learning curve that is there."""
    if not (overwrite or resume):
        check_file(output or output_name(source, ".curve.html"), overwrite=False, begins="")


def is_there(url: str) -> bool:
    """Tell whether anything is in an output's place, but for what a broken publishing left."""
    return exists(url) and not (is_remote(url) and atomic.is_half_there(url))


def _check_own(url: str, own: bool) -> None:
    if not own:
        raise OutputError(
            f"output {url} must be an earlier output of unetkit to be replaced by --overwrite, got "
            "something else; choose another name"
        )


def partial_url(url: str) -> str:
    """Name the folder beside an output in which it is made.

    >>> partial_url("data/slide.prediction.zarr")
    'data/.slide.prediction.zarr.unetkit-partial'
    """
    clean = url.rstrip("/")
    name = base_name(clean)
    return f"{clean[: len(clean) - len(name)]}.{name}.unetkit-partial"


@contextmanager
def staged(url: str, *, inputs: Sequence[str] = (), overwrite: bool = False) -> Iterator[str]:
    """Make an output in a new partial beside its place, and put it there when it is complete.

    What an earlier run left in the partial is removed first, and an output that it had put aside
    when it was killed comes back. After an exception the partial is
    removed, and the output's place is as it was.
    """
    partial = partial_url(url)
    if not is_remote(url) and Path(partial).parent.is_dir():
        atomic.recover(url, partial)
    check_output(url, inputs=inputs, overwrite=overwrite)
    discard(partial)
    if not is_remote(partial):
        # Some file systems let nobody make anything, and tell no sooner; those who write here
        # have many ways to fail then.
        make_folder(partial)
        Path(partial).rmdir()
    with interruptible():
        try:
            yield partial
            publish(partial, url, overwrite=overwrite)
        finally:
            discard(partial)


def publish(partial: str, url: str, *, overwrite: bool, synced: bool = False) -> None:
    """Put a complete partial in its place, all at once, once it is safe on the disk.

    Where it is `synced`, it is so already.

    A remote store knows no rename: there everything is copied, what makes it readable last.
    """
    check_output(url, overwrite=overwrite)
    if is_remote(url):
        atomic.publish(partial, url)
        return
    if not synced:
        atomic.sync()
    aside = half_removed(url) if os.path.lexists(url) else None
    try:
        if aside is not None:
            Path(url).rename(aside)
        Path(partial).rename(url.rstrip("/"))
        sync_folder(Path(url).parent)
    except OSError as error:
        if aside is not None and not os.path.lexists(url):
            aside.rename(url)
        raise ResourceError(f"{url} must be writable, got: {error}") from error
    if aside is not None:
        remove(aside)


def discard(url: str) -> None:
    """Remove what this library made itself and nobody else has seen, such as a partial.

    A removal of it that was killed half-way is brought to its end.
    """
    if is_remote(url):
        urls.remove(url)
        return
    if os.path.lexists(url):
        Path(url).rename(half_removed(url))
    if Path(url).parent.is_dir():
        for aside in atomic.asides(url):
            remove(aside)


def free_bytes(url: str) -> int | None:
    """Return the bytes that are free on the disk of an output; None where a store does not say."""
    if is_remote(url):
        return None
    return shutil.disk_usage(Path(url).absolute().parent).free


def output_name(url_in: str, suffix: str) -> str:
    """Name an output after its input, beside it; a URL has no place beside it.

    >>> output_name("scans/slide.ome.zarr/", ".prediction.zarr")
    'scans/slide.prediction.zarr'
    """
    clean = url_in.rstrip("/")
    name = base_name(clean)
    if is_remote(url_in) or name in ("", ".", ".."):
        raise UsageError(f"output must be named for the input {url_in}; add -o NAME{suffix}")
    parent = clean[: len(clean) - len(name)]
    around = [Path(join(parent or ".")).absolute(), *Path(join(parent or ".")).absolute().parents]
    if any(map(is_stored, around)):
        raise UsageError(f"output must be named for {url_in}, inside a store; add -o NAME{suffix}")
    return f"{parent}{stem(clean)}{suffix}"


Cell = str | int | float | None

# What a spreadsheet takes for the start of a formula (OWASP, CSV injection), and the apostrophe
# that leads it, so that no two texts become one.
_TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "'")


def check_file(path: str, *, overwrite: bool, begins: str) -> None:
    """Make sure that a local file can be written, before the work that fills it.

    An earlier result is known by how it `begins`; nothing else is ever replaced.
    """
    check_local(path)
    check_parent(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputError(f"output {path} must not exist yet, got something there; add --overwrite")
    start = begins.encode()
    _check_own(path, urls.is_file(path) and urls.read(path, stop=len(start)) == start)


def write_csv(path: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table whole or not at all; empty cells are what is not there.

    Text that would begin a formula, or begins with an apostrophe, is led by an apostrophe;
    numbers stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _cell(cell: Cell) -> str | int:
    """Make a cell harmless and exact."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_TRIGGERS) else cell
    if isinstance(cell, float):
        return repr(cell) if math.isfinite(cell) else ""
    return cell
