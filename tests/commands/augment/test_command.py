"""The command `augment`: what it writes, that it repeats itself, what it refuses."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from unetkit.arrays.appearance import draw_appearance
from unetkit.arrays.deformation import SAMPLING, draw_deformation
from unetkit.cli.app import main
from unetkit.commands.augment import command
from unetkit.commands.augment import copies as copies_
from unetkit.commands.augment.command import augment
from unetkit.engine import jobs as jobs_
from unetkit.errors import InputError, MissingError, NonFiniteError, OutputError, UsageError
from unetkit.options import parameters_of
from unetkit.storage.datasets import DatasetWriter, open_dataset


def sample(shape=(40, 56), *, seed=0, dtype=np.uint8):
    """Make an image of two channels with labels, an ignore mask and weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (shape[0] // 8, shape[1] // 8)).astype(np.uint16) * 70
    return {
        "image": rng.integers(0, 200, (2, *shape)).astype(dtype),
        "labels": labels.repeat(8, axis=0).repeat(8, axis=1),
        "ignore": (rng.random(shape) > 0.9).astype(np.uint8),
        "weights": rng.random(shape).astype(np.float32),
        "pixel_size": {"y": 0.5, "x": 0.25},
        "channel_names": ["DAPI", "GFP"],
    }


def dataset(folder, *, axes="cyx", **samples):
    url = str(folder / "data.zarr")
    writer = DatasetWriter(url)
    for name, parts in samples.items():
        writer.add(name, parts.pop("image"), axes=axes, **parts)
    writer.finish()
    return url


def whole(array, plane=0):
    return array.read(plane, 0, array.height, 0, array.width)


def contents(url):
    """Return every file of a store with its bytes."""
    root = Path(url)
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_originals_stay_and_copies_stand_beside_them_with_their_source(tmp_path):
    url = dataset(tmp_path, b=sample(), a={**sample(seed=1), "source": "plate 7"})
    out = str(tmp_path / "more.zarr")
    report = augment(url, out, copies=2)
    made = open_dataset(out)
    assert made.names == ("b", "b-aug001", "b-aug002", "a", "a-aug001", "a-aug002")
    assert [s.source for s in made.samples] == ["b"] * 3 + ["plate 7"] * 3
    assert (report.originals, report.copies, report.seed) == (2, 4, 0)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["output"] == out
    for name in ("a", "b"):
        before, after = open_dataset(url)[name], made[name]
        assert (whole(before.data) == whole(after.data)).all()
        assert (whole(before.labels()) == whole(after.labels())).all()
        assert (whole(before.ignore) == whole(after.ignore)).all()
        assert (whole(before.weights) == whole(after.weights)).all()
        assert after.image.pixel_size == {"y": 0.5, "x": 0.25}
        assert after.image.channel_names == ("DAPI", "GFP")


def test_labels_weights_and_ignore_move_as_the_image_does(tmp_path):
    # All four are the same picture of whole numbers: where they differ, they moved apart.
    y, x = np.mgrid[:64, :64]
    picture = ((y // 16 + x // 16) % 2).astype(np.uint8)
    parts = {"image": picture * 200, "labels": picture, "ignore": picture, "weights": picture * 1.0}
    url = dataset(tmp_path, axes="yx", a=parts)
    made = augment(url, str(tmp_path / "more.zarr"), copies=6, grey=0.0)
    for copy in open_dataset(made.output).samples[1:]:
        labels, bright = whole(copy.labels()), whole(copy.data)[0] > 100
        heavy = whole(copy.weights) > 0.5
        assert (labels == whole(copy.ignore)).all()
        assert 0.2 < labels.mean() < 0.8
        assert (labels != picture).any()
        # Nearest and interpolated borders part by single pixels.
        assert (labels != bright).mean() < 0.03
        assert (labels != heavy).mean() < 0.03


def test_no_id_is_invented(tmp_path):
    url = dataset(tmp_path, a=sample())
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=4).output)
    known = set(np.unique(whole(made["a"].labels())))
    for copy in made.samples[1:]:
        assert set(np.unique(whole(copy.labels()))) <= known
        assert copy.labels().dtype == np.uint16


def test_what_was_drawn_is_recorded(tmp_path):
    url = dataset(tmp_path, a=sample())
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1, seed=5).output)
    options = made.attributes["options"]
    assert (options["seed"], options["sigma"], options["grid"]) == (5, 10, 3)
    attributes = made["a-aug001"].image.attributes
    assert attributes["source"] == "a"
    assert np.shape(attributes["deformation"]["grid"]) == (2, 3, 3)
    assert attributes["appearance"]["gain"] > 0


