"""The import as a whole: folders, slides, masks, what is told, and refusals that leave nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.commands.import_images.command import ImportReport, import_images, notes
from unetkit.commands.import_images.masks import MaskRules
from unetkit.errors import InputError, LabelError, OutputError, UnetkitError, UsageError
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
    assert notes(report(), [FILE], MaskRules(), asked=False) == []
    said = notes(
        report(skipped_hidden=1, skipped_other=2, alpha_dropped=1200),
        [FILE],
        MaskRules(),
        asked=True,
    )
    assert said == [
        "skipped 1 hidden file",
        "skipped 2 files of other kinds",
        "dropped the alpha channel of 1,200 images",
        "2 images without a mask came in unlabelled",
    ]


def test_remarks_of_readers_are_counted():
    odd = ImageFile("b.jpg", "yx", (1, 1), FILE.dtype, FILE.strips, remarks=("were turned",))
    assert notes(report(), [FILE, odd, odd], MaskRules(), asked=False) == ["2 images: were turned"]


def test_masks_without_foreground_are_worth_a_word():
    for kind, what in (("instances", "foreground"), ("classes", "second class")):
        (said,) = notes(report(), [FILE], MaskRules(kind, empty=True), asked=False)
        assert said.startswith(f"no {what} was found in any mask")


def test_classes_and_their_values():
    rules = MaskRules("classes", ignore=7, ignored=5)
    said = notes(
        report(mapping={"0": 0, "255": 1}, class_names=("0", "axon")), [FILE], rules, asked=False
    )
    assert said == [
        "values in the masks became classes: 0 -> 0, 255 -> 1 (axon)",
        "5 pixels of value 7 will be ignored",
    ]
