"""Shapes for an import: which image each belongs to, what it becomes, and what can't be right."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.masks import LARGEST_ID, smallest_dtype
from unetkit.commands.import_images.pairing import Pair, stem
from unetkit.errors import InputError, LabelError, UsageError
from unetkit.machine import ahead
from unetkit.progress import SILENT, Portion, Progress
from unetkit.storage.annotations import read_annotations
from unetkit.storage.drawings import BACKGROUND, Drawing, Shape, base, box_part
from unetkit.storage.object_classes import ObjectClasses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.polygons import Painter, Polygons
    from unetkit.commands.import_images.rules import MaskRules
    from unetkit.progress import Told
    from unetkit.storage.image_file import ImageFile
    from unetkit.storage.planes import Box, PlaneArray
    from unetkit.storage.pyramids import PyramidWriter

NAMED = 3  # how many names a message lists
BLOCK = 2048  # pixels along the side of what is painted in one go
# Our own choice: a hand that draws along the image's border strays by so many pixels.
STRAY = 1


@dataclass
class Canvas:
    """The shapes of one image, ready to be painted, and what painting them told."""

    height: int
    width: int
    polygons: list[Polygons]  # of each plane
    values: list[NDArray[Any]]  # what its shapes become
    by_size: bool = False  # whether smaller ones stay, instead of later ones
    painters: list[Painter] = field(default_factory=list)
    object_classes: ObjectClasses | None = None  # where each object is of a class

    def write(
        self,
        labels: PlaneArray,
        *,
        levels: PyramidWriter | None = None,
        outside: bool = False,
        told: Told = lambda _: None,
    ) -> None:
        """Paint into stored labels, block by block; where no shape is nothing is written.

        With `levels` of the labels these are written along. With `outside` 1 is written there, and
        nothing where shapes are. `told` takes the share that is done.
        """
        boxes = labels.chunk_boxes(BLOCK)
        blocks = ahead(self._block(box, outside=outside) for box in boxes)
        for number, ((plane, y0, y1, x0, x1), block) in enumerate(zip(boxes, blocks, strict=True)):
            if levels is not None:
                drawn = np.zeros((y1 - y0, x1 - x0), labels.dtype) if block is None else block
                levels.write(plane, y0, x0, drawn.astype(labels.dtype, copy=False))
            elif block is not None:
                labels.write(plane, y0, x0, block.astype(labels.dtype, copy=False))
            told((number + 1) / len(boxes))

    def _block(self, box: Box, *, outside: bool) -> NDArray[Any] | None:
        plane, y0, y1, x0, x1 = box
        if plane == len(self.painters):
            self.painters.append(self._painter(plane))
        block = self.painters[plane].paint(y0, y1, x0, x1)
        if outside:
            return np.ones((y1 - y0, x1 - x0), np.uint8) if block is None else block == 0
        return block

    def paint(self, plane: int, y: tuple[int, int], x: tuple[int, int]) -> NDArray[Any]:
        """Paint a box of a plane, (Y, X), 0 where no shape is."""
        self.painters = self.painters or [self._painter(n) for n in range(len(self.values))]
        found = self.painters[plane].paint(*y, *x)
        return np.zeros((y[1] - y[0], x[1] - x[0]), self.dtype) if found is None else found

    def load(self) -> NDArray[Any]:
        """Paint all planes (N, Y, X) at once."""
        size = (self.height, self.width)
        self.painters = [self._painter(n) for n in range(len(self.values))]
        painted = [painter.paint(0, size[0], 0, size[1]) for painter in self.painters]
        return np.stack([np.zeros(size, self.dtype) if one is None else one for one in painted])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest that holds what shapes become."""
        return smallest_dtype(max((int(v.max(initial=0)) for v in self.values), default=0))

    def _painter(self, plane: int) -> Painter:
        # Loaded where it is used: what compiles it takes half a second, and masks need none of it.
        from unetkit.arrays.polygons import Painter

        polygons, values = self.polygons[plane], self.values[plane].astype(self.dtype)
        order = None
        if self.by_size:
            sizes = Painter(polygons, values)
            for y in range(0, self.height, BLOCK):
                for x in range(0, self.width, BLOCK):
                    sizes.paint(y, min(y + BLOCK, self.height), x, min(x + BLOCK, self.width))
            order = np.empty(len(values), np.int64)
            order[np.argsort(-sizes.drawn, kind="stable")] = np.arange(len(values))
        return Painter(polygons, values, order)


