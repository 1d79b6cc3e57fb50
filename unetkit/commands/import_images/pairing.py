"""Which files are images, and which mask belongs to which; it opens none of them."""

from __future__ import annotations

import glob
import re
import unicodedata
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.storage.atomic import is_stored
from unetkit.storage.datasets import open_dataset
from unetkit.storage.readers import suffixes
from unetkit.storage.urls import did_you_mean, is_remote, join, resolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unetkit.storage.datasets import Sample

STEM, CHANNEL, FOLDER, PLANE = "{stem}", "{channel}", "{folder}", "{z}"
NAMED = 3  # how many files a message names
# How nnU-Net numbers the files of an image's channels.
NUMBERED = re.compile(r"(.+)_(\d{4})")
# How masks that lie beside their images are called by the tools that write them.
LIKE_MASK = re.compile(
    r"(.+?)([ _.-](?:cp_)?(?:masks?|seg\w*|labels?|annot\w*|gt|flows?|outlines?)(?:-[\w-]+)?)",
    re.IGNORECASE,
)
# What Cellpose writes beside them.
DERIVED = re.compile(r"(.+?)_(?:(?:cp_)?(?:masks|flows|outlines)|cp_output)")
# What a path may say otherwise, as ``{tif,png}`` does.
EITHER = re.compile(r"\{([^{}]*,[^{}]*)\}")
# The files of an image by channel, of its name; one without a channel's name is the whole image.
Images = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Pair:
    """An image and the mask that belongs to it."""

    name: str  # the file's without its suffix, which becomes the sample's
    image: str
    mask: str | None = None
    channels: Mapping[str, str] = field(default_factory=dict)  # where each is a file of its own
    store: str | None = None  # that it lies in, if in one
    sample: Sample | None = None  # of that store, where it has the labels
    source: str | None = None  # what a sample of a store was made from
    position: Mapping[str, str] = field(default_factory=dict)  # on a plate
    group: str | None = None  # the animal, patient or well that it belongs to, if that was told
    scene: str | None = None  # of several in the file
    file_name: str | None = None  # what the sample of a whole file of scenes would be called
    classes: str | None = None  # a class map of the same image, where the mask is of objects

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        images = self.channels.values() or [self.image]
        masks = mask_files(self.mask) if self.mask else []
        return [*images, *masks, *filter(None, [self.classes, self.store])]


@dataclass(frozen=True)
class FoundFiles:
    """What a folder, a glob or a path leads to."""

    files: tuple[str, ...]  # images, in the order of their names
    hidden: int = 0  # files passed over
    other: tuple[str, ...] = ()  # names of files that are no images
    remarks: tuple[str, ...] = ()  # what a user should know


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
    if is_stored(source):
        raise InputError(f"{what} must be image files, got the Zarr {source!r}; use it as it is")
    if path.is_dir():
        paths = [str(entry) for entry in path.iterdir()]
    elif glob.has_magic(source):
        paths = glob.glob(source, recursive=True, include_hidden=True)  # noqa: PTH207 - absolute too
    else:
        paths = []
    if not path.is_dir() and not paths:
        hint = did_you_mean(source)
        raise MissingError(
            f"{what} must be a folder, a glob or a file, got nothing at {source!r}; {hint}"
        )
    return _sorted_out(source, [p for p in paths if not Path(p).is_dir()], what=what)


def _sorted_out(source: str, paths: list[str], *, what: str) -> FoundFiles:
    visible = sorted(path for path in paths if not Path(path).name.startswith("."))
    readable = suffixes()
    files = tuple(path for path in visible if Path(path).suffix.lower() in readable)
    other = tuple(Path(path).name for path in visible if path not in set(files))
    if not files and any(name.endswith(".npy") for name in other):
        raise _pickled(what, source)
    if not files:
        raise InputError(
            f"{what} must be files that end in {', '.join(readable)}, got none among the"
            f" {len(paths)} files of {source!r}; name the folder that holds them"
        )
    for path in map(Path, files):
        if path.is_symlink() and not path.exists():
            raise MissingError(
                f"{what} must exist, got a link that leads nowhere at '{path}'; remove or mend it"
            )
    return FoundFiles(files, len(paths) - len(visible), other)


