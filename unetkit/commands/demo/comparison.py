"""The part of the demo that nobody trained on, scored the same way for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.filters import gaussian, threshold_otsu

from unetkit.arrays.components import components
from unetkit.commands.evaluate.command import evaluate
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.outputs import staged
from unetkit.views.pictures import Panel, image_panel, side_by_side, weight_panel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Labels = npt.NDArray[np.integer]


# Own choices: as little smoothing as takes the noise away, and no object smaller than ten pixels
# (the smallest that a person drew has 29). Both favour the threshold: without them it finds more
# specks than nuclei.
SMOOTHING = 1.0
SMALLEST = 10


@dataclass(frozen=True)
class MethodScores:
    """How one method did on the part that nobody trained on."""

    method: str
    average_precision_50: float | None  # at an IoU of 0.5
    average_precision: float | None  # mean over IoU 0.5 to 0.95
    objects: int  # that it found
    matched: int  # of those, at an IoU of 0.5
    objects_true: int  # that a person drew


def otsu_objects(image: npt.NDArray[np.generic]) -> npt.NDArray[np.integer]:
    """Segment without learning: light smoothing, Otsu's threshold, connected components.

    References
    ----------
    Otsu (1979), A threshold selection method from gray-level histograms, IEEE Trans. SMC 9:62.
    """
    smooth = gaussian(image, SMOOTHING, preserve_range=True)
    labels, _ = components(smooth > threshold_otsu(smooth))
    return labels


def held_out(labels: Labels, *, border: int) -> npt.NDArray[np.uint32]:
    """Cut labels (Y, X) at a column, and drop the specks that the cut leaves or the method made.

    Objects of at least `SMALLEST` pixels remain, numbered from 1.
    """
    ids, dense, sizes = np.unique(labels[:, border:], return_inverse=True, return_counts=True)
    kept = (ids != 0) & (sizes >= SMALLEST)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    cut: npt.NDArray[np.uint32] = numbers[dense].reshape(labels.shape[0], -1)
    return cut


def score(
    store: str,
    truth: str,
    *,
    method: str,
    image: npt.NDArray[np.generic],
    labels: Labels,
    progress: Progress = SILENT,
) -> MethodScores:
    """Store a method's labels as a dataset and compare it with the one sample of the truth."""
    with staged(store) as partial:
        writer = DatasetWriter(partial)
        writer.add("held-out", image, axes="yx", labels=labels)
        writer.finish()
    overall: dict[str, Any] = evaluate(store, truth, progress=progress).to_dict()["overall"]
    return MethodScores(
        method=method,
        average_precision_50=overall["average_precision_at"]["0.50"],
        average_precision=overall["average_precision"],
        objects=int(overall["objects_predicted"]),
        matched=int(overall["objects_matched"]),
        objects_true=int(overall["objects_true"]),
    )


_FILL = 0.35


@dataclass(frozen=True)
class Segmented:
    """The demo's image with all that is known about it."""

    image: npt.NDArray[np.generic]
    truth: npt.NDArray[np.integer]  # what a person drew
    predicted: npt.NDArray[np.integer]
    weights: npt.NDArray[np.floating]  # of the part that the network learnt from
    border: int  # the first column that nobody trained on


def draw_all(path: str, known: Segmented) -> None:
    """Draw image, truth, prediction and weights side by side; a line parts learnt from scored."""
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
    """Draw the scored part enlarged: the truth, and what each method made of it."""
    panels = [
        image_panel(image[None], "image", scale=2),
        image_panel(image[None], f"person: {_count(truth)} nuclei", labels=truth, scale=2),
    ]
    for name, (labels, scores) in methods.items():
        found = f"{name}: {scores.matched} right of {scores.objects}"
        panels.append(image_panel(image[None], found, labels=labels, scale=2))
    side_by_side(path, panels, title="The quarter that nobody trained on")


def draw_seams(path: str, known: Segmented, *, tile: int) -> None:
    """Draw the prediction with the borders of its tiles."""
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
