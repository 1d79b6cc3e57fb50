"""Fixtures that many tests share: real microscopy, and a folder as a lab has it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def test_data() -> Path:
    """Return the folder of real microscopy that `UNETKIT_TEST_DATA` names; without it, skip."""
    folder = os.environ.get("UNETKIT_TEST_DATA")
    if not folder:
        pytest.skip("UNETKIT_TEST_DATA is not set, so there is no real microscopy to test on")
    return Path(folder)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Return a folder with five images, their masks, and a slide with its truth."""
    data = ROOT / "unetkit" / "data"
    image = np.asarray(Image.open(data / "demo_image.png"))
    labels = np.asarray(Image.open(data / "demo_labels.png"))
    for folder in ("images", "masks", "big_masks"):
        (tmp_path / folder).mkdir()
    for k in range(5):
        window = np.s_[: 128 + 8 * k, 70 * k : 70 * k + 140]
        Image.fromarray(image[window]).save(tmp_path / "images" / f"cells{k}.png")
        Image.fromarray(labels[window]).save(tmp_path / "masks" / f"cells{k}.png")
    tifffile.imwrite(tmp_path / "big.tif", image, tile=(128, 128), compression="zlib")
    Image.fromarray(labels).save(tmp_path / "big_masks" / "big.png")
    return tmp_path
