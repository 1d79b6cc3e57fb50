"""Smaller levels and copies: means for pixels, kept pixels for labels, as from the whole image."""

import json
import shutil
import threading
import time
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError
from unetkit.storage import pyramids
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image
from unetkit.storage.pyramids import (
    PyramidWriter,
    add_pyramid,
    block_mean,
    downscaled,
    every_second,
    level_count,
    thumbnail,
)


def slide(folder, content, *, chunk=16):
    """Write an image (C, Y, X) with labels: its first channel."""
    url = str(folder / "slide.zarr")
    image = create_image(url, shape=content.shape, axes="cyx", dtype=content.dtype, chunk=chunk)
    image.write(0, 0, 0, content)
    labels = create_labels(
        url, "instances", shape=content.shape[1:], axes="yx", dtype=np.uint16, chunk=chunk
    )
    labels.write(0, 0, 0, content[0].astype(np.uint16))
    return url


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def level(url, name):
    return np.asarray(zarr.open_array(f"{url}/{name}", mode="r")[:])


@pytest.fixture
def small_top(monkeypatch):
    """Build levels until the longer side is at most 16 pixels, one chunk at a time."""
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 16)
    monkeypatch.setattr(pyramids, "BLOCK_SIDE", 16)


@pytest.mark.usefixtures("small_top")
@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 65, 33), (3, 100, 1), (1, 17, 90)])
def test_levels_equal_those_made_in_one_go(shape, tmp_path):
    content = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    url = slide(tmp_path, content)
    add_pyramid(url)
    levels = open_image(url).levels
    assert levels == level_count(*shape[1:])
    mean, kept = content, content[0]
    for number in range(1, levels):
        steps = [2 if n > 1 else 1 for n in mean.shape[1:]]
        mean, kept = block_mean(mean, *steps), every_second(kept, *steps)
        np.testing.assert_array_equal(level(url, str(number)), mean)
        np.testing.assert_array_equal(level(url, f"labels/instances/{number}"), kept)
    assert max(mean.shape[1:]) <= 16
    yaozarrs.validate_zarr_store(url)


def test_a_small_image_gets_no_level_and_a_large_one_does(tmp_path):
    for height, levels in ((1024, 1), (1025, 2)):
        (tmp_path / str(height)).mkdir()
        url = slide(tmp_path / str(height), np.ones((1, height, 10), np.uint8), chunk=512)
        add_pyramid(url)
        assert open_image(url).levels == levels


@pytest.mark.usefixtures("small_top")
def test_what_an_interrupted_call_left_is_made_again(tmp_path):
    content = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    url = slide(tmp_path, content)
    # Half a level, in no list.
    zarr.create_array(f"{url}/1", shape=(1, 32, 32), dtype="u2")
    assert open_image(url).levels == 1
    add_pyramid(url)
    np.testing.assert_array_equal(level(url, "1"), block_mean(content, 2, 2))
    # A second call finds all done.
    before = (tmp_path / "slide.zarr" / "1" / "zarr.json").stat().st_mtime_ns
    add_pyramid(url)
    assert (tmp_path / "slide.zarr" / "1" / "zarr.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("small_top")
def test_labels_that_come_later_get_as_many_levels(tmp_path):
    url = slide(tmp_path, np.zeros((1, 64, 64), np.uint8))
    add_pyramid(url)
    create_labels(url, "classes", shape=(64, 64), axes="yx", dtype=np.uint8)
    with pytest.raises(ValueError, match="classes"):
        yaozarrs.validate_zarr_store(url)
    add_pyramid(url)
    yaozarrs.validate_zarr_store(url)


@pytest.mark.usefixtures("small_top")
def test_planes_and_background_stay_apart_and_absent(tmp_path):
    url = str(tmp_path / "stack.zarr")
    image = create_image(url, shape=(2, 32, 32), axes="zyx", dtype=np.float32, chunk=16)
    image.write(1, 0, 0, np.full((1, 32, 32), 0.5, np.float32))
    add_pyramid(url)
    assert [plane.mean() for plane in level(url, "1")] == [0.0, 0.5]
    assert not (tmp_path / "stack.zarr" / "1" / "c" / "0").exists()


def test_only_an_image_gets_a_pyramid(tmp_path):
    with pytest.raises(InputError, match="an OME-Zarr image"):
        add_pyramid(str(tmp_path))
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(InputError, match="an OME-Zarr image"):
        add_pyramid(str(tmp_path))


@settings(deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), fy=st.integers(1, 2), fx=st.integers(1, 2)
)
def test_block_mean_equals_a_loop(height, width, fy, fx):
    random = np.random.default_rng(height * 10 + width)
    for dtype in (np.uint16, np.uint8):
        block = random.integers(0, np.iinfo(dtype).max, (height, width), dtype, endpoint=True)
        wanted = [
            [block[y : y + fy, x : x + fx].mean() for x in range(0, width, fx)]
            for y in range(0, height, fy)
        ]
        np.testing.assert_array_equal(block_mean(block, fy, fx), np.rint(wanted))
        assert block_mean(block[None], fy, fx).dtype == dtype
    np.testing.assert_allclose(block_mean(block / 7, fy, fx), np.divide(wanted, 7), rtol=1e-12)


