"""Objects, area and density of regions: those of a count pixel by pixel, for every tiling."""

import csv
import json
from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import tifffile
from skimage.io import imread
from skimage.measure import label, regionprops

from unetkit.commands.measure import measure
from unetkit.engine import block_io
from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter

RNG = np.random.default_rng(15)
# Objects of one id in several pieces, so that centroids lie anywhere.
CELLS = np.where(RNG.random((70, 90)) < 0.4, RNG.integers(1, 400, (70, 90)), 0).astype(np.uint16)
TISSUE = np.kron(RNG.integers(0, 4, (7, 9)), np.ones((10, 10), int)).astype(np.uint8)
SIZE = {"y": 0.5, "x": 0.25}


def rows_of(path):
    with open(path, newline="") as file:  # noqa: PTH123 - as a user would
        return list(csv.DictReader(file))


def store(path, labels, image=None, axes="yx", **told):
    writer = DatasetWriter(str(path))
    image = np.zeros(labels.shape, np.uint8) if image is None else image
    writer.add("one", image, axes=axes, labels=labels, **{"pixel_size": SIZE, **told})
    writer.finish()
    return str(path)


def centroid_pixel(coordinates):
    n = len(coordinates)
    return tuple(floor(Fraction(int(v), n) + Fraction(1, 2)) for v in coordinates.sum(axis=0))


def members(cells, regions, rim):
    """Say in plain words which objects each region has."""
    found = {}
    for one in regionprops(cells):
        pixel = centroid_pixel(one.coords)
        assert np.abs(np.subtract(pixel, one.centroid)).max() <= 0.5 + 1e-9
        below = regions[tuple(one.coords.T)]
        if rim == "centroid":
            found[one.label] = {regions[pixel]} - {0}
        else:
            whole = {r for r in np.unique(below) if (below == r).all()}
            found[one.label] = (whole if rim == "inside" else set(below.tolist())) - {0}
    return found


@pytest.fixture
def cells(tmp_path):
    return store(tmp_path / "p.zarr", CELLS)


@pytest.mark.parametrize("rim", ["centroid", "inside", "touch"])
@pytest.mark.parametrize(("block", "scheduler"), [(7, "threads"), (32, "sync"), (1024, "sync")])
def test_regions_have_the_objects_that_the_rule_says(
    cells, tmp_path, monkeypatch, block, scheduler, rim
):
    monkeypatch.setattr(block_io, "BLOCK", block)
    tifffile.imwrite(tmp_path / "r.tif", TISSUE)
    report = measure(cells, region=str(tmp_path / "r.tif"), rim=rim, scheduler=scheduler)
    expected = members(CELLS, TISSUE, rim)
    own = {int(row["id"]): set(map(int, row["region"].split())) for row in rows_of(report.output)}
    assert own == expected
    counts = Counter(region for regions in expected.values() for region in regions)
    assert report.region_output == str(tmp_path / "p.regions.csv")
    rows = rows_of(report.region_output)
    assert [int(row["region"]) for row in rows] == [1, 2, 3]
    for row, told in zip(rows, report.regions, strict=True):
        number, pixels = int(row["region"]), int((int(row["region"]) == TISSUE).sum())
        assert (int(row["objects"]), int(row["pixels"])) == (counts[number], pixels)
        assert float(row["area"]) == told["area"] == pixels * 0.125
        assert float(row["density_per_mm2"]) == pytest.approx(counts[number] / pixels * 8e6)
        assert row["unit"] == "micrometre"


@pytest.mark.parametrize("block", [7, 1024])
def test_a_coarse_store_is_laid_over_the_whole_image(tmp_path, monkeypatch, block):
    monkeypatch.setattr(block_io, "BLOCK", block)
    cells = store(tmp_path / "p.zarr", CELLS, pixel_size=None)
    coarse = RNG.integers(0, 3, (7, 9)).astype(np.uint8)
    regions = store(tmp_path / "r.zarr", np.zeros((7, 9), np.uint8), kind="classes")
    assert "judged, got none" in str(refusal(cells, regions))
    told = {"kind": "classes", "class_names": ["glass", "tumour", "stroma"]}
    regions = store(tmp_path / "s.zarr", coarse, **told)
    report = measure(cells, region=regions, scheduler="sync")
    expected = Counter(
        r
        for own in members(CELLS, np.kron(coarse, np.ones((10, 10), int)), "centroid").values()
        for r in own
    )
    found = {row["region_name"]: row for row in rows_of(report.region_output)}
    assert {name: int(row["objects"]) for name, row in found.items()} == {
        "tumour": expected[1],
        "stroma": expected[2],
    }
    assert {(row["unit"], row["density_per_mm2"]) for row in found.values()} == {("pixel", "")}
    assert float(found["tumour"]["area"]) == (coarse == 1).sum() * 100


