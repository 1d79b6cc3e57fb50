"""The decision that scores best is found as brute force finds it, and noise is no reason."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from unetkit.arrays.instances import (
    elevation,
    foreground_of,
    has_instances,
    instances,
    separate,
)
from unetkit.models.inference import to_classes
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import score_classes, score_instances
from unetkit.training import tuning
from unetkit.training.tuning import HeldOutMap, Setting, fit_decision, whole_sizes

NAMES = {
    "foreground": 2,
    "boundary": 2,
    "foreground+boundary": 3,
    "foreground+distance": 4,
    "classes": 2,
}


def cells(seed, *, target="foreground", shape=(90, 96), noise=0.3, ignore=True):
    """Return discs, and what a network with specks and blurred rims would say of them."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.int64)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for number, (top, left) in enumerate(np.ndindex(5, 5), start=1):
        middle = 9 + 18 * top + rng.integers(-2, 3), 10 + 18 * left + rng.integers(-2, 3)
        truth[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < rng.integers(20, 60)] = number
    blurred = ndimage.gaussian_filter((truth > 0).astype(float), 1.2)
    chance = blurred * 0.8 + noise * ndimage.gaussian_filter(rng.normal(size=shape), 0.7)
    chance = np.clip(chance, 0, 1).astype(np.float32)
    if target == "classes":
        truth = (truth > 0).astype(np.int64)
    if NAMES[target] == 4:
        middle = np.clip(1 - np.abs(2 * chance - 1), 0, 1)
        maps = np.stack([1 - chance, chance * (1 - chance), chance**2 * middle, chance**2])
        maps[3] *= 1 - middle
        maps[1] += 1 - maps.sum(axis=0)
    elif NAMES[target] == 3:
        rim = np.clip(ndimage.gaussian_gradient_magnitude(chance, 1) * 3, 0, 1 - chance)
        maps = np.stack([1 - chance - rim, chance, rim])
    else:
        maps = np.stack([1 - chance, chance] if target != "boundary" else [chance, 1 - chance])
    hidden = np.zeros(shape, np.uint8)
    hidden[:20, :30] = ignore
    return HeldOutMap.of(maps.astype(np.float32), truth, hidden, target=target)


def brute_force(maps, target, setting):
    """Score a setting as a prediction is made and evaluated."""
    tables = []
    for one in maps:
        classes = to_classes(
            one.probabilities,
            threshold=setting.threshold or 0.5,
            target=target,
        )
        if has_instances(target):
            parted = None
            if setting.seed_level is not None:
                parted = separate(
                    elevation(one.probabilities, target),
                    foreground_of(classes, target),
                    seed_level=setting.seed_level,
                    seed_size=setting.seed_size,
                )
            classes = instances(
                classes,
                target,
                min_size=setting.min_size,
                distance=setting.grow,
                parted=parted,
            )
        tables.append(from_labels(one.truth, classes, ignore=one.ignore))
    if has_instances(target):
        return score_instances(pool(tables)).average_precision or 0.0
    return score_classes(pool(tables), ("no", "yes")).dice or 0.0


@pytest.mark.parametrize("target", NAMES)
def test_sums_are_those_of_brute_force(target, monkeypatch):
    monkeypatch.setattr(tuning, "THRESHOLDS", (0.4, 0.5))
    monkeypatch.setattr(tuning, "GROWTHS", (0, 1, 2))
    monkeypatch.setattr(tuning, "SEED_LEVELS", (0.45, 0.8))
    monkeypatch.setattr(tuning, "DISTANCE_LEVELS", (0.45, 0.8))
    maps = [cells(seed, target=target) for seed in (1, 2)]
    usual = tuning.default_decision(target, classes=NAMES[target])
    search = tuning._Search(maps, target, usual, lambda: None)
    tally = search.tally()
    assert (len(search.least) > 3) == (has_instances(target))
    checked = 0
    levels = {(each.threshold, each.seed_level) for each in tally.settings if each.seed_level}
    assert ((usual.threshold, 0.8) in levels) == has_instances(target)
    # A probability above that of objects, but any distance.
    assert ((0.5, 0.45) in levels) == (target == "foreground+distance")
    for setting, score in zip(tally.settings, tally.scores(), strict=True):
        wanted = brute_force(maps, target, setting)
        assert search.score(setting) == pytest.approx(wanted, abs=1e-12), setting
        # What is too small may have been in the way of others that grow.
        if not (setting.grow and setting.min_size):
            assert score == pytest.approx(wanted, abs=1e-12), setting
            checked += 1
        else:
            near = 0.03 if setting.seed_level is None else 0.06
            assert score == pytest.approx(wanted, abs=near), setting
    assert checked >= (2 if target != "foreground+boundary" else 1)


