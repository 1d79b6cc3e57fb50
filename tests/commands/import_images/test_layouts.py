"""Folders as other tools leave them are found without an option, and pair to the pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.commands.conftest import Watching
from unetkit.commands.import_images.command import import_images
from unetkit.errors import InputError, LabelError, UnetkitError
from unetkit.storage.datasets import open_dataset

SHAPE = (20, 30)
CELLS = np.zeros(SHAPE, np.uint16)
CELLS[2:8, 3:9], CELLS[10:15, 20:28] = 1, 2

# Images and their masks below a folder, what is imported, and which samples come of it; those
# with a minus have no mask. What stands after a comma belongs to neither side.
TREES = {
    "nnU-Net": (
        "imagesTr/c_1_0000.tif+imagesTr/c_1_0001.tif=labelsTr/c_1.tif , imagesTs/c_9_0000.tif",
        ".",
        "c_1",
    ),
    "StarDist": ("images/a.tif=masks/a.tif images/b.png=masks/b.tif", ".", "a b"),
    "BiaPy": ("raw/a.tif=label/a.tif", ".", "a"),
    "BiaPy's train folder": ("train/raw/a.tif=train/label/a.tif", "train", "a"),
    "Cellpose": (
        "a.tif=a_masks.tif b.tif=b_masks.tif , a_flows.tif a_cp_output.tif a_seg.npy",
        ".",
        "a b",
    ),
    "Cellpose, written": ("a.tif=a_cp_masks.png b.png= , a_cp_outlines.txt", ".", "a -b"),
    "Cellpose, outlined": ("a.tif=a_cp_masks.png , a_outlines_cp_masks.png", ".", "a"),
    "Cellpose, both": (
        "a.tif=a_masks.tif b.tif=b_cp_masks.png c.png=c_cp_masks.tif d.tif= , b_cp_outlines.txt",
        ".",
        "a b c -d",
    ),
    "Cellpose, renamed, of two kinds": ("a_img.tif=a_masks.tif b_img.png=b_masks.png", ".", "a b"),
    "Cellpose, renamed": ("a_img.tif=a_masks.tif , a_flows.tif", ".", "a"),
    "a sequence": (
        "01/t000.tif= 01/t007.tif=01_GT/SEG/man_seg007.tif , 01_GT/TRA/man_track000.tif"
        " 02/t000.tif",
        "01",
        "-000 007",
    ),
    "sequences": (
        "01/t000.tif=01_GT/SEG/man_seg000.tif 02/t000.tif=02_GT/SEG/man_seg000.tif 02/t001.tif=",
        ".",
        "01_000 02_000 -02_001",
    ),
    "silver": ("01/t000.tif=01_ST/SEG/man_seg000.tif", "01", "000"),
}


def lay(folder, tree):
    """Write images of noise and masks where a tree says, and return each name's mask."""
    pairs, _, others = tree.partition(" , ")
    rng = np.random.default_rng(5)
    for n, pair in enumerate(pairs.split()):
        images, _, mask = pair.partition("=")
        for path in [*images.split("+"), *others.split()]:
            save(folder / path, rng.integers(0, 99, SHAPE, np.uint8))
        if mask:
            save(folder / mask, np.roll(CELLS, n, axis=0))


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    elif path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        path.write_text("")


@pytest.mark.parametrize(("tree", "source", "names"), TREES.values(), ids=TREES)
def test_a_layout_is_found_and_said(tree, source, names, tmp_path):
    lay(tmp_path, tree)
    told = Watching()
    report = import_images(str(tmp_path / source), str(tmp_path / "out.zarr"), progress=told)
    data = open_dataset(str(tmp_path / "out.zarr"))
    found = [sample.name if sample.label_kind else f"-{sample.name}" for sample in data.samples]
    assert sorted(found) == sorted(names.split())
    assert "laid out as" in told.notes[0]
    assert report.labelled == sum(not name.startswith("-") for name in names.split())
    first = next(s for s in data.samples if s.label_kind)
    pixels = first.labels().read(0, 0, SHAPE[0], 0, SHAPE[1])
    assert np.array_equal(np.unique(pixels), [0, 1, 2])


def test_of_two_masks_the_first_way_counts_and_the_other_is_named(tmp_path):
    lay(tmp_path, "a.tif=a_masks.tif b.tif=b_masks.tif")
    save(tmp_path / "a_cp_masks.tif", np.roll(CELLS, 5, axis=0))
    told = Watching()
    import_images(str(tmp_path), str(tmp_path / "out.zarr"), progress=told)
    a, _ = open_dataset(str(tmp_path / "out.zarr")).samples
    np.testing.assert_array_equal(a.labels().read(0, 0, SHAPE[0], 0, SHAPE[1]), CELLS)
    assert any("two, such as 'a_cp_masks.tif' beside 'a_masks.tif'" in n for n in told.notes)


