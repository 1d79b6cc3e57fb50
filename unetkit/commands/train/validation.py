"""Score a network on held-out images with the tiler that predicts slides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.instances import SEEDS, instances
from unetkit.geometry.tiles import cover
from unetkit.models.inference import predict_array, to_classes
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import Scores, score_classes, score_instances
from unetkit.training.checkpoint import Validation
from unetkit.training.split import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from unetkit.commands.train.report import Facts
    from unetkit.scores.contingency import Contingency
    from unetkit.training.block_cache import BlockCache, Planes
    from unetkit.training.sampler import Material

# Pixels that are scored at most: enough for a steady score, few enough for memory and time.
LARGEST = 4096
MOST = 2**26
# Pixels a side of a tile, before the context.
TILE = 512
# Pixels a side of the place that people look at.
LOOK = 256
# Probabilities below this count as this: the logarithm of 0 would drown all others.
LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Look:
    """A place of the held-out data, to look at.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X)
        Raw intensities.
    truth, prediction : ndarray of int, shape (Y, X)
        Instances or classes.
    """

    image: NDArray[Any]
    truth: NDArray[Any]
    prediction: NDArray[Any]


@dataclass(frozen=True)
class Exam:
    """One plane of a held-out region."""

    region: Region
    plane: int


class Examiner:
    """Scores networks on the held-out regions.

    Parameters
    ----------
    facts : Facts
        What is learned, what is held out, and how it is computed.
    materials : mapping of str to Material
        The samples by name.
    cache : BlockCache
        Through which the samples are read.
    before_each : callable
        Called before each plane; may raise to end.
    """

    def __init__(
        self,
        facts: Facts,
        materials: Mapping[str, Material],
        *,
        cache: BlockCache,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._lesson = facts.lesson
        self._contract = facts.contract
        self._precision = facts.plan.precision
        self._samples = {sample.name: sample for sample in facts.lesson.samples}
        self._materials = materials
        self._cache = cache
        self._before_each = before_each
        self.exams = _choose(facts.parts.validation, materials)
        self.look: Look | None = None
        """After each validation, the same place of it, with objects where there are any."""

    @property
    def pixels_read(self) -> int:
        """Pixels that the network reads for one validation."""
        total = 0
        for exam in self.exams:
            window = self._window(exam)
            tile = self._tile(window)
            size = self._contract.legal(tile + 2 * self._contract.need)
            total += size**2 * len(cover(window.height, window.width, tile=tile))
        return total

    def __call__(self, network: nn.Module) -> Validation:
        """Predict every held-out plane, and score all of them together."""
        tables: list[Contingency] = []
        entropy = weight = 0.0
        self.look = None
        for exam in self.exams:
            self._before_each()
            table, lost, counted = self._examine(network, exam)
            tables.append(table)
            entropy += lost
            weight += counted
        scores = self._score(pool(tables))
        main = scores.average_precision if self._lesson.instances else scores.dice
        # No score applies where nothing is held out that could be found; then the loss decides.
        return Validation(main or 0.0, loss=entropy / max(weight, 1.0), scores=_named(scores))

    def _score(self, table: Contingency) -> Scores:
        if self._lesson.instances:
            return score_instances(table)
        return score_classes(table, self._lesson.class_names)

    def _examine(self, network: nn.Module, exam: Exam) -> tuple[Contingency, float, float]:
        """Return the table of a plane, the sum of its weighted cross-entropy, and its pixels."""
        lesson, sample = self._lesson, self._samples[exam.region.sample]
        material = self._materials[exam.region.sample]
        found = self._predict(network, exam)
        if lesson.instances:
            classes = to_classes(found, positive=SEEDS[lesson.target][0])
            predicted = instances(classes, lesson.target)
        else:
            predicted = to_classes(found)
        ignore = None if sample.ignore is None else self._read(sample.ignore, exam)
        truth = self._read(sample.labels(), exam)
        table = from_labels(truth, predicted, ignore=ignore)
        if self.look is None or (truth.any() and not self.look.truth.any()):
            self.look = _cut(self._read(material.image, exam), truth, predicted)
        target = self._read(material.target, exam)
        weights = self._read(material.weights, exam).astype(np.float64)
        chosen = np.take_along_axis(found, target[None].astype(np.intp), axis=0)[0]
        entropy = -np.log(np.maximum(chosen, LEAST)) * weights
        return table, float(entropy.sum()), float((weights > 0).sum())

    def _read(self, array: Planes, exam: Exam) -> NDArray[Any]:
        region = exam.region
        rows, columns = (region.y0, region.y1), (region.x0, region.x1)
        return self._cache.read(array, exam.plane, rows=rows, columns=columns)

    def _window(self, exam: Exam) -> Region:
        """Return the region with its true surroundings, on the pooling grid of the whole image."""
        region, need, step = exam.region, self._contract.need, self._contract.step
        image = self._materials[region.sample].image
        top, left = (max(0, start - need) // step * step for start in (region.y0, region.x0))
        bottom, right = (stop + need + step for stop in (region.y1, region.x1))
        return Region(region.sample, top, left, min(bottom, image.height), min(right, image.width))

    def _tile(self, window: Region) -> int:
        """Choose one tile for what is small, as a prediction does."""
        step = self._contract.step
        return -(-min(TILE, max(window.height, window.width)) // step) * step

    def _predict(self, network: nn.Module, exam: Exam) -> NDArray[np.float32]:
        """Predict a region as a part of its whole image."""
        region, window = exam.region, self._window(exam)
        material = self._materials[region.sample]
        raw = self._read(material.image, replace(exam, region=window))
        whole = predict_array(
            network,
            material.normalization.apply(raw, replace_nonfinite=material.fill),
            contract=self._contract,
            tile=self._tile(window),
            precision=self._precision,
        )
        y, x = region.y0 - window.y0, region.x0 - window.x0
        return whole[:, y : y + region.height, x : x + region.width]


def _cut(image: NDArray[Any], truth: NDArray[Any], prediction: NDArray[Any]) -> Look:
    """Cut a place to look at around the middle of what there is to find."""
    rows, columns = np.nonzero(truth)
    box = []
    for found, size in zip((rows, columns), truth.shape, strict=True):
        middle = int(np.median(found)) if found.size else size // 2
        start = max(0, min(middle - LOOK // 2, size - LOOK))
        box.append(slice(start, start + LOOK))
    y, x = box
    return Look(image[:, y, x].copy(), truth[y, x].copy(), prediction[y, x].copy())


def _choose(regions: Sequence[Region], materials: Mapping[str, Material]) -> list[Exam]:
    """Take every plane of every region, or an evenly spaced choice of what is too much."""
    exams = [
        Exam(_inner(region), plane)
        for region in regions
        for plane in range(materials[region.sample].image.planes)
    ]
    pixels = sum(exam.region.height * exam.region.width for exam in exams)
    keep = max(1, min(len(exams), len(exams) * MOST // max(pixels, 1)))
    return [exams[k * len(exams) // keep] for k in range(keep)]


def _inner(region: Region) -> Region:
    """Cut a very large region to its middle."""

    def cut(start: int, stop: int) -> tuple[int, int]:
        size = min(stop - start, LARGEST)
        first = start + (stop - start - size) // 2
        return first, first + size

    (y0, y1), (x0, x1) = cut(region.y0, region.y1), cut(region.x0, region.x1)
    return Region(region.sample, y0, x0, y1, x1)


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
