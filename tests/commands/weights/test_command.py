"""The command `weights`: what it stores, what it refuses, what it leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import regionprops

from unetkit.arrays.targets import cut_gaps, make_target
from unetkit.arrays.weight_map import PRESETS, Preset, class_weights, weight_map
from unetkit.commands.weights.command import weights
from unetkit.engine import label_tiles
from unetkit.errors import InputError, LabelError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset


class Notes:
    """Keeps what a progress is told."""

    def __init__(self):
        self.notes, self.totals, self.parts = [], [], 0

    def start(self, what, *, total):
        self.totals.append(total)

    def advance(self, parts=1, *, status=""):
        self.parts += parts

    def note(self, text):
        self.notes.append(text)


def cells(shape, count=40, size=13, seed=0):
    """Draw boxes over one another: touching, nested, cut by the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for number in range(1, count + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[y : y + size, x : x + size] = number
    return labels


def dataset(folder, *, axes="yx", **samples):
    """Write a dataset of label maps; their images are empty."""
    url = str(folder / "data.zarr")
    writer = DatasetWriter(url)
    for name, parts in samples.items():
        labels = parts.pop("labels")
        image = np.zeros(parts.pop("shape", None) or labels.shape, np.uint8)
        writer.add(name, image, axes=axes, labels=labels, **parts)
    writer.finish()
    return url


def stored(url, name):
    array = open_dataset(url)[name].weights
    planes = [array.read(p, 0, array.height, 0, array.width) for p in range(array.planes)]
    return np.stack(planes) if array.planes > 1 else planes[0]


def whole(labels, balance, *, preset="paper2015", ignore=None):
    cut = cut_gaps(labels)
    target = make_target(cut, "foreground")
    return weight_map(cut, target=target, class_weight=balance, preset=preset, ignore=ignore)


def leftovers(folder):
    return [p for p in Path(folder).rglob("*") if "partial" in p.name or p.name == "weights"]


def test_the_map_is_that_of_the_whole_image_balanced_over_the_dataset(tmp_path):
    one, two = cells((60, 80)), cells((50, 40), count=3, seed=1)
    url = dataset(tmp_path, one={"labels": one}, two={"labels": two})
    report = weights(url)
    foreground = sum(int((cut_gaps(labels) > 0).sum()) for labels in (one, two))
    balance = class_weights([one.size + two.size - foreground, foreground])
    assert (stored(url, "one") == whole(one, balance)).all()
    assert (stored(url, "two") == whole(two, balance)).all()
    assert report.class_weight == dict(zip(("background", "foreground"), balance, strict=True))
    assert report.samples == 2
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_how_they_were_made_is_stored_with_them(tmp_path):
    url = dataset(tmp_path, one={"labels": cells((40, 40)), "pixel_size": {"y": 0.5, "x": 0.5}})
    weights(url, sigma=4.0)
    attributes = open_dataset(url)["one"].image.weights_attributes
    assert attributes["preset"] == "paper2015"
    assert (attributes["w0"], attributes["sigma"]) == (10, 4)
    assert set(attributes["class_weight"]) == {"background", "foreground"}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_tiles_and_schedulers_change_no_bit(tmp_path, monkeypatch, preset):
    labels = cells((600, 1100), count=600, size=20)
    url = dataset(tmp_path, one={"labels": labels})
    balance = tuple(weights(url, preset=preset).class_weight.values())
    first = stored(url, "one")
    assert (first == whole(labels, balance, preset=preset)).all()
    monkeypatch.setattr(label_tiles, "TILE", 512)
    weights(url, preset=preset, scheduler="sync", overwrite=True)
    assert (stored(url, "one") == first).all()


def test_a_halo_too_small_would_change_bits(tmp_path, monkeypatch):
    # The negative control of the test above.
    labels = cells((600, 1100), count=600, size=20)
    url = dataset(tmp_path, one={"labels": labels})
    balance = tuple(weights(url).class_weight.values())
    monkeypatch.setattr(label_tiles, "TILE", 512)
    monkeypatch.setattr(Preset, "halo", 1)
    weights(url, overwrite=True)
    assert (stored(url, "one") != whole(labels, balance)).any()


def test_an_edge_is_not_mirrored(tmp_path):
    # A mirrored neighbour would cut the first column as well.
    labels = np.repeat([[1, 2, 2, 2, 2]], 5, axis=0).astype(np.uint8)
    url = dataset(tmp_path, one={"labels": labels})
    weights(url)
    assert (stored(url, "one")[:, 0] < 5).all()
    assert (stored(url, "one")[:, 1] > 9).all()


def test_ignored_pixels_weigh_nothing_and_are_not_counted(tmp_path):
    labels = cells((40, 40))
    ignore = np.zeros((40, 40), np.uint8)
    ignore[:, 30:] = 1
    url = dataset(tmp_path, one={"labels": labels, "ignore": ignore})
    report = weights(url)
    target = make_target(labels, "foreground")
    counts = np.bincount(target[ignore == 0], minlength=2)
    assert tuple(report.class_weight.values()) == class_weights(counts.tolist())
    found = stored(url, "one")
    assert (found[ignore == 1] == 0).all()
    assert (found[ignore == 0] > 0).all()


@pytest.mark.parametrize(
    "target", ["foreground", "foreground+boundary", "foreground+distance", "boundary"]
)
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_cell_and_no_background_are_defined(tmp_path, target, value, preset):
    url = dataset(tmp_path, one={"labels": np.full((20, 20), value, np.uint8)})
    weights(url, target=target, preset=preset)
    found = stored(url, "one")
    expected = 1.0 if preset == "paper2015" or value else 0.1
    assert found == pytest.approx(np.full((20, 20), expected))


def test_all_ignored_is_defined(tmp_path):
    labels = cells((20, 20), count=2)
    url = dataset(tmp_path, one={"labels": labels, "ignore": np.ones((20, 20), np.uint8)})
    report = weights(url)
    assert (stored(url, "one") == 0).all()
    assert set(report.class_weight.values()) == {1.0}


def test_class_maps_get_the_class_balance_alone_and_it_is_said_once(tmp_path):
    classes = np.zeros((30, 40), np.uint8)
    classes[:, 20:30], classes[:, 30:] = 1, 2
    names = ("background", "myelin", "axon")
    parts = {"labels": classes, "kind": "classes", "class_names": names}
    url = dataset(tmp_path, one=parts, two={**parts, "labels": classes * 0})
    progress = Notes()
    report = weights(url, progress=progress)
    assert sum("Class maps name no single cells" in note for note in progress.notes) == 1
    assert report.target == "classes"
    assert tuple(report.class_weight) == names
    wanted = np.array(class_weights([1800, 300, 300]))
    assert stored(url, "one") == pytest.approx(wanted[classes])


def test_each_plane_of_a_stack_is_weighed_alone(tmp_path):
    labels = np.stack([cells((30, 40), count=9, seed=s) for s in range(6)]).reshape(2, 3, 30, 40)
    parts = {"labels": labels, "shape": (2, 4, 3, 30, 40)}
    url = dataset(tmp_path, axes="tczyx", one=parts)
    balance = tuple(weights(url).class_weight.values())
    for found, plane in zip(stored(url, "one"), labels.reshape(6, 30, 40), strict=True):
        assert (found == whole(plane, balance)).all()


def test_unlabelled_samples_are_left_out_and_named(tmp_path):
    url = dataset(
        tmp_path, one={"labels": cells((20, 20))}, bare={"labels": None, "shape": (20, 20)}
    )
    progress = Notes()
    report = weights(url, progress=progress)
    assert report.unlabelled == ("bare",)
    assert open_dataset(url)["bare"].weights is None
    assert progress.notes[0] == "1 of 2 samples have no labels; left out."
    # What is stored and shown is not all that is used.
    assert "it uses the second, too, with" in progress.notes[1]
    assert progress.parts == sum(progress.totals)


def test_without_any_labels_it_says_how_to_add_them(tmp_path):
    url = dataset(tmp_path, bare={"labels": None, "shape": (20, 20)})
    with pytest.raises(InputError, match=r"'bare' in data.zarr has no labels; run .* --labels"):
        weights(url)


def test_weights_that_are_there_stay_unless_told(tmp_path):
    url = dataset(tmp_path, one={"labels": cells((20, 20))})
    weights(url)
    first = stored(url, "one")
    with pytest.raises(OutputError, match=r"must not exist yet.* --overwrite"):
        weights(url, w0=50.0)
    assert (stored(url, "one") == first).all()
    weights(url, w0=50.0, overwrite=True)
    assert (stored(url, "one") != first).any()


def test_a_failure_in_the_last_sample_leaves_no_weights_at_all(tmp_path):
    url = dataset(tmp_path, one={"labels": cells((20, 20))}, two={"labels": cells((20, 20))})
    chunk = Path(url) / "two/labels/instances/0/c/0/0"
    intact = chunk.read_bytes()
    chunk.write_bytes(intact[:-3])
    with pytest.raises(InputError, match="two/labels/instances"):
        weights(url, scheduler="sync")
    assert leftovers(url) == []
    chunk.write_bytes(intact)
    weights(url)
    assert len(leftovers(url)) == 2


def test_a_stack_is_refused_and_stays_as_it_is(tmp_path):
    import zarr

    labels = np.stack([cells((20, 20)), cells((20, 20), seed=1)])
    group = zarr.create_group(str(tmp_path / "stack.zarr"))
    for name in ("images", "labels"):
        group.create_array(name, data=labels)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"got a stack of arrays; 'unetkit augment' makes"):
        weights(str(tmp_path / "stack.zarr"))
    assert sorted(tmp_path.rglob("*")) == before