def pair_shapes(
    pairs: Sequence[Pair], files: Sequence[str], rules: MaskRules, *, progress: Progress = SILENT
) -> tuple[list[Pair], dict[str, Drawing], list[str]]:
    """Read files of shapes, and give each image the shapes that are its.

    They go by the names of images that a file holds, else by its own name; one file that names
    none belongs to the only image. Without a region where regions say what was judged, an image
    comes in unlabelled.
    """
    by_file = {base(path): pair for pair in pairs for path in pair.files}
    by_stem = {key: pair for pair in pairs for key in (stem(pair.image), pair.name)}
    found: dict[str, Drawing] = {}
    lost: list[str] = []
    sizes = [1 + (Path(path).stat().st_size >> 20) for path in files]
    progress.start("reading the shapes", total=sum(sizes))
    for path, size in zip(files, sizes, strict=True):
        portion = Portion(progress, size)
        drawings = read_annotations(path, outlines=rules.outlines, told=portion.reach)
        for drawing in drawings:
            names = [base(drawing.image)] if drawing.image else []
            names += [Path(path).name, Path(path).stem] if len(drawings) == 1 else []
            fitting = [by_file.get(name) or by_stem.get(stem(name)) for name in names]
            pair = next(filter(None, fitting), None)
            if pair is None and len(pairs) == len(files) == 1 and drawing.image is None:
                pair = pairs[0]
            if pair is None:
                lost.append(drawing.image or Path(path).name)
                continue
            if pair.name in found:
                raise InputError(
                    f"an image must have one set of shapes, got {found[pair.name].path!r} and"
                    f" {path!r} for {pair.image!r}; remove one"
                )
            found[pair.name] = drawing
        portion.reach(1)
    if not any(d.shapes or d.empty or d.flat for d in found.values()) and found:
        raise InputError(
            f"annotations must hold shapes, got none in {files[0]!r}"
            f"{' and others' if len(files) > 1 else ''}; draw some"
        )
    if not found:
        raise InputError(
            f"annotations must name images that are there, got {_listed(lost)} for"
            f" {Path(pairs[0].image).name!r}{' and others' if len(pairs) > 1 else ''}; rename them"
            " alike"
        )
    remarks = (
        [f"left out the shapes of {_many(len(lost), 'other image')}: {_listed(lost)}"]
        if lost
        else []
    )
    remarks += _without_region(found, rules)
    drawn = [
        replace(pair, mask=found[pair.name].path) if pair.name in found else pair for pair in pairs
    ]
    return drawn, found, remarks


