"""The table of a stored prediction: what scikit-image measures, in micrometres, at any tiling."""

import csv

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

from unetkit.commands.measure import measure
from unetkit.engine import block_io
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter

LABELS = ndimage.label(ndimage.gaussian_filter(np.random.default_rng(3).random((80, 100)), 2) > 0.5)
IMAGE = np.random.default_rng(4).integers(0, 60000, size=(2, 80, 100)).astype(np.uint16)


@pytest.fixture
def stores(tmp_path):
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    labels = LABELS[0].astype(np.uint16)
    options = {"pixel_size": {"y": 0.5, "x": 0.5}, "channel_names": ("=DAPI", "actin")}
    for name in ("=one", "two"):
        writer.add(name, IMAGE, axes="cyx", labels=labels, **options)
    writer.finish()
    return str(tmp_path / "p.zarr")


def rows_of(path):
    with open(path, newline="") as file:  # noqa: PTH123 - as a user would
        return list(csv.DictReader(file))


def test_the_table_is_that_of_scikit_image_at_any_tiling(stores, tmp_path, monkeypatch, kit):
    watching = kit.watching()
    report = measure(stores, stores, scheduler="sync", progress=watching)
    assert watching.stages == [["measure", 2, 2]]
    assert report.output == str(tmp_path / "p.objects.csv")
    assert (report.objects, report.samples) == (2 * LABELS[1], 2)
    rows = rows_of(report.output)
    expected = regionprops_table(
        LABELS[0],
        np.moveaxis(IMAGE, 0, -1),
        properties=("area", "centroid", "axis_major_length", "perimeter", "intensity_mean"),
        spacing=(0.5, 0.5),
    )
    for ours, theirs in (
        ("area", "area"),
        ("centroid_x", "centroid-1"),
        ("axis_major", "axis_major_length"),
        ("perimeter", "perimeter"),
        ("mean_actin", "intensity_mean-1"),
    ):
        found = [float(row[ours]) for row in rows[: LABELS[1]]]
        np.testing.assert_allclose(found, expected[theirs], rtol=1e-9)
    assert {row["unit"] for row in rows} == {"micrometre"}
    assert rows[0]["sample"] == "'=one"
    monkeypatch.setattr(block_io, "BLOCK", 16)
    other = measure(stores, stores, csv=str(tmp_path / "tiled.csv"), scheduler="threads")
    assert rows_of(other.output) == rows


def test_a_table_that_is_there_stays(stores):
    measure(stores, scheduler="sync")
    with pytest.raises(OutputError, match="add --overwrite"):
        measure(stores, scheduler="sync")
    assert "mean_actin" not in rows_of(measure(stores, overwrite=True, scheduler="sync").output)[0]


def test_what_does_not_fit_is_named(stores, tmp_path):
    writer = DatasetWriter(str(tmp_path / "other.zarr"))
    for name in ("=one", "two"):
        writer.add(name, np.zeros((4, 4), np.uint8), axes="yx")
    writer.finish()
    with pytest.raises(InputError, match="size of its labels"):
        measure(stores, str(tmp_path / "other.zarr"))
    with pytest.raises(InputError, match="no labels"):
        measure(str(tmp_path / "other.zarr"))
    writer = DatasetWriter(str(tmp_path / "mixed.zarr"))
    one = np.ones((4, 4), np.uint8)
    for name, kind in (("a", "classes"), ("b", "instances")):
        writer.add(name, one, axes="yx", labels=one, kind=kind)
    writer.finish()
    with pytest.raises(InputError, match="kind 'instances', got classes; import masks of inst"):
        measure(str(tmp_path / "mixed.zarr"))


@pytest.mark.parametrize("kinds", [("rgb", "bgr"), ("rgb", "brg")])
def test_intensities_are_under_the_names_of_their_channels(kinds, tmp_path):
    pixels = dict(zip("rgb", (10, 20, 30), strict=True))
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    for number, order in enumerate(kinds):
        image = np.stack([np.full((4, 4), pixels[name], np.uint8) for name in order])
        ones = np.ones((4, 4), np.uint8)
        writer.add(f"s{number}", image, axes="cyx", labels=ones, channel_names=order)
    writer.finish()
    for row in rows_of(measure(writer.url, writer.url, scheduler="sync").output):
        assert {name: float(row[f"mean_{name}"]) for name in "rgb"} == pixels