def test_same_seed_same_bytes_whatever_the_workers(tmp_path):
    url = dataset(tmp_path, a=sample(), b=sample(seed=1, dtype=np.float32))
    outputs = {}
    for name, options in {
        "threads": {"scheduler": "threads", "workers": 3},
        "sync": {"scheduler": "sync"},
        "other": {"scheduler": "sync", "seed": 1},
    }.items():
        outputs[name] = contents(augment(url, str(tmp_path / name), copies=3, **options).output)
    assert outputs["threads"] == outputs["sync"]
    assert outputs["threads"] != outputs["other"]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_neither_workers_nor_the_order_of_jobs_change_a_byte(tmp_path, monkeypatch, workers):
    url = dataset(tmp_path, a=sample(), b=sample(seed=1))
    for name, flags in (("one", ["--scheduler", "sync"]), ("many", ["--workers", str(workers)])):
        assert main(["augment", url, str(tmp_path / name), "--copies", "3", "-q", *flags]) == 0
    given = jobs_.run_jobs

    def run_backwards(function, jobs, **options):
        return given(function, list(jobs)[::-1], **options)

    monkeypatch.setattr(command, "run_jobs", run_backwards)
    augment(url, str(tmp_path / "backwards"), copies=3, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert contents(tmp_path / "one") == contents(tmp_path / "backwards")


def test_labels_given_as_an_image_come_to_lie_where_labels_do(tmp_path):
    # Away from the edges of cells an interpolated picture of the ids shows the ids themselves.
    parts = sample((120, 152))
    cells = parts["labels"].repeat(3, axis=0).repeat(3, axis=1)[:120, :152]
    same = {"image": cells, "labels": cells, "weights": cells.astype(np.float32)}
    url = dataset(tmp_path, axes="yx", a=same)
    out = str(tmp_path / "more.zarr")
    assert main(["augment", url, out, "--copies", "4", "--grey", "0", "-q"]) == 0
    copies = open_dataset(out).samples[1:]

    def agree(labels, other):
        # Just outside the picture there may be other cells.
        inside = (slice(5, -5),) * 2
        inner = (maximum_filter(labels, 9) == minimum_filter(labels, 9))[inside]
        assert inner.mean() > 0.15
        return (labels == other)[inside][inner].mean()

    for copy in copies:
        labels, bright = whole(copy.labels()), whole(copy.data)[0]
        assert agree(labels, bright) == 1
        assert agree(labels, whole(copy.weights)) == 1
        # The negative control: some pixels off, they would part company.
        assert agree(labels, np.roll(bright, 9, axis=1)) < 1


def test_interpolated_labels_would_be_noticed(tmp_path, monkeypatch):
    # The negative control of "no id is invented".
    url = dataset(tmp_path, a=sample())
    monkeypatch.setitem(SAMPLING, "labels", "cubic")
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1).output)
    known = set(np.unique(whole(made["a"].labels())))
    assert not set(np.unique(whole(made["a-aug001"].labels()))) <= known


def test_more_copies_leave_the_first_ones_as_they_are(tmp_path):
    url = dataset(tmp_path, a=sample(), b=sample(seed=1))
    few = open_dataset(augment(url, str(tmp_path / "few.zarr"), copies=1).output)
    many = open_dataset(augment(url, str(tmp_path / "many.zarr"), copies=3).output)
    for name in few.names:
        assert (whole(few[name].data) == whole(many[name].data)).all()


def test_samples_and_copies_are_drawn_apart(tmp_path):
    url = dataset(tmp_path, a=sample(), b=sample())
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=2).output)
    drawn = [json.dumps(s.image.attributes.get("deformation")) for s in made.samples]
    assert len(set(drawn)) == 5


def test_planes_of_a_stack_are_deformed_alike(tmp_path):
    parts = sample()
    stack = np.broadcast_to(parts["image"][:, None], (2, 3, 40, 56)).copy()
    labels = np.broadcast_to(parts["labels"], (3, 40, 56)).copy()
    url = dataset(tmp_path, axes="czyx", a={"image": stack, "labels": labels})
    made = augment(url, str(tmp_path / "more.zarr"), copies=1, grey=0.0, scheduler="sync")
    copy = open_dataset(made.output)["a-aug001"]
    assert copy.data.axes == "czyx"
    for plane in (1, 2):
        assert (whole(copy.data, plane) == whole(copy.data, 0)).all()
        assert (whole(copy.labels(), plane) == whole(copy.labels(), 0)).all()


