"""A picture of whole images with what was found in them, however large they are."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from unetkit.storage.outputs import check_output
from unetkit.storage.pyramids import thumbnail
from unetkit.storage.urls import check_png, stem
from unetkit.views.pictures import contact_sheet, image_panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from unetkit.storage.datasets import Dataset, Sample

# Our choice: enough to see the tissue, and what lies where, on one screen.
SIDE = 1024
TINT = 0.25


def side_for(count: int) -> int:
    """Return the side in pixels of each of several images on one sheet.

    >>> side_for(1), side_for(2), side_for(24)
    (1024, 512, 204)
    """
    return SIDE // columns_for(count)


def columns_for(count: int) -> int:
    """Return how many images stand in a row, so that the sheet is about square."""
    return math.ceil(math.sqrt(count))


def overview_picture(
    path: str,
    shown: Sequence[tuple[str, npt.NDArray[np.generic], npt.NDArray[np.integer]]],
    *,
    title: str,
) -> None:
    """Write small copies of images with outlines around what was found, as a PNG.

    Each has a caption, pixels (C, Y, X), and labels (Y, X) of any size.
    """
    side = side_for(len(shown))
    panels = []
    for caption, image, labels in shown:
        # A small image is enlarged by a whole number, never blurred.
        scale = max(1, side // max(image.shape[1:]))
        panels.append(image_panel(image, caption, labels=labels, fill=TINT, scale=scale))
    contact_sheet(path, panels, columns=columns_for(len(shown)), title=title)


# More would be too small to look at.
MAX_IMAGES = 24


def check_overview(path: str, *, inputs: Sequence[str], overwrite: bool) -> None:
    """Make sure that the picture can be written, before the work; it is a PNG."""
    check_png(path, name="overview")
    check_output(path, inputs=inputs, overwrite=overwrite)


def draw_overview(path: str, images: Dataset, predictions: Dataset) -> None:
    """Draw the middle plane of each of the first 24 images, with what was made of it."""
    pairs = list(zip(images.samples, predictions.samples, strict=True))[:MAX_IMAGES]
    side = side_for(len(pairs))
    shown = []
    for image, made in pairs:
        plane = image.data.planes // 2
        labels = thumbnail(made.labels(), plane, side=side)
        shown.append(
            (_caption(image, made, plane), thumbnail(image.data, plane, side=side), labels)
        )
    overview_picture(path, shown, title=stem(predictions.url))


def draw_dataset(path: str, data: Dataset, names: Sequence[str]) -> None:
    """Draw the middle plane of some samples, evenly chosen where they are many, with their labels.

    What nobody judged is dim.
    """
    count = min(len(names), MAX_IMAGES)
    chosen = [data[names[k * (len(names) - 1) // max(count - 1, 1)]] for k in range(count)]
    side = side_for(count)
    panels = []
    for sample in chosen:
        plane = sample.data.planes // 2
        small = partial(thumbnail, plane=plane, side=side)
        image = small(sample.data)
        panel = image_panel(
            image,
            _caption(sample, sample, plane),
            labels=small(sample.labels()) if sample.label_kind else None,
            ignore=small(sample.ignore) if sample.ignore is not None else None,
            fill=TINT,
            classes=sample.label_kind == "classes",
            scale=max(1, side // max(image.shape[1:])),
        )
        panels.append(panel)
    many = f": {count} of {len(names)} samples" if count < len(names) else ""
    contact_sheet(path, panels, columns=columns_for(count), title=f"{stem(data.url)}{many}")


def _caption(image: Sample, made: Sample, plane: int) -> str:
    kind = made.label_kind or "unlabelled"
    size = f"{image.data.height} x {image.data.width} pixels, {kind}"
    where = f", plane {plane + 1} of {image.data.planes}" if image.data.planes > 1 else ""
    return f"{image.name}: {size}{where}"
