"""Which files are found, and which mask goes with which image."""

import os
from pathlib import Path

import pytest

from unetkit.commands.import_images.pairing import find_files, pair_files, stem
from unetkit.errors import InputError, MissingError, UsageError


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def names(paths):
    return [Path(str(path)).name for path in paths]  # type: ignore[attr-defined]


def paired(source, labels):
    pairs, _ = pair_files(str(source), None if labels is None else str(labels))
    return {pair.name: pair.mask and Path(pair.mask).name for pair in pairs}


def test_a_folder_in_the_order_of_names(tmp_path):
    touch(tmp_path, "b.png", "a.TIF", "c.jpeg", "README.md", ".DS_Store", "._a.png")
    touch(tmp_path / "sub", "d.png")
    found = find_files(str(tmp_path))
    assert names(found.files) == ["a.TIF", "b.png", "c.jpeg"]
    assert (found.hidden, found.other) == (2, ("README.md",))


def test_a_glob(tmp_path):
    touch(tmp_path, "a1.png", "a2.tif", "b.png", "a.txt", ".a3.png")
    found = find_files(str(tmp_path / "a*"))
    assert names(found.files) == ["a1.png", "a2.tif"]
    assert found.other == ("a.txt",)


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    touch(tmp_path, "a[1].png", "a1.png")
    assert names(find_files(str(tmp_path / "a[1].png")).files) == ["a[1].png"]


@pytest.mark.parametrize("source", ["nothing", "nothing*.png"])
def test_nothing_there(tmp_path, source):
    with pytest.raises(MissingError, match=r"got nothing at .*; check the path"):
        find_files(str(tmp_path / source))


def test_a_folder_whose_name_is_nearly_right_is_asked_for(tmp_path):
    touch(tmp_path / "images", "a.png")
    with pytest.raises(MissingError, match=r"; did you mean '.*images'\?"):
        find_files(str(tmp_path / "imagse"))


@pytest.mark.parametrize("target", ["a.png", "nothing.png"])
@pytest.mark.parametrize("masks", [None, "masks", "masks/{stem}.png"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, target, masks):
    images = touch(tmp_path / "images", "b.png")
    touch(tmp_path / "masks", "b.png")
    (images / "a.png").symlink_to(target)
    with pytest.raises(MissingError, match=r"a link that leads nowhere at .*a\.png"):
        paired(images, masks and tmp_path / masks)


def test_a_link_that_leads_nowhere_among_masks_is_named(tmp_path):
    touch(tmp_path / "images", "a.png")
    (touch(tmp_path / "masks") / "a.png").symlink_to("a.png")
    with pytest.raises(MissingError, match="masks must exist, got a link that leads nowhere"):
        paired(tmp_path / "images", tmp_path / "masks")


def test_no_image_among_the_files(tmp_path):
    touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match="got none among the 1 files"):
        find_files(str(tmp_path))
    with pytest.raises(InputError, match="none among the 0 files"):
        find_files(str(touch(tmp_path / "empty")))


def test_urls_and_stores_are_no_images(tmp_path):
    with pytest.raises(UsageError, match="on this machine"):
        find_files("s3://bucket/images")
    touch(tmp_path, "zarr.json")
    with pytest.raises(InputError, match="got the Zarr"):
        find_files(str(tmp_path))


def test_stems():
    assert stem("x/a.b.png") == "a.b"
    assert stem("a.ome.tif") == "a"
    assert stem("a.OME.TIFF") == "a"
    assert stem("cafe\u0301.png") == stem("caf\u00e9.tif")


def test_pairs_by_stem(tmp_path):
    images = touch(tmp_path / "images", "a.tif", "b.png", "c.png")
    masks = touch(tmp_path / "masks", "a.png", "c.tif", ".DS_Store", "notes.txt")
    assert paired(images, masks) == {"a": "a.png", "b": None, "c": "c.tif"}
    assert paired(images, masks / "*.*") == {"a": "a.png", "b": None, "c": "c.tif"}
    assert paired(images, None) == {"a": None, "b": None, "c": None}


def test_pairs_by_pattern(tmp_path):
    images = touch(tmp_path / "images", "a.png", "b.png")
    masks = touch(tmp_path / "masks", "a_seg.png", "b_seg.png", "other.png")
    assert paired(images, masks / "{stem}_seg.png") == {"a": "a_seg.png", "b": "b_seg.png"}


def test_masks_among_the_images(tmp_path):
    touch(tmp_path, "a.png", "a_seg.png", "b.png", "b_seg.png", "c.png")
    pattern = tmp_path / "{stem}_seg.png"
    assert paired(tmp_path, pattern) == {"a": "a_seg.png", "b": "b_seg.png", "c": None}


def test_a_pattern_with_the_stem_twice_and_brackets(tmp_path):
    images = touch(tmp_path / "images", "a.png")
    touch(tmp_path / "masks [1]")
    touch(tmp_path / "masks [1]" / "a", "a.png")
    touch(tmp_path / "masks [1]" / "b", "c.png")
    assert paired(images, tmp_path / "masks [1]" / "{stem}" / "{stem}.png") == {"a": "a.png"}


def test_one_image_and_one_mask_of_any_name(tmp_path):
    touch(tmp_path, "image.png", "labels.png")
    assert paired(tmp_path / "image.png", tmp_path / "labels.png") == {"image": "labels.png"}
    with pytest.raises(UsageError, match=r"must be a folder or a path with \{stem\}"):
        paired(tmp_path, tmp_path / "labels.png")


def test_one_image_takes_its_mask_out_of_many(tmp_path):
    images = touch(tmp_path / "images", "a.png", "b.png")
    masks = touch(tmp_path / "masks", "a.png", "b.png")
    assert paired(images / "a.png", masks) == {"a": "a.png"}


def test_two_files_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "a.png", "a.tif")
    with pytest.raises(InputError, match=r"different names.*a\.png.*a\.tif"):
        paired(tmp_path, None)


def test_two_masks_of_one_name_are_refused(tmp_path):
    images = touch(tmp_path / "images", "a.png")
    masks = touch(tmp_path / "masks", "a.png", "a.tif")
    with pytest.raises(InputError, match="different names"):
        paired(images, masks)


def test_a_mask_without_an_image_is_refused(tmp_path):
    images = touch(tmp_path / "images", "a.png")
    masks = touch(tmp_path / "masks", "a.png", "b.png")
    with pytest.raises(InputError, match=r"got 1 without: '.*b\.png'"):
        paired(images, masks)
    with pytest.raises(InputError, match=r"got 1 without: '.*b\.png'"):
        paired(images, masks / "{stem}.png")


def test_no_pair_at_all(tmp_path):
    images = touch(tmp_path / "images", "a.png")
    masks = touch(tmp_path / "masks", "a_mask.png")
    with pytest.raises(InputError, match=r"without: .* give --labels '.*/\{stem\}_mask.png'"):
        paired(images, masks)
    with pytest.raises(InputError, match="no pair at all"):
        paired(images / "a.png", masks)
    with pytest.raises(MissingError, match="must match at least one file"):
        paired(images, masks / "{stem}_seg.png")


def test_an_image_is_not_its_own_mask(tmp_path):
    touch(tmp_path, "a.png")
    for labels in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(InputError, match="mask must differ from its image"):
            paired(tmp_path / "a.png", labels)
    other = tmp_path / "masks"
    other.mkdir()
    os.link(tmp_path / "a.png", other / "a.png")
    with pytest.raises(InputError, match="mask must differ from its image"):
        paired(tmp_path / "a.png", other)