def test_halves_of_an_object_are_matched_once():
    # An IoU of exactly one half with two objects, of which the larger outlives the other.
    truth, hidden = np.zeros((6, 12), np.int64), np.zeros((6, 12), np.uint8)
    truth[1, 1:9] = 1
    truth[3, 1:5], truth[3, 5:9] = 2, 3
    chance = np.zeros(truth.shape, np.float32)
    chance[1, 1:5] = chance[1, 5:9] = 1
    chance[1, 4] = chance[1, 5] = 0
    chance[3, 1:9] = 1
    chance[0, 4] = chance[0, 5] = 0
    hidden[1, 4:6] = 1
    maps = [HeldOutMap.of(np.stack([1 - chance, chance]), truth, hidden)]
    usual = tuning.default_decision("foreground", classes=2)
    search = tuning._Search(maps, "foreground", usual, lambda: None)
    for least in ([0], [0, 3, 4, 5, 8]):
        search.__dict__["least"] = np.array(least)
        tally = search.over([Setting(0.5, 0, None)])
        for setting, score in zip(tally.settings, tally.scores(), strict=True):
            assert score == pytest.approx(brute_force(maps, "foreground", setting)), setting


def test_specks_are_dropped_and_the_score_is_the_real_one():
    maps = [cells(seed) for seed in range(3)]
    calls = []
    fit = fit_decision(maps, target="foreground", advance=lambda: calls.append(1))
    decision = fit.decision
    assert len(calls) == tuning.rounds("foreground") * len(maps)
    assert decision.min_size > 0
    assert decision.score > decision.default_score + 0.05
    setting = Setting(decision.threshold, decision.grow, decision.min_size)
    assert decision.score == pytest.approx(brute_force(maps, "foreground", setting), abs=1e-6)
    default = brute_force(maps, "foreground", Setting(0.5, 1, 0))
    assert decision.default_score == pytest.approx(default, abs=1e-6)
    # Of 25 discs an image, one lies where nothing counts.
    assert (decision.images, decision.objects) == (3, 72)
    assert [row["threshold"] for row in fit.curve] == list(tuning.THRESHOLDS)
    middle = fit.curve[tuning.THRESHOLDS.index(0.5)]
    assert middle["default"] == pytest.approx(default, abs=1e-6)
    assert fit_decision(maps, target="foreground").decision == decision
    # What it gains, it gains on others too.
    others = [cells(seed) for seed in range(10, 14)]
    assert brute_force(others, "foreground", setting) > 0.05 + brute_force(
        others, "foreground", Setting(0.5, 1, 0)
    )


