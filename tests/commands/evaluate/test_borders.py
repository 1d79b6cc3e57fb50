"""Scores of borders on real stores: the same in any blocks, the best of all thresholds."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from unetkit.commands.evaluate import counting
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.counting import Runner
from unetkit.commands.evaluate.samples import match_samples
from unetkit.commands.evaluate.scoring import EvaluateOptions, score_prediction
from unetkit.engine.signals import stoppable
from unetkit.scores import isbi2012
from unetkit.scores.contingency import from_labels
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_labels


def cells(shift: int = 0) -> np.ndarray:
    """Draw nine cells parted by borders of three pixels."""
    labels = np.zeros((60, 60), np.uint8)
    for n in range(9):
        y, x = 20 * (n // 3), 20 * (n % 3) + shift
        labels[y + 1 : y + 18, x + 1 : x + 18] = n + 1
    return labels


def write(url: str, labels: np.ndarray, **parts: object) -> str:
    writer = DatasetWriter(url)
    writer.add("a", labels, axes="yx", labels=labels, **parts)
    writer.finish()
    return url


@pytest.fixture
def stores(tmp_path):
    return (
        write(str(tmp_path / "p.zarr"), cells(1)),
        write(str(tmp_path / "t.zarr"), cells()),
    )


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


def test_a_probability_map_is_scored_at_its_best_threshold(tmp_path, stores):
    url = str(tmp_path / "map.zarr")
    data = create_image(
        url,
        shape=(2, 60, 60),
        axes="cyx",
        dtype="uint8",
        chunk=32,
        channel_names=("background", "foreground"),
        attributes={"scale": 1 / 255},
    )
    # Borders weigh 0.55: below that threshold everything is one cell.
    chance = np.where(cells() != 0, 255, 140).astype(np.uint8)
    data.write(0, 0, 0, np.stack([255 - chance, chance]))
    labels = create_labels(url, "instances", shape=(60, 60), axes="yx", dtype="uint8", chunk=32)
    labels.write(0, 0, 0, np.ones((60, 60), np.uint8))
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


def test_ignored_pixels_count_for_nothing(tmp_path):
    broken = cells()
    broken[30, 20:40] = 0
    ignore = np.zeros((60, 60), np.uint8)
    ignore[28:33, 18:42] = 1
    truth = write(str(tmp_path / "t.zarr"), cells(), ignore=ignore)
    found = write(str(tmp_path / "p.zarr"), broken)
    assert evaluate(found, truth, borders=True, scheduler="sync").overall.warping_error == 0
    plain = write(str(tmp_path / "u.zarr"), cells())
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


def test_threads_in_any_order_give_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 3, size=(2, 4, 40, 40)).astype(np.uint8)
    urls = []
    for name, labels in zip("pt", planes, strict=True):
        writer = DatasetWriter(str(tmp_path / f"{name}.zarr"))
        writer.add("a", labels, axes="zyx", labels=labels)
        writer.finish()
        urls.append(str(tmp_path / f"{name}.zarr"))
    expected = evaluate(*urls, borders=True, scheduler="sync").to_dict()
    assert evaluate(*urls, borders=True, scheduler="threads", workers=2).to_dict() == expected
