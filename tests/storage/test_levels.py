"""Small copies come from the stored levels, and are those that the whole image would give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.storage import pyramids
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image
from unetkit.storage.pyramids import add_pyramid, block_mean, every_second, thumbnail


def stored(folder, height, width):
    url = str(folder / "a.zarr")
    noise = np.random.default_rng(0).integers(0, 255, (2, height, width), np.uint8)
    create_image(url, shape=noise.shape, axes="cyx", dtype="u1", chunk=16).write(0, 0, 0, noise)
    labels = create_labels(url, "instances", shape=noise.shape[1:], axes="yx", dtype="u1", chunk=16)
    labels.write(0, 0, 0, noise[0])
    return url, noise


@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_without_a_pyramid_everything_is_averaged(tmp_path_factory, height, width, side):
    url, noise = stored(tmp_path_factory.mktemp("levels"), height, width)
    image = open_image(url)
    factor = max(1, max(height, width) // side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramids, "BLOCK_SIDE", 20)
        small = thumbnail(image.data, 0, side=side)
        kept = thumbnail(image.labels["instances"], 0, side=side)
    np.testing.assert_array_equal(small, block_mean(noise, factor, factor))
    np.testing.assert_array_equal(kept, every_second(noise[0], factor, factor))
    if max(height, width) >= side:
        assert side <= max(small.shape[1:]) < 2 * side


def test_with_a_pyramid_the_large_levels_are_never_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramids, "LARGEST_TOP", 16)
    url, _ = stored(tmp_path, 130, 70)
    add_pyramid(url)
    image = open_image(url)
    wanted = {side: thumbnail(image.data, 0, side=side) for side in (16, 17, 33, 66)}
    assert [max(small.shape[1:]) for small in wanted.values()] == [17, 17, 33, 130]
    for number in (0, 1):
        for chunk in (tmp_path / "a.zarr" / str(number) / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"damaged")
    for side in (16, 17, 33):
        np.testing.assert_array_equal(thumbnail(image.data, 0, side=side), wanted[side])
    with pytest.raises(ValueError, match="must be readable"):
        thumbnail(image.data, 0, side=66)
    assert thumbnail(image.labels["instances"], 0, side=16).shape == wanted[16].shape[1:]


def test_channels_stay_chosen(tmp_path):
    url, noise = stored(tmp_path, 20, 20)
    small = thumbnail(open_image(url, channels="1").data, 0, side=20)
    np.testing.assert_array_equal(small, noise[1:])