def _without_region(found: dict[str, Drawing], rules: MaskRules) -> list[str]:
    """Leave out drawings of which no region says what was judged, and say so."""
    if not rules.judged:
        return []
    there = {shape.label for drawing in found.values() for shape in drawing.shapes}
    for name in rules.judged:
        if name not in there:
            raise InputError(
                f"what was judged must be a class of the shapes, got {name!r}; there are"
                f" {_listed(sorted(filter(None, there))) or 'none with a class'}"
            )
    lost = [
        name
        for name, drawing in found.items()
        if not rules.rectangles and not any(s.label in rules.judged for s in drawing.shapes)
    ]
    for name in lost:
        del found[name]
    if not lost:
        return []
    named = " or ".join(map(repr, rules.judged))
    return [
        f"no region of the class {named} says what was judged in {_many(len(lost), 'image')}, whose"
        f" shapes were left out: {_listed(lost)}"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (", …" if len(names) > NAMED else "")


def survey_shapes(
    drawings: Sequence[tuple[str, Drawing, ImageFile]], rules: MaskRules
) -> MaskRules:
    """Judge the shapes of all images, by name, and decide what each becomes."""
    given = {
        "--ignore": rules.ignore is not None,
        "--connected-components": rules.split,
        "values of classes": bool(rules.ranges),
    }
    if any(given.values()):
        named = " and ".join(name for name, there in given.items() if there)
        raise UsageError(
            "shapes must come without --ignore, --connected-components and values in --classes,"
            f" which are for masks, got {named}; leave it out"
        )
    for _, drawing, image in drawings:
        _check_size(drawing, image)
        _check_places(drawing, image)
    names: tuple[str, ...] = ()
    number: Callable[[Shape], int] | None = None
    objects = [[s for s in d.shapes if s.label not in rules.judged] for _, d, _ in drawings]
    if rules.kind == "classes" or rules.classed:
        names = rules.names or _class_names(objects)
        numbers = {one: position for position, one in enumerate(names)}
        for (_, drawing, _), shapes in zip(drawings, objects, strict=True):
            _check_classes(drawing, shapes, numbers, background=not rules.classed)
        if rules.kind == "classes":
            number = lambda shape: numbers[str(shape.label)]  # noqa: E731 - one of two ways
    canvases = {}
    for (name, drawing, image), shapes in zip(drawings, objects, strict=True):
        canvases[name] = _canvas(
            drawing, image, shapes, number=number, names=names if rules.classed else ()
        )
        canvases[name].by_size = rules.overlaps == "smaller"
    values = {int(v) for c in canvases.values() for plane in c.values for v in np.unique(plane)}
    return replace(
        rules,
        class_names=names,
        mapping={} if rules.classed else {n: n for n in range(len(names))},
        canvases=canvases,
        empty=not values - {0},
    )


def find_regions(
    images: Sequence[tuple[str, Drawing | None, ImageFile]], rules: MaskRules
) -> MaskRules:
    """Find what was judged of each image, by name: its shapes of these classes, and rectangles."""
    regions = {}
    for name, drawn, image in images:
        for top, bottom, left, right in rules.rectangles:
            high, wide = image.size("y"), image.size("x")
            if bottom > high or right > wide:
                raise UsageError(
                    "rectangles that were judged must lie inside of every image, got"
                    f" {top}:{bottom},{left}:{right} for {image.path!r}, {high} high, {wide} wide"
                )
        planes = product(range(image.size("t")), range(image.size("z")))
        shapes = [
            Shape([box_part(x0, y0, x1, y1)], plane=plane, is_mask=True)
            for plane in planes
            for y0, y1, x0, x1 in rules.rectangles
        ]
        drawing = drawn or Drawing(image.path, "corners")
        shapes += [shape for shape in drawing.shapes if shape.label in rules.judged]
        regions[name] = _canvas(drawing, image, shapes, number=lambda _: 1)
    return replace(rules, regions=regions)


def _canvas(
    drawing: Drawing,
    image: ImageFile,
    shapes: Sequence[Shape],
    *,
    number: Callable[[Shape], int] | None,
    names: Sequence[str] = (),
) -> Canvas:
    from unetkit.arrays.polygons import joined, self_crossings

    planes = [_plane(shape, drawing, image) for shape in shapes]
    values = _instance_numbers(shapes, planes) if number is None else list(map(number, shapes))
    on_centres = [drawing.convention == "centres" and not s.is_mask for s in shapes]
    canvas = Canvas(image.size("y"), image.size("x"), [], [])
    if names:
        labels = [str(shape.label) for shape in shapes]
        if len(set(zip(values, labels, strict=True))) > len(set(values)):
            # One number on several planes, and of several classes.
            values = list(range(1, len(shapes) + 1))
        classes = [names.index(label) for label in labels]
        canvas.object_classes = ObjectClasses.of_objects(values, classes, names)
    for plane in range(image.planes):
        chosen = [n for n, own in enumerate(planes) if own in (plane, None)]
        parts = [shapes[n].parts for n in chosen]
        polygons = joined(parts, [on_centres[n] for n in chosen])
        for shape, x, y in self_crossings(polygons)[:1]:
            crossed = _of(drawing, shapes[chosen[int(shape)]])
            raise LabelError(
                f"outlines must not cross themselves, got {crossed} crossing itself at x {x:.1f},"
                f" y {y:.1f}; draw it anew"
            )
        canvas.polygons.append(polygons)
        canvas.values.append(np.array([values[n] for n in chosen], np.uint32))
    return canvas


def _plane(shape: Shape, drawing: Drawing, image: ImageFile) -> int | None:
    """Say on which plane of an image a shape lies; None for each of them."""
    if image.planes == 1 and (shape.plane is None or shape.plane == (0, 0)):
        return 0
    if shape.plane is None:
        raise LabelError(
            f"shapes must say their plane where the image has {image.planes}, got none of"
            f" {_of(drawing, shape)}"
        )
    t, z = shape.plane
    if not (0 <= t < image.size("t") and 0 <= z < image.size("z")):
        raise LabelError(
            f"shapes must lie in one of the image's planes, got t {t}, z {z} of"
            f" {_of(drawing, shape)}; {Path(image.path).name!r} has {image.planes}"
        )
    return t * image.size("z") + z


def _instance_numbers(shapes: Sequence[Shape], planes: Sequence[int | None]) -> list[int]:
    """Take objects' names for their numbers, where these are different; else count."""
    names = [shape.name for shape in shapes]
    if all(re.fullmatch(r"[1-9]\d{0,9}", name) for name in names):
        numbers = list(map(int, names))
        if max(numbers, default=0) <= LARGEST_ID:
            counts = Counter(zip(numbers, planes, strict=True))
            if max(counts.values(), default=1) == 1:
                return numbers
    return list(range(1, len(names) + 1))


def _of(drawing: Drawing, shape: Shape) -> str:
    """Name a shape for a message."""
    number = next(n for n, other in enumerate(drawing.shapes, start=1) if other is shape)
    called = shape.name or shape.label
    return f"shape {number}{f' ({called!r})' if called else ''} of {Path(drawing.path).name!r}"


def _class_names(drawn: Sequence[Sequence[Shape]]) -> tuple[str, ...]:
    found = {shape.label for shapes in drawn for shape in shapes if shape.label}
    return (BACKGROUND, *sorted(found - {BACKGROUND}))


def _check_classes(
    drawing: Drawing, shapes: Sequence[Shape], numbers: dict[str, int], *, background: bool
) -> None:
    """Refuse shapes of no class or another; of the first one too where it is of no object."""
    known = list(numbers)[0 if background else 1 :]
    for shape in shapes:
        if shape.label not in known:
            named = f"the class {shape.label!r}" if shape.label else "no class"
            raise LabelError(
                f"shapes must be of the classes {', '.join(known)}, got {named} of"
                f" {_of(drawing, shape)}; name it in --classes, or set it"
            )


def _check_size(drawing: Drawing, image: ImageFile) -> None:
    size = (image.size("y"), image.size("x"))
    if drawing.size not in (None, size):
        high, wide = drawing.size or size
        raise LabelError(
            f"annotations must be of an image as high and wide, got {high} x {wide} in"
            f" {drawing.path!r} for {size[0]} x {size[1]} in {image.path!r}"
            + ("; its sides are swapped" if (wide, high) == size else "")
        )


def _check_places(drawing: Drawing, image: ImageFile) -> None:
    """Refuse shapes outside of the image; those that reach over its border are cut off."""
    if not drawing.shapes:
        return
    from unetkit.arrays.polygons import joined

    size = np.array([image.size("x"), image.size("y")])
    polygons = joined([shape.parts for shape in drawing.shapes], [False] * len(drawing.shapes))
    boxes, owner = polygons.boxes, polygons.shapes
    far = boxes[:, 2:].max(axis=0)
    if (far > size + STRAY).any() and (far <= size[::-1]).all():
        raise LabelError(
            f"shapes must lie inside of their image, got x to {far[0]:g} and y to {far[1]:g} in"
            f" {drawing.path!r} for {image.path!r}, {size[0]} wide and {size[1]} high; x and y may"
            " be swapped"
        )
    inside = ((boxes[:, :2] < size) & (boxes[:, 2:] > 0)).all(axis=1)
    # A point or line has no extent, but a place.
    touched = np.zeros(len(drawing.shapes), bool)
    np.logical_or.at(touched, owner, inside | ((boxes[:, :2] >= 0) & (boxes[:, 2:] < size)).all(1))
    for lost in np.flatnonzero(~touched)[:1]:
        shape = drawing.shapes[lost]
        raise LabelError(
            f"shapes must lie inside of their image, got {_of(drawing, shape)} outside of"
            f" {image.path!r}, {size[0]} wide and {size[1]} high; is it another image's, or of"
            " another scale?"
        )


def shape_notes(rules: MaskRules, drawings: Sequence[Drawing]) -> list[str]:
    """Say what painting told, of all images together."""
    said = []
    empty = sum(drawing.empty for drawing in drawings)
    flat = sum((drawing.flat for drawing in drawings), Counter[str]())
    painters = [painter for canvas in rules.canvases.values() for painter in canvas.painters]
    unseen = sum(int((painter.drawn == 0).sum()) for painter in painters)
    hidden = sum(int(((p.drawn > 0) & (p.kept == 0)).sum()) for p in painters)
    if empty:
        said.append(f"{_many(empty, 'object')} had an empty outline and came in as nothing")
    if unseen:
        said.append(f"{_many(unseen, 'shape')} held no pixel's centre and came in as nothing")
    if flat:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(flat.items()))
        said.append(f"left out what has no area: {kinds}")
    said += overlap_note(rules)
    if hidden:
        said.append(f"{_many(hidden, 'shape')} lay wholly below others and came in as nothing")
    return said