def test_a_least_size_spares_the_small_objects_of_other_images():
    # Large cells on this image alone, and between them what is none, as large as others' cells.
    truth, chance = np.zeros((2, 160, 160), np.float32)
    for number, (y, x) in enumerate(product(range(4), repeat=2), start=1):
        truth[40 * y + 2 : 40 * y + 22, 40 * x + 2 : 40 * x + 22] = number
        chance[40 * y + 2 : 40 * y + 22, 40 * x + 2 : 40 * x + 22] = 1
        chance[40 * y + 26 : 40 * y + 36, 40 * x + 26 : 40 * x + 36] = 1
    maps = [HeldOutMap.of(np.stack([1 - chance, chance]), truth.astype(np.int64))]
    alone = fit_decision(maps, target="foreground").decision
    assert 100 < alone.min_size <= 400
    learned = np.repeat([60, 500], (10, 90))
    beside = fit_decision(maps, target="foreground", learned=learned).decision
    assert beside.min_size <= 60
    # Objects that the rim cuts all are better than none to go by.
    cut = HeldOutMap(maps[0].probabilities[:, :20, :20], maps[0].truth[2:22, 2:22])
    usual = tuning.default_decision("foreground", classes=2)
    assert tuning._Search([cut], "foreground", usual, lambda: None).least.max() > 100
    # As many as one in twenty may be too small to be told from what is none.
    rare = fit_decision(maps, target="foreground", learned=np.repeat([60, 500], (4, 96))).decision
    assert rare.min_size > 100


def test_only_what_was_judged_as_a_whole_has_a_size():
    labels = np.zeros((20, 30), np.int64)
    labels[2:6, 2:7] = 1  # whole
    labels[0:3, 10:14] = 2  # the rim cuts it
    labels[10:16, 3:9] = 3  # half of it was judged
    labels[10:13, 20:23] = 4  # beside what was not
    labels[17:19, 26:29] = 5  # outside
    ignore = np.zeros(labels.shape, np.uint8)
    ignore[:, 6:9] = 1
    ignore[:, 23:] = 1
    assert whole_sizes(labels).tolist() == [20, 36, 9, 6]
    assert whole_sizes(labels[:, :23], ignore[:, :23]).tolist() == []
    ignore[:8, 6:9] = 0
    assert whole_sizes(labels, ignore).tolist() == [20]
    changed = np.where(ignore, 7, labels)
    assert whole_sizes(changed, ignore).tolist() == [20]


def test_annotated_objects_say_how_small_one_is_where_scores_say_nothing():
    few = cells(3, noise=0.4)
    few.ignore[:, 40:] = few.ignore[40:] = 1
    sizes = np.repeat([80, 200], (10, 90))
    found = fit_decision([few], target="foreground", learned=sizes).decision
    default = Setting(0.5, 1, 0)
    # A step of the least sizes below half of 80.
    assert (found.threshold, found.grow, found.seed_level) == (0.5, 1, None)
    assert 40 / 2**0.5 < found.min_size <= 40
    assert "the default with a least size by the annotated objects" in found.reason
    wanted = brute_force([few], "foreground", default._replace(min_size=found.min_size))
    assert found.score == pytest.approx(wanted, abs=1e-6)
    assert found.score > found.default_score
    assert found.default_score == pytest.approx(brute_force([few], "foreground", default), abs=1e-6)
    # What a model before had as its least size says nothing of these objects.
    known = tuning.Decision(threshold=0.5, min_size=5000, grow=1)
    after = fit_decision([few], target="foreground", known=known, learned=sizes).decision
    assert after.numbers == found.numbers
    # Other images, where all is larger, don't count against what is held out.
    large = fit_decision([few], target="foreground", learned=np.full(1000, 2000)).decision
    assert large.min_size < 100


def test_what_a_model_decided_before_is_kept_where_nothing_is_surely_better():
    known = tuning.Decision(threshold=0.52, min_size=13, grow=1)
    default = Setting(0.5, 1, 0)
    # A few objects say little, but that specks are none.
    few = cells(3)
    few.ignore[:, 40:] = few.ignore[40:] = 1
    found = fit_decision([few], target="foreground", known=known).decision
    assert found.numbers == known.numbers
    assert "those of the model that training began with" in found.reason
    assert found.score == pytest.approx(brute_force([few], "foreground", Setting(0.52, 1, 13)))
    assert found.score > found.default_score
    assert found.default_score == pytest.approx(brute_force([few], "foreground", default))
    # Many objects choose for themselves, whatever was there before.
    maps = [cells(seed) for seed in range(3)]
    senseless = tuning.Decision(threshold=0.9, min_size=500, grow=3)
    alone, beside = (
        fit_decision(maps, target="foreground", known=each).decision for each in (None, senseless)
    )
    assert beside.score >= alone.score - 0.01 > 0.1
    assert beside.min_size < 100