def test_images_of_other_channels_are_not_measured_into_one_table(tmp_path):
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    ones = np.ones((4, 4), np.uint8)
    for name, channels in (("a", ["DAPI", "actin"]), ("b", ["DAPI", "tubulin"])):
        image = np.stack([ones, ones])
        writer.add(name, image, axes="cyx", labels=ones, channel_names=channels)
    writer.finish()
    with pytest.raises(InputError, match="DAPI, actin in 'a'; DAPI, tubulin in 'b'; measure those"):
        measure(writer.url, writer.url)
    assert not (tmp_path / "p.objects.csv").exists()


def test_a_grey_image_needs_no_number_of_its_channel(tmp_path):
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    writer.add("a", IMAGE[0], axes="yx", labels=LABELS[0].astype(np.uint16))
    writer.finish()
    place = str(tmp_path / "p.zarr")
    (row, *_) = rows_of(measure(place, place, scheduler="sync").output)
    assert {"mean", "min", "max"} <= row.keys()
    assert float(row["mean"]) == pytest.approx(IMAGE[0][LABELS[0] == 1].mean(), rel=1e-4)
    assert not any(name.endswith("_0") for name in row)


def test_a_pixel_size_is_told_where_the_store_says_none(tmp_path):
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    writer.add("a", np.zeros((4, 6), np.uint8), axes="yx", labels=np.ones((4, 6), np.uint8))
    writer.finish()
    url, csv = str(tmp_path / "p.zarr"), str(tmp_path / "p.csv")
    plain = measure(url, csv=csv)
    assert plain.warnings == (
        "the pixel size of 'a' is unknown, so that its lengths are in pixels; say it with"
        " --pixel-size",
    )
    with pytest.raises(UsageError, match="pixel size must be"):
        measure(url, csv=csv, pixel_size="0", overwrite=True)
    assert rows_of(csv)[0]["unit"] == "pixel"
    assert measure(url, csv=csv, pixel_size="500nm,0.25", overwrite=True).warnings == ()
    (row,) = rows_of(csv)
    assert (row["unit"], float(row["area"])) == ("micrometre", 24 * 0.5 * 0.25)


@pytest.mark.parametrize("block", [7, 16, 1024])
def test_classes_have_their_area_and_share_in_any_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(block_io, "BLOCK", block)
    rng = np.random.default_rng(5)
    maps = {"a": rng.integers(0, 3, (2, 40, 44)), "b": rng.choice([0, 2], (1, 20, 61))}
    ignored = {"a": rng.random((2, 40, 44)) < 0.2, "b": None}
    sizes = {"a": {"y": 0.5, "x": 0.25, "z": 9}, "b": None}
    writer = DatasetWriter(str(tmp_path / "p.zarr"))
    for name, classes in maps.items():
        writer.add(
            name,
            np.zeros(classes.shape, np.uint8),
            axes="zyx",
            labels=classes.astype(np.uint8),
            kind="classes",
            ignore=ignored[name],
            class_names=["background", "myelin", "axon"],
            pixel_size=sizes[name],
        )
    writer.finish()
    report = measure(str(tmp_path / "p.zarr"), scheduler="sync")
    assert (report.classes, report.objects) == (3, None)
    assert report.output == str(tmp_path / "p.classes.csv")
    assert "size of 'b' is unknown" in report.warnings[0]
    rows = {(row["sample"], int(row["plane"]), row["name"]): row for row in rows_of(report.output)}
    assert len(rows) == 9
    for (name, plane, kind), row in rows.items():
        classes, area = maps[name][plane], 0.125 if name == "a" else 1
        judged = np.ones(classes.shape, bool) if name == "b" else ~ignored[name][plane]
        own = judged & (classes == ["background", "myelin", "axon"].index(kind))
        assert int(row["pixels"]) == own.sum()
        assert float(row["area"]) == pytest.approx(own.sum() * area)
        assert float(row["share"]) == pytest.approx(own.sum() / judged.sum(), rel=1e-5)
        assert row["unit"] == ("micrometre" if name == "a" else "pixel")
    with pytest.raises(UsageError, match="leave the image out"):
        measure(str(tmp_path / "p.zarr"), str(tmp_path / "p.zarr"), overwrite=True)
    with pytest.raises(OutputError, match="must not exist yet"):
        measure(str(tmp_path / "p.zarr"))
