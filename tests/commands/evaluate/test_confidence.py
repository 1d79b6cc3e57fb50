"""Intervals and comparisons from stores: from images, or from nothing."""

import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate.command import evaluate
from unetkit.engine import block_io
from unetkit.storage.image_writer import create_image, create_labels


def labels(seed, side=48):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((side, side)), 2)
    return ndimage.label(noise > 0.53)[0].astype(np.uint16)


def spoilt(one, seed, share):
    """Lose some objects."""
    ids = np.arange(1, one.max() + 1)
    lost = np.random.default_rng(seed).choice(ids, int(share * len(ids)), replace=False)
    return np.where(np.isin(one, lost), 0, one)


@pytest.fixture
def spoil(write):
    """Return what stores the truth, and a prediction for each share of its objects to lose."""

    def store(truth, *shares):
        found = [
            write(f"{share}.zarr", [spoilt(one, n, share) for n, one in enumerate(truth)])
            for share in shares
        ]
        return found, write("t.zarr", truth)

    return store


def test_predictions_are_compared_image_by_image(spoil):
    found, wanted = spoil([labels(n) for n in range(8)], 0.1, 0.2, 0.5)
    report = evaluate(*found, truth=wanted, scheduler="sync", bootstrap=200)
    assert [one.certainty.unit for one in report.reports] == ["image"] * 3
    low, high = report.reports[0].certainty.intervals["average_precision"]
    assert low < report.reports[0].overall.average_precision < high
    rows = {(r.score, r.first[-8:], r.second[-8:]): r for r in report.comparisons}
    row = rows["f1", found[0][-8:], found[2][-8:]]
    f1 = [one.overall.f1 for one in report.reports]
    assert row.difference == pytest.approx(f1[0] - f1[2])
    assert row.interval[0] > 0
    # All 2^8 exchanges: two of them, none and all, are as extreme. Three pairs: Holm's factor is 3.
    assert row.p == 2 / 256
    assert row.p_holm == pytest.approx(6 / 256)
    again = evaluate(*found, truth=wanted, scheduler="sync", bootstrap=200)
    assert again.to_dict() == report.to_dict()


def test_scores_of_borders_have_intervals_over_images(spoil):
    found, wanted = spoil([labels(n) for n in range(6)], 0.1, 0.6)
    report = evaluate(*found, truth=wanted, borders=True, scheduler="sync", bootstrap=100)
    rows = {row.score: row for row in report.comparisons}
    for name in ("v_rand", "isbi_pixel", "hausdorff95", "boundary_f"):
        values = [getattr(one.overall, name) for one in report.reports]
        if None in values:  # some outline is farther than 256 pixels from any other
            continue
        assert rows[name].difference == pytest.approx(values[0] - values[1]), name
        low, high = report.reports[0].certainty.intervals[name]
        assert low <= values[0] <= high
    assert rows["isbi_pixel"].p_holm == 2 / 64


@pytest.mark.parametrize(("count", "side"), [(3, 48), (1, 512)])
def test_no_interval_is_invented(write, count, side):
    wanted = write("t.zarr", [labels(n, side=side) for n in range(count)])
    report = evaluate(wanted, wanted, truth=wanted, scheduler="sync")
    assert report.comparisons == ()
    assert report.reason == f"intervals need 5 images or more, got {count}"
    assert report.reports[0].certainty.intervals == {}


def test_a_score_that_is_not_there_has_no_interval(compared):
    truth = {f"s{n}": labels(n) for n in range(10)}
    found = truth | {"s3": 0 * labels(3)}
    report = compared(found, truth, borders=True, scheduler="sync")
    document = report.to_dict()
    assert document["overall"]["surface_distance"] is None
    assert document["certainty"]["intervals"]["surface_distance"] is None
    assert document["mean"]["surface_distance"] == 0
    # Found nothing in one of ten: no distance, nothing matched, no topology to compare.
    left_out = document["mean"]["left_out"]
    assert (left_out["surface_distance"], left_out["sq"], left_out["warping_error"]) == (1, 1, 1)
    assert "dice" not in left_out
    assert document["mean"]["precision"] == 0.9


@pytest.mark.parametrize(("count", "least"), [(5, 1 / 16), (8, 1 / 128), (14, 1e-4)])
def test_the_least_p_of_few_images_is_said(spoil, write, count, least):
    truth = write("t.zarr", [labels(n) for n in range(count)])
    others = write("p.zarr", [np.roll(labels(n), 2, axis=1) for n in range(count)])
    report = evaluate(others, truth, truth=truth, scheduler="sync", bootstrap=10)
    assert report.to_dict()["smallest_p"] == pytest.approx(least)
    dice = next(row for row in report.comparisons if row.score == "dice")
    assert least <= dice.p * (1 + 1e-9) <= 3 * least


def rows_of(report):
    """Give everything but how many blocks there were."""
    return {**report.to_dict(), "tiles_total": 0}


@pytest.mark.parametrize("borders", [False, True])
def test_blocks_change_no_bit_of_scores(place, write, monkeypatch, borders):
    truth = labels(0, side=512)
    chance = np.clip(ndimage.gaussian_filter((truth > 0) * 255.0, 3), 0, 255).astype(np.uint8)
    wanted = write("t.zarr", [truth])
    url = place("p.zarr")
    made = {"channel_names": ("foreground",), "attributes": {"scale": 1 / 255}}
    plane = {"shape": (512, 512), "axes": "yx", "chunk": 128}
    create_image(url, dtype="uint8", **plane, **made).write(0, 0, 0, chance[None])
    array = create_labels(url, "instances", dtype="uint16", **plane)
    array.write(0, 0, 0, spoilt(truth, 0, 0.3))
    options = {"borders": borders, "scheduler": "sync"}
    whole = rows_of(evaluate(url, wanted, **options))
    monkeypatch.setattr(block_io, "BLOCK", 128)
    report = evaluate(url, wanted, **options)
    assert report.tiles_total == (33 if borders else 16)
    assert rows_of(report) == whole
    assert whole["curve"]