def overlap_note(rules: MaskRules) -> list[str]:
    """Say how many pixels lay in several shapes, of what was painted."""
    painters = [painter for canvas in rules.canvases.values() for painter in canvas.painters]
    overlapping = sum(int(painter.overlapping[0]) for painter in painters)
    if not overlapping:
        return []
    rule = "the smaller shape" if rules.overlaps == "smaller" else "the later shape"
    return [
        f"{_many(overlapping, 'pixel')} lay in several shapes and went to {rule}; --overlaps"
        " chooses another rule"
    ]


def class_note(rules: MaskRules) -> list[str]:
    """Say how many objects are of each class, where they have one."""
    tables = [c.object_classes for c in rules.canvases.values() if c.object_classes is not None]
    if not tables:
        return []
    counts = sum((np.bincount(one.numbers, minlength=len(one.names)) for one in tables), np.int64())
    named = zip(tables[0].names[1:], np.atleast_1d(counts)[1:].tolist(), strict=True)
    return [f"objects by class: {', '.join(f'{name} {count:,}' for name, count in named)}"]


def region_note(rules: MaskRules) -> list[str]:
    """Say how much of the images that have regions was judged."""
    canvases = [canvas for canvas in rules.regions.values() if canvas.painters]
    judged = sum(int(p.kept.sum()) for canvas in canvases for p in canvas.painters)
    pixels = sum(c.height * c.width * len(c.painters) for c in canvases)
    if not pixels:
        return []
    return [
        f"{_many(judged, 'pixel')} ({judged / pixels:.1%}) lie where the annotation was judged; all"
        " others will be ignored"
    ]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def write_ignored(region: Canvas, ignore: PlaneArray, path: str) -> None:
    """Write 1 where nobody judged; a region without a pixel is refused."""
    region.write(ignore, outside=True)
    if not any(painter.drawn.any() for painter in region.painters):
        raise LabelError(
            f"regions that were judged must hold pixels, got none in {path!r}; draw them larger"
        )


def check_overlaps(canvas: Canvas, path: str) -> None:
    """Refuse shapes that overlap, where they must not."""
    for plane, painter in enumerate(canvas.painters):
        count, first, second = painter.overlapping.tolist()
        if count:
            values = canvas.values[plane]
            raise LabelError(
                f"shapes must not overlap with --overlaps refuse, got {count:,} pixels in several"
                f" of {path!r}, such as of the shapes that become {values[first]} and"
                f" {values[second]}; draw them apart, or choose later or smaller"
            )