def pair_files(source: str, labels: str | None) -> tuple[list[Pair], FoundFiles]:
    """Find images, in the order of their names, and their masks.

    Either side may be a folder, a glob, a path with ``{stem}`` in it, or one file; they pair by
    stem, or by what the one star of a glob stands for. An image may be a file a channel, where its
    path says ``{channel}`` or where masks lack the numbers that nnU-Net gives channels. Files that
    match the path of masks are masks, also where they lie among the images.
    """
    if is_stored(source):
        return _stored_pairs(source, labels)
    found, images = _images(source)
    alone = Path(source).is_file()
    masks: dict[str, str] = {}
    remarks: list[str] = []
    if labels is not None and Path(labels).is_file():
        if not alone:
            raise UsageError(
                f"labels of several images must be a folder or a path with {STEM} in it,"
                f" got the file {labels!r}"
            )
        masks = dict.fromkeys(images, labels)
    elif labels is not None:
        images, masks, second = _fitting(images, source, labels)
        remarks += second
        lost = [path for name, path in masks.items() if name not in images]
        paired, lost = len(masks) - len(lost), [] if alone else lost
        if not paired or (lost and Path(source).is_dir()):
            raise _unpaired(source, labels, images=images, masks=masks, lost=lost)
        if lost:
            remarks.append(
                f"left out {len(lost):,} {'mask' if len(lost) == 1 else 'masks'} of other images"
            )
    pickled = [name for name in found.other if name.endswith("_seg.npy")]
    if pickled and labels is None:
        remarks.append(
            f"left out what Cellpose found, such as {pickled[0]!r}, a pickle, which can run code;"
            " to have it, save the masks as PNG or TIFF there"
        )
    _check_channels(images, source)
    pairs = [_pair(name, files, masks.get(name)) for name, files in images.items()]
    found = replace(found, remarks=(*remarks, *_remarks(pairs)))
    return pairs, found


def _stored_pairs(source: str, labels: str | None) -> tuple[list[Pair], FoundFiles]:
    """List the images of a store, with the labels of a name where they have some."""
    dataset = open_dataset(source, labels=labels, mixed=True)
    if dataset.kind in ("stack", "array"):
        raise InputError(
            f"images must be image files, OME-Zarr images or a plate, got the {dataset.kind} "
            f"{source!r}; use it as it is"
        )
    name = (labels or "").partition("=")[0]
    pairs = [
        Pair(
            sample.name,
            sample.image.url,
            join(sample.image.url, "labels", name) if labels and sample.label_kind else None,
            store=source,
            sample=sample if labels and sample.label_kind else None,
            source=sample.source,
            position=sample.position,
            group=sample.group,
        )
        for sample in dataset.samples
    ]
    return pairs, FoundFiles(tuple(pair.image for pair in pairs))


def _images(source: str) -> tuple[FoundFiles, Images]:
    """Find images, each of one file, or of a file a channel."""
    if STEM not in source:
        found = find_files(source)
        return found, {name: {"": path} for name, path in _by_stem(found.files).items()}
    images: Images = {}
    for name, channel, path in matching(source, what="images"):
        other = images.setdefault(name, {}).setdefault(channel, path)
        if other != path:
            raise _twice(other, path)
    return FoundFiles(tuple(p for files in images.values() for p in files.values())), images


def _check_channels(images: Images, source: str) -> None:
    channels = list(next(iter(images.values())))
    for name, files in images.items():
        if list(files) != channels:
            raise InputError(
                f"images must all have the channels {', '.join(channels)}, got"
                f" {', '.join(files)} of {name!r}; add or take away files of {source!r}"
            )


def _fitting(
    images: Images, source: str, labels: str
) -> tuple[Images, dict[str, str], tuple[str, ...]]:
    """Find masks, and name both sides in the first way in which they have names in common.

    The third is a word on masks that are left out, since their images have another.
    """
    second: tuple[str, ...] = ()
    if STEM in labels:
        by_stem: dict[str, str] = {}
        matches = matching(labels, what="labels")
        for name, _, path in matches:
            by_stem.setdefault(name, path)
        left = [path for name, _, path in matches if by_stem[name] != path]
        if left:
            kept = next(by_stem[name] for name, _, path in matches if path == left[0])
            second = (
                f"left out {len(left):,} {'mask' if len(left) == 1 else 'masks'} of images that"
                f" have two, such as {Path(left[0]).name!r} beside {Path(kept).name!r}",
            )
        drawn = {resolved(file) for _, _, path in matches for file in mask_files(path)}
        images = {
            name: files
            for name, files in images.items()
            if drawn.isdisjoint(map(resolved, files.values()))
        }
        images = {name: files for name, files in images.items() if not _is_derived(name, images)}
        # Outlines that Cellpose saves end as its masks do.
        masks = [{name: path for name, path in by_stem.items() if not _is_derived(name, images)}]
    else:
        files = find_files(labels, what="masks").files
        masks = [_by_stem(files), _by_star(files, labels)]
    ways = [images]
    if STEM not in source:
        alone = [files[""] for files in images.values()]
        starred = {name: {"": path} for name, path in _by_star(alone, source).items()}
        ways += [starred, _by_number(images)]
    for ours, theirs in product(ways, masks):
        if ours.keys() & theirs.keys():
            return ours, theirs, second
    return images, masks[0], second