def test_a_quarter_turn_swaps_sides_and_pixel_size(tmp_path):
    url = dataset(tmp_path, a=sample())
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=8).output)
    turned = 0
    for copy in made.samples[1:]:
        odd = copy.image.attributes["deformation"]["quarter_turns"] % 2
        assert copy.data.shape == ((2, 56, 40) if odd else (2, 40, 56))
        assert copy.image.pixel_size == ({"y": 0.25, "x": 0.5} if odd else {"y": 0.5, "x": 0.25})
        turned += odd
    assert 0 < turned < 8


def test_with_everything_off_a_copy_is_the_original(tmp_path):
    url = dataset(tmp_path, a=sample())
    off = {"sigma": 0.0, "shift": 0.0, "rotation": 0.0, "flips": False, "grey": 0.0}
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1, **off).output)
    for part in ("data", "ignore", "weights"):
        assert (whole(getattr(made["a"], part)) == whole(getattr(made["a-aug001"], part))).all()


def test_grey_values_vary_and_labels_do_not(tmp_path):
    url = dataset(tmp_path, a=sample())
    still = {"sigma": 0.0, "shift": 0.0, "rotation": 0.0, "flips": False}
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1, **still).output)
    assert (whole(made["a"].data) != whole(made["a-aug001"].data)).mean() > 0.5
    assert (whole(made["a"].labels()) == whole(made["a-aug001"].labels())).all()
    assert made["a-aug001"].data.dtype == np.uint8


def test_class_maps_keep_their_names(tmp_path):
    parts = {**sample(), "kind": "classes", "class_names": ("sky", "sea")}
    parts["labels"] = (parts["labels"] > 70).astype(np.uint8)
    url = dataset(tmp_path, a=parts)
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1).output)
    assert made["a-aug001"].label_kind == "classes"
    assert made["a-aug001"].class_names == ("sky", "sea")


def test_images_without_labels_are_deformed_all_the_same(tmp_path):
    url = dataset(tmp_path, a={"image": sample()["image"]})
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=1).output)
    assert made["a-aug001"].label_kind is None
    assert made["a-aug001"].weights is None


def test_the_preview_is_a_picture(tmp_path):
    url = dataset(tmp_path, a=sample(), b={"image": sample()["image"]})
    picture = tmp_path / "sheet.png"
    report = augment(url, str(tmp_path / "more.zarr"), copies=2, preview=str(picture))
    assert report.preview == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_output_that_is_there_or_is_the_source_is_refused(tmp_path):
    url = dataset(tmp_path, a=sample())
    before = contents(url)
    for output in (url, f"{url}/", f"{tmp_path}/./data.zarr", f"{url}/inside.zarr"):
        with pytest.raises(OutputError):
            augment(url, output, overwrite=True)
    out = augment(url, str(tmp_path / "more.zarr"), copies=1).output
    made = contents(out)
    with pytest.raises(OutputError, match=r"must not exist yet.* --overwrite"):
        augment(url, out, copies=2)
    assert contents(out) == made
    assert len(open_dataset(augment(url, out, copies=2, overwrite=True).output).names) == 3
    assert contents(url) == before


def test_a_preview_in_the_way_is_found_before_anything_is_written(tmp_path):
    url = dataset(tmp_path, a=sample())
    (tmp_path / "sheet.png").write_bytes(b"holiday")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"sheet\.png"):
            augment(
                url,
                str(tmp_path / "more.zarr"),
                preview=str(tmp_path / "sheet.png"),
                overwrite=overwrite,
            )
    assert not (tmp_path / "more.zarr").exists()


