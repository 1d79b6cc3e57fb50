"""A preview shows what came in: outlines on images, a colour a class, dim where nobody judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unetkit.commands.import_images.command import import_images
from unetkit.errors import OutputError, UnetkitError
from unetkit.storage.datasets import open_dataset
from unetkit.views.drawing import PALETTE
from unetkit.views.overview import MAX_IMAGES, draw_dataset

RAMP = np.tile(np.arange(60, 140, dtype=np.uint8), (60, 1))
LABELS = np.zeros((60, 80), np.uint8)
LABELS[10:30, 10:30], LABELS[35:50, 20:60] = 1, 2


@pytest.fixture
def lab(tmp_path):
    """Return a function that imports images of a ramp with masks, and reads the preview."""

    def imported(*, count=1, channels=1, **options):
        for stem in map("{:02}".format, range(count)):
            for kind, pixels in (("images", RAMP), ("masks", LABELS)):
                (tmp_path / kind).mkdir(exist_ok=True)
                pixels = (
                    np.stack([pixels] * 3, -1) if kind == "images" and channels == 3 else pixels
                )
                Image.fromarray(pixels).save(tmp_path / kind / f"{stem}.png")
        sheet, out = tmp_path / "sheet.png", str(tmp_path / "out.zarr")
        options = {"labels": str(tmp_path / "masks"), "overwrite": True, **options}
        import_images(str(tmp_path / "images"), out, preview=str(sheet), **options)
        with Image.open(sheet) as picture:
            return np.asarray(picture)

    return imported


@pytest.mark.parametrize("channels", [1, 3])
def test_outlines_have_colours_and_a_class_the_same_everywhere(channels, lab):
    shown = lab(count=3, channels=channels, kind="classes").reshape(-1, 3)
    for colour, there in zip(PALETTE[:3], (True, True, False), strict=True):
        assert (shown == colour).all(axis=1).any() == there


def test_what_nobody_judged_is_dim_and_its_rim_is_drawn(lab):
    plain, partly = lab(), lab(judged=["0:60,0:50"])
    assert plain.shape == partly.shape
    y, x = np.nonzero((plain != partly).any(axis=-1))
    scale = 1024 // 80
    # The outer 30 columns of 80, over the whole height.
    assert (np.ptp(x) + 1, np.ptp(y) + 1) == (30 * scale, 60 * scale)


def test_the_picture_of_a_large_image_is_drawn_from_its_smaller_levels(tmp_path):
    labels = np.zeros((2100, 2200), np.uint8)
    labels[300:900, 400:1600] = 1
    for name, pixels in (("image", labels * 90 + 40), ("mask", labels)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    out, sheets = str(tmp_path / "out.zarr"), [str(tmp_path / f"{n}.png") for n in range(2)]
    mask = str(tmp_path / "mask.png")
    import_images(str(tmp_path / "image.png"), out, labels=mask, preview=sheets[0])
    # Without a pixel of the full size the same is drawn.
    (sample,) = open_dataset(out).samples
    for level in (sample.data, sample.labels()):
        shutil.rmtree(Path(level.url) / "c")
    draw_dataset(sheets[1], open_dataset(out), ["image"])
    first, second = (np.asarray(Image.open(sheet)) for sheet in sheets)
    np.testing.assert_array_equal(first, second)
    assert (first == PALETTE[0]).all(axis=-1).any()


def test_of_many_images_some_are_evenly_chosen_and_the_title_says_so(lab, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "unetkit.views.overview.contact_sheet",
        lambda path, panels, **more: told.append(([p.caption for p in panels], more["title"])),
    )
    with pytest.raises(FileNotFoundError):
        lab(count=49)
    ((captions, title),) = told
    assert title == f"out: {MAX_IMAGES} of 49 samples"
    names = [caption.partition(":")[0] for caption in captions]
    assert len(set(names)) == MAX_IMAGES
    assert (names[0], names[-1]) == ("00", "48")


def test_a_picture_that_is_not_ours_is_kept_and_nothing_is_made(lab, tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "sheet.png")
    with pytest.raises(OutputError, match=r"sheet\.png"):
        lab(overwrite=False)
    assert not (tmp_path / "out.zarr").exists()
    with pytest.raises(UnetkitError):
        lab(overwrite=True)


def test_without_masks_images_are_shown_as_they_are(lab, tmp_path):
    lab(labels=None)
    assert open_dataset(str(tmp_path / "out.zarr")).samples[0].label_kind is None
