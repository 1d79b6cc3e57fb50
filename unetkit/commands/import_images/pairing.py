"""Which files are images, and which mask belongs to which; it opens none of them."""

from __future__ import annotations

import glob
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage.readers import suffixes
from unetkit.storage.urls import is_remote

STEM = "{stem}"
NAMED = 3  # how many files a message names


@dataclass(frozen=True)
class Pair:
    """An image file and the mask that belongs to it."""

    name: str  # the file's without its suffix, which becomes the sample's
    image: str
    mask: str | None = None


@dataclass(frozen=True)
class FoundFiles:
    """What a folder, a glob or a path leads to."""

    files: tuple[str, ...]  # images, in the order of their names
    hidden: int = 0  # files passed over
    other: tuple[str, ...] = ()  # names of files that are no images


def stem(path: str) -> str:
    """Return the name that pairs files: without suffix, and without ``.ome`` before it.

    Accents are composed, because some file systems hand them out decomposed.
    """
    name = Path(path).stem
    return unicodedata.normalize("NFC", name[:-4] if name.lower().endswith(".ome") else name)


def find_files(source: str, *, what: str = "images") -> FoundFiles:
    """Find image files: in a folder but not below it, by a glob, or one; `what` they are."""
    if is_remote(source):
        raise UsageError(f"{what} must lie on this machine, got {source!r}; copy them here first")
    path = Path(source)
    if path.is_file():
        return FoundFiles((source,))
    if (path / "zarr.json").is_file() or (path / ".zattrs").is_file():
        raise InputError(f"{what} must be image files, got the Zarr {source!r}; use it as it is")
    if path.is_dir():
        paths = [str(entry) for entry in path.iterdir()]
    elif glob.has_magic(source):
        paths = glob.glob(source, recursive=True, include_hidden=True)  # noqa: PTH207 - absolute too
    else:
        paths = []
    if not path.is_dir() and not paths:
        raise MissingError(f"{what} must be a folder, a glob or a file, got nothing at {source!r}")
    return _sorted_out(source, [p for p in paths if not Path(p).is_dir()], what=what)


def _sorted_out(source: str, paths: list[str], *, what: str) -> FoundFiles:
    visible = sorted(path for path in paths if not Path(path).name.startswith("."))
    readable = suffixes()
    files = tuple(path for path in visible if Path(path).suffix.lower() in readable)
    other = tuple(Path(path).name for path in visible if path not in set(files))
    if not files:
        raise InputError(
            f"{what} must be files that end in {', '.join(readable)}, got none among the"
            f" {len(paths)} files of {source!r}; name the folder that holds them"
        )
    return FoundFiles(files, len(paths) - len(visible), other)


def pair_files(source: str, labels: str | None) -> tuple[list[Pair], FoundFiles]:
    """Find images, in the order of their names, and their masks.

    Masks are a folder or a glob, paired by stem; a path with ``{stem}`` in it, which an image's
    stem completes; or one file for one image. Files that match such a path are masks, also where
    they lie among the images.
    """
    found = find_files(source)
    if labels is None:
        return [Pair(name, path) for name, path in _by_stem(found.files).items()], found
    alone = Path(source).is_file()
    if Path(labels).is_file():
        if not alone:
            raise UsageError(
                f"labels of several images must be a folder or a path with {STEM} in it,"
                f" got the file {labels!r}"
            )
        _check_apart(source, labels)
        return [Pair(stem(source), source, labels)], found
    masks = (
        _matching(labels) if STEM in labels else _by_stem(find_files(labels, what="masks").files)
    )
    if STEM in labels:
        drawn = {Path(mask).resolve() for mask in masks.values()}
        images = tuple(path for path in found.files if Path(path).resolve() not in drawn)
        found = FoundFiles(images, found.hidden, found.other)
    pairs = [Pair(n, path, masks.get(n)) for n, path in _by_stem(found.files).items()]
    for pair in pairs:
        if pair.mask:
            _check_apart(pair.image, pair.mask)
    _check_used(pairs, masks, alone=alone, labels=labels)
    return pairs, found


def _by_stem(files: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        other = found.setdefault(stem(path), path)
        if other != path:
            raise InputError(
                f"files must have different names apart from their suffixes, got {other!r} and"
                f" {path!r}; remove or rename one"
            )
    return found


def _matching(pattern: str) -> dict[str, str]:
    head, *rest = pattern.split(STEM)
    tried = STEM.join([head, *rest]).split(STEM)
    expression = re.escape(head) + "(?P<stem>[^/]+)" + "(?P=stem)".join(map(re.escape, rest))
    masks: dict[str, str] = {}
    for path in sorted(glob.glob("*".join(map(glob.escape, tried)))):  # noqa: PTH207 - absolute too
        match = re.fullmatch(expression, path)
        if match and Path(path).is_file() and not Path(path).name.startswith("."):
            masks[unicodedata.normalize("NFC", match["stem"])] = path
    if not masks:
        raise MissingError(f"labels must match at least one file, got none for {pattern!r}")
    return masks


def _check_apart(image: str, mask: str) -> None:
    if Path(image).samefile(mask):
        raise InputError(
            f"mask must differ from its image, got {image!r} for both; name masks that lie among"
            f" the images by a path such as 'DIR/{STEM}_mask.png'"
        )


def _check_used(pairs: list[Pair], masks: dict[str, str], *, alone: bool, labels: str) -> None:
    used = {pair.name for pair in pairs}
    lost = [] if alone else [path for name, path in masks.items() if name not in used]
    if lost or not any(pair.mask for pair in pairs):
        shown = ", ".join(map(repr, lost[:NAMED])) + (", …" if len(lost) > NAMED else "")
        raise InputError(
            "every mask must have an image with the same stem, got"
            f" {len(lost) or 'no pair at all'}{' without: ' + shown if lost else ''} in {labels!r};"
            f" where names differ, give a path such as 'DIR/{STEM}_mask.png'"
        )