def _is_derived(name: str, images: Images) -> bool:
    """Tell whether a file is what Cellpose writes beside an image and its masks."""
    match = DERIVED.fullmatch(name)
    return match is not None and match[1] in images


def _by_stem(files: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        other = found.setdefault(stem(path), path)
        if other != path:
            raise _twice(other, path)
    return found


def _twice(one: str, other: str) -> InputError:
    return InputError(
        f"files must have different names apart from their suffixes, got {one!r} and"
        f" {other!r}; remove or rename one"
    )


def _by_star(files: Sequence[str], pattern: str) -> dict[str, str]:
    """Name files by what the only star of a glob stands for; none where it has other wildcards."""
    before, star, after = Path(pattern).name.partition("*")
    if not star or glob.has_magic(before + after) or Path(pattern).is_dir():
        return {}
    named = [(Path(path).name[len(before) :].removesuffix(after), path) for path in files]
    found = {unicodedata.normalize("NFC", name): path for name, path in named}
    return found if len(found) == len(files) else {}


def _by_number(images: Images) -> Images:
    """Join the files that nnU-Net numbers as channels; none where they are not all of that kind."""
    joined: Images = {}
    for name, files in images.items():
        match = NUMBERED.fullmatch(name)
        if match is None:
            return {}
        joined.setdefault(match[1], {})[match[2]] = files[""]
    return joined


def matching(pattern: str, *, what: str) -> list[tuple[str, str, str]]:
    """Find the files of a path with ``{stem}`` in it: (stem, channel, path).

    Where it says ``{folder}`` too, stems begin with what that stands for. What matches an earlier
    one of alternatives such as ``{tif,png}`` comes first; of those that match the same file the
    one counts that says most of its name, as ``_cp_masks`` does beside ``_masks``.
    """
    if is_remote(pattern):
        raise UsageError(f"{what} must lie on this machine, got {pattern!r}; copy them here first")
    if pattern.endswith(".npy"):
        raise _pickled(what, pattern)
    matches = [match for spelled in _spellings(pattern) for match in _matching_one(spelled)]
    narrow = {
        path: name for name, _, path in sorted(matches, key=lambda m: len(m[0]), reverse=True)
    }
    found = [match for match in matches if narrow[match[2]] == match[0]]
    if not found:
        raise MissingError(f"{what} must match at least one file, got none for {pattern!r}")
    return found


def _spellings(pattern: str) -> list[str]:
    match = EITHER.search(pattern)
    if match is None:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [one for way in match[1].split(",") for one in _spellings(f"{before}{way}{after}")]


def _matching_one(pattern: str) -> list[tuple[str, str, str]]:
    tried = expression = ""
    for part in re.split(r"(\{stem\}|\{channel\}|\{folder\}|\{z\})", pattern):
        name = part[1:-1] if part in (STEM, CHANNEL, FOLDER, PLANE) else ""
        tried += "*" if name else glob.escape(part)
        known = f"(?P<{name}>" in expression
        held = r"\d+" if part == PLANE else "[^/]+"
        group = f"(?P={name})" if known else f"(?P<{name}>{held})"
        expression += group if name else re.escape(part)
    found: list[tuple[str, str, str]] = []
    for path in sorted(glob.glob(tried)):  # noqa: PTH207 - absolute too
        match = re.fullmatch(expression, path)
        if match and Path(path).is_file() and not Path(path).name.startswith("."):
            named = {"channel": "", **match.groupdict()}
            name = "_".join(named[key] for key in ("folder", "stem") if key in named)
            if "z" in named:
                # All planes of a stack are one mask.
                path = f"{path[: match.start('z')]}{PLANE}{path[match.end('z') :]}"
            found.append((unicodedata.normalize("NFC", name), named["channel"], path))
    return list(dict.fromkeys(found))


def mask_files(mask: str) -> list[str]:
    """Return the file of a mask, or the files of its planes, where its path has ``{z}`` in it."""
    return list(plane_files(mask).values()) if PLANE in mask else [mask]


def plane_files(mask: str) -> dict[int, str]:
    """Find the masks of single planes: their numbers, which count from 0, and files."""
    before, _, after = mask.partition(PLANE)
    found = sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}"))  # noqa: PTH207 - absolute too
    numbers = [(path[len(before) : len(path) - len(after)], path) for path in found]
    return {int(number): path for number, path in numbers if number.isdecimal()}