@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_without_a_pyramid_everything_is_averaged(tmp_path_factory, height, width, side):
    content = noise(2, height, width)
    image = open_image(slide(tmp_path_factory.mktemp("levels"), content))
    factor = max(1, max(height, width) // side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramids, "BLOCK_SIDE", 20)
        small = thumbnail(image.data, 0, side=side)
        kept = thumbnail(image.labels["instances"], 0, side=side)
    np.testing.assert_array_equal(small, block_mean(content, factor, factor))
    np.testing.assert_array_equal(kept, every_second(content[0], factor, factor))
    if max(height, width) >= side:
        assert side <= max(small.shape[1:]) < 2 * side


def test_with_a_pyramid_the_large_levels_are_never_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 16)
    url = slide(tmp_path, noise(2, 130, 70))
    add_pyramid(url)
    image = open_image(url)
    wanted = {side: thumbnail(image.data, 0, side=side) for side in (16, 17, 33, 66)}
    assert [max(small.shape[1:]) for small in wanted.values()] == [17, 17, 33, 130]
    for number in (0, 1):
        for chunk in (tmp_path / "slide.zarr" / str(number) / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"damaged")
    for side in (16, 17, 33):
        np.testing.assert_array_equal(thumbnail(image.data, 0, side=side), wanted[side])
    with pytest.raises(ValueError, match="must be readable"):
        thumbnail(image.data, 0, side=66)
    assert thumbnail(image.labels["instances"], 0, side=16).shape == wanted[16].shape[1:]


def test_channels_stay_chosen(tmp_path):
    image = open_image(slide(tmp_path, noise(2, 20, 20)), channels="1")
    np.testing.assert_array_equal(thumbnail(image.data, 0, side=20), noise(2, 20, 20)[1:])


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_it_is_the_whole_made_smaller(tmp_path, factor):
    whole = noise(2, 2050, 300)
    image = open_image(slide(tmp_path, whole, chunk=256))
    found = downscaled(image.data, 0, factor=factor)
    assert np.array_equal(found, block_mean(whole, factor, factor))
    found = downscaled(image.labels["instances"], 0, factor=factor)
    assert np.array_equal(found, whole[0, ::factor, ::factor])


@pytest.mark.parametrize("levels", [False, True])
def test_a_box_is_that_part_of_the_plane(tmp_path, levels):
    image = open_image(slide(tmp_path, noise(2, 1100, 270), chunk=64))
    if levels:
        add_pyramid(image.url)
    for data in (image.data, image.labels["instances"]):
        whole = downscaled(data, 0, factor=4)
        box = downscaled(data, 0, factor=4, box=(8, 292, 264, 270))
        np.testing.assert_array_equal(box, whole[..., 2:73, 66:68])