def test_an_augmented_dataset_is_not_augmented_again(tmp_path):
    url = dataset(tmp_path, a=sample())
    made = augment(url, str(tmp_path / "more.zarr"), copies=1).output
    with pytest.raises(InputError, match=r"originals only, got 'a-aug001', which is augmented"):
        augment(made, str(tmp_path / "most.zarr"), copies=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_stops_it_and_leaves_nothing(tmp_path, bad):
    parts = sample(dtype=np.float32)
    parts["image"][1, 3, 3] = bad
    url = dataset(tmp_path, a=parts)
    with pytest.raises(NonFiniteError, match="finite"):
        augment(url, str(tmp_path / "more.zarr"), copies=1)
    assert [p.name for p in tmp_path.iterdir()] == ["data.zarr"]


def test_nothing_there_is_said_and_nothing_made(tmp_path):
    with pytest.raises(MissingError, match=r"nowhere\.zarr"):
        augment(str(tmp_path / "nowhere.zarr"), str(tmp_path / "more.zarr"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"copies": 0}, "copies must be 1 to 999, got 0"),
        ({"copies": 1000}, "copies must be 1 to 999, got 1000"),
        ({"grid": 1}, "grid must be 2 to 64 points a side, got 1"),
        ({"sigma": -1.0}, "sigma must be 0 or more, got -1"),
        ({"rotation": float("nan")}, "rotation must be 0 or more, got nan"),
        ({"grey": -0.5}, r"grey must be within 0 to 10, got -0\.5"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_options_that_can_not_be_used_are_refused_before_anything_is_written(
    tmp_path, options, words
):
    url = dataset(tmp_path, a=sample())
    with pytest.raises(UsageError, match=words):
        augment(url, str(tmp_path / "more.zarr"), **options)
    assert [p.name for p in tmp_path.iterdir()] == ["data.zarr"]


def test_defaults_name_their_source_and_are_those_of_the_arrays():
    options = parameters_of(augment)
    names = ("copies", "grid", "sigma", "shift", "rotation", "flips", "grey")
    for name in names:
        assert re.search("the paper: |our own choice", options[name].meaning), name
    drawn = inspect.signature(draw_deformation).parameters
    assert drawn["points"].default == options["grid"].default
    for name in ("sigma", "rotation", "shift", "flips"):
        assert drawn[name].default == options[name].default
    strength = inspect.signature(draw_appearance).parameters["strength"]
    assert strength.default == options["grey"].default


def test_a_large_image_is_deformed_in_tiles_with_the_bytes_of_the_whole(tmp_path, monkeypatch):
    url = dataset(tmp_path, a=sample((520, 1056)))
    outputs = {}
    for tile in (2048, 512):
        monkeypatch.setattr(copies_, "TILE", tile)
        made = augment(url, str(tmp_path / str(tile)), copies=2, scheduler="sync", seed=3)
        outputs[tile] = contents(made.output)
    assert outputs[2048] == outputs[512]


def test_a_length_in_micrometres_needs_a_pixel_size_and_follows_it(tmp_path):
    url = dataset(tmp_path, a=sample())
    made = open_dataset(augment(url, str(tmp_path / "more.zarr"), copies=9, sigma="2um").output)
    grids = [s.image.attributes["deformation"]["grid"] for s in made.samples[1:]]
    assert np.std(grids, axis=(0, 2, 3)) == pytest.approx([4, 8], rel=0.3)
    assert made.attributes["options"]["sigma"] == "2um"
    (tmp_path / "bare").mkdir()
    bare = dataset(tmp_path / "bare", a={**sample(), "pixel_size": None})
    with pytest.raises(InputError, match="must have a pixel size for a sigma in micrometres"):
        augment(bare, str(tmp_path / "none.zarr"), sigma="2um")
    assert not (tmp_path / "none.zarr").exists()


def test_movements_that_are_weaker_than_asked_for_are_told(tmp_path):
    class Notes:
        def __init__(self):
            self.notes = []

        def __getattr__(self, name):
            return self.notes.append if name == "note" else lambda *_, **__: None

    found = {}
    for side, sigma, more in ((64, 10, {}), (64, 1, {}), (64, 10, {"allow_folds": True})):
        url = str(tmp_path / f"{side}-{sigma}-{len(more)}.zarr")
        writer = DatasetWriter(url)
        writer.add("a", np.zeros((side, side), np.uint8), axes="yx")
        writer.finish()
        notes, output = Notes(), url.replace(".zarr", ".more.zarr")
        augment(url, output, copies=40, sigma=sigma, progress=notes, **more)
        told = [note for note in notes.notes if "folded" in note]
        copies = open_dataset(output).samples[1:]
        grids = np.array([one.image.attributes["deformation"]["grid"] for one in copies])
        found[side, sigma, len(more)] = told, float(np.sqrt(np.square(grids).mean()))
    told, spread = found[64, 10, 0]
    wanted = found[64, 10, 1][1]
    assert spread < 0.98 * wanted
    assert f"displacements are {spread / wanted:.0%} of what --sigma asks for" in told[0]
    assert found[64, 1, 0][0] == found[64, 10, 1][0] == []
