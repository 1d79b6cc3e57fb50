"""Scores of borders on real stores: the same in any blocks, the best of all thresholds."""

from contextlib import ExitStack

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import gaussian
from skimage.io import imread

from unetkit.commands.evaluate import counting
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.counting import Runner
from unetkit.commands.evaluate.samples import match_samples
from unetkit.commands.evaluate.scoring import EvaluateOptions, score_prediction
from unetkit.scores import boundaries, isbi2012
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_sums
from unetkit.signals import stoppable


def cells(shift=0):
    """Draw nine cells parted by borders of three pixels."""
    labels = np.zeros((60, 60), np.uint8)
    for n in range(9):
        y, x = 20 * (n // 3), 20 * (n % 3) + shift
        labels[y + 1 : y + 18, x + 1 : x + 18] = n + 1
    return labels


def thinned_rand(truth, found):
    """Take V_rand of one plane, of which 0 is border."""
    table = from_labels(isbi2012.pieces(truth != 0), isbi2012.watershed(found != 0))
    part, whole = isbi2012.plane_sums(table, table, isbi2012.warping_errors(truth, truth))["v_rand"]
    return part / whole


@pytest.fixture
def stores(write):
    return write("p.zarr", {"a": cells(1)}), write("t.zarr", {"a": cells()})


def test_scores_are_those_of_the_whole(stores):
    whole = evaluate(*stores, borders=True, scheduler="sync").overall
    # Cells that are a pixel to the right are the same cells.
    assert (whole.hausdorff95, whole.boundary_f, whole.warping_error) == (1, 1, 0)
    assert whole.v_rand == thinned_rand(cells(), cells(1))
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
    overall = evaluate(found, plain, borders=True, scheduler="sync").overall
    assert (overall.warping_error, overall.warping_lines) == (1 / 3600, 1)
    # An error elsewhere is one of the pixels that are annotated.
    ignore[...] = 0
    ignore[40:] = 1
    part = write("v.zarr", {"a": cells()}, ignore=ignore)
    assert evaluate(found, part, borders=True, scheduler="sync").overall.warping_error == 1 / 2400


def test_an_image_that_is_too_large_has_no_scores_of_whole_planes(stores, monkeypatch):
    monkeypatch.setattr(isbi2012, "LARGEST", 100)
    pairs = match_samples(*stores).pairs
    found = counting.border_sums(
        counting.count_borders(pairs, "instances", Runner("sync"), thin=True),
        "instances",
        tolerance=2,
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
    assert overall.v_rand == thinned_rand(truth, found) < 1
    # The border is broken over six pixels, which are one line.
    assert (overall.warping_error, overall.warping_lines) == (6 / 1600, 1)
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


def reference_maps(images, masks):
    """Draw the proposals for which Trainable Segmentation's numbers are known, by slice."""
    for number, (image, mask) in enumerate(zip(images, masks, strict=True), start=16):
        smooth, plain = gaussian(image, 2), mask.astype(float)

        def noise(sigma, number=number, shape=mask.shape):
            return gaussian(np.random.default_rng(number).standard_normal(shape), sigma)

        yield (
            (smooth - smooth.min()) / (smooth.max() - smooth.min()),
            np.clip(gaussian(plain, 2.0) + 0.12 * noise(3) * 10, 0, 1),
            np.clip(gaussian(plain, 1.2) + 0.05 * noise(2) * 8, 0, 1),
        )


def scored_map(write, truth, chance, name="p.zarr"):
    """Score a map of cells, (Z, Y, X), against planes of cells (1) and membranes (0)."""
    names = ("membrane", "cell")
    wanted = write(f"t.{name}", {"a": truth.astype(np.uint8)}, kind="classes", class_names=names)
    both = {"image": np.stack([1 - chance, chance]), "labels": (chance > 0.5).astype(np.uint8)}
    made = {"channel_names": names, "attributes": {"prediction": {}}}
    found = write(name, {"a": both}, kind="classes", **made)
    return evaluate(found, wanted, borders=True, bootstrap=0, scheduler="sync")


# By proposal: V_rand, V_info and warping error with their thresholds, and what 2012 had.
REFERENCE = {
    0: ((0.7603, 0.5), (0.8932, 0.4), (0.0, 0.9), 0.416267, 0.105448),
    1: ((0.9965, 0.7), (0.9966, 0.7), (8.0109e-05, 0.7), 0.0497564, 0.0209220),
    2: ((1.0, 0.3), (1.0, 0.3), (0.0, 0.3), 6.8183e-05, 0.00426588),
}
# Of all slices at a threshold: pixels and lines of mergers and splits.
LINES = {
    0: {0.3: (2208 + 600, 223 + 38), 0.5: (9 + 2168, 3 + 98)},
    1: {0.3: (900, 140), 0.5: (39 + 5, 10 + 1), 0.7: (21, 4)},
    2: {0.3: (0, 0)},
}


@pytest.mark.parametrize("proposal", REFERENCE)
def test_real_membranes_have_the_numbers_of_the_board(write, test_data, proposal):
    paths = [test_data / "isbi2012_em" / "{}" / f"{n}.png" for n in range(16, 20)]
    images, masks = ([imread(str(p).format(k)) for p in paths] for k in ("images", "masks"))
    masks = [mask > 0 for mask in masks]
    maps = [drawn[proposal] for drawn in reference_maps(images, masks)]
    truth, chance = (np.stack(one)[:, :256, :256] for one in (masks, maps))
    report = scored_map(write, truth, chance.astype(np.float32))
    rows = {row["threshold"]: row for row in report.sweep}
    *best, rand, pixel = REFERENCE[proposal]
    for name, (value, threshold) in zip(("v_rand", "v_info", "warping_error"), best, strict=True):
        tolerance = {"abs": 1e-8 if name == "warping_error" else 1e-4}
        assert getattr(report.overall, name) == pytest.approx(value, **tolerance), name
        assert rows[threshold][name] == pytest.approx(value, **tolerance), name
    assert report.overall.isbi_rand == pytest.approx(rand, rel=1e-5)
    assert report.overall.isbi_pixel == pytest.approx(pixel, rel=1e-5)
    for threshold, (pixels, lines) in LINES[proposal].items():
        row = rows[threshold]
        assert (round(row["warping_error"] * truth.size), row["warping_lines"]) == (pixels, lines)


def test_drawn_membranes_have_the_numbers_of_the_board(write):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 64, (3, 12, 2))
    y, x = np.mgrid[:64, :64]
    cell_y, cell_x = np.moveaxis(points[:, None, None], -1, 0)
    away = np.sort(np.hypot(y[..., None] - cell_y, x[..., None] - cell_x))
    truth = away[..., 1] - away[..., 0] > 2.5
    blurred = ndimage.gaussian_filter(truth.astype(float), (0, 1.5, 1.5))
    noise = ndimage.gaussian_filter(rng.standard_normal(truth.shape), (0, 2, 2))
    report = scored_map(write, truth, np.clip(blurred + noise, 0, 1).astype(np.float32))
    overall = report.overall
    # Stored when the code had Trainable Segmentation's numbers of the real slices above.
    assert overall.v_rand == pytest.approx(0.97634, abs=1e-4)
    row = {row["threshold"]: row for row in report.sweep}[0.5]
    assert row["v_rand"] == pytest.approx(0.72905, abs=1e-4)
    assert row["v_info"] == pytest.approx(0.85458, abs=1e-4)
    assert (round(row["warping_error"] * truth.size), row["warping_lines"]) == (53, 14)


def test_a_map_without_foreground_at_some_threshold_is_not_best_there(write):
    # Above 0.5 nothing is found: nothing splits or merges, and nothing is right.
    report = scored_map(write, (cells() != 0)[None], np.full((1, 60, 60), 0.5, np.float32))
    rows = {row["threshold"]: row for row in report.sweep}
    assert rows[0.5]["warping_error"] is rows[0.5]["warping_lines"] is None
    assert report.overall.warping_error == rows[0.4]["warping_error"] > 0
