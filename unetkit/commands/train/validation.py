"""Score a network on held-out images with the tiler that predicts slides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.commands.train.mixing import SIDES
from unetkit.geometry.tiles import cover
from unetkit.models.decision import default_decision
from unetkit.models.inference import to_classes
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import Scores, score_classes, score_instances
from unetkit.training.checkpoint import Validation
from unetkit.training.held_out import choose_planes, thinned, tile_of
from unetkit.training.tuning import (
    TUNED,
    HeldOutMap,
    best_score,
    decided,
    has_choice,
    middle_box,
    whole_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from unetkit.arrays.boxes import Plane
    from unetkit.commands.train.report import TrainingDescription
    from unetkit.scores.contingency import Contingency
    from unetkit.training.block_cache import BlockCache
    from unetkit.training.held_out import HeldOutPlane
    from unetkit.training.sampler import TrainingSample
    from unetkit.training.split import Region

# Pixels a side of the place that people look at.
LOOK = 256
# Pixels on which a network is judged with a decision that suits it, after each validation.
JUDGED = 2**20
# Probabilities below this count as this: the logarithm of 0 would drown all others.
LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class ValidationPicture:
    """A place of the held-out data, to look at."""

    image: NDArray[Any]  # (C, Y, X), raw intensities
    truth: NDArray[Any]  # (Y, X), instances or classes
    prediction: NDArray[Any]


class Validator:
    """Scores networks on the held-out regions; `before_each` plane may raise to end it."""

    def __init__(
        self,
        description: TrainingDescription,
        samples: Mapping[str, TrainingSample],
        *,
        cache: BlockCache,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._task = description.task
        self._contract = description.contract
        self._precision = description.plan.precision
        self._labelled = {labelled.name: labelled for labelled in description.task.samples}
        self._samples = samples
        self._cache = cache
        self._before_each = before_each
        self._mix = description.mix
        new = frozenset() if self._mix is None else self._mix.new
        planes = {name: one.planes for name, one in samples.items()}
        self._sides: dict[str, list[HeldOutPlane]] = {}
        # The new ones first, of which people see a picture.
        for side in reversed(SIDES):
            regions = description.parts.validation
            regions = tuple(r for r in regions if (r.sample in new) == (side == SIDES[1]))
            if regions:
                self._sides[side] = choose_planes(regions, planes)
        self.planes = [plane for side in self._sides.values() for plane in side]
        self._learned = thinned(choose_planes(description.parts.train, planes), most=TUNED)
        self.picture: ValidationPicture | None = None
        """After each validation, the same place of it, with objects where there are any."""
        self.error = 0.0
        """The standard error of the last score; 0 where none is known."""

    @property
    def pixels_read(self) -> int:
        """Pixels that the network reads for one validation."""
        total = 0
        for held_out in self.planes:
            image = self._samples[held_out.region.sample].image
            window = held_out.window(image, self._contract)
            tile = tile_of(window, self._contract)
            size = self._contract.legal(tile + 2 * self._contract.need)
            total += size**2 * len(cover(window.height, window.width, tile=tile))
        return total

    def __call__(self, network: nn.Module) -> Validation:
        """Predict every held-out plane, and score all of them together; old and new count apart."""
        self.picture = None
        if self._mix is None:
            found_here, _, self.error = self._validate(network, self.planes)
            return found_here
        found = {side: self._validate(network, self._sides[side]) for side in self._sides}
        weights = {s: w for s, w in zip(SIDES, self._mix.weights, strict=True) if s in found}
        total = sum(weights.values())
        # Of one side alone where nothing of the other counts.
        weights = {s: w / total if total else 1.0 for s, w in weights.items()}
        scores = _named(self._score(pool([t for _, tables, _ in found.values() for t in tables])))
        for side in SIDES:
            if side in found:
                own = {"score": found[side][0].score, **found[side][0].scores}
                scores |= {f"{side}_{name}": value for name, value in own.items()}
        self.error = math.hypot(*(weights[side] * error for side, (*_, error) in found.items()))
        return Validation(
            sum(weights[side] * one.score for side, (one, *_) in found.items()),
            loss=sum(weights[side] * one.loss for side, (one, *_) in found.items()),
            scores=scores,
        )

    def _validate(
        self, network: nn.Module, planes: Sequence[HeldOutPlane]
    ) -> tuple[Validation, list[Contingency], float]:
        tables: list[Contingency] = []
        maps: list[HeldOutMap] = []
        entropy = weight = 0.0
        judged = {*thinned(planes, most=JUDGED)}
        for held_out in planes:
            self._before_each()
            found = self._predict(network, held_out)
            table, lost, counted = self._examine(found, held_out)
            tables.append(table)
            if held_out in judged:
                maps.append(self._map(found, held_out).middle(most=JUDGED))
            entropy += lost
            weight += counted
        scores = self._score(pool(tables))
        # No score applies where nothing is held out that could be found; then the loss decides.
        main, error = self._best(maps, scores)
        found_loss = entropy / max(weight, 1.0)
        return Validation(main or 0.0, loss=found_loss, scores=_named(scores)), tables, error

    def _best(self, maps: list[HeldOutMap], scores: Scores) -> tuple[float | None, float]:
        """Score a network as it will be used, with a decision that suits it, and say how surely."""
        task = self._task
        if has_choice(task.target, classes=len(task.class_names)):
            return best_score(maps, target=task.target, learned=self.learned_sizes)
        return scores.dice, 0.0

    def _score(self, table: Contingency) -> Scores:
        if self._task.instances:
            return score_instances(table)
        return score_classes(table, self._task.class_names)

    def _examine(
        self, found: NDArray[np.float32], held_out: HeldOutPlane
    ) -> tuple[Contingency, float, float]:
        """Return the table of a plane, the sum of its weighted cross-entropy, and its pixels."""
        task, sample = self._task, self._samples[held_out.region.sample]
        if task.instances:
            usual = default_decision(task.target, classes=len(found))
            predicted = decided(found, usual, target=task.target)
        else:
            predicted = to_classes(found)
        ignore = self._ignored(held_out)
        truth = self._true(held_out)
        table = from_labels(truth, predicted, ignore=ignore)
        if self.picture is None or (truth.any() and not self.picture.truth.any()):
            self.picture = _cut(self._read(sample.image, held_out), truth, predicted)
        target = self._read(sample.target, held_out)
        weights = self._read(sample.weights, held_out).astype(np.float64)
        chosen = np.take_along_axis(found, target[None].astype(np.intp), axis=0)[0]
        entropy = -np.log(np.maximum(chosen, LEAST)) * weights
        return table, float(entropy.sum()), float((weights > 0).sum())

    def _read(self, array: Plane, held_out: HeldOutPlane) -> NDArray[Any]:
        return self._box(array, held_out.region, held_out.plane)

    def _true(self, held_out: HeldOutPlane) -> NDArray[Any]:
        return self._read(self._labelled[held_out.region.sample].labels(), held_out)

    def _box(self, array: Plane, region: Region, plane: int) -> NDArray[Any]:
        rows, columns = (region.y0, region.y1), (region.x0, region.x1)
        return self._cache.read(array, plane, rows=rows, columns=columns)

    def _predict(self, network: nn.Module, held_out: HeldOutPlane) -> NDArray[np.float32]:
        return held_out.predict(
            network,
            self._samples[held_out.region.sample],
            contract=self._contract,
            precision=self._precision,
            read=partial(self._box, plane=held_out.plane),
        )

    def _ignored(self, held_out: HeldOutPlane) -> NDArray[Any] | None:
        ignore = self._labelled[held_out.region.sample].ignore
        return None if ignore is None else self._read(ignore, held_out)

    @cached_property
    def learned_sizes(self) -> NDArray[np.int64]:
        """The pixels of each whole object in some of what is learned from."""
        found = [np.zeros(0, np.int64)]
        for place in self._learned if has_instances(self._task.target) else ():
            truth, ignore = self._true(place), self._ignored(place)
            box = middle_box(truth.shape, most=TUNED)
            found.append(whole_sizes(truth[box], None if ignore is None else ignore[box]))
        return np.concatenate(found)

    def maps(self, network: nn.Module) -> list[HeldOutMap]:
        """Predict some of the held-out planes, to fit the decision to."""
        return [one for maps in self.maps_by_side(network).values() for one in maps]

    def maps_by_side(self, network: nn.Module) -> dict[str, list[HeldOutMap]]:
        """Predict some of the held-out planes of each side."""
        found: dict[str, list[HeldOutMap]] = {}
        for side, planes in self._sides.items():
            found[side] = []
            for held_out in thinned(planes, most=TUNED):
                predicted = self._map(self._predict(network, held_out), held_out)
                found[side].append(predicted.middle(most=TUNED))
        return found

    def _map(self, found: NDArray[np.float32], held_out: HeldOutPlane) -> HeldOutMap:
        sample = self._labelled[held_out.region.sample]
        truth = self._true(held_out)
        found_map = HeldOutMap.of(found, truth, self._ignored(held_out), target=self._task.target)
        return replace(found_map, image=sample.source, group=sample.group)


def _cut(image: NDArray[Any], truth: NDArray[Any], prediction: NDArray[Any]) -> ValidationPicture:
    """Cut a place to look at around the middle of what there is to find."""
    rows, columns = np.nonzero(truth)
    box = []
    for found, size in zip((rows, columns), truth.shape, strict=True):
        middle = int(np.median(found)) if found.size else size // 2
        start = max(0, min(middle - LOOK // 2, size - LOOK))
        box.append(slice(start, start + LOOK))
    y, x = box
    return ValidationPicture(image[:, y, x].copy(), truth[y, x].copy(), prediction[y, x].copy())


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