def feature(ring, *, kind="Polygon", plane=None, **properties):
    geometry = {"type": kind, "coordinates": [[*ring, ring[0]]] if kind == "Polygon" else ring}
    geometry |= {"plane": plane} if plane else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def geojson(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def refusal(*given, **options):
    with pytest.raises(InputError) as error:
        measure(given[0], region=given[1], scheduler="sync", **options)
    return error.value


@pytest.mark.parametrize(("block", "scheduler"), [(7, "threads"), (1024, "sync")])
def test_annotations_of_qupath_may_overlap_and_each_is_counted(
    cells, tmp_path, monkeypatch, block, scheduler
):
    monkeypatch.setattr(block_io, "BLOCK", block)
    regions = geojson(
        tmp_path / "r.geojson",
        feature(box(0, 0, 60, 70), name="tumour"),
        feature([5, 5], kind="Point"),
        feature([[30, 10], [100, 10], [60, 65]], classification={"name": "rim of it"}),
        feature(box(200, 0, 220, 9), name="elsewhere"),
        feature(box(3.1, 3.1, 3.2, 3.2)),
    )
    report = measure(cells, region=regions, scheduler=scheduler)
    assert [w for w in report.warnings if "region" in w] == [
        "regions outside of the image are left out: 'elsewhere'",
        "left out of the regions what has no area: 1 point",
    ]
    y, x = np.mgrid[:70, :90] + 0.5
    # The triangle's two slanted sides, as half planes; centres on its edges are none here.
    slanted = (y > 10) & ((x - 30) * 55 > (y - 10) * 30) & ((100 - x) * 55 > (y - 10) * 40)
    masks = {1: x < 60, 2: slanted}
    within = {n: members(CELLS, mask.astype(int), "centroid") for n, mask in masks.items()}
    rows = rows_of(report.region_output)
    assert [(row["region"], row["region_name"]) for row in rows] == [
        ("1", "tumour"),
        ("2", "rim of it"),
        ("4", ""),
    ]
    for number, row in zip(masks, rows, strict=False):
        assert int(row["pixels"]) == masks[number].sum()
        assert int(row["objects"]) == sum(map(bool, within[number].values()))
    assert (rows[2]["objects"], rows[2]["area"], rows[2]["density_per_mm2"]) == ("0", "0.0", "")
    own = {int(row["id"]): row["region"] for row in rows_of(report.output)}
    assert own == {
        one: " ".join(str(n) for n in masks if within[n][one]) for one in np.unique(CELLS)[1:]
    }


@pytest.mark.parametrize("block", [7, 1024])
def test_classes_have_their_area_in_each_region(tmp_path, monkeypatch, block):
    monkeypatch.setattr(block_io, "BLOCK", block)
    classes = RNG.integers(0, 3, (70, 90)).astype(np.uint8)
    ignored = RNG.random((70, 90)) < 0.3
    told = {"kind": "classes", "class_names": ["background", "axon", "myelin"], "ignore": ignored}
    tifffile.imwrite(tmp_path / "r.tif", TISSUE)
    report = measure(
        store(tmp_path / "p.zarr", classes, **told),
        region=str(tmp_path / "r.tif"),
        scheduler="sync",
        csv=str(tmp_path / "c.csv"),
    )
    assert report.outputs == (str(tmp_path / "c.csv"), str(tmp_path / "c.regions.csv"))
    rows = rows_of(report.region_output)
    assert len(rows) == 9
    for row in rows:
        region = (int(row["region"]) == TISSUE) & ~ignored
        own = region & (classes == int(row["class"]))
        assert int(row["pixels"]) == own.sum()
        assert float(row["area"]) == own.sum() * 0.125
        assert float(row["share"]) == pytest.approx(own.sum() / region.sum())
        assert row["name"] == told["class_names"][int(row["class"])]
    with pytest.raises(UsageError, match="leave --rim out"):
        measure(str(tmp_path / "p.zarr"), region=str(tmp_path / "r.tif"), rim="touch")


def test_what_is_ignored_counts_in_no_region(tmp_path):
    ignored = TISSUE == 2
    cells = store(tmp_path / "p.zarr", CELLS, ignore=ignored)
    geo = geojson(tmp_path / "r.geojson", feature(box(0, 0, 90, 70)))
    report = measure(cells, region=geo, scheduler="sync")
    (row,) = report.regions
    inside = members(CELLS, (~ignored).astype(int), "centroid")
    assert (row["pixels"], row["objects"]) == ((~ignored).sum(), sum(map(bool, inside.values())))


def test_planes_have_the_regions_that_lie_on_them(tmp_path):
    cells = store(tmp_path / "p.zarr", np.stack([CELLS, CELLS[::-1]]), axes="zyx")
    geo = geojson(
        tmp_path / "r.geojson",
        feature(box(0, 0, 9, 9), name="first"),
        feature(box(0, 0, 9, 9), name="second", plane={"z": 1}),
        feature(box(0, 0, 9, 9), name="third", plane={"z": 2}),
    )
    report = measure(cells, region=geo, scheduler="sync")
    assert [(r["plane"], r["region_name"]) for r in report.regions] == [(0, "first"), (1, "second")]
    tifffile.imwrite(tmp_path / "r.tif", TISSUE)
    report = measure(cells, region=str(tmp_path / "r.tif"), overwrite=True, scheduler="sync")
    assert [(r["plane"], r["region"]) for r in report.regions] == [
        (plane, region) for plane in (0, 1) for region in (1, 2, 3)
    ]


def test_samples_of_a_dataset_find_their_regions_by_name(tmp_path):
    for name, kind in (("p", CELLS), ("r", TISSUE)):
        writer = DatasetWriter(str(tmp_path / f"{name}.zarr"))
        for sample, part in (("a", np.s_[:30]), ("b", np.s_[30:]))[:: 1 if name == "p" else -1]:
            writer.add(sample, kind[part].astype(np.uint8), axes="yx", labels=kind[part])
        writer.finish()
    cells, regions = str(tmp_path / "p.zarr"), str(tmp_path / "r.zarr")
    report = measure(cells, region=regions, scheduler="sync")
    for sample, part in (("a", np.s_[:30]), ("b", np.s_[30:])):
        counts = Counter(
            r for own in members(CELLS[part], TISSUE[part], "centroid").values() for r in own
        )
        found = {r["region"]: r["objects"] for r in report.regions if r["sample"] == sample}
        assert {r: n for r, n in found.items() if n} == counts
    # An image without a region is no fault where others have some.
    writer = DatasetWriter(str(tmp_path / "s.zarr"))
    for sample, part in (("a", np.s_[:30]), ("b", np.s_[30:])):
        labels = TISSUE[part] * (sample == "a")
        writer.add(sample, labels, axes="yx", labels=labels)
    writer.finish()
    report = measure(cells, region=writer.url, overwrite=True, scheduler="sync")
    assert {row["sample"] for row in report.regions} == {"a"}
    tifffile.imwrite(tmp_path / "r.tif", TISSUE)
    with pytest.raises(UsageError, match="of a single image, got 2 samples"):
        measure(cells, region=str(tmp_path / "r.tif"), overwrite=True)


def test_what_does_not_fit_is_refused_and_nothing_is_written(cells, tmp_path):
    def tif(array):
        path = tmp_path / f"{array.dtype}{array.size}{array.max()}.tif"
        tifffile.imwrite(path, array)
        return str(path)

    geo = tmp_path / "r.geojson"
    for regions, words in (
        (tif(np.ones((70, 70), np.uint8)), "70 x 90 pixels, or fewer in the same proportions"),
        (tif(np.ones((140, 180), np.uint8)), "or fewer in the same proportions, got 140 x 180"),
        (tif(np.zeros((70, 90), np.uint8)), "judged, got none"),
        (tif(np.ones((70, 90), np.float32)), "whole numbers or outlines, got float32"),
        (tif(np.ones((2, 70, 90), np.uint8)), "must have 1 plane"),
        (geojson(geo), "shapes with an area, got none"),
        (
            geojson(tmp_path / "s.geojson", feature(box(500, 0, 510, 9))),
            "regions must lie on the image",
        ),
        (geojson(tmp_path / "t.geojson", feature(box(3.1, 3.1, 3.2, 3.2))), "judged, got none"),
    ):
        assert words in str(refusal(cells, regions)), words
    geo.write_text("")
    assert "it is empty" in str(refusal(cells, str(geo)))
    geojson(geo, feature([[0, 0], [20, 20], [20, 0], [0, 20]]))
    with pytest.raises(LabelError, match="must not cross themselves"):
        measure(cells, region=str(geo))
    with pytest.raises(UsageError, match="add --region"):
        measure(cells, rim="touch")
    assert not list(tmp_path.glob("*.csv"))
    geojson(geo, feature(box(0, 0, 9, 9)))
    (tmp_path / "p.regions.csv").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            measure(cells, region=str(geo), overwrite=overwrite)
    assert [one.name for one in tmp_path.glob("*.csv")] == ["p.regions.csv"]


def test_density_of_nuclei_is_what_a_hand_finds(test_data, tmp_path):
    path = min((test_data / "bbbc039_nuclei" / "masks").glob("*.png"))
    nuclei = label(imread(path) > 0).astype(np.uint16)
    height, width = nuclei.shape
    cells = store(tmp_path / "p.zarr", nuclei, pixel_size={"y": 0.656, "x": 0.656})
    half = geojson(tmp_path / "r.geojson", feature(box(0, 0, width // 2, height), name="left"))
    report = measure(cells, region=half, scheduler="threads")
    (row,) = report.regions
    left = sum(one.centroid[1] + 0.5 < width // 2 for one in regionprops(nuclei))
    area = (width // 2) * height * 0.656**2
    assert row["objects"] == left > 10
    assert row["area"] == pytest.approx(area)
    assert row["density_per_mm2"] == pytest.approx(left / (area / 1e6))
