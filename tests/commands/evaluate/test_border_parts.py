"""Parts cover blocks and planes, and class maps of two classes have thin borders too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate import counting
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.samples import match_samples
from unetkit.scores import boundaries, isbi2012
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import score_sums
from unetkit.storage.datasets import DatasetWriter


def write(url: str, labels: np.ndarray, kind: str) -> str:
    writer = DatasetWriter(url)
    writer.add("a", labels, axes="yx", labels=labels, kind=kind)
    writer.finish()
    return url


@pytest.fixture
def maps(tmp_path):
    """Two maps of cells (1) and borders (0), the second with one border broken."""
    truth = np.ones((40, 40), np.uint8)
    truth[::10], truth[:, ::10] = 0, 0
    found = truth.copy()
    found[10, 12:18] = 1
    urls = [
        write(str(tmp_path / f"{n}.zarr"), one, "classes") for n, one in enumerate((found, truth))
    ]
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


def test_more_classes_have_outlines_and_no_thin_borders(tmp_path, maps):
    *_, found, truth = maps
    truth, found = truth.copy(), found.copy()
    truth[:5, :5] = found[:5, :5] = 2
    urls = [
        write(str(tmp_path / f"{n}.zarr"), one, "classes")
        for n, one in (("p", found), ("t", truth))
    ]
    document = evaluate(*urls, borders=True, scheduler="sync").to_dict()["overall"]
    assert document["v_rand"] is None
    assert "maps of two classes" in document["reasons"]["v_rand"]
    assert document["boundary_f"] > 0.9


def test_a_part_has_a_key_of_its_own(maps):
    pairs = match_samples(*maps[:2]).pairs
    parts = list(counting.border_blocks(pairs, "classes", thin=True))
    assert [part.rows for part in parts] == [(0, 40), None]
    assert len({part.key for part in parts}) == 2


def test_real_membranes_score_best_at_a_threshold_between(tmp_path, test_data):
    from skimage.io import imread

    truth = (imread(min((test_data / "isbi2012_em" / "masks").glob("*.png"))) > 127)[:256, :256]
    noise = np.random.default_rng(0).normal(0, 10, truth.shape)
    chance = np.clip(ndimage.gaussian_filter(truth * 255.0, 2) + noise, 0, 255).astype(np.uint8)
    names = ("membrane", "cell")
    wanted = DatasetWriter(str(tmp_path / "t.zarr"))
    labels = truth.astype(np.uint8)
    wanted.add("a", labels, axes="yx", labels=labels, kind="classes", class_names=names)
    wanted.finish()
    made = DatasetWriter(str(tmp_path / "p.zarr"))
    made.add(
        "a",
        np.stack([255 - chance, chance]),
        axes="cyx",
        labels=(chance > 127).astype(np.uint8),
        kind="classes",
        channel_names=names,
        attributes={"prediction": {}, "scale": 1 / 255},
    )
    made.finish()
    report = evaluate(
        str(tmp_path / "p.zarr"), str(tmp_path / "t.zarr"), borders=True, scheduler="sync"
    )
    rows = {row["threshold"]: row for row in report.sweep}
    assert report.overall.v_rand == max(row["v_rand"] for row in rows.values())
    assert report.overall.isbi_rand == min(row["isbi_rand"] for row in rows.values())
    assert report.overall.v_rand > 0.9 > rows[0.1]["v_rand"]
    assert 0 < report.overall.warping_error < rows[0.1]["warping_error"]
