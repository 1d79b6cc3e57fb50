"""What the demo draws: all side by side, the scored part enlarged, where seams could be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unetkit.views.pictures import image_panel, weight_panel
from unetkit.views.sheet import Panel, side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from unetkit.pipeline.demo_score import MethodScores

_FILL = 0.35


@dataclass(frozen=True)
class Segmented:
    """The demo's image with all that is known about it.

    Attributes
    ----------
    image : ndarray, shape (Y, X)
        The pixels.
    truth, predicted : ndarray of int, shape (Y, X)
        What a person drew, and what the network found.
    weights : ndarray of float32, shape (Y, border)
        Of the part that the network learnt from.
    border : int
        The first column that nobody trained on.
    """

    image: npt.NDArray[np.generic]
    truth: npt.NDArray[np.integer]
    predicted: npt.NDArray[np.integer]
    weights: npt.NDArray[np.floating]
    border: int


def draw_all(path: str, known: Segmented) -> None:
    """Draw image, truth, prediction and weights side by side; a line parts learnt from scored.

    Parameters
    ----------
    path : str
        The PNG file to write.
    known : Segmented
        What is drawn.
    """
    line = _lines([0, len(known.image) - 1], [known.border])
    image = known.image[None]
    panels = [
        image_panel(image, "image", grid_lines=line),
        image_panel(image, f"drawn by a person: {_count(known.truth)} nuclei", labels=known.truth),
        image_panel(image, f"predicted: {_count(known.predicted)} nuclei", labels=known.predicted),
        weight_panel(known.weights, "weights of the pixels it learnt from"),
    ]
    title = "Trained on the left three quarters, scored on the right quarter"
    side_by_side(path, panels, title=title)


def draw_held_out(
    path: str,
    image: npt.NDArray[np.generic],
    *,
    truth: npt.NDArray[np.integer],
    methods: Mapping[str, tuple[npt.NDArray[np.integer], MethodScores]],
) -> None:
    """Draw the scored part enlarged: the truth, and what each method made of it.

    Parameters
    ----------
    path : str
        The PNG file to write.
    image : ndarray, shape (Y, X)
        The part.
    truth : ndarray of int, shape (Y, X)
        What a person drew.
    methods : mapping of str to (labels, MethodScores)
        What each method found, and how good that is.
    """
    panels = [
        image_panel(image[None], "image", scale=2),
        image_panel(image[None], f"person: {_count(truth)} nuclei", labels=truth, scale=2),
    ]
    for name, (labels, scores) in methods.items():
        found = f"{name}: {scores.objects}, AP50 {scores.average_precision_50 or 0:.2f}"
        panels.append(image_panel(image[None], found, labels=labels, scale=2))
    side_by_side(path, panels, title="The quarter that nobody trained on")


def draw_seams(path: str, known: Segmented, *, tile: int) -> None:
    """Draw the prediction with the borders of its tiles.

    Parameters
    ----------
    path : str
        The PNG file to write.
    known : Segmented
        What is drawn.
    tile : int
        The tile's side, in pixels.
    """
    height, width = known.image.shape
    rows = [*range(0, height, tile), height - 1]
    columns = [*range(0, width, tile), width - 1]
    panel: Panel = image_panel(
        known.image[None],
        f"lines: borders of tiles of {tile} x {tile} pixels",
        labels=known.predicted,
        fill=_FILL,
        grid_lines=_lines(rows, columns),
        scale=1.5,
    )
    side_by_side(path, [panel], title="Tiles without seams")


def _lines(rows: list[int], columns: list[int]) -> npt.NDArray[np.float64]:
    """Cross rows and columns: y and x of every crossing, shape (2, rows, columns)."""
    return np.stack(np.meshgrid(np.array(rows, float), np.array(columns, float), indexing="ij"))


def _count(labels: npt.NDArray[np.integer]) -> int:
    return len(np.unique(labels[labels > 0]))