@pytest.mark.parametrize("target", ["foreground", "classes"])
@pytest.mark.parametrize("seed", range(3))
def test_labels_of_other_images_teach_nothing(target, seed):
    maps = [cells(seed * 10 + k, target=target) for k in range(4)]
    rng = np.random.default_rng(seed)
    shuffled = []
    for one in maps:
        tiles = one.truth.reshape(5, 18, 6, 16).transpose(0, 2, 1, 3).reshape(30, 18, 16)
        mixed = rng.permutation(tiles).reshape(5, 6, 18, 16).transpose(0, 2, 1, 3)
        truth = np.roll(mixed.reshape(one.truth.shape), (9, 8), (0, 1))
        shuffled.append(dataclasses.replace(one, truth=truth))
    decision = fit_decision(shuffled, target=target).decision
    assert decision.score == decision.default_score
    assert decision.numbers["threshold"] == 0.5
    assert decision.reason.startswith("these numbers are the default")
    assert "since no others did better by more than chance" in decision.reason
    if decision.min_size:
        # By sizes alone: it drops no object that was annotated so.
        sizes = np.concatenate([whole_sizes(one.truth) for one in shuffled])
        assert 2 * decision.min_size <= np.quantile(sizes, 0.05)


def test_a_network_is_judged_with_a_decision_that_suits_it():
    specks, halves = cells(1, noise=0.4), cells(2, noise=0)
    halves.probabilities[1][halves.truth % 2 == 0] = 0
    usual = tuning.default_decision("foreground", classes=2)
    scores = [tuning.score_decision([one], usual, target="foreground") for one in (specks, halves)]
    assert scores[0] < scores[1]
    specked, halved = (tuning.best_score([one], target="foreground")[0] for one in (specks, halves))
    assert specked > halved >= scores[1]


def test_the_score_of_a_network_is_as_sure_as_its_places_are_alike():
    halves = cells(2, noise=0)
    halves.probabilities[1][:, : halves.truth.shape[1] // 2] = 0
    one = tuning.best_score([halves], target="foreground")
    four = tuning.best_score([halves] * 4, target="foreground")
    assert four[0] == pytest.approx(one[0])
    assert one[1] > 0.05
    # Four times as many places, half the error.
    assert four[1] == pytest.approx(one[1] / 2, rel=0.15)


def test_of_a_large_plane_the_middle_counts():
    one = cells(1)
    assert one.middle(most=one.truth.size) is one
    part = one.middle(most=one.truth.size // 9)
    assert part.truth.shape == part.ignore.shape == part.probabilities.shape[1:] == (30, 32)
    assert (part.truth == one.truth[30:60, 32:64]).all()
    assert (part.probabilities == one.probabilities[:, 30:60, 32:64]).all()


def test_a_perfect_map_keeps_the_default():
    one = cells(1, noise=0)
    truth = np.where(one.probabilities[1] >= 0.5, one.truth, 0)
    chance = (truth > 0).astype(np.float32)
    sharp = HeldOutMap.of(np.stack([1 - chance, chance]), truth)
    decision = fit_decision([sharp], target="foreground").decision
    assert (decision.threshold, decision.min_size) == (0.5, 0)


@pytest.mark.parametrize("shape", [(1, 1), (40, 40)])
def test_nothing_to_find_keeps_the_default(shape):
    nothing = np.zeros((2, *shape), np.float32)
    for target in ("foreground", "classes"):
        fit = fit_decision([HeldOutMap(nothing, np.zeros(shape, np.int64))], target=target)
        assert fit.decision.score == fit.decision.default_score == 0
        assert fit.decision.threshold == 0.5


def test_what_there_is_to_decide():
    assert tuning.has_choice("foreground", classes=2)
    assert tuning.has_choice("foreground+boundary", classes=3)
    assert tuning.has_choice("classes", classes=2)
    assert not tuning.has_choice("classes", classes=3)
