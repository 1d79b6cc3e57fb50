"""How masks and shapes become labels: what the options say of it, read before any data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import UsageError
from unetkit.storage.atomic import is_stored
from unetkit.storage.drawings import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unetkit.storage.chunk_files import PackedArray
    from unetkit.storage.image_file import ImageFile
    from unetkit.storage.object_classes import ObjectClasses

Kind = Literal["instances", "classes", "instances+classes"]
KINDS = ("instances", "classes", "instances+classes")
# First and last row and column.
RECTANGLE = re.compile(r"(\d+):(\d+),(\d+):(\d+)")


@dataclass(frozen=True)
class MaskRules:
    """How masks become labels."""

    kind: str = "instances"  # or classes
    names: tuple[str, ...] | None = None  # what the user calls the classes, by their values
    ranges: tuple[tuple[int, int, str], ...] = ()  # values from low to high that are a class
    ignore: int | None = None  # the value of pixels that nobody annotated
    split: bool = False  # whether connected components become the instances
    classed: bool = False  # whether each instance is of a class
    # By image, the class of each of its instances, from class maps; `class_maps` fills it in.
    voted: dict[str, ObjectClasses] = field(default_factory=dict)
    fill: bool = False  # whether parts that can't be decoded come in as ignored
    # What `survey` fills in:
    mapping: dict[int, int] = field(default_factory=dict)  # from value to class
    class_names: tuple[str, ...] = ()  # by default their values
    ignored: int = 0  # pixels
    empty: bool = False  # no objects, or less than two classes
    files: dict[str, ImageFile] = field(default_factory=dict)  # the masks, opened
    kept: dict[str, PackedArray] = field(default_factory=dict)  # and as many as there is room for
    # Of shapes instead of masks:
    outlines: Literal["corners", "centres"] | None = None  # where their points are counted from
    overlaps: str = "later"  # which shape stays, or refuse
    canvases: dict[str, Any] = field(default_factory=dict)  # by image, from `shapes`, filled in too
    # Where the annotation is complete; what lies in none is ignored, if there are any:
    judged: tuple[str, ...] = ()  # classes of shapes
    rectangles: tuple[tuple[int, int, int, int], ...] = ()  # first and last row, column; half open
    regions: dict[str, Any] = field(default_factory=dict)  # canvases by image, filled in too

    def of(self, names: Iterable[str]) -> MaskRules:
        """Return the same for some of the images."""
        kept = set(names)
        canvases, regions = (
            {name: canvas for name, canvas in found.items() if name in kept}
            for found in (self.canvases, self.regions)
        )
        return replace(self, canvases=canvases, regions=regions)


def named_by(ranges: Sequence[tuple[int, int, str]], value: int) -> list[str]:
    """Return the class of the range in which a value lies, if there is one."""
    return [name for low, high, name in ranges if low <= value <= high]


def read_rules(
    labels: str | None,
    kind: str,
    classes: str | None,
    *,
    ignore: int | None,
    judged: Sequence[str],
    split: bool,
) -> MaskRules:
    """Read what the options say of labels; refuse what does not fit together."""
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    given = {
        "--kind": kind != "instances",
        "--classes": classes is not None,
        "--ignore": ignore is not None,
        "--judged": bool(judged),
        "--connected-components": split,
    }
    if labels is None and any(given.values()):
        name = next(name for name, there in given.items() if there)
        raise UsageError(f"{name} must come with --labels, got no masks; name their folder")
    if classes is not None and kind == "instances":
        raise UsageError(
            "--classes must come with --kind classes or instances+classes, got instances; add it"
        )
    if split and kind != "instances":
        raise UsageError(
            f"--connected-components must come with instances, got --kind {kind}; leave one out"
        )
    names, ranges = _class_names(classes)
    classed = kind == "instances+classes"
    if classed and names is not None and BACKGROUND not in names:
        names = (BACKGROUND, *names)
    own = "instances" if classed else kind
    rules = MaskRules(own, names, ranges, ignore, split, classed)
    return replace(rules, **_judged(judged, rules))


def check_drawn(rules: MaskRules, *, drawn: bool) -> None:
    """Refuse a class that says what was judged where labels are masks, which name no class."""
    if rules.judged and not drawn:
        raise UsageError(
            "--judged must be a rectangle where labels are masks, got"
            f" {rules.judged[0]!r}; give one such as 0:512,0:512 for it"
        )


def _judged(judged: Sequence[str], rules: MaskRules) -> dict[str, Any]:
    """Read classes and rectangles that say what was judged."""
    names, rectangles = [], []
    for text in judged:
        match = RECTANGLE.fullmatch(text.replace(" ", ""))
        if match is not None:
            top, bottom, left, right = map(int, match.groups())
            rectangles.append((top, bottom, left, right))
        if not re.search(r"[^\d\s:,.+-]", text) and (
            match is None or not top < bottom or not left < right
        ):
            raise UsageError(
                "a rectangle that was judged must be y0:y1,x0:x1 in whole pixels, the second of"
                f" each pair larger, got {text!r}"
            )
        if match is None:
            names.append(text)
    if twice := set(names) & set(rules.names or ()):
        raise UsageError(
            f"what was judged must have a class of its own, got {twice.pop()!r}, which is among"
            " those to be learned as well; leave it out there"
        )
    return {"judged": tuple(names), "rectangles": tuple(rectangles)}


def _class_names(
    classes: str | None,
) -> tuple[tuple[str, ...] | None, tuple[tuple[int, int, str], ...]]:
    """Read names in the order of their values, or names with the values that join to each."""
    if classes is None:
        return None, ()
    words = [word.strip() for word in classes.split(",")]
    if "=" not in classes:
        if not all(words) or len(set(words)) < len(words):
            raise UsageError(
                f"classes must be different names with commas between, got {classes!r}"
            )
        return tuple(words), ()
    ranges = []
    for word in words:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?\s*=\s*(\S.*)", word)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(
                "classes must be names, or values with names such as"
                f" 0=background,127-130=myelin,233-255=axon, got {word!r} in {classes!r}"
            )
        ranges.append((int(match[1]), int(match[2] or match[1]), match[3]))
    ranges.sort()
    for (_, high, one), (low, _, other) in pairwise(ranges):
        if low <= high:
            raise UsageError(
                f"values of classes must lie apart, got {low} for both {one!r} and {other!r}"
            )
    return tuple(dict.fromkeys(name for _, _, name in ranges)), tuple(ranges)


def kind_of(kind: Kind, labels: str | None, *, stored: bool) -> Kind:
    """Return the kind of the labels, which those of a store may say by their name."""
    named = labels is not None and (labels == "classes" or labels.endswith("=classes"))
    return "classes" if stored and named else kind


def check_rules(
    kind: Kind,
    *,
    source: str,
    labels: str | None,
    classes: str | None,
    ignore: int | None,
    judged: Sequence[str],
    connected_components: bool,
) -> None:
    """Refuse options of labels that do not fit together, or that can't be read.

    A folder may hold labels that nobody named, and say what they are; it is asked later.
    """
    if labels is None and Path(source).is_dir() and not is_stored(source):
        return
    kind = kind_of(kind, labels, stored=is_stored(source))
    read_rules(labels, kind, classes, ignore=ignore, judged=judged, split=connected_components)


def check_judged(judged: Sequence[str], *, name: str) -> None:
    """Refuse what was judged where it can't be read, or is not said."""
    _judged(judged, MaskRules())
    if not judged:
        raise UsageError(
            f"{name} must say where the labels are complete, got nothing; give a rectangle such as"
            " 0:512,0:512, or the class of the outlines that say it"
        )


def check_damaged(damaged: str, *, require_complete_input: bool) -> None:
    """Refuse to fill what is damaged where nothing may be."""
    if require_complete_input and damaged == "fill":
        raise UsageError(
            "damaged must be error where the input must be complete, got fill; leave out"
            " --require-complete-input"
        )


def check_append(append: bool, *, overwrite: bool) -> None:
    """Refuse to add to what is to be replaced."""
    if append and overwrite:
        raise UsageError("append must come without overwrite, got both; leave one out")