def test_instances_and_classes_together_are_refused(tmp_path):
    labels = cells((20, 20))
    url = dataset(tmp_path, one={"labels": labels}, two={"labels": labels, "kind": "classes"})
    with pytest.raises(InputError, match=r"labels of one kind .* got instances and classes"):
        weights(url)
    assert leftovers(url) == []


def test_a_class_beyond_255_is_refused(tmp_path):
    labels = np.full((5, 5), 300, np.uint16)
    url = dataset(tmp_path, one={"labels": labels, "kind": "classes"})
    with pytest.raises(LabelError, match="classes must be within 0 to 255"):
        weights(url)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "x"}, "preset must be one of"),
        ({"w0": -1}, "w0 must be 0 or more"),
        ({"sigma": 0}, "sigma must be more than 0"),
        ({"target": "cells"}, "target must be one of"),
        ({"target": "classes"}, "for instances, got 'classes'"),
    ],
)
def test_options_that_can_not_be_used_are_refused_before_anything_is_written(
    tmp_path, options, words
):
    url = dataset(tmp_path, one={"labels": cells((20, 20))})
    with pytest.raises(UsageError, match=words):
        weights(url, **options)
    assert leftovers(url) == []


def test_the_preview_is_a_picture_and_its_place_is_looked_at_first(tmp_path):
    url = dataset(tmp_path, one={"labels": cells((600, 80))})
    picture = tmp_path / "weights.png"
    picture.write_bytes(b"holiday")
    with pytest.raises(OutputError, match=r"weights\.png"):
        weights(url, preview=str(picture), overwrite=True)
    assert picture.read_bytes() == b"holiday"
    assert leftovers(url) == []
    picture.unlink()
    assert weights(url, preview=str(picture)).preview == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_real_nuclei_get_high_weights_between_and_low_ones_elsewhere(test_data, tmp_path):
    from unetkit.storage.readers import open_file

    path = sorted((test_data / "bbbc039_nuclei" / "masks").glob("*.png"))[0]
    labels = open_file(str(path)).load().squeeze()
    url = dataset(tmp_path, one={"labels": labels})
    weights(url)
    found, cut = stored(url, "one"), cut_gaps(labels)
    gaps = (labels > 0) & (cut == 0)
    assert gaps.sum() > 50
    assert found[gaps].min() > 5
    assert np.median(found[cut == 0]) < 1


