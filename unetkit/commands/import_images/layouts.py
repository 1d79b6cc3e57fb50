"""How tools lay out a folder of images and masks: which path leads to which, and what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unetkit.commands.import_images.pairing import EITHER, STEM, matching
from unetkit.errors import InputError, MissingError
from unetkit.storage.readers import suffixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unetkit.commands.import_images.pairing import Pair


@dataclass(frozen=True)
class Layout:
    """Where a tool keeps images and masks, below a folder.

    A side is a folder, or the name of files without its suffix.
    """

    tool: str
    images: str
    labels: str


SEQUENCES = "the Cell Tracking Challenge"
# Those of folders before those of names, the better masks before others.
LAYOUTS = (
    Layout("nnU-Net", "imagesTr", "labelsTr"),
    Layout("StarDist", "images", "masks"),
    Layout("BiaPy", "raw", "label"),
    Layout(SEQUENCES, "{folder}/t{stem}", "{folder}_GT/SEG/man_seg{stem}"),
    Layout(SEQUENCES, "{folder}/t{stem}", "{folder}_ST/SEG/man_seg{stem}"),
    Layout(SEQUENCES, "t{stem}", "../{own}_GT/SEG/man_seg{stem}"),
    Layout(SEQUENCES, "t{stem}", "../{own}_ST/SEG/man_seg{stem}"),
    Layout(SEQUENCES, "{folder}/t{stem}", "{folder}_GT/SEG/man_seg_{stem}_{z}"),
    Layout(SEQUENCES, "t{stem}", "../{own}_GT/SEG/man_seg_{stem}_{z}"),
    Layout("Cellpose", "{stem}_img", "{stem}_{masks,cp_masks}"),
    Layout("Cellpose", "{stem}", "{stem}_{masks,cp_masks}"),
)


@dataclass(frozen=True)
class LaidOut:
    """A folder that is laid out in a way that is known."""

    tool: str
    source: str
    labels: str
    kind: Literal["classes"] | None = None  # of the labels, where the tool says it
    classes: str | None = None
    ignore: int | None = None
    channels: tuple[str, ...] = ()  # names of the images' channels, where the tool says them
    regions: bool = False  # whether names are of several values each, so that values have none

    def __str__(self) -> str:
        named = f", channels {', '.join(self.channels)}" if self.channels else ""
        nameless = ", values without names, since names are of regions" if self.regions else ""
        return (
            f"laid out as {self.tool} does: images {self.source!r}, masks"
            f" {self.labels!r}{named}{nameless}"
        )

    def named(self, ignore: int | None) -> str | None:
        """Return the classes as ``--classes`` takes them, but for a value that is ignored."""
        if self.classes is None:
            return None
        pairs = self.classes.split(",")
        return ",".join(pair for pair in pairs if pair.partition("=")[0] != str(ignore))


def channel_names(pair: Pair, told: Sequence[str]) -> list[str]:
    """Name the channels of an image that has a file for each: as `told`, or as the files do."""
    if told and len(told) != len(pair.channels):
        raise InputError(
            "dataset.json must name every channel of the images, got"
            f" {', '.join(told)} for {len(pair.channels)} of {pair.image!r}; mend it, or name both"
            " folders"
        )
    return list(told or pair.channels)


def find_layout(source: str) -> LaidOut | None:
    """Look how a folder is laid out; None where it is in no known way, or is no folder."""
    folder = Path(source)
    if not folder.is_dir() or (folder / "zarr.json").exists():
        return None
    for layout in LAYOUTS:
        if STEM in layout.images:
            found = _by_name(folder, layout)
        else:
            sides = (str(folder / layout.images), str(folder / layout.labels))
            # Images beside these folders are what was asked for.
            alone = not any(_has_images(folder, suffix) for suffix in suffixes())
            found = sides if alone and all(Path(side).is_dir() for side in sides) else None
        if found is not None:
            more = _described(folder / "dataset.json") if layout.tool == "nnU-Net" else {}
            return LaidOut(layout.tool, *found, **more)
    return None


def _has_images(folder: Path, suffix: str) -> bool:
    return next(folder.glob(f"[!.]*{suffix}"), None) is not None


def _by_name(folder: Path, layout: Layout) -> tuple[str, str] | None:
    """Find how names of both sides go on and end; the sides must have some names in common."""
    own = folder.resolve().name
    images, labels = (_spelled(folder, side, own) for side in (layout.images, layout.labels))
    if images is None or labels is None or not _names(images) & _names(labels):
        return None
    return (str(folder) if layout.images == STEM else images), labels


def _spelled(folder: Path, side: str, own: str) -> str | None:
    """Return the path of a side with the ways of naming and the suffixes that are there."""
    place = folder.resolve().parent / side[3:] if side.startswith("../") else folder / side
    path = str(place).replace("{own}", own)
    ways = EITHER.search(path)
    there = {
        way: [suffix for suffix in suffixes() if _names(f"{EITHER.sub(way, path)}{suffix}")]
        for way in (ways[1].split(",") if ways else [""])
    }
    there = {way: ends for way, ends in there.items() if ends}
    ends = [suffix for suffix in suffixes() if any(suffix in ends for ends in there.values())]
    return f"{EITHER.sub(_either(there), path)}{_either(ends)}" if there else None


def _either(ways: Iterable[str]) -> str:
    ways = list(ways)
    return ways[0] if len(ways) == 1 else f"{{{','.join(ways)}}}"


def _names(pattern: str) -> set[str]:
    try:
        return {name for name, _, _ in matching(pattern, what="images")}
    except MissingError:
        return set()


def _described(path: Path) -> dict[str, Any]:
    """Read what nnU-Net's description says of the values in the masks, and of the channels."""
    if not path.is_file():
        return {"kind": "classes"}
    try:
        told = json.loads(path.read_text("utf-8"))
        classes = _classes(dict(told["labels"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"dataset.json must name the labels as nnU-Net does, got {str(path)!r}; mend it, or"
            " name both folders"
        ) from error
    # The first version called channels modalities.
    channels = _channels(told.get("channel_names", told.get("modality", {})), path)
    return {**classes, "channels": channels}


def _channels(named: Any, path: Path) -> tuple[str, ...]:
    """Return the names of channels in the order of their numbers; none where two are alike."""
    try:
        found = {int(n): " ".join(str(name).replace(",", " ").split()) for n, name in named.items()}
        names = tuple(found[number] for number in range(len(named)))
    except (AttributeError, ValueError, KeyError) as error:
        raise InputError(
            "dataset.json must name the channels by their numbers from 0 on as nnU-Net does, got"
            f" {named!r:.80} in {str(path)!r}; mend it, or name both folders"
        ) from error
    return names if len(set(names)) == len(names) and all(names) else ()


def _classes(named: dict[str, Any]) -> dict[str, Any]:
    """Say in the words of options which value is which class."""
    # The first version had numbers before names.
    pairs = [(v, k) if str(k).isdigit() else (k, v) for k, v in named.items()]
    values = {str(name).replace(",", " ").strip(): value for name, value in pairs}
    ignore = int(values.pop("ignore")) if "ignore" in values else None
    if not all(str(value).isdigit() for value in values.values()):
        # Regions are made of several values, and what these are called nobody says.
        return {"kind": "classes", "ignore": ignore, "regions": True}
    classes = ",".join(f"{value}={name}" for name, value in values.items())
    return {"kind": "classes", "classes": classes, "ignore": ignore}
