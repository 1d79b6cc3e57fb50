"""Only the tiles that a band touches are decoded, each once, and memory stays that of a band."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import tifffile

from unetkit.storage.tiff import Bands, open_tiff


class CountedBands(Bands):
    """Counts how often each segment of the file is decoded."""

    decoded: Counter[tuple[int, int]]

    def _segment(self, page, number, index):
        if (number, index) not in self.segments:
            self.decoded[number, index] += 1
        return super()._segment(page, number, index)


def counted(path, height):
    with tifffile.TiffFile(path) as tif:
        bands = CountedBands(tif.series[0], str(path))
        bands.decoded = Counter()
        rows = tif.series[0].shape[0]
        for y0 in range(0, rows, height):
            for channel in range(3):
                bands.read((slice(y0, min(y0 + height, rows)), slice(None), channel))
        return bands.decoded


@pytest.mark.parametrize("options", [{"tile": (48, 32)}, {"rowsperstrip": 20}, {}])
@pytest.mark.parametrize("height", [16, 50, 128])
def test_every_segment_is_decoded_once(tmp_path, options, height):
    pixels = np.random.default_rng(2).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", **options)
    with tifffile.TiffFile(path) as tif:
        count = len(tif.pages[0].dataoffsets)
    assert counted(path, height) == {(0, index): 1 for index in range(count)}


@pytest.mark.parametrize("options", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_memory_is_that_of_a_band(tmp_path, options):
    path = str(tmp_path / "a.tif")
    # 192 MiB of pixels in a file of a few hundred kilobytes; this array takes no memory.
    pixels = np.broadcast_to(np.full((1, 1, 3), 7, np.uint8), (8192, 8192, 3))
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", **options)
    file = open_tiff(path)
    tracemalloc.start()
    try:
        total = sum(int(block[1, ::64, ::64].sum()) for _, _, block in file.strips(512))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 7 * 128 * 128
    band = 512 * 8192 * 3
    assert peak < 6 * band
    assert peak < 8192 * 8192 * 3 / 2


def test_an_uncompressed_file_is_mapped(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((30, 20), np.uint16))
    with tifffile.TiffFile(path) as tif:
        assert isinstance(Bands(tif.series[0], str(path)).whole, np.memmap)


def test_a_tile_that_was_never_written_is_black(tmp_path):
    path = tmp_path / "a.tif"
    tiles = [np.full((16, 16), 5, np.uint8), None, None, np.full((16, 16), 9, np.uint8)]
    tifffile.imwrite(
        path, iter(tiles), shape=(32, 32), dtype=np.uint8, tile=(16, 16), compression="zlib"
    )
    expected = np.zeros((32, 32), np.uint8)
    expected[:16, :16], expected[16:, 16:] = 5, 9
    assert np.array_equal(open_tiff(str(path)).load(), expected)
