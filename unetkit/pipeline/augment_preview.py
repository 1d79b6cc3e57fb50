"""The contact sheet of `augment`: originals beside what became of them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.grid_lines import grid_lines
from unetkit.views.pictures import augmentation_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.deformation import Deformation
    from unetkit.pipeline.augment_copies import Copy
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.planes import PlaneArray

# Our own choices: what fits a screen or two, at a size at which single cells are seen.
ROWS = 8
SIDE = 1024
# Rows that are read at a time.
BAND = 2048


def write_preview(path: str, *, source: Dataset, output: Dataset, copies: Sequence[Copy]) -> None:
    """Write a few originals beside their deformed copies, as a PNG.

    The first copy of each sample comes first, then the second, up to eight in all.

    Parameters
    ----------
    path : str
        The picture.
    source, output : Dataset
        What was read and what was written.
    copies : sequence of Copy
        What was done.
    """
    # What follows the name of the sample sorts by the number of the copy.
    rounds = sorted(copies, key=lambda copy: copy.name.removeprefix(copy.sample.name))
    rows = (
        _row(source[copy.sample.name], output[copy.name], copy.deformation)
        for copy in rounds
        if copy.deformation is not None
    )
    augmentation_sheet(path, list(islice(rows, ROWS)))


def _row(original: Sample, deformed: Sample, deformation: Deformation) -> dict[str, Any]:
    data = original.data
    # Both sides are thinned alike, so that one grid fits.
    step = -(-max(data.height, data.width) // SIDE)
    lines = grid_lines(deformation, (data.height, data.width))
    return {
        "original": _thinned(data, step),
        "deformed": _thinned(deformed.data, step),
        "labels": _labels(original, step),
        "deformed_labels": _labels(deformed, step),
        "grid_lines": lines / step,
        "title": original.name,
    }


def _labels(sample: Sample, step: int) -> NDArray[Any] | None:
    return None if sample.label_kind is None else _thinned(sample.labels(), step)


def _thinned(array: PlaneArray, step: int) -> NDArray[Any]:
    """Read every `step`-th pixel of the middle plane, a band of rows at a time."""
    high = BAND // step * step if step < BAND else step
    bands = (
        array.read(array.planes // 2, y, min(y + high, array.height), 0, array.width)
        for y in range(0, array.height, high)
    )
    return np.concatenate([band[..., ::step, ::step] for band in bands], axis=-2)
