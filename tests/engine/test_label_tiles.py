"""The two jobs of `weights`, each on one tile."""

import pickle

import numpy as np
import pytest

from unetkit.arrays.targets import make_target
from unetkit.arrays.weight_map import PRESETS
from unetkit.engine.label_tiles import TileJob, TileJobs, count_tile
from unetkit.geometry.tiles import cover
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
