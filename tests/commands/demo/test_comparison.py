import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.measure import label

from unetkit.commands.demo.comparison import (
    SMALLEST,
    MethodScores,
    Segmented,
    draw_all,
    draw_held_out,
    draw_seams,
    held_out,
    otsu_objects,
    score,
)
from unetkit.commands.import_images.command import import_images
from unetkit.views.pictures import png_bytes


def two_squares():
    labels = np.zeros((30, 40), dtype=np.uint16)
    labels[4:14, 4:14] = 3
    labels[16:26, 20:32] = 7
    image = np.where(labels > 0, 200, 10).astype(np.uint8)
    return image, labels


def test_otsu_finds_bright_objects():
    image, labels = two_squares()
    found = otsu_objects(image)
    assert found.max() == 2
    assert ((found > 0) == (labels > 0)).mean() > 0.95


@given(
    hnp.arrays(np.uint16, (12, 14), elements=st.integers(0, 4)),
    st.integers(0, 13),
)
def test_a_cut_keeps_objects_and_drops_specks(labels, border):
    cut = held_out(labels, border=border)
    part = labels[:, border:]
    assert cut.shape == part.shape
    for old in range(1, 5):
        new = np.unique(cut[part == old])
        size = int((part == old).sum())
        if size:
            assert len(new) == 1
            assert (new[0] > 0) == (size >= SMALLEST)
    assert not cut[part == 0].any()
    kept = np.unique(cut[cut > 0])
    np.testing.assert_array_equal(kept, np.arange(1, len(kept) + 1))


def test_a_method_is_scored_as_eval_scores_it(tmp_path):
    image, labels = two_squares()
    (tmp_path / "image.png").write_bytes(png_bytes(image))
    (tmp_path / "labels.png").write_bytes(png_bytes(labels))
    truth = str(tmp_path / "truth.zarr")
    import_images(str(tmp_path / "image.png"), truth, labels=str(tmp_path / "labels.png"))

    def scored(name, found):
        store = str(tmp_path / f"{name}.zarr")
        row = score(store, truth, method=name, image=image, labels=found)
        assert row.method == name
        return row.average_precision_50, row.objects, row.matched, row.objects_true

    assert scored("same", label(labels > 0)) == (1.0, 2, 2, 2)
    assert scored("merged", (labels > 0).astype(int)) == (pytest.approx(1 / 2), 1, 1, 2)
    assert scored("none", np.zeros_like(labels)) == (0.0, 0, 0, 2)


def known():
    labels = np.zeros((60, 80), dtype=np.uint32)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    return Segmented(
        image=(labels * 50).astype(np.uint8),
        truth=labels,
        predicted=(labels > 0).astype(np.uint32),
        weights=np.ones((60, 60), dtype=np.float32),
        border=60,
    )


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_everything_is_side_by_side(tmp_path):
    path = tmp_path / "demo.png"
    draw_all(str(path), known())
    height, width, _ = pixels(path).shape
    assert height > 240
    assert width > 3 * 320 + 240


def test_the_scored_part_is_enlarged_for_every_method(tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    labels = known().truth[:, 20:]
    scores = MethodScores("unetkit", None, None, 1, 0, 2)
    image = known().image[:, 20:]
    draw_held_out(str(one), image, truth=labels, methods={"unetkit": (labels, scores)})
    methods = {"unetkit": (labels, scores), "otsu": (np.zeros_like(labels), scores)}
    draw_held_out(str(two), image, truth=labels, methods=methods)
    assert pixels(two).shape[1] - pixels(one).shape[1] > 2 * 60


def test_the_borders_of_tiles_are_drawn(tmp_path):
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    draw_seams(str(few), known(), tile=80)
    draw_seams(str(many), known(), tile=20)
    assert pixels(few).shape == pixels(many).shape
    assert (pixels(few) != pixels(many)).any()
