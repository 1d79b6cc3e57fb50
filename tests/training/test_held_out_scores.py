"""What was held out scores as a prediction does, with intervals over images or groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.measure import label

from unetkit.models.decision import Decision
from unetkit.training.held_out_scores import RESAMPLES, held_out_scores
from unetkit.training.tuning import HeldOutMap, score_decision

DECISION = Decision(threshold=0.6, min_size=3, grow=0)


def maps(count=6, *, seed=0, target="classes", classes=2):
    """Make maps whose best class is right at most pixels, each image another share of them."""
    found = []
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        truth = rng.integers(0, classes, (6, 7)).repeat(4, 0).repeat(4, 1)
        wrong = rng.random(truth.shape) < 0.05 * (k + 1)
        said = np.where(wrong, rng.integers(0, classes, truth.shape), truth)
        chances = np.full((classes, *truth.shape), 0.1 / classes, np.float32)
        chances += 0.9 * (np.arange(classes)[:, None, None] == said)
        truth = label(truth > 0, connectivity=1) if target == "foreground" else truth
        one = HeldOutMap.of(chances, truth, target=target)
        found.append(replace(one, image=f"i{k}"))
    return found


def judged(found, decision=DECISION, *, target="classes", names=("background", "cell")):
    return held_out_scores(
        found, decision, target=target, class_names=names, data="cells.zarr", seed=3
    )


def overlaps(one, number=1):
    """Count twice the shared pixels of a class, and those of both sides."""
    said, true = one.probabilities.argmax(0) == number, one.truth == number
    return 2 * int((said & true).sum()), int(said.sum() + true.sum())


def test_dice_and_its_interval_are_those_of_drawn_images():
    found = maps(12)
    told = judged(found)
    terms = np.array([overlaps(one) for one in found], float)
    whole = terms.sum(0)
    assert told["scores"]["dice"] == pytest.approx(whole[0] / whole[1], abs=1e-6)
    rng = np.random.default_rng(0)
    drawn = terms[rng.integers(0, 12, (20000, 12))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    # Theirs are a little wider, as Student's t is for twelve.
    from_, to = told["intervals"]["dice"]
    assert from_ < low < told["scores"]["dice"] < high < to
    assert to - from_ < 1.5 * (high - low)
    assert (told["units"], told["unit"], told["reason"]) == (12, "image", None)
    assert (told["data"], told["images"], told["resamples"]) == ("cells.zarr", 12, RESAMPLES)


def test_objects_score_what_the_decision_was_chosen_by():
    found = maps(target="foreground")
    told = judged(found, target="foreground")
    wanted = score_decision(found, DECISION, target="foreground")
    assert told["scores"]["average_precision"] == pytest.approx(wanted, abs=1e-6)
    other = judged(found, replace(DECISION, min_size=40), target="foreground")
    assert other["scores"]["average_precision"] < wanted
    low, high = told["intervals"]["average_precision"]
    assert low < wanted < high


def test_planes_of_an_image_and_images_of_a_group_are_one():
    found = maps(10)
    pairs = [replace(one, image=f"i{k // 2}") for k, one in enumerate(found)]
    told = judged(pairs)
    assert (told["units"], told["images"]) == (5, 5)
    assert told["intervals"]["dice"] is not None
    # A group of two images is as uncertain as an image of two planes.
    grouped = [replace(one, group=f"g{k // 2}") for k, one in enumerate(found)]
    alike = judged(grouped)
    assert (alike["units"], alike["images"], alike["unit"]) == (5, 10, "group")
    assert alike["intervals"] == told["intervals"]
    # Where only some belong to a group the others are their own.
    some = [replace(one, group="g" if k < 6 else None) for k, one in enumerate(found)]
    assert judged(some)["units"] == 5


@pytest.mark.parametrize("count", [1, 4])
def test_few_images_have_no_interval(count):
    told = judged(maps(count))
    assert set(told["intervals"].values()) == {None}
    assert told["reason"] == f"intervals need 5 images or more, got {count}"
    assert told["scores"]["dice"] > 0


def test_each_of_several_classes_has_its_score():
    found = maps(classes=4)
    names = ("background", "a", "b", "c")
    told = judged(found, None, names=names)
    sums = [np.sum([overlaps(one, k) for one in found], axis=0) for k in (1, 2, 3)]
    ratios = [both / all_ for both, all_ in sums]
    of_each = [told["scores"][f"dice of {name}"] for name in names[1:]]
    assert of_each == pytest.approx(ratios, abs=1e-6)
    assert told["scores"]["dice"] == pytest.approx(np.mean(ratios), abs=1e-6)
    assert all(told["intervals"][f"dice of {name}"] for name in names[1:])


def test_ignored_pixels_do_not_count():
    found = maps()
    wrong = [
        replace(one, ignore=(one.probabilities.argmax(0) != one.truth).astype(np.uint8))
        for one in found
    ]
    assert judged(wrong)["scores"]["dice"] == 1
    # Alike in all images: how far they differ was not seen.
    assert judged(wrong)["intervals"]["dice"] is None