def test_an_image_of_a_pattern_is_there_once(tmp_path):
    lay(tmp_path, "a_img.tif= a_img.png=")
    with pytest.raises(InputError, match="different names"):
        import_images(str(tmp_path / "{stem}_img.{tif,png}"), str(tmp_path / "out.zarr"))


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "cell": 1, "ignore": 2},
        {"0": "background", "1": "cell", "2": "ignore"},
    ],
)
def test_classes_are_those_of_the_description(labels, tmp_path):
    lay(tmp_path, TREES["nnU-Net"][0])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    import_images(str(tmp_path), str(tmp_path / "out.zarr"))
    (sample,) = open_dataset(str(tmp_path / "out.zarr")).samples
    assert sample.class_names == ("background", "cell")
    assert sample.data.channel_count == 2
    ignored = sample.ignore.read(0, 0, SHAPE[0], 0, SHAPE[1])
    np.testing.assert_array_equal(ignored, CELLS == 2)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json must name the labels"):
        import_images(str(tmp_path), str(tmp_path / "new.zarr"))


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channels_are_called_as_the_description_says(key, tmp_path):
    lay(tmp_path, TREES["nnU-Net"][0])
    labels = {"background": 0, "cell": 1, "more": 2}

    def describe(names):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, key: names}))

    describe({})
    import_images(str(tmp_path), str(tmp_path / "old.zarr"))
    describe({"0": "EM", "1": "DAPI, raw"})
    assert import_images(str(tmp_path), str(tmp_path / "old.zarr"), append=True).skipped_known == 1
    import_images(str(tmp_path), str(tmp_path / "out.zarr"))
    (sample,) = open_dataset(str(tmp_path / "out.zarr")).samples
    assert sample.image.channel_names == ("EM", "DAPI raw")
    import_images(str(tmp_path), str(tmp_path / "one.zarr"), channels="em")
    (sample,) = open_dataset(str(tmp_path / "one.zarr")).samples
    assert sample.image.channel_names == ("EM",)
    # Names that are alike, as those of ways to normalize may be, tell no channel.
    describe({"0": "noNorm", "1": "noNorm"})
    import_images(str(tmp_path), str(tmp_path / "out.zarr"), overwrite=True)
    (sample,) = open_dataset(str(tmp_path / "out.zarr")).samples
    assert sample.image.channel_names == ("0", "1")
    for names, said in (
        ({"0": "EM"}, r"every channel of the images, got EM for 2 of '.*c_1_0000\.tif'"),
        ({"1": "EM", "2": "DAPI"}, "by their numbers from 0 on"),
        (["EM", "DAPI"], "by their numbers from 0 on"),
    ):
        describe(names)
        with pytest.raises(InputError, match=f"dataset.json must name .*{said}"):
            import_images(str(tmp_path), str(tmp_path / "new.zarr"))
    assert not (tmp_path / "new.zarr").exists()


@pytest.mark.parametrize(
    ("described", "given", "ignored", "names"),
    [
        # Names of several values are of no class, and what nobody judged stays so.
        ({"background": 0, "cell": [1, 2], "ignore": 2}, {}, 2, None),
        ({"background": 0, "cell": [1, 2], "rim": 2}, {"ignore": 1}, 1, None),
        ({"background": 0, "cell": 1, "rim": 2}, {"ignore": 2}, 2, ("background", "cell")),
        ({"background": 0, "cell": 1, "ignore": 2}, {"kind": "classes"}, 2, ("background", "cell")),
        ({"background": 0, "cell": 1, "ignore": 2}, {"classes": "0=a,1=b,2=c"}, None, tuple("abc")),
        ({"background": 0, "cell": 1}, {"ignore": 2}, 2, ("background", "cell")),
    ],
)
def test_what_is_given_counts_more_than_the_description(described, given, ignored, names, tmp_path):
    lay(tmp_path, TREES["nnU-Net"][0])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": described}))
    told = Watching()
    import_images(str(tmp_path), str(tmp_path / "out.zarr"), progress=told, **given)
    (sample,) = open_dataset(str(tmp_path / "out.zarr")).samples
    height, width = SHAPE
    if names is not None:
        assert sample.class_names == names
    assert (sample.ignore is not None) == (ignored is not None)
    if ignored is not None:
        np.testing.assert_array_equal(sample.ignore.read(0, 0, height, 0, width), ignored == CELLS)
    assert any("names are of regions" in n for n in told.notes) == (names is None)


def test_a_value_that_the_description_lacks_is_refused_with_a_way_out(tmp_path):
    lay(tmp_path, TREES["nnU-Net"][0])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cell": 1}}))
    with pytest.raises(
        LabelError, match=r"\(0, 1\), got 2 as well; name all by --classes, or mark"
    ):
        import_images(str(tmp_path), str(tmp_path / "out.zarr"))


def test_a_plain_folder_has_no_layout_and_pickles_are_refused(tmp_path):
    lay(tmp_path, "a.tif= a_other.tif= , a_seg.npy")
    told = Watching()
    import_images(str(tmp_path), str(tmp_path / "out.zarr"), progress=told)
    assert not any("laid out" in note for note in told.notes)
    labels = str(tmp_path / "{stem}_seg.npy")
    with pytest.raises(UnetkitError, match=r"Cellpose's hold pickles.*save the masks as PNG"):
        import_images(str(tmp_path), str(tmp_path / "new.zarr"), labels=labels)


