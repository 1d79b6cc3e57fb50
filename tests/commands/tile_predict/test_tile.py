"""A tile that is not finite is never written as background."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import NonFiniteError
from unetkit.models import model_file
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

EXACT = {"precision": "exact", "probabilities": "float32"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_stops_it(kit, slide, bad):
    data = create_image("hole.zarr", shape=(40, 40), axes="yx", dtype="f4", chunk=16)
    image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
    image[0, 20, 30] = bad
    data.write(0, 0, 0, image)
    before = kit.contents(".")
    with pytest.raises(NonFiniteError, match="--nonfinite fill") as caught:
        tile_predict("hole.zarr", tile=16)
    assert caught.value.exit_code == 6
    assert kit.contents(".") == before
    progress = kit.watching()
    report = tile_predict("hole.zarr", tile=16, nonfinite="fill", progress=progress, **EXACT)
    assert report.filled == 1
    assert any("1 values of the input were NaN or Inf" in note for note in progress.notes)
    image[0, 20, 30] = 0
    expected = kit.one_pass("model.safetensors", image)
    made = open_image(report.output).data
    np.testing.assert_array_equal(made.read(0, 0, 40, 0, 40), expected)


def halves(path, image):
    """Store an image (1, Y, X) as numbers of 16 bits with a point."""
    height, width = image.shape[1:]
    data = create_image(path, shape=(height, width), axes="yx", dtype="f2", chunk=512)
    data.write(0, 0, 0, image.astype(np.float16))
    return path


@pytest.mark.parametrize("method", ["percentile", "none"])
def test_inf_of_16_bits_stops_it_and_is_placed(kit, slide, method):
    model = kit.model(Path("own.safetensors"), method=method)
    image = np.random.default_rng(0).random((1, 40, 600)).astype(np.float32)
    # Too large for 16 bits: what a file of them holds instead is Inf.
    image[0, 20, 550], image[0, 21, 551] = 70000, -70000
    with np.errstate(over="ignore"):
        source = halves("hole.zarr", image)
    before = kit.contents(".")
    words = r"2 NaN or Inf in rows 0:40, columns 512:600 of plane 0, .* row 20, column 550; .* fill"
    with pytest.raises(NonFiniteError, match=words) as caught:
        tile_predict(source, model=model, tile=64)
    assert caught.value.exit_code == 6
    assert kit.contents(".") == before
    report = tile_predict(source, model=model, tile=64, nonfinite="fill", **EXACT)
    assert report.filled == 2
    # The two count as 0, and everything else as it did.
    image[0, 20, 550] = image[0, 21, 551] = 0
    other = tile_predict(halves("whole.zarr", image), model=model, tile=64, **EXACT)
    assert other.filled == 0
    for name in ("classes", "instances"):
        one, two = (open_image(made.output).labels[name] for made in (report, other))
        np.testing.assert_array_equal(kit.read(one), kit.read(two))
    one, two = (kit.read(open_image(made.output).data) for made in (report, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["percentile", "none"])
def test_16_bits_predict_as_their_copies_of_32(kit, slide, method):
    model = kit.model(Path("own.safetensors"), method=method)
    # Small numbers, of which 16 bits hold few digits, in the upper tiles, and large ones below.
    image = np.random.default_rng(1).random((1, 64, 70)).astype(np.float32)
    image[0, :32] *= 1e-4
    image[0, 32:] *= 60 if method == "none" else 65000
    copy = image.astype(np.float16).astype(np.float32)
    data = create_image("copy.zarr", shape=(64, 70), axes="yx", dtype="f4", chunk=512)
    data.write(0, 0, 0, copy)
    found = [
        open_image(tile_predict(source, model=model, tile=32, **EXACT).output)
        for source in (halves("half.zarr", image), "copy.zarr")
    ]
    one, two = (kit.read(made.data) for made in found)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, kit.one_pass(model, copy))
    # What the file does not hold would be seen.
    assert not np.array_equal(one, kit.one_pass(model, image))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "exact"])
@pytest.mark.parametrize("factor", [1e6, 1e10])
def test_a_network_that_overflows_stops_it(kit, slide, factor, precision):
    loaded = model_file.load("model.safetensors")
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter *= factor
    Path("wild.safetensors").write_bytes(model_file.to_bytes(loaded.module, loaded.header))
    before = kit.contents(".")
    with pytest.raises(NonFiniteError, match="network's output must be finite"):
        tile_predict(slide, model="wild.safetensors", precision=precision, tile=16)
    assert kit.contents(".") == before
