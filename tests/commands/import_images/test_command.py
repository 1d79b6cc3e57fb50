"""The import as a whole: folders, slides, masks, what is told, and refusals that leave nothing."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.commands.import_images.command import (
    ImportReport,
    cautions,
    import_images,
    notes,
    remove_samples,
)
from unetkit.commands.import_images.rules import MaskRules
from unetkit.errors import (
    InputError,
    LabelError,
    MissingError,
    OutputError,
    UnetkitError,
    UsageError,
)
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_file import ImageFile
from unetkit.storage.images import open_image

RNG = np.random.default_rng(4)


class Told:
    """Keeps what a progress is told."""

    def __init__(self):
        self.notes: list[str] = []
        self.stages: list[tuple[str, int]] = []
        self.done = 0

    def start(self, what, *, total):
        self.stages.append((what, total))

    def advance(self, parts=1, *, status=""):
        self.done += parts

    def note(self, text):
        self.notes.append(text)


def save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(height=20, width=30):
    return RNG.integers(0, 256, (height, width), dtype=np.uint8)


def cells(height=20, width=30):
    mask = np.zeros((height, width), np.uint16)
    mask[2:6, 3:9], mask[2:6, 9:14], mask[12:18, 20:25] = 1, 2, 700
    return mask


def whole(data, plane=0):
    return data.read(plane, 0, data.height, 0, data.width)


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png", grey())
        save(tmp_path / "masks" / f"{name}.png", cells())
    return tmp_path


@pytest.fixture
def run(folder):
    def call(**options):
        plain = {"labels": str(folder / "masks")}
        return import_images(
            str(folder / "images"), str(folder / "data.zarr"), **{**plain, **options}
        )

    return call


def test_a_folder_with_masks(folder, run):
    (folder / "masks" / "c.png").unlink()
    (folder / "images" / ".DS_Store").write_text("x")
    (folder / "images" / "notes.txt").write_text("x")
    told = Told()
    report = run(progress=told, pixel_size="250nm")
    assert (report.made, report.samples, report.labelled, report.unlabelled) == ("dataset", 3, 2, 1)
    assert (report.skipped_hidden, report.skipped_other, report.kind) == (1, 1, "instances")
    assert report.pixel_size == {"y": 0.25, "x": 0.25}
    assert "1 image without a mask came in unlabelled" in told.notes
    assert told.done == sum(total for _, total in told.stages)
    dataset = open_dataset(report.output)
    assert dataset.names == ("a", "b", "c")
    assert [sample.label_kind for sample in dataset.samples] == ["instances", "instances", None]
    for name in "ab":
        stored = np.asarray(Image.open(folder / "images" / f"{name}.png"))
        assert np.array_equal(whole(dataset[name].data)[0], stored)
        assert np.array_equal(whole(dataset[name].labels()), cells())
    assert dataset["a"].image.pixel_size == {"y": 0.25, "x": 0.25}


def test_a_folder_without_masks_and_sizes_that_differ(folder):
    save(folder / "images" / "d.png", grey(9, 11))
    report = import_images(str(folder / "images"), str(folder / "data.zarr"))
    assert (report.made, report.samples, report.labelled, report.kind) == ("dataset", 4, 0, None)
    assert open_dataset(report.output)["d"].data.height == 9


def test_one_file_without_masks_is_a_slide(tmp_path):
    pixels = RNG.integers(0, 65536, (3, 1100, 600), dtype=np.uint16)
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        tmp_path / "big.tif",
        pixels,
        ome=True,
        metadata=metadata,
        tile=(128, 128),
        compression="lzw",
        photometric="minisblack",
    )
    report = import_images(str(tmp_path / "big.tif"), str(tmp_path / "slide.zarr"))
    assert (report.made, report.axes) == ("image", ("cyx",))
    image = open_image(report.output)
    assert image.levels > 1
    assert image.pixel_size == {"y": 0.5, "x": 0.5}
    assert np.array_equal(whole(image.data), pixels)


def test_one_file_with_its_mask_is_a_dataset(folder):
    report = import_images(
        str(folder / "images" / "a.png"),
        str(folder / "data.zarr"),
        labels=str(folder / "masks" / "b.png"),
    )
    assert (report.made, report.samples, report.labelled) == ("dataset", 1, 1)


def test_a_stack_with_axes(tmp_path):
    stack = RNG.integers(0, 256, (4, 20, 30), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", stack, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "masks" / "a.tif", np.stack([cells()] * 4), photometric="minisblack"
    )
    options = {"labels": str(tmp_path / "masks"), "axes": "zyx"}
    with pytest.raises(InputError, match="--axes"):
        import_images(str(tmp_path / "images"), str(tmp_path / "x.zarr"))
    report = import_images(str(tmp_path / "images"), str(tmp_path / "x.zarr"), **options)
    sample = open_dataset(report.output)["a"]
    assert np.array_equal(whole(sample.data, 2)[0], stack[2])
    assert np.array_equal(whole(sample.labels(), 3), cells())


def test_alpha_is_dropped_and_said_once(folder, run):
    for name in "abc":
        save(folder / "images" / f"{name}.png", np.dstack([grey(), grey()]))
    told = Told()
    assert run(progress=told).alpha_dropped == 3
    assert told.notes == ["dropped the alpha channel of 3 images"]
    assert open_dataset(str(folder / "data.zarr"))["a"].data.channels is None


def lay_set(folder, *, masks=()):
    """Lay out a set of two OME-TIFFs, one channel each, and what belongs to it."""
    tiff = (
        '<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="s_C{c}.ome.tif">'
        "urn:uuid:0000000{c}</UUID></TiffData>"
    )
    planes = [grey(), grey()]
    (folder / "set").mkdir()
    for c, plane in enumerate(planes):
        xml = (
            f'<OME xmlns="a" UUID="urn:uuid:0000000{c}"><Image><Pixels DimensionOrder="XYCZT"'
            ' Type="uint8" SizeX="30" SizeY="20" SizeC="2" SizeZ="1" SizeT="1">'
            f"{tiff.format(c=0)}{tiff.format(c=1)}</Pixels></Image></OME>"
        )
        path = folder / "set" / f"s_C{c}.ome.tif"
        tifffile.imwrite(path, plane, description=xml, metadata=None)
        if c in masks:
            save(folder / "drawn" / f"s_C{c}.png", cells())
    return np.stack(planes)


@pytest.mark.parametrize("masks", [(), (0,), (1,)])
def test_a_folder_of_a_set_is_one_sample(folder, masks):
    planes = lay_set(folder, masks=masks)
    save(folder / "set" / "z.png", RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    out = str(folder / "data.zarr")
    labels = str(folder / "drawn") if masks else None
    report = import_images(str(folder / "set"), out, labels=labels, channels="0,1")
    assert (report.samples, report.labelled) == (2, len(masks))
    sample = open_dataset(out).samples[0]
    assert sample.name == f"s_C{max(masks, default=0)}"
    assert sample.image.attributes["source_set"] == ["s_C0.ome.tif", "s_C1.ome.tif"]
    assert np.array_equal(whole(sample.data), planes)


def test_two_masks_for_one_set_are_refused(folder):
    lay_set(folder, masks=(0, 1))
    with pytest.raises(InputError, match="files of one set must have one mask"):
        import_images(str(folder / "set"), str(folder / "x"), labels=str(folder / "drawn"))


def punch(path, pixels):
    """Save a TIFF of which one strip was never written."""
    tifffile.imwrite(path, pixels, rowsperstrip=5, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["StripOffsets"]
        tag.overwrite([*tag.value[:-1], 0])
    return str(path)


@pytest.mark.parametrize("holed", ["image", "mask"])
def test_strips_that_are_absent_are_counted_said_and_refused(folder, holed):
    image, mask = str(folder / "images" / "a.png"), str(folder / "masks" / "a.png")
    if holed == "image":
        image = punch(folder / "hole.tif", grey())
    else:
        mask = punch(folder / "hole.tif", cells())
    out, told = str(folder / "data.zarr"), Told()
    with pytest.raises(InputError, match=r"all of its 4 tiles or strips, got 1 absent .*hole\.tif"):
        import_images(image, out, labels=mask, require_complete_input=True)
    assert not (folder / "data.zarr").exists()
    report = import_images(image, out, labels=mask, progress=told)
    assert report.absent_parts == 1
    words = f"1 {holed} such as .*hole.tif': 1 tile or strip of 4 were never written"
    assert any(re.match(words, note) for note in told.notes)
    found = open_dataset(out).samples[0].image
    noted = found.attributes if holed == "image" else found.label_attributes["instances"]
    assert noted["absent_parts"] == {"absent": 1, "of": 4}


def tear(path, pixels, *strips):
    """Save a TIFF of which some strips of five rows do not decode."""
    tifffile.imwrite(path, pixels, rowsperstrip=5, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offsets = tif.pages[0].dataoffsets
    content = bytearray(path.read_bytes())
    for number in strips:
        content[offsets[number] : offsets[number] + 4] = b"torn"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("torn", ["image", "mask", "outlines"])
def test_strips_that_do_not_decode_are_refused_or_come_in_as_unknown(folder, torn):
    image, mask = str(folder / "images" / "a.png"), str(folder / "masks" / "a.png")
    pixels = cells() if torn == "mask" else grey()
    if torn == "mask":
        mask = tear(folder / "torn.tif", pixels, 1, 3)
    else:
        image = tear(folder / "torn.tif", pixels, 1, 3)
    if torn == "outlines":
        mask = str(folder / "a.geojson")
        outline = [[[2, 3], [20, 3], [20, 18], [2, 18], [2, 3]]]
        geometry = {"type": "Polygon", "coordinates": outline}
        feature = {"type": "Feature", "geometry": geometry, "properties": {}}
        collection = {"type": "FeatureCollection", "features": [feature]}
        (folder / "a.geojson").write_text(json.dumps(collection))
    out, told = str(folder / "data.zarr"), Told()
    words = r"got 2 of 4 damaged in '.*torn\.tif', such as rows 5 to 9, columns 0 to 29 of plane 0"
    for refused in ({}, {"require_complete_input": True}):
        with pytest.raises(InputError, match=words):
            import_images(image, out, labels=mask, **refused)
    with pytest.raises(UsageError, match="damaged must be error where the input must be"):
        import_images(image, out, labels=mask, require_complete_input=True, damaged="fill")
    assert not (folder / "data.zarr").exists()
    report = import_images(image, out, labels=mask, damaged="fill", progress=told)
    assert report.damaged_parts == 2
    (note,) = [note for note in told.notes if "could not be decoded" in note]
    assert "2 tiles or strips of 4" in note
    assert note.endswith("plane 0, ignored in the labels")
    assert note in report.warnings
    sample = open_dataset(out).samples[0]
    lost = np.zeros((20, 30), bool)
    lost[5:10] = lost[15:20] = True
    assert np.array_equal(whole(sample.ignore) != 0, lost)
    found = sample.labels() if torn == "mask" else sample.data
    assert np.array_equal(whole(found).reshape(20, 30), np.where(lost, 0, pixels))
    noted = (
        sample.image.label_attributes["instances"] if torn == "mask" else sample.image.attributes
    )
    boxes = [[0, 5, 10, 0, 30], [0, 15, 20, 0, 30]]
    assert noted["damaged_parts"] == {"damaged": 2, "of": 4, "where": boxes}


def test_a_slide_with_a_strip_that_does_not_decode(folder):
    slide, out = tear(folder / "torn.tif", grey(), 0), str(folder / "slide.zarr")
    report = import_images(slide, out, damaged="fill")
    assert (report.made, report.damaged_parts) == ("image", 1)
    assert "rows 0 to 4" in report.warnings[0]
    image = open_image(out)
    assert image.attributes["damaged_parts"]["where"] == [[0, 0, 5, 0, 30]]
    assert not whole(image.data)[..., :5, :].any()


def test_what_a_reader_remarks_about_a_mask_is_said(folder, run):
    picture = Image.fromarray(cells().astype(np.uint8) % 3).convert("P")
    picture.putpalette([0, 0, 0] + [255, 255, 255] * 2)
    picture.save(folder / "masks" / "a.png")
    alpha = np.zeros((20, 30, 4), np.uint8)
    alpha[..., 3] = (cells() > 0) * 255
    save(folder / "masks" / "b.png", alpha)
    told = Told()
    run(kind="classes", classes="none,one,two,all,seven", progress=told)
    assert any("1 mask carries a palette, whose indices came in, 0 (" in n for n in told.notes)
    assert any(note.startswith("1 mask has transparency (an alpha channel)") for note in told.notes)
    first, second, _ = open_dataset(str(folder / "data.zarr")).samples
    assert np.array_equal(whole(first.labels()), cells() % 256 % 3)
    assert np.array_equal(whole(second.labels()) > 0, cells() > 0)


def test_damaged_data_of_a_jpeg_are_said(tmp_path):
    for name in "ab":
        save(tmp_path / "jpegs" / f"{name}.jpg", np.tile(np.arange(240, dtype=np.uint8), (240, 1)))
    data = bytearray((tmp_path / "jpegs" / "b.jpg").read_bytes())
    noise = np.random.default_rng(0).integers(0, 255, 64, dtype=np.uint8)
    data[len(data) // 2 : len(data) // 2 + 64] = noise.tobytes()
    (tmp_path / "jpegs" / "b.jpg").write_bytes(data)
    told = Told()
    import_images(str(tmp_path / "jpegs"), str(tmp_path / "data.zarr"), progress=told)
    assert [note[:27] for note in told.notes] == ["1 image holds damaged data,"]


def test_damaged_data_of_a_jpeg_inside_a_tiff_are_said(tmp_path):
    (tmp_path / "tiffs").mkdir()
    pixels = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
    for name, options in {"a": {"compression": "jpeg"}, "b": {"compression": "tiff_lzw"}}.items():
        Image.fromarray(pixels).save(tmp_path / "tiffs" / f"{name}.tif", **options)
    torn = tmp_path / "tiffs" / "c.tif"
    tifffile.imwrite(torn, pixels, compression="jpeg", rowsperstrip=80)
    with tifffile.TiffFile(torn) as tif:
        offset, count = tif.pages[0].dataoffsets[1], tif.pages[0].databytecounts[1]
    content = bytearray(torn.read_bytes())
    content[offset + count // 2 + 200 : offset + count - 100] = b"\x55" * (count - count // 2 - 300)
    torn.write_bytes(content)
    told = Told()
    import_images(str(tmp_path / "tiffs"), str(tmp_path / "data.zarr"), progress=told)
    assert [note[:27] for note in told.notes] == ["1 image holds damaged data,"]


def test_a_mask_that_was_drawn_upright(folder, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey(30, 20)).save(folder / "images" / "a.png", exif=exif)
    with pytest.raises(InputError, match=r"a\.png' carries an orientation, which is not applied"):
        run()


def test_channels_are_chosen_and_ordered(folder, run):
    colours = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name in "abc":
        save(folder / "images" / f"{name}.png", colours)
    run(channels="blue,0")
    sample = open_dataset(str(folder / "data.zarr"))["a"]
    assert sample.image.channel_names == ("blue", "red")
    assert np.array_equal(whole(sample.data), np.moveaxis(colours[..., [2, 0]], -1, 0))


def test_classes_with_names(folder, run):
    drawn = (cells() > 0).astype(np.uint8) * 255
    for name in "abc":
        save(folder / "masks" / f"{name}.png", drawn)
    told = Told()
    report = run(kind="classes", classes="background, cell", progress=told)
    assert report.mapping == {"0": 0, "255": 1}
    assert told.notes == [
        "values in the masks became classes: 0 -> 0 (background), 255 -> 1 (cell)"
    ]
    sample = open_dataset(report.output)["a"]
    assert sample.class_names == ("background", "cell")
    assert sample.image.label_attributes["classes"]["mapping"] == {"0": 0, "255": 1}
    assert np.array_equal(whole(sample.labels()), drawn > 0)


def test_ignored_pixels_are_stored_apart(folder, run):
    run(ignore=700)
    sample = open_dataset(str(folder / "data.zarr"))["b"]
    assert sample.ignore is not None
    assert np.array_equal(whole(sample.ignore), cells() == 700)
    assert whole(sample.labels()).max() == 2


def test_binary_masks_need_a_word(folder, run):
    for name in "abc":
        save(folder / "masks" / f"{name}.png", (cells() > 0).astype(np.uint8) * 255)
    with pytest.raises(LabelError, match="cells that touch would merge"):
        run()
    report = run(connected_components=True)
    labels = whole(open_dataset(report.output)["a"].labels())
    assert sorted(np.unique(labels)) == [0, 1, 2]


def test_adding_to_a_dataset(folder, run):
    run()
    save(folder / "more" / "d.png", grey())
    save(folder / "more_masks" / "d.png", cells())
    options = {"labels": str(folder / "more_masks"), "append": True}
    import_images(str(folder / "more"), str(folder / "data.zarr"), **options)
    dataset = open_dataset(str(folder / "data.zarr"))
    assert dataset.names == ("a", "b", "c", "d")
    assert np.array_equal(whole(dataset["d"].labels()), cells())
    save(folder / "more" / "d.png", grey())
    with pytest.raises(OutputError, match="new names"):
        import_images(str(folder / "more"), str(folder / "data.zarr"), **options)


def test_an_output_that_is_there_is_kept_unless_replaced(folder, run):
    run()
    told = Told()
    with pytest.raises(OutputError, match="--overwrite"):
        run(progress=told)
    assert told.stages == []  # before hours are spent on reading
    assert run(labels=None, overwrite=True).labelled == 0
    assert open_dataset(str(folder / "data.zarr"))["a"].label_kind is None


def test_nothing_foreign_is_replaced(folder, run):
    (folder / "data.zarr").mkdir()
    (folder / "data.zarr" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError):
        run(overwrite=True)
    assert (folder / "data.zarr" / "thesis.txt").read_text() == "mine"
    image = folder / "images" / "a.png"
    with pytest.raises(OutputError):
        import_images(str(image), str(image), overwrite=True)
    assert image.is_file()


REFUSED: list[tuple[dict[str, Any], type[UnetkitError], str]] = [
    ({"kind": "cells"}, UsageError, "instances, classes"),
    ({"classes": "a,b"}, UsageError, "--kind classes"),
    ({"kind": "classes", "classes": "a,,b"}, UsageError, "different names"),
    ({"kind": "classes", "classes": "a,a"}, UsageError, "different names"),
    ({"kind": "classes", "connected_components": True}, UsageError, "leave one out"),
    ({"kind": "classes", "classes": "a,b"}, UsageError, "each of the 4 values"),
    ({"kind": "classes"}, LabelError, "4 values 0, 1, 2, 700"),
    ({"connected_components": True}, LabelError, "0 and one other number"),
    ({"labels": None, "ignore": 3}, UsageError, "--ignore must come with --labels"),
    ({"labels": None, "kind": "classes"}, UsageError, "must come with --labels"),
    ({"axes": "yz"}, UsageError, "with y and x"),
    ({"axes": "zyx"}, InputError, "axes"),
    ({"channels": "1"}, UsageError, "channels must be among"),
    ({"pixel_size": "wide"}, UsageError, "pixel size"),
    ({"append": True, "overwrite": True}, UsageError, "leave one out"),
    ({"append": True}, InputError, "data.zarr"),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSED)
def test_refusals_leave_nothing(folder, run, options, error, words):
    before = sorted(folder.rglob("*"))
    with pytest.raises(error, match=words):
        run(**options)
    assert sorted(folder.rglob("*")) == before
    run()


@pytest.mark.parametrize(
    ("name", "pixels", "words"),
    [
        ("masks/b.png", cells(21, 30), r"21 x 30 in .*masks.b\.png.* for 20 x 30 in"),
        ("masks/b.png", np.dstack([grey()] * 2 + [grey() // 2]), "different colours"),
        ("images/b.png", np.dstack([grey()] * 3), "equally many channels, got 1 in .* and 3 in"),
        ("images/b.tif", grey(), "different names"),
        ("masks/d.png", cells(), "without"),
        ("images/c.png", None, r"c\.png"),
    ],
)
def test_files_that_do_not_fit_or_are_cut_short_leave_nothing(folder, run, name, pixels, words):
    if pixels is None:
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    else:
        save(folder / name, pixels)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=words):
        run()
    assert sorted(folder.rglob("*")) == before


def test_nan_comes_in(tmp_path):
    pixels = np.full((8, 9), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    report = import_images(str(tmp_path / "a.tif"), str(tmp_path / "a.zarr"))
    assert np.isnan(whole(open_image(report.output).data)).all()


@pytest.mark.parametrize(
    ("name", "objects", "alpha"),
    [
        ("usiigaci_phase", 653, 0),
        ("dic_hela", 98, 0),
        ("phc_u373", 100, 0),
        ("dsb2018_mixed", 3028, 60),
    ],
)
def test_real_instances(test_data, tmp_path, name, objects, alpha):
    report = import_images(
        str(test_data / name / "images"),
        str(tmp_path / "data.zarr"),
        labels=str(test_data / name / "masks"),
    )
    assert report.alpha_dropped == alpha
    assert report.unlabelled == 0
    counts = [
        np.unique(whole(sample.labels())).size - 1 for sample in open_dataset(report.output).samples
    ]
    assert sum(counts) == objects


def test_real_classes(test_data, tmp_path):
    labels = {"labels": str(test_data / "isbi2012_em" / "masks")}
    source = str(test_data / "isbi2012_em" / "images")
    with pytest.raises(LabelError, match="the one number 255 for 2340 separate pieces"):
        import_images(source, str(tmp_path / "a.zarr"), **labels)
    assert import_images(
        source, str(tmp_path / "a.zarr"), kind="classes", classes="membrane,cell", **labels
    ).class_names == ("membrane", "cell")


def test_real_files_that_are_messy(test_data, tmp_path):
    messy = test_data / "axon_sem" / "raw_messy"
    pattern = str(messy / "{stem}_seg-axonmyelin-manual.png")
    with pytest.raises(LabelError, match="got the 5 values 0, 128, 130, 233, 255 in"):
        import_images(str(messy), str(tmp_path / "a.zarr"), labels=pattern, kind="classes")
    with pytest.raises(LabelError, match="values 0, 128, 130, 233, 255 in"):
        import_images(str(messy), str(tmp_path / "a.zarr"), labels=pattern)
    assert list(tmp_path.iterdir()) == []
    one = import_images(
        str(messy / "sub-rat6_sample-data15_SEM.png"),
        str(tmp_path / "a.zarr"),
        labels=pattern,
        kind="classes",
        classes="background,myelin,axon",
    )
    assert (one.alpha_dropped, one.mapping) == (1, {"0": 0, "127": 1, "255": 2})


FILE = ImageFile("a.jpg", "yx", (1, 1), np.dtype(np.uint8), lambda _: iter(()))


def report(**changes):
    plain = {"output": "a.zarr", "made": "dataset", "samples": 3, "labelled": 1, "unlabelled": 2}
    return ImportReport(**{**plain, **changes})  # type: ignore[arg-type]


def test_plain_values_are_json():
    values = report(mapping={"0": 0}, class_names=("a",), axes=("yx",)).to_dict()
    assert json.loads(json.dumps(values))["samples"] == 3


def test_what_was_passed_over_or_dropped_is_said_and_nothing_else():
    assert notes(report(), MaskRules()) == []
    assert cautions(report(), [FILE], MaskRules(), asked=False) == []
    found = report(skipped_hidden=1, skipped_other=2, alpha_dropped=1200)
    assert notes(found, MaskRules()) == ["skipped 1 hidden file", "skipped 2 files of other kinds"]
    assert cautions(found, [FILE], MaskRules(), asked=True) == [
        "dropped the alpha channel of 1,200 images",
        "2 images without a mask came in unlabelled",
    ]


def test_remarks_of_readers_are_counted():
    odd = ImageFile("b.jpg", "yx", (1, 1), FILE.dtype, FILE.strips, remarks=("were turned",))
    said = cautions(report(), [FILE, odd, odd], MaskRules(), asked=False)
    assert said == ["2 images were turned"]


def test_masks_without_foreground_are_worth_a_word():
    for kind, what in (("instances", "foreground"), ("classes", "second class")):
        (said,) = cautions(report(), [FILE], MaskRules(kind, empty=True), asked=False)
        assert said.startswith(f"no {what} was found in any mask")


def test_classes_and_their_values():
    rules = MaskRules("classes", ignore=7, ignored=5)
    said = notes(report(mapping={"0": 0, "255": 1}, class_names=("0", "axon")), rules)
    assert said == [
        "values in the masks became classes: 0 -> 0, 255 -> 1 (axon)",
        "5 pixels of value 7 will be ignored",
    ]


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "options", [{}, {"ignore": 700}, {"kind": "classes", "classes": "a,b,c,d"}]
)
def test_a_folder_with_one_new_image_adds_that_one(folder, run, options):
    run(**options)
    before = files_of(folder / "data.zarr")
    told = Told()
    assert run(append=True, progress=told, **options).skipped_known == 3
    assert "skipped 3 images that the dataset has already" in told.notes
    assert files_of(folder / "data.zarr") == before
    save(folder / "images" / "d.png", grey())
    save(folder / "masks" / "d.png", cells())
    report = run(append=True, **options)
    assert (report.samples, report.labelled, report.skipped_known) == (1, 1, 3)
    assert open_dataset(report.output).names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: save(folder / "images" / "b.png", grey()),
        lambda folder: save(folder / "masks" / "b.png", cells() // 2),
    ],
)
def test_an_image_or_a_mask_that_changed_is_not_skipped(folder, run, change):
    run()
    save(folder / "images" / "d.png", grey())
    change(folder)
    before = files_of(folder / "data.zarr")
    with pytest.raises(OutputError, match=r"got 'b', which .* 'unetkit remove .*data.zarr b'"):
        run(append=True)
    assert files_of(folder / "data.zarr") == before
    remove_samples(str(folder / "data.zarr"), "b")
    assert run(append=True).skipped_known == 2
    assert set(open_dataset(str(folder / "data.zarr")).names) == set("abcd")


@pytest.mark.parametrize("folder_is_gone", [False, True])
def test_samples_are_removed(folder, run, folder_is_gone):
    out = str(run().output)
    if folder_is_gone:
        shutil.rmtree(folder / "data.zarr" / "b")
        with pytest.raises(MissingError, match=r"'unetkit remove .*data.zarr b', or restore it"):
            open_dataset(out)
    assert remove_samples(out, "b", "b").to_dict() == {
        "output": out,
        "removed": ("b",),
        "samples": 2,
    }
    assert open_dataset(out).names == ("a", "c")
    assert not (folder / "data.zarr" / "b").exists()


@pytest.mark.parametrize("left", ["b", ".b.0123456789abcdef.unetkit-old"])
def test_a_removal_that_was_killed_is_brought_to_its_end(folder, run, left):
    out = run().output
    kept = folder / "data.zarr" / "b"
    shutil.copytree(kept, folder / "kept")
    remove_samples(out, "b")
    whole = files_of(folder / "data.zarr")
    (folder / "kept").rename(kept.with_name(left))
    assert remove_samples(out, "b").samples == 2
    assert files_of(folder / "data.zarr") == whole
    assert sorted(path.name for path in kept.parent.iterdir() if "b" in path.name) == []


@pytest.mark.parametrize("goes_on", ["append", "remove"])
def test_what_was_half_removed_goes_with_the_next_change(folder, run, goes_on):
    """As where an append is killed while it clears a sample that is in no list."""
    out = run().output
    left = folder / "data.zarr" / ".d.0123456789abcdef.unetkit-old"
    shutil.copytree(folder / "data.zarr" / "b", left)
    if goes_on == "append":
        save(folder / "images" / "d.png", grey())
        run(append=True)
    else:
        remove_samples(out, "a")
    assert not left.exists()


def test_a_removal_takes_no_folder_that_is_no_sample(folder, run):
    out = run().output
    (folder / "data.zarr" / "notes").mkdir()
    before = files_of(folder)
    for name in ("notes", "OME", "..", "zarr.json", ".a"):
        with pytest.raises(InputError, match="must be among 'a', 'b', 'c', got"):
            remove_samples(out, name)
    assert (folder / "data.zarr" / "notes").exists()
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ([], UsageError, "got none; 'unetkit info' lists them"),
        (["a", "x"], InputError, "among 'a', 'b', 'c', got 'x'"),
        (["a", "b", "c"], UsageError, "a sample must be left"),
    ],
)
def test_what_is_not_removed(folder, run, names, error, words):
    out = str(run().output)
    before = files_of(folder)
    with pytest.raises(error, match=words):
        remove_samples(out, *names)
    with pytest.raises(MissingError):
        remove_samples(str(folder / "nothing.zarr"), "a")
    assert files_of(folder) == before


def test_a_full_disk_leaves_a_dataset_as_it_was(folder, run, faults):
    """Whatever file is refused, the next run adds all."""
    run()
    for name in "de":
        save(folder / "images" / f"{name}.png", grey())
        save(folder / "masks" / f"{name}.png", cells())
    before = sorted(folder.rglob("*")), files_of(folder)
    for part in ("e/0/", "e/labels/instances/0", "d/zarr.json", ".zarr.json"):
        full = faults.at("open", f"data.zarr/{part}", errno.ENOSPC)
        with full, pytest.raises((UnetkitError, OSError)):
            run(append=True)
        assert (sorted(folder.rglob("*")), files_of(folder)) == before
    assert run(append=True).samples == 2


GREYS = {0: 0, 127: 1, 128: 1, 130: 1, 233: 2, 255: 2}


def stray(low=0, high=6):
    values = np.array(list(GREYS), np.uint8)[low:high]
    return values[RNG.integers(0, len(values), (20, 30))]


def test_stray_values_join_to_classes(folder, run):
    for name in "abc":
        save(folder / "masks" / f"{name}.png", stray())
    options = {"kind": "classes", "classes": "233-255=axon,0=background,127-130=myelin"}
    with pytest.raises(LabelError, match="--classes 0=background,127-255=cell"):
        run(kind="classes")
    told = Told()
    report = run(**options, progress=told)
    assert report.class_names == ("background", "myelin", "axon")
    assert told.notes == [
        "values in the masks became classes: 0 -> 0 (background), 127 128 130 -> 1 (myelin),"
        " 233 255 -> 2 (axon)"
    ]
    drawn = np.asarray(Image.open(folder / "masks" / "b.png"))
    stored = whole(open_dataset(report.output)["b"].labels())
    assert np.array_equal(stored, np.vectorize(GREYS.get)(drawn))
    save(folder / "images" / "d.png", grey())
    save(folder / "masks" / "d.png", stray(1, 3) + np.uint8(1))
    report = run(kind="classes", append=True)
    assert (report.samples, report.class_names) == (1, ("background", "myelin", "axon"))
    assert (whole(open_dataset(report.output)["d"].labels()) == 1).all()
    with pytest.raises(UsageError, match="must be those of"):
        run(kind="classes", append=True, classes="0-130=background,131-232=myelin,233-255=axon")
    save(folder / "images" / "e.png", grey())
    save(folder / "masks" / "e.png", stray(1, 3))
    document = folder / "data.zarr/a/labels/classes/zarr.json"
    whole_one = document.read_text()
    for key, value in (
        ("mapping", None), ("mapping", [1]), ("mapping", {"0": 99}), ("mapping", {"x": 0}),
        ("mapping", {"0": 1.5}), ("ranges", 3), ("ranges", [[0]]),
    ):  # fmt: skip
        changed = json.loads(whole_one)
        changed["attributes"]["unetkit"][key] = value
        document.write_text(json.dumps(changed))
        before = files_of(folder)
        with pytest.raises(InputError, match=r"mapping (and ranges )?of .* import the images anew"):
            run(kind="classes", append=True)
        assert files_of(folder) == before


@pytest.mark.parametrize(
    ("classes", "error", "words"),
    [
        ("0=a,1", UsageError, "must be names, or values with names"),
        ("0=a,5-3=b", UsageError, "must be names, or values with names"),
        ("0=a,x=b", UsageError, "must be names, or values with names"),
        ("0-2=a,2-255=b", UsageError, "must lie apart, got 2 for both 'a' and 'b'"),
        ("0=a,1-99=b", LabelError, r"named as classes \(0, 1-99\), got 700 as well"),
    ],
)
def test_values_without_one_class_are_refused(folder, run, classes, error, words):
    before = files_of(folder)
    with pytest.raises(error, match=words):
        run(kind="classes", classes=classes)
    assert files_of(folder) == before


@pytest.mark.parametrize(("value", "dtype"), [(-1, "i2"), (-1, "f4"), (-2, "i8"), (2**40, "i8")])
@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_any_number_may_mark_what_nobody_judged(tmp_path, value, dtype, kind):
    labels = cells().astype(dtype)
    labels[labels == 700] = 3
    labels[:, 27:] = value
    tifffile.imwrite(tmp_path / "a.tif", grey())
    tifffile.imwrite(tmp_path / "m.tif", labels)
    options = {"labels": str(tmp_path / "m.tif"), "kind": kind}
    with pytest.raises(LabelError, match="--ignore=-" if value < 0 else "from 0 to 4294967295"):
        import_images(str(tmp_path / "a.tif"), str(tmp_path / "d.zarr"), **options)
    import_images(str(tmp_path / "a.tif"), str(tmp_path / "d.zarr"), ignore=value, **options)
    sample = open_dataset(str(tmp_path / "d.zarr"))["a"]
    assert np.array_equal(whole(sample.ignore), labels == value)
    assert np.array_equal(whole(sample.labels()), np.where(labels == value, 0, labels))
    tifffile.imwrite(tmp_path / "m.tif", np.where(labels == 1, labels.dtype.type(-7), labels))
    with pytest.raises(LabelError, match="numbers from 0"):
        import_images(str(tmp_path / "a.tif"), str(tmp_path / "e.zarr"), ignore=value, **options)


def test_a_black_image_without_objects_is_a_good_example(folder, run):
    save(folder / "images" / "blank.png", np.zeros((20, 30), np.uint8))
    save(folder / "masks" / "blank.png", np.zeros((20, 30), np.uint8))
    assert run().labelled == 4
    save(folder / "images" / "b.png", cells())
    with pytest.raises(InputError, match="the same pixels"):
        run(overwrite=True)


def stack_of(folder, name, channels):
    pixels = np.stack([np.full((20, 30), "rgb".index(c) + 1, np.uint8) for c in channels])
    metadata = {"axes": "CYX", "Channel": {"Name": list(channels)}}
    tifffile.imwrite(
        folder / f"{name}.tif", pixels, ome=True, metadata=metadata, photometric="minisblack"
    )


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (("rgb", "rgb"), None),
        (("rgb", "bgr"), "different orders: r, g, b in '.*a.tif'; b, g, r in '.*b.tif'"),
        (("rg", "rb"), "different names: r, g in '.*a.tif'; r, b in '.*b.tif'"),
    ],
)
def test_orders_of_channels_that_differ_are_told_and_kept(tmp_path, orders, said):
    for name, channels in zip("ab", orders, strict=True):
        stack_of(tmp_path, name, channels)
    told = Told()
    out = str(tmp_path / "d.zarr")
    import_images(str(tmp_path), out, progress=told)
    found = [note for note in told.notes if "channels have" in note]
    assert len(found) == (said is not None)
    assert said is None or re.search(said, found[0])
    for name, channels in zip("ab", orders, strict=True):
        image = open_image(f"{out}/{name}")
        assert "".join(image.channel_names) == channels
    if said is None or "orders" in said:
        import_images(str(tmp_path), f"{out}2", channels="2")
        values = [int(whole(s.data).max()) for s in open_dataset(f"{out}2").samples]
        assert values == [3, 3]
    stack_of(tmp_path, "c", orders[1])
    import_images(str(tmp_path / "c.tif"), out, append=True, progress=(more := Told()))
    assert any("channels have" in note for note in more.notes) == (said is not None)
    if said and "orders" in said:
        (value,) = {int(whole(s.data).max()) for s in open_dataset(out, channels="2").samples}
        assert value == 3


CHANNELS = {"0000": 3, "0001": 9}


def lay_files(folder, layout):
    """Lay images of 20 x 30 pixels by name, each of one value; masks are called so."""
    for name, value in layout.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        full = cells() if isinstance(value, str) else np.full((20, 30), value, np.uint8)
        Image.fromarray(full).save(folder / name)


@pytest.mark.parametrize(
    ("images", "labels", "channels", "names"),
    [
        ("img", "lab", [3, 9], ("0", "1")),
        ("img", "lab/{stem}.png", [3, 9], ("0", "1")),
        ("img/{stem}_{channel}.png", "lab", [3, 9], ("0", "1")),
        ("img/*_0000.png", "lab", [3], ("0",)),
        ("img/{stem}_0001.png", "lab/{stem}.png", [9], ("0",)),
    ],
)
def test_the_folders_of_nnu_net(tmp_path, images, labels, channels, names):
    files = {f"img/c_{i}_{c}.png": v for i in range(2) for c, v in CHANNELS.items()}
    lay_files(tmp_path, {**files, "lab/c_0.png": "mask", "lab/c_1.png": "mask"})
    out = str(tmp_path / "d.zarr")
    report = import_images(str(tmp_path / images), out, labels=str(tmp_path / labels))
    assert (report.samples, report.labelled) == (2, 2)
    for sample in open_dataset(out).samples:
        assert whole(sample.data)[:, 0, 0].tolist() == channels
        assert sample.image.channel_names == names
    assert open_dataset(out).names == ("c_0", "c_1")


def test_a_file_a_channel_by_name(tmp_path):
    lay_files(tmp_path, {f"{n}_{c}.png": v for n in "ab" for c, v in (("DAPI", 1), ("GFP", 2))})
    out = str(tmp_path / "d.zarr")
    import_images(str(tmp_path / "{stem}_{channel}.png"), out, progress=(told := Told()))
    assert told.notes == ["joined the files DAPI, GFP of each image as its channels"]
    for sample in open_dataset(out).samples:
        assert sample.image.channel_names == ("DAPI", "GFP")
        assert whole(sample.data)[:, 0, 0].tolist() == [1, 2]
    lay_files(tmp_path, {"c_DAPI.png": 1})
    with pytest.raises(InputError, match="got DAPI of 'c'"):
        import_images(str(tmp_path / "{stem}_{channel}.png"), out, overwrite=True)
    save(tmp_path / "c_GFP.png", grey(9, 9))
    with pytest.raises(InputError, match="of one size and one type"):
        import_images(str(tmp_path / "{stem}_{channel}.png"), out, overwrite=True)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("t/*_img.png", "t/{stem}_masks.png"),
        ("t/{stem}_img.png", "t/{stem}_masks.png"),
        ("t/*_img.png", "t/*_masks.png"),
    ],
)
def test_the_folder_of_cellpose(tmp_path, images, labels):
    lay_files(tmp_path, {f"t/w{i}_{k}.png": v for i in range(2) for k, v in CELLPOSE.items()})
    out = str(tmp_path / "d.zarr")
    import_images(str(tmp_path / images), out, labels=str(tmp_path / labels))
    assert open_dataset(out).names == ("w0", "w1")
    assert all(np.array_equal(whole(s.labels()), cells()) for s in open_dataset(out).samples)


CELLPOSE = {"img": 5, "masks": "mask", "flows": 7}


@pytest.mark.parametrize(
    ("layout", "images", "labels"),
    [
        ({f"t/w{i}_{k}.png": v for i in range(2) for k, v in CELLPOSE.items()}, "t",
         "t/{stem}_masks.png"),
        ({"i/a_x.png": 1, "i/b_x.png": 2, "m/a.png": "mask", "m/b.png": "mask"}, "i", "m"),
        ({"i/a.png": 1, "i/b.png": 2, "m/a_m.png": "mask", "m/b_m.png": "mask"}, "i", "m"),
    ],
)  # fmt: skip
def test_the_advice_where_names_differ_works(tmp_path, layout, images, labels):
    lay_files(tmp_path, layout)
    out = str(tmp_path / "d.zarr")
    paths = {"source": str(tmp_path / images), "labels": str(tmp_path / labels)}
    with pytest.raises(InputError) as caught:
        import_images(output=out, **paths)
    *words, last = shlex.split(str(caught.value).partition("; where names differ, give ")[2])
    advised = {"labels": last} | ({"source": words[0]} if words[0] != "--labels" else {})
    report = import_images(output=out, **{**paths, **advised})
    assert report.labelled == 2


def test_a_glob_takes_its_masks_out_of_a_folder_of_more(folder):
    told = Told()
    report = import_images(
        str(folder / "images" / "[ab].png"),
        str(folder / "data.zarr"),
        labels=str(folder / "masks"),
        progress=told,
    )
    assert (report.samples, report.labelled) == (2, 2)
    assert "left out 1 mask of other images" in told.notes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "a_seg"), "'a_seg.png' came in as an image, and may be the mask of 'a'"),
        (("a", "a_seg-axon-manual"), "may be the mask of 'a'; masks are named by --labels"),
        (("a_img", "a_cp_masks"), "laid out as Cellpose does"),
        (("a", "b_seg"), None),
        (("segment", "a"), None),
        (("t_0000", "t_0001", "u_0000", "u_0001"), "may be channels of one; to join them, give"),
    ],
)
def test_a_messy_folder_is_worth_a_word(tmp_path, names, said):
    lay_files(tmp_path, {f"i/{name}.png": number for number, name in enumerate(names)})
    told = Told()
    import_images(str(tmp_path / "i"), str(tmp_path / "d.zarr"), progress=told)
    assert (said is None and not told.notes) or (said is not None and said in told.notes[0])