def _pickled(what: str, place: str) -> InputError:
    return InputError(
        f"{what} must be image files, got NumPy's {place!r}: Cellpose's hold pickles, which"
        " can run code; save the masks as PNG or TIFF there, and name these"
    )


def _pair(name: str, files: dict[str, str], mask: str | None) -> Pair:
    image = next(iter(files.values()))
    drawn = mask_files(mask) if mask is not None else []
    if any(Path(path).samefile(other) for path in files.values() for other in drawn):
        raise InputError(
            f"mask must differ from its image, got {image!r} for both; name masks that lie among"
            f" the images by a path such as 'DIR/{STEM}_mask.png'"
        )
    return Pair(name, image, mask, {} if list(files) == [""] else files)


def _unpaired(
    source: str, labels: str, *, images: Images, masks: dict[str, str], lost: list[str]
) -> InputError:
    """Say which masks have no image, and which paths would pair the two sides."""
    shown = ", ".join(map(repr, lost[:NAMED])) + (", …" if len(lost) > NAMED else "")
    beyond_image = _rest(list(masks), list(images))
    beyond_mask = _rest(list(images), list(masks))
    if beyond_image and Path(source).is_dir():
        suffix = Path(next(iter(images[next(iter(masks)) + beyond_image].values()))).suffix
        path = f"{Path(source) / STEM}{beyond_image}{suffix}"
        inner = labels if STEM in labels else f"{Path(labels) / STEM}{Path(lost[0]).suffix}"
        advice = f"{quote(path)} --labels {quote(inner)}"
    elif beyond_mask and Path(labels).is_dir():
        suffix = Path(masks[next(iter(images)) + beyond_mask]).suffix
        advice = f"--labels {quote(f'{Path(labels) / STEM}{beyond_mask}{suffix}')}"
    else:
        advice = f"a path such as 'DIR/{STEM}_mask.png', on either side"
    return InputError(
        "every mask must have an image with the same stem, got"
        f" {len(lost) or 'no pair at all'}{' without: ' + shown if lost else ''} in {labels!r};"
        f" where names differ, give {advice}"
    )


def _rest(short: list[str], long: list[str]) -> str:
    """Find what all short names lack to be among the long ones; nothing where they differ."""
    first = short[0] if short else ""
    rests = [name.removeprefix(first) for name in long if first and name.startswith(first)]
    there = set(long)
    fitting = [
        rest
        for rest in rests
        if rest
        and all(name + rest in there for name in short)
        # What is called a mask is none of the images that are looked for.
        and not (long is not short and LIKE_MASK.fullmatch(f"x{rest}") and len(rests) > 1)
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _remarks(pairs: Sequence[Pair]) -> list[str]:
    """Say what looks like a mask or a channel and came in as an image, or did not."""
    remarks = []
    joined = [pair for pair in pairs if pair.channels]
    if joined:
        channels = ", ".join(joined[0].channels)
        remarks.append(f"joined the files {channels} of each image as its channels")
    beside = [p for p in pairs if not p.channels and _next_channel(p.image)]
    if beside and all(NUMBERED.fullmatch(stem(pair.image)) for pair in pairs):
        path = Path(beside[0].image)
        remarks.append(
            f"each file came in as an image, though {path.name!r} and"
            f" {Path(str(_next_channel(str(path)))).name!r} may be channels of one; to join them,"
            f" give {quote(f'{path.parent / STEM}_{CHANNEL}{path.suffix}')}"
        )
    names = {stem(pair.image) for pair in pairs}
    for pair in pairs:
        match = None if pair.mask else LIKE_MASK.fullmatch(stem(pair.image))
        if match and any(match[1] + more in names for more in ("", "_img", "_image", "_raw")):
            path = Path(pair.image)
            remarks.append(
                f"{path.name!r} came in as an image, and may be the mask of {match[1]!r}; masks are"
                f" named by --labels, such as"
                f" {quote(f'{path.parent / STEM}{match[2]}{path.suffix}')}"
            )
            break
    return remarks


def _next_channel(image: str) -> str | None:
    """Find the file beside one that ends in ``_0000`` that ends in ``_0001``."""
    path = Path(image)
    if not path.stem.endswith("_0000"):
        return None
    other = path.with_name(f"{path.stem[:-1]}1{path.suffix}")
    return str(other) if other.is_file() else None
