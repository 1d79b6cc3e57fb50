"""The two jobs of `weights`, each on one tile."""

import pickle

import numpy as np
import pytest

from unetkit.arrays.distance_bands import ObjectDepths
from unetkit.arrays.meanings import REACH
from unetkit.arrays.targets import make_target
from unetkit.arrays.weight_map import PRESETS
from unetkit.engine.label_tiles import (
    MeasuredLabels,
    TileJob,
    TileJobs,
    count_tile,
    measure_tile,
    survey_depths,
)
from unetkit.geometry.tiles import Tile, cover
from unetkit.storage.datasets import DatasetWriter, open_dataset


@pytest.fixture
def sample(tmp_path):
    labels = np.zeros((40, 50), np.uint8)
    labels[:, :25], labels[:, 25:] = 1, 2
    ignore = np.zeros((40, 50), np.uint8)
    ignore[:10] = 1
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", np.zeros((40, 50), np.uint8), axes="yx", labels=labels, ignore=ignore)
    writer.finish()
    return open_dataset(writer.url)["a"]


def job(sample, tile, **more):
    data = {"labels": sample.labels(), "ignore": sample.ignore, "plane": 0}
    return TileJob(**data, tile=tile, target="foreground", preset=PRESETS["paper2015"], **more)


def test_counts_of_tiles_add_up_and_leave_ignored_pixels_out(sample):
    tiles = cover(40, 50, tile=16, overlap=4)
    total = sum(count_tile(job(sample, tile)) for tile in tiles)
    # One column of 30 rows that count is the gap between the two cells.
    assert total[:2].tolist() == [30, 30 * 49]
    assert total.sum() == 30 * 50


def test_a_tile_is_read_with_what_there_is_around_it(sample):
    tiles = cover(40, 50, tile=16, overlap=4)
    for number, side, first in ((0, 20, 0), (5, 24, 4)):
        block, inner = job(sample, tiles[number]).read()
        assert block.shape == (side, side)
        assert inner == 2 * (slice(first, first + 16),)


def test_jobs_are_small_and_travel(sample):
    jobs = TileJobs([sample], [sample.labels()], preset=PRESETS["paper2015"], target="foreground")
    assert jobs.total == len(list(jobs.tiles())) == 1
    sent = pickle.dumps(next(jobs.tiles((0.5, 2.0))))
    assert len(sent) < 4000
    assert pickle.loads(sent).balance == (0.5, 2.0)


def test_the_balance_is_for_those_who_use_it(sample):
    freiburg, paper = PRESETS["freiburg2019"], PRESETS["paper2015"]
    assert TileJobs([], [], preset=paper, target="foreground").balanced
    assert not TileJobs([], [], preset=freiburg, target="foreground").balanced
    assert TileJobs([], [], preset=freiburg, target="classes").balanced


@pytest.mark.parametrize("side", [7, 16, 64])
def test_a_cell_that_goes_on_beyond_what_was_judged_has_no_edge_there(side, tmp_path):
    labels = np.zeros((40, 50), np.uint8)
    labels[10:30, 10:30], labels[10:30, 32:40] = 1, 2
    ignore = np.zeros_like(labels)
    ignore[:, 20:] = 1
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", labels, axes="yx", labels=labels, ignore=ignore)
    writer.finish()
    stored, found = open_dataset(writer.url)["a"], np.zeros_like(labels)
    for tile in cover(40, 50, tile=side, overlap=2):
        block, inner = job(stored, tile).read()
        target = make_target(block, "foreground+boundary")[inner]
        found[tile.y0 : tile.y1, tile.x0 : tile.x1] = target
    expected = make_target(labels, "foreground+boundary")
    np.testing.assert_array_equal(found[:, :20], expected[:, :20])
    assert (found[11:29, 19] == 1).all()


DISTANCE = {"target": "foreground+distance", "preset": PRESETS["paper2015"]}


@pytest.fixture
def wide(tmp_path):
    """Store a cell longer than any context, deep at one end, beside others, partly not judged."""
    labels = np.zeros((310, 500), np.uint32)
    labels[20:32, 10:490] = 2**31
    labels[20:290, 10:280] = 2**31
    labels[32:90, 300:330], labels[90:140, 300:330], labels[200:, 400:] = 7, 9, 4
    ignore = np.zeros(labels.shape, np.uint8)
    ignore[110:230, 315:450] = 1
    ignore[20:24, 100:400] = 1
    writer = DatasetWriter(str(tmp_path / "wide.zarr"))
    writer.add("a", labels, axes="yx", labels=labels, ignore=ignore)
    writer.finish()
    return open_dataset(writer.url)["a"]


def by_tiles(sample, rng, *, tile, overlap):
    """Measure labels in some tiles, and make their target in boxes that are drawn."""
    labels = sample.labels()
    tiles = cover(labels.height, labels.width, tile=tile, overlap=overlap)
    jobs = [TileJob(labels, sample.ignore, 0, one, **DISTANCE) for one in tiles]
    seen = MeasuredLabels.of(labels, ObjectDepths.of([map(measure_tile, jobs)]))
    for _ in range(6):
        top, left = rng.integers(0, labels.height), rng.integers(0, labels.width)
        bottom, right = top + rng.integers(1, 120), left + rng.integers(1, 120)
        box = top, left, min(bottom, labels.height), min(right, labels.width)
        around = (*(v - overlap for v in box[:2]), *(v + overlap for v in box[2:]))
        job = TileJob(seen, sample.ignore, 0, Tile(0, *box, *around), **DISTANCE)
        block, inner = job.read()
        yield box, job.make_target(block)[inner]


@pytest.mark.parametrize("tile", [32, 100, 512])
def test_bands_are_those_of_the_whole_image_for_any_tiles(wide, tile):
    whole = survey_depths(wide.labels(), wide.ignore, target=DISTANCE["target"], scheduler="sync")
    box = 0, 0, 310, 500
    job = TileJob(whole, wide.ignore, 0, Tile(0, *box, *box), **DISTANCE)
    expected = job.make_target(job.read()[0])
    assert {tuple(one) for one in np.argwhere(expected == 3)} > {(155, 145), (300, 480)}
    # At the other end of the cell nothing is as deep as where no tile of it looks.
    assert (expected[20:32, 330:] < 2).all()
    rng = np.random.default_rng(tile)
    for (top, left, bottom, right), found in by_tiles(wide, rng, tile=tile, overlap=REACH + 2):
        np.testing.assert_array_equal(found, expected[top:bottom, left:right])


def test_with_less_context_bands_are_others(wide):
    found = [
        one.tobytes() for _, one in by_tiles(wide, np.random.default_rng(1), tile=64, overlap=8)
    ]
    right = by_tiles(wide, np.random.default_rng(1), tile=64, overlap=REACH + 2)
    assert found != [one.tobytes() for _, one in right]


def test_labels_that_were_measured_travel(wide):
    seen = survey_depths(wide.labels(), wide.ignore, target=DISTANCE["target"], scheduler="sync")
    job = pickle.loads(
        pickle.dumps(TileJob(seen, None, 0, cover(310, 500, tile=64)[0], **DISTANCE))
    )
    block, _ = job.read()
    assert block.max() >> 32 == REACH**2
    assert len(pickle.dumps(job)) < 4000
