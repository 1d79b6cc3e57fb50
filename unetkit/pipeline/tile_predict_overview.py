"""The overview of a prediction: its images, small, with outlines around what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetkit.errors import UsageError
from unetkit.storage.files import check_output
from unetkit.storage.levels import thumbnail
from unetkit.storage.urls import stem
from unetkit.views.overview import overview_picture, side_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.storage.datasets import Dataset, Sample

# More would be too small to look at.
MOST = 24


def check_overview(path: str, *, inputs: Sequence[str], overwrite: bool) -> None:
    """Make sure that the picture can be written, before the work.

    Raises
    ------
    UsageError
        If its name is not that of a PNG.
    OutputError
        If something is there that may not be replaced.
    """
    if not path.endswith(".png"):
        raise UsageError(f"overview must be a .png file, got {path}; name one")
    check_output(path, inputs=inputs, overwrite=overwrite)


def draw_overview(path: str, images: Dataset, predictions: Dataset) -> None:
    """Draw the middle plane of each of the first 24 images.

    Parameters
    ----------
    path : str
        The PNG file to write.
    images, predictions : Dataset
        What was read and what was made of it, sample by sample.
    """
    pairs = list(zip(images.samples, predictions.samples, strict=True))[:MOST]
    side = side_for(len(pairs))
    shown = []
    for image, made in pairs:
        plane = image.data.planes // 2
        labels = thumbnail(made.labels(), plane, side=side)
        shown.append(
            (_caption(image, made, plane), thumbnail(image.data, plane, side=side), labels)
        )
    overview_picture(path, shown, title=stem(predictions.url))


def _caption(image: Sample, made: Sample, plane: int) -> str:
    size = f"{image.data.height} x {image.data.width} pixels, {made.label_kind}"
    where = f", plane {plane + 1} of {image.data.planes}" if image.data.planes > 1 else ""
    return f"{image.name}: {size}{where}"