def test_the_rim_of_an_annotated_region_makes_no_border(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:28], labels[5:35, 30:] = 1, 2
    ignore = np.zeros((40, 60), np.uint8)
    ignore[:, 30:] = 1
    url = dataset(tmp_path, one={"labels": labels, "ignore": ignore})
    balance = weights(url).class_weight
    found = stored(url, "one")
    assert (found[:, 30:] == 0).all()
    assert set(np.unique(found[:, :30])) == {np.float32(w) for w in balance.values()}
    # The negative control: the same labels, all of them judged, have a border there.
    (tmp_path / "judged").mkdir()
    judged = dataset(tmp_path / "judged", one={"labels": labels})
    weights(judged)
    assert stored(judged, "one")[20, 28] > 8


def test_a_sigma_with_a_unit_follows_the_height_and_width_of_pixels(tmp_path):
    labels = np.zeros((40, 40), np.uint8)
    labels[:, :18], labels[:, 22:] = 1, 2
    for name, picture in (("across", labels), ("down", labels.T.copy())):
        (tmp_path / name).mkdir()
        url = dataset(tmp_path / name, one={"labels": picture, "pixel_size": {"y": 1.0, "x": 0.5}})
        balance = weights(url, sigma="2.5um").class_weight["background"]
        found = stored(url, "one")[20, 20] - balance
        # The gap of 4 pixels is 5 pixels from centre to centre: 2.5 or 5 micrometres.
        length = 2.5 if name == "across" else 5.0
        assert found == pytest.approx(10 * np.exp(-(length**2) / (2 * 2.5**2)), rel=1e-4)
    bare = dataset(tmp_path, one={"labels": labels})
    with pytest.raises(InputError, match="must have a pixel size for a sigma in micrometres"):
        weights(bare, sigma="2.5um")
    with pytest.raises(UsageError, match="sigma must be a number of pixels or a length"):
        weights(bare, sigma="wide")
    assert leftovers(bare) == []


