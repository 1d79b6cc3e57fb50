"""Scores of borders on real stores: the same in any blocks, the best of all thresholds."""

from contextlib import ExitStack

import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate import counting
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.counting import Runner
from unetkit.commands.evaluate.samples import match_samples
from unetkit.commands.evaluate.scoring import EvaluateOptions, score_prediction
from unetkit.engine.signals import stoppable
from unetkit.scores import boundaries, isbi2012
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_sums


def cells(shift=0):
    """Draw nine cells parted by borders of three pixels."""
    labels = np.zeros((60, 60), np.uint8)
    for n in range(9):
        y, x = 20 * (n // 3), 20 * (n % 3) + shift
        labels[y + 1 : y + 18, x + 1 : x + 18] = n + 1
    return labels


@pytest.fixture
def stores(write):
    return write("p.zarr", {"a": cells(1)}), write("t.zarr", {"a": cells()})


def test_scores_are_those_of_the_whole(stores):
    whole = evaluate(*stores, borders=True, scheduler="sync").overall
    # Cells that are a pixel to the right are the same cells.
    assert (whole.hausdorff95, whole.boundary_f, whole.warping_error) == (1, 1, 0)
    pieces = [isbi2012.thin(one) for one in (cells(), cells(1))]
    table = from_labels(*pieces)
    part, everything = isbi2012.plane_sums([table], [table], (np.zeros(1), np.ones(1)))["v_rand"][0]
    assert whole.v_rand == part / everything
    # Chunks are as large as the image, so that blocks are half of that.
    options = EvaluateOptions(borders=True, runner=Runner("sync", block_side=8))
    with stoppable() as stop, ExitStack() as stack:
        report = score_prediction(*stores, options, stop=stop, stack=stack).report
    assert report.overall == whole
    assert report.tiles_total == 16 + 16 + 1


def test_a_probability_map_is_scored_at_its_best_threshold(write, stores):
    # Borders weigh 0.55: below that threshold everything is one cell.
    chance = np.where(cells() != 0, 255, 140).astype(np.uint8)
    both = {"image": np.stack([255 - chance, chance]), "labels": np.ones((60, 60), np.uint8)}
    names = ("background", "foreground")
    url = write("map.zarr", {"a": both}, channel_names=names, attributes={"scale": 1 / 255})
    report = evaluate(url, stores[1], borders=True, scheduler="sync")
    rows = {row["threshold"]: row for row in report.sweep}
    assert list(rows) == list(isbi2012.THRESHOLDS)
    assert rows[0.5]["isbi_rand"] > 0.5
    assert rows[0.6]["isbi_rand"] == report.overall.isbi_rand == 0
    assert report.overall.warping_error == 0 < rows[0.1]["warping_error"]
    assert report.overall.isbi_pixel == 0
    # The curve of pixels is there without borders too: 0.55 parts cells from borders.
    curve = {row["threshold"]: row for row in evaluate(url, stores[1], scheduler="sync").curve}
    assert curve[0.56]["precision"] == curve[0.56]["dice"] == 1 > curve[0.5]["precision"]


def test_ignored_pixels_count_for_nothing(write):
    broken = cells()
    broken[30, 20:40] = 0
    ignore = np.zeros((60, 60), np.uint8)
    ignore[28:33, 18:42] = 1
    truth = write("t.zarr", {"a": cells()}, ignore=ignore)
    found = write("p.zarr", {"a": broken})
    assert evaluate(found, truth, borders=True, scheduler="sync").overall.warping_error == 0
    plain = write("u.zarr", {"a": cells()})
    assert evaluate(found, plain, borders=True, scheduler="sync").overall.warping_error == 1 / 3600


def test_an_image_that_is_too_large_has_no_scores_of_whole_planes(stores, monkeypatch):
    monkeypatch.setattr(isbi2012, "LARGEST", 100)
    pairs = match_samples(*stores).pairs
    found = counting.border_sums(
        counting.count_borders(pairs, "instances", Runner("sync"), thin=True), tolerance=2
    )
    assert "v_rand" not in found
    assert found["boundary_f"].overall() == 1
    overall = evaluate(*stores, borders=True, scheduler="sync").to_dict()["overall"]
    assert overall["v_rand"] is overall["warping_error"] is None
    assert overall["reasons"]["v_rand"].startswith("the image has more than 4096 x 4096 pixels")


@pytest.fixture
def maps(write):
    """Two maps of cells (1) and borders (0), the second with one border broken."""
    truth = np.ones((40, 40), np.uint8)
    truth[::10], truth[:, ::10] = 0, 0
    found = truth.copy()
    found[10, 12:18] = 1
    urls = [write(f"{n}.zarr", {"a": one}, kind="classes") for n, one in enumerate((found, truth))]
    return (*urls, found, truth)


def test_two_classes_are_cells_and_borders(maps):
    *urls, found, truth = maps
    overall = evaluate(*urls, borders=True, scheduler="sync").overall
    thinned = from_labels(isbi2012.thin(truth), isbi2012.thin(found))
    by_plane = isbi2012.plane_sums([thinned], [thinned], (np.zeros(1), np.ones(1)))
    part, whole = by_plane["v_rand"][0]
    assert overall.v_rand == part / whole < 1
    assert overall.warping_error == 1 / 1600
    inside = (slice(0, 40), slice(0, 40))
    outlines = boundaries.measure(truth, found, inside=inside)
    sums = score_sums(boundaries.outline_sums(outlines, units=1, tolerance=2))
    assert overall.boundary_f == sums["boundary_f"].overall()
    assert overall.seg is None


def test_more_classes_have_outlines_and_no_thin_borders(compared, maps):
    *_, found, truth = maps
    truth, found = truth.copy(), found.copy()
    truth[:5, :5] = found[:5, :5] = 2
    report = compared(found, truth, kind="classes", borders=True, scheduler="sync")
    document = report.to_dict()["overall"]
    assert document["v_rand"] is None
    assert "maps of two classes" in document["reasons"]["v_rand"]
    assert document["boundary_f"] > 0.9


def test_a_part_has_a_key_of_its_own(maps):
    pairs = match_samples(*maps[:2]).pairs
    parts = list(counting.border_blocks(pairs, "classes", thin=True))
    assert [part.rows for part in parts] == [(0, 40), None]
    assert len({part.key for part in parts}) == 2


def test_real_membranes_score_best_at_a_threshold_between(write, test_data):
    from skimage.io import imread

    truth = (imread(min((test_data / "isbi2012_em" / "masks").glob("*.png"))) > 127)[:256, :256]
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    chance = np.clip(ndimage.gaussian_filter(truth * 255.0, 2) + noise, 0, 255).astype(np.uint8)
    names = ("membrane", "cell")
    wanted = write("t.zarr", {"a": truth.astype(np.uint8)}, kind="classes", class_names=names)
    both = {"image": np.stack([255 - chance, chance]), "labels": (chance > 127).astype(np.uint8)}
    made = {"channel_names": names, "attributes": {"prediction": {}, "scale": 1 / 255}}
    found = write("p.zarr", {"a": both}, kind="classes", **made)
    report = evaluate(found, wanted, borders=True, scheduler="sync")
    rows = {row["threshold"]: row for row in report.sweep}
    assert report.overall.v_rand == max(row["v_rand"] for row in rows.values())
    assert report.overall.isbi_rand == min(row["isbi_rand"] for row in rows.values())
    assert report.overall.v_rand > 0.9 > rows[0.1]["v_rand"]
    assert 0 < report.overall.warping_error < rows[0.1]["warping_error"]