def test_levels_are_read_where_they_are(tmp_path):
    image = open_image(slide(tmp_path, noise(2, 2050, 300), chunk=256))
    labels = image.labels["instances"]
    small = {factor: downscaled(labels, 0, factor=factor) for factor in (3, 6, 8)}
    add_pyramid(image.url)
    # All pixels are needed for a third alone; without them the others come from levels.
    shutil.rmtree(Path(labels.url, "c"))
    assert np.array_equal(downscaled(labels, 0, factor=8), small[8])
    assert np.array_equal(downscaled(labels, 0, factor=6), small[6])
    assert not np.array_equal(downscaled(labels, 0, factor=3), small[3])
    picked = downscaled(image.data.pick([1]), 0, factor=4)
    assert picked.shape == (1, 513, 75)
    assert np.array_equal(picked, downscaled(image.data, 0, factor=4)[1:])


@pytest.mark.parametrize("high_wide", [(16, 1000), (32, 16), (64, 64), (48, 48)])
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize(("height", "width"), [(97, 131), (1, 200), (64, 33)])
def test_levels_that_are_written_along_are_those_made_afterwards(
    tmp_path, monkeypatch, nearest, height, width, high_wide
):
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 12)
    content = np.random.default_rng(0).integers(0, 256, (2, 3, height, width)).astype(np.uint8)
    content[:, :, :32, :48] = 0
    sizes = {"axes": "tcyx", "dtype": np.uint8, "chunk": 16}
    along, after = (str(tmp_path / name / "a.zarr") for name in ("along", "after"))
    for url in (along, after):
        Path(url).parent.mkdir()
        target = data = create_image(url, shape=content.shape, **sizes)
        if nearest:
            data = create_labels(url, "a", shape=(2, height, width), **sizes | {"axes": "tyx"})
            target.write(0, 0, 0, content[0])
        place = f"{url}/labels/a" if nearest else url
        writing = PyramidWriter(place, data, nearest=nearest) if url == along else nullcontext(data)
        with writing as writer:
            for plane, pixels in enumerate(content[:, 0] if nearest else content):
                for y, x in product(range(0, height, high_wide[0]), range(0, width, high_wide[1])):
                    block = pixels[..., y : y + high_wide[0], x : x + high_wide[1]]
                    writer.write(plane, y, x, block)
        add_pyramid(url)
    found = [
        {p.relative_to(url): p.read_bytes() for p in Path(url).rglob("*") if p.is_file()}
        for url in (along, after)
    ]
    assert found[0] == found[1]
    assert Path(along, *(["labels", "a"] if nearest else []), "2", "zarr.json").exists()


def test_means_in_bands_are_those_at_once(monkeypatch):
    block = np.random.default_rng(0).integers(0, 256, (2, 61, 40)).astype(np.uint8)
    at_once = block_mean(block, 2, 2)
    monkeypatch.setattr(pyramids, "BAND_BYTES", 512)
    assert np.array_equal(block_mean(block, 2, 2), at_once)


def test_after_a_failure_no_thread_goes_on_writing_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 12)
    going = threading.Event()

    def slow_mean(block, fy, fx):
        going.set()
        time.sleep(0.3)
        return block_mean(block, fy, fx)

    monkeypatch.setattr(pyramids, "block_mean", slow_mean)
    url = str(tmp_path / "a.zarr")
    image = create_image(url, shape=(64, 64), axes="yx", dtype=np.uint8, chunk=16)

    def stopped():
        with PyramidWriter(url, image) as writer:
            for y in (0, 32):
                going.clear()
                writer.write(0, y, 0, np.ones((1, 32, 64), np.uint8))
                going.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    shutil.rmtree(url)
    time.sleep(0.5)
    assert not Path(url).exists()
