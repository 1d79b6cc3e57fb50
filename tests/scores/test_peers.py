"""Scores equal those of MONAI and StarDist: as stored, and computed anew where these are there.

Stored numbers are of MONAI 1.6.1 and StarDist 0.9.2.
"""

import numpy as np
import pytest
from scipy import ndimage

from unetkit.scores import boundaries, matching
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_instances, score_sums

# What others warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

THRESHOLDS = (50, 75, 90)
SIDES = (100, 120)
# By seed, and of real masks: MONAI's Dice, IoU, 95 % Hausdorff distance and mean symmetric surface
# distance of the foreground.
MONAI = {
    0: [0.91929555, 0.85064477, 2.84720516, 0.97837144],
    1: [0.8770026, 0.78094798, 14.0, 1.36758327],
    2: [0.68802124, 0.5244149, 22.27428627, 3.10336471],
    "real": [0.86502934, 0.76216012, 2.0, 1.79201663],
}
# Likewise and by threshold: StarDist's accuracy, precision, recall, F1, mean true score, panoptic
# quality.
STARDIST = {
    0: {
        50: [0.375, 0.6, 0.5, 0.54545455, 0.40291849, 0.43954745],
        75: [0.29411765, 0.5, 0.41666667, 0.45454545, 0.35676464, 0.38919778],
        90: [0.1, 0.2, 0.16666667, 0.18181818, 0.15131742, 0.16507355],
    },
    1: {
        50: [0.57142857, 0.8, 0.66666667, 0.72727273, 0.56175691, 0.61282574],
        75: [0.46666667, 0.7, 0.58333333, 0.63636364, 0.50129938, 0.54687205],
        90: [0.15789474, 0.3, 0.25, 0.27272727, 0.23320575, 0.25440628],
    },
    2: {
        50: [0.53846154, 0.7, 0.7, 0.7, 0.56897604, 0.56897607],
        75: [0.33333333, 0.5, 0.5, 0.5, 0.4339141, 0.43391409],
        90: [0.05263158, 0.1, 0.1, 0.1, 0.09853801, 0.09853801],
    },
    "real": {
        50: [0.69421488, 0.88421053, 0.76363636, 0.8195122, 0.55971926, 0.60067433],
        75: [0.28125, 0.47368421, 0.40909091, 0.43902439, 0.31769216, 0.34093792],
        90: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    },
}


def draw(seed):
    """Draw cells, and the same cells a little off, some of them lost."""
    rng = np.random.default_rng(seed)
    base, noise = ndimage.gaussian_filter(rng.random((2, *SIDES)), (0, 4, 4), mode="wrap")
    truth = ndimage.label(base > 0.51)[0]
    found = ndimage.label(0.85 * base + 0.15 * noise > 0.508)[0]
    return truth, np.where(found % 7 == 3, 0, found)


def ours_of_foreground(truth, found):
    """Give our scores in the order of `MONAI`."""
    scores = score_instances(from_labels(truth, found))
    inside = tuple(slice(0, n) for n in truth.shape)
    outlines = boundaries.measure(truth != 0, found != 0, inside=inside)
    sums = score_sums(boundaries.outline_sums(outlines, units=1, tolerance=2))
    return [
        scores.dice,
        scores.iou,
        *(sums[name].overall() for name in ("hausdorff95", "surface_distance")),
    ]


def ours_of_objects(truth, found, percent):
    """Give our scores in the order of `STARDIST`."""
    table = from_labels(truth, found)
    pairs = matching.overlaps(table)
    matched = pairs.matches(percent)
    true, pred = pairs.true.objects, pairs.pred.objects
    iou = float((pairs.shared[matched] / pairs.unions[matched]).sum())
    return [
        score_instances(table).average_precision_at[f"{percent / 100:.2f}"],
        len(matched) / pred,
        len(matched) / true,
        2 * len(matched) / (true + pred),
        iou / true,
        2 * iou / (true + pred),
    ]


def monai_of(truth, found):
    """Ask MONAI."""
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    sides = [torch.tensor((side != 0)[None, None].astype(np.float32)) for side in (found, truth)]
    whole = {"include_background": True}
    return [
        monai.compute_dice(*sides, **whole).item(),
        monai.compute_iou(*sides, **whole).item(),
        monai.compute_hausdorff_distance(*sides, percentile=95, **whole).item(),
        monai.compute_average_surface_distance(*sides, symmetric=True, **whole).item(),
    ]


def stardist_of(truth, found, percent):
    """Ask StarDist."""
    stardist = pytest.importorskip("stardist.matching", reason="StarDist is not installed")
    one = stardist.matching(truth, found, thresh=percent / 100)
    return [
        one.accuracy,
        one.precision,
        one.recall,
        one.f1,
        one.mean_true_score,
        one.panoptic_quality,
    ]


def real(folder):
    """Read nuclei that people drew, and find them a little smaller."""
    from skimage.io import imread
    from skimage.segmentation import relabel_sequential

    path = min((folder / "bbbc039_nuclei" / "masks").glob("*.png"))
    truth = relabel_sequential(imread(path).astype(np.int64))[0]
    return truth, ndimage.label(ndimage.binary_erosion(truth > 0, iterations=2))[0]


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_foreground_are_those_of_monai(seed):
    assert ours_of_foreground(*draw(seed)) == pytest.approx(MONAI[seed], abs=1e-5)


@pytest.mark.parametrize("percent", THRESHOLDS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_objects_are_those_of_stardist(seed, percent):
    assert ours_of_objects(*draw(seed), percent) == pytest.approx(STARDIST[seed][percent], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_stored_numbers_of_monai_are_what_it_gives(seed):
    assert monai_of(*draw(seed)) == pytest.approx(MONAI[seed], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_stored_numbers_of_stardist_are_what_it_gives(seed):
    for percent in THRESHOLDS:
        assert stardist_of(*draw(seed), percent) == pytest.approx(STARDIST[seed][percent], abs=1e-5)


def test_real_masks_score_alike(test_data):
    sides = real(test_data)
    assert ours_of_foreground(*sides) == pytest.approx(MONAI["real"], abs=1e-5)
    for percent in THRESHOLDS:
        expected = STARDIST["real"][percent]
        assert ours_of_objects(*sides, percent) == pytest.approx(expected, abs=1e-5)


def test_stored_numbers_of_real_masks_are_what_the_others_give(test_data):
    sides = real(test_data)
    assert monai_of(*sides) == pytest.approx(MONAI["real"], abs=1e-5)
    for percent in THRESHOLDS:
        expected = STARDIST["real"][percent]
        assert stardist_of(*sides, percent) == pytest.approx(expected, abs=1e-5)