def test_pickles_of_cellpose_are_never_loaded_and_always_told_of(tmp_path):
    lay(tmp_path, "a.tif= , a_seg.npy")
    told = Watching()
    import_images(str(tmp_path), str(tmp_path / "out.zarr"), progress=told)
    assert any("'a_seg.npy', a pickle" in note for note in told.notes)
    (tmp_path / "seg").mkdir()
    (tmp_path / "a_seg.npy").rename(tmp_path / "seg/a_seg.npy")
    for source, labels in (("a.tif", str(tmp_path / "seg")), ("seg", None)):
        with pytest.raises(InputError, match=r"Cellpose's hold pickles.*save the masks as PNG"):
            import_images(str(tmp_path / source), str(tmp_path / "new.zarr"), labels=labels)
    assert not (tmp_path / "new.zarr").exists()


@pytest.fixture
def slices(tmp_path):
    """Lay out two stacks; of the first, planes 1 and 3 have masks, and return these."""
    (tmp_path / "01_GT/SEG").mkdir(parents=True)
    (tmp_path / "01").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (2, 5, *SHAPE), dtype=np.uint8)
    for frame, stack in zip((7, 8), noise, strict=True):
        tifffile.imwrite(tmp_path / f"01/t{frame:03}.tif", stack)
    masks = {1: CELLS, 3: (CELLS > 0) * np.uint16(300)}
    masks[3][:10] = 0
    for z, mask in masks.items():
        tifffile.imwrite(tmp_path / f"01_GT/SEG/man_seg_007_{z:03}.tif", mask)
    return masks


@pytest.mark.parametrize("source", [".", "01"])
def test_slices_that_have_masks_are_labels_of_their_stack_whose_others_are_ignored(
    slices, source, tmp_path
):
    told, output = Watching(), str(tmp_path / "out.zarr")
    report = import_images(str(tmp_path / source), output, axes="zyx", progress=told)
    assert (report.labelled, report.unlabelled) == (1, 1)
    assert any("some planes, so that the others are ignored" in note for note in told.notes)
    first, second = open_dataset(output, mixed=True).samples
    assert (second.label_kind, first.label_kind) == (None, "instances")
    for z in range(5):
        where = (z, 0, SHAPE[0], 0, SHAPE[1])
        drawn = slices.get(z, np.zeros(SHAPE, np.uint16))
        np.testing.assert_array_equal(first.labels("instances").read(*where), drawn)
        np.testing.assert_array_equal(first.ignore.read(*where), z not in slices)
    again = import_images(str(tmp_path / source), output, axes="zyx", append=True)
    assert again.skipped_known == 2


def test_masks_of_slices_are_named_by_z_and_masks_of_stacks_go_before_them(slices, tmp_path):
    labels = str(tmp_path / "01_GT/SEG/man_seg_{stem}_{z}.tif")
    source, output = str(tmp_path / "01/t{stem}.tif"), str(tmp_path / "out.zarr")
    assert import_images(source, output, labels=labels, axes="zyx").labelled == 1
    (tmp_path / "01_ST/SEG").mkdir(parents=True)
    whole = np.stack([CELLS] * 5)
    tifffile.imwrite(tmp_path / "01_ST/SEG/man_seg007.tif", whole, metadata={"axes": "ZYX"})
    output = str(tmp_path / "new.zarr")
    import_images(str(tmp_path), output, axes="zyx")
    sample = open_dataset(output, mixed=True).samples[0]
    assert sample.ignore is None


@pytest.mark.parametrize(
    ("frames", "z", "shape", "words"),
    [
        ((5, *SHAPE), 5, SHAPE, "axes zyx, got .*man_seg_009_005.tif.* zyx and 5 planes, counted"),
        (SHAPE, 0, SHAPE, "axes zyx, got .* which has yx and 1 planes"),
        ((5, *SHAPE), 0, (9, 9), "as high and wide as its image"),
        ((5, *SHAPE), 0, (*SHAPE, 3), "must be grey and of one size"),
    ],
)
def test_slices_that_fit_no_stack_are_refused(tmp_path, frames, z, shape, words):
    for name, pixels in {
        "01/t009.tif": np.ones(frames, np.uint8),
        f"01_GT/SEG/man_seg_009_{z:03}.tif": np.zeros(shape, np.uint8),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / name, pixels)
    axes = "zyx" if len(frames) == 3 else None
    with pytest.raises(InputError, match=words):
        import_images(str(tmp_path), str(tmp_path / "out.zarr"), axes=axes)
    assert not (tmp_path / "out.zarr").exists()


def test_a_folder_may_stand_on_either_side(tmp_path):
    lay(tmp_path, "p1/a.tif=p1_m/a_x.tif p2/a.tif=p2_m/a_x.tif")
    source, labels = (
        str(tmp_path / "{folder}/{stem}.tif"),
        str(tmp_path / "{folder}_m/{stem}_x.tif"),
    )
    report = import_images(source, str(tmp_path / "out.zarr"), labels=labels)
    assert (report.labelled, open_dataset(report.output).names) == (2, ("p1_a", "p2_a"))
