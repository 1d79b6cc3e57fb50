"""Instances do not depend on blocks."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.arrays import instances
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.instances import (
    LabelJob,
    NumberJob,
    Objects,
    label_block,
    number_block,
    number_objects,
)
from unetkit.engine.schedulers import open_scheduler
from unetkit.geometry.tiles import cover
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image

EXACT = {"precision": "exact", "probabilities": "float32"}


@pytest.mark.parametrize(
    ("target", "names", "positive"),
    [("foreground", ("background", "foreground"), 1), ("boundary", ("inside", "boundary"), 0)],
)
def test_the_threshold_is_about_the_objects(kit, tmp_path, target, names, positive):
    model = kit.model(tmp_path / "model.safetensors", target=target, classes=names)
    source, image = kit.image(tmp_path / "slide.zarr", (40, 40))
    report = tile_predict(source, model=model, threshold=0.45, min_size=5, grow=2, **EXACT)
    made = open_image(report.output)
    expected = kit.one_pass(model, image[0])
    classes = np.where(expected[positive] >= 0.45, positive, 1 - positive)
    assert (classes != expected.argmax(axis=0)).any()
    np.testing.assert_array_equal(kit.read(made.labels["classes"]), classes)
    found = instances.instances(classes, target, min_size=5, distance=2)
    np.testing.assert_array_equal(kit.read(made.labels["instances"]), found)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    chunk=st.sampled_from([3, 8, 16]),
    grow=st.integers(0, 6),
    min_size=st.integers(0, 4),
)
def test_objects_are_those_of_the_whole_map_for_any_blocks(seed, shape, chunk, grow, min_size):
    rng = np.random.default_rng(seed)
    maps = rng.choice(3, size=(2, *shape), p=[0.4, 0.5, 0.1]).astype(np.uint8)
    target = "foreground+boundary"
    with tempfile.TemporaryDirectory() as folder, open_scheduler("sync") as scheduler:
        arrays = {
            name: labels(f"{folder}/{name}", maps.shape, chunk=chunk, dtype=dtype)
            for name, dtype in (("classes", "u1"), ("ids", "u4"))
        }
        for plane in range(2):
            arrays["classes"].write(plane, 0, 0, maps[plane])
        provisional = create_image(
            f"{folder}/work", shape=maps.shape, axes="zyx", dtype="u4", chunk=chunk
        )
        numbered = number_objects(
            arrays["classes"],
            provisional,
            create=lambda dtype: arrays["ids"],
            blocks=cover(*shape, tile=chunk),
            target=target,
            grow=grow,
            min_size=min_size,
            scheduler=scheduler,
            advance=lambda: None,
        )
        highest = 0
        for plane in range(2):
            found = instances.instances(maps[plane], target, min_size=min_size, distance=grow)
            expected = np.where(found > 0, found + np.uint32(highest), 0)
            got = arrays["ids"].read(plane, 0, shape[0], 0, shape[1])
            np.testing.assert_array_equal(got, expected)
            highest += int(found.max())
    assert numbered.count == highest


def labels(place, shape, *, chunk, dtype):
    create_image(place, shape=shape, axes="zyx", dtype="u1")
    return create_labels(place, "classes", shape=shape, axes="zyx", dtype=dtype, chunk=chunk)


def test_ids_above_four_billion_are_stored_and_grown(tmp_path):
    maps = np.zeros((1, 8, 8), np.uint8)
    maps[0, 2:4, 2:6] = 1  # one object in two blocks
    classes = labels(f"{tmp_path}/classes", maps.shape, chunk=4, dtype="u1")
    classes.write(0, 0, 0, maps[0])
    provisional = create_image(
        f"{tmp_path}/work", shape=maps.shape, axes="zyx", dtype="u4", chunk=4
    )
    ids = labels(f"{tmp_path}/ids", maps.shape, chunk=4, dtype="u8")
    blocks = cover(8, 8, tile=4)
    objects = Objects(classes, provisional, ids, "foreground", 1)
    high = 2**32 + 7
    assert np.uint64(high).astype(np.uint32) == 7  # what too narrow an array would hold
    lookups = {block: np.array([0, high], np.uint64) for block in blocks}
    for block in blocks:
        label_block(LabelJob(classes, provisional, "foreground", 0, block))
    for block in blocks:
        number_block(NumberJob(objects, 0, block, lookups))
    found = ids.read(0, 0, 8, 0, 8)
    assert found.dtype == np.uint64
    assert set(np.unique(found).tolist()) == {0, high}
    assert np.count_nonzero(found) > np.count_nonzero(maps)