@pytest.mark.parametrize("tile", [512, 1024])
def test_objects_and_pairs_are_counted_once_whatever_the_tiles(tmp_path, monkeypatch, tile):
    monkeypatch.setattr(label_tiles, "TILE", tile)
    labels = np.zeros((520, 540), np.uint16)
    # Two that touch across the edge of a tile, two by a corner there, one alone, one ignored.
    labels[500:512, 10:20], labels[512:519, 10:20] = 1, 2
    labels[505:512, 505:512], labels[512:518, 512:520] = 3, 4
    labels[100:110, 100:110], labels[100:110, 300:310] = 5, 6
    ignore = np.zeros_like(labels, np.uint8)
    ignore[:, 300:310] = 1
    report = weights(dataset(tmp_path, a={"labels": labels, "ignore": ignore}), report=True)
    (row,) = report.report
    assert (row["sample"], row["objects"], row["touching_pairs"]) == ("a", 5, 2)
    assert len(regionprops(labels)) == 6
    assert 0 < row["border_share"] < 0.01
    assert row["class_weight"] == report.class_weight


def test_class_maps_have_no_objects_to_count(tmp_path):
    url = dataset(tmp_path, a={"labels": np.eye(9, dtype=np.uint8), "kind": "classes"})
    (row,) = weights(url, report=True).report
    assert set(row) == {"sample", "class_weight"}
