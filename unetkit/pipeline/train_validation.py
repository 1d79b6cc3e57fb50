"""Score a network on held-out images with the tiler that predicts slides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.contingency import from_labels, pool
from unetkit.arrays.instances import SEEDS, instances
from unetkit.arrays.scores import Scores, score_classes, score_instances
from unetkit.pipeline.tile_predict_network import predict_array, to_classes
from unetkit.training.loop import Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from unetkit.arrays.contingency import Contingency
    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.train_data import Lesson
    from unetkit.training.sampler import Material
    from unetkit.training.split import Region

# Pixels that are scored at most: enough for a steady score, few enough for memory and time.
LARGEST = 4096
MOST = 2**26
# Pixels a tile, before the context; 512 is what a prediction takes for small images.
TILE = 512


@dataclass(frozen=True)
class Exam:
    """One plane of a held-out region."""

    region: Region
    plane: int


class Examiner:
    """Scores networks on the held-out regions.

    Parameters
    ----------
    lesson : Lesson
        What is learned.
    materials : mapping of str to Material
        The samples by name.
    regions : sequence of Region
        What is held out.
    contract : SizeContract
        The model's.
    precision : str
        As for `hardware.forward`.
    """

    def __init__(
        self,
        lesson: Lesson,
        materials: Mapping[str, Material],
        *,
        regions: Sequence[Region],
        contract: SizeContract,
        precision: str,
    ) -> None:
        self._lesson = lesson
        self._samples = {sample.name: sample for sample in lesson.samples}
        self._materials = materials
        self._contract = contract
        self._precision = precision
        self.exams = _choose(regions, materials)

    @property
    def pixels_read(self) -> int:
        """Pixels that the network reads for one validation."""
        need, step = self._contract.need, self._contract.step
        total = 0
        for exam in self.exams:
            height = exam.region.y1 - exam.region.y0
            width = exam.region.x1 - exam.region.x0
            tile = -(-min(TILE, max(height, width)) // step) * step
            size = self._contract.legal(tile + 2 * need)
            total += size**2 * math.ceil(height / tile) * math.ceil(width / tile)
        return total

    def __call__(self, network: nn.Module) -> Validation:
        """Predict every held-out plane, and score all of them together."""
        tables: list[Contingency] = []
        entropy = weight = 0.0
        for exam in self.exams:
            for table, lost, counted in self._examine(network, exam):
                tables.append(table)
                entropy += lost
                weight += counted
        scores = self._score(pool(tables))
        loss = entropy / max(weight, 1.0)
        main = scores.average_precision if self._lesson.instances else scores.dice
        return Validation(score=main or 0.0, loss=loss, scores=_named(scores))

    def _score(self, table: Contingency) -> Scores:
        if self._lesson.instances:
            return score_instances(table)
        return score_classes(table, self._lesson.class_names)

    def _examine(
        self, network: nn.Module, exam: Exam
    ) -> Iterator[tuple[Contingency, float, float]]:
        region, plane, lesson = exam.region, exam.plane, self._lesson
        material, sample = self._materials[region.sample], self._samples[region.sample]
        box = (plane, region.y0, region.y1, region.x0, region.x1)
        found = self._predict(network, material, exam)
        positive = SEEDS[lesson.target][0] if lesson.instances else 1
        classes = to_classes(found, positive=positive)
        predicted = instances(classes, lesson.target) if lesson.instances else classes
        ignore = None if sample.ignore is None else sample.ignore.read(*box)
        table = from_labels(sample.labels().read(*box), predicted, ignore=ignore)
        target = material.target.read(*box)
        weights = material.weights.read(*box).astype(np.float64)
        chosen = np.take_along_axis(found, target[None].astype(np.intp), axis=0)[0]
        lost = -np.log(np.maximum(chosen, 1e-12)) * weights
        yield table, float(lost.sum()), float((weights > 0).sum())

    def _predict(self, network: nn.Module, material: Material, exam: Exam) -> NDArray[np.float32]:
        """Predict a region with its true surroundings, on the pooling grid of the whole image."""
        region, need, step = exam.region, self._contract.need, self._contract.step
        top, left = (max(0, start - need) // step * step for start in (region.y0, region.x0))
        bottom = min(region.y1 + need + step, material.image.height)
        right = min(region.x1 + need + step, material.image.width)
        raw = material.image.read(exam.plane, top, bottom, left, right)
        image = material.normalization.apply(raw, fill=material.fill)
        whole = predict_array(
            network, image, contract=self._contract, tile=None, precision=self._precision
        )
        return whole[:, region.y0 - top : region.y1 - top, region.x0 - left : region.x1 - left]


def _choose(regions: Sequence[Region], materials: Mapping[str, Material]) -> list[Exam]:
    """Take every plane of every region, or an evenly spaced choice of what is too much."""
    exams = [
        Exam(_inner(region), plane)
        for region in regions
        for plane in range(materials[region.sample].image.planes)
    ]
    pixels = sum((e.region.y1 - e.region.y0) * (e.region.x1 - e.region.x0) for e in exams)
    keep = max(1, min(len(exams), len(exams) * MOST // max(pixels, 1)))
    return [exams[k * len(exams) // keep] for k in range(keep)]


def _inner(region: Region) -> Region:
    """Cut a very large region to its middle."""

    def cut(start: int, stop: int) -> tuple[int, int]:
        size = min(stop - start, LARGEST)
        first = start + (stop - start - size) // 2
        return first, first + size

    (y0, y1), (x0, x1) = cut(region.y0, region.y1), cut(region.x0, region.x1)
    return type(region)(region.sample, y0, x0, y1, x1)


def _named(scores: Scores) -> dict[str, Any]:
    """Name the scores that apply, for the log and the model file."""
    at = scores.average_precision_at or {}
    found = {
        "average_precision": scores.average_precision,
        "average_precision_50": at.get("0.50"),
        "seg": scores.seg,
        "dice": scores.dice,
        "pixel_error": scores.pixel_error,
        "objects_true": scores.objects_true,
        "objects_predicted": scores.objects_predicted,
    }
    return {name: value for name, value in found.items() if value is not None}
