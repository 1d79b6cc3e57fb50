import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unetkit.arrays.targets import cut_gaps, make_target
from unetkit.arrays.weight_map import PRESETS, stored_balance, stored_preset, weight_map
from unetkit.commands.augment.command import augment
from unetkit.commands.train.plan import choose_task
from unetkit.commands.train.samples import Rebalanced, Targets, Weights, training_samples
from unetkit.commands.weights.command import weights
from unetkit.errors import NonFiniteError
from unetkit.progress import SILENT
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import update_attributes


def prepare(url, target=None, *, balance=1.0, nonfinite="error", progress=SILENT):
    task = choose_task(open_dataset(url), target, SILENT)
    return training_samples(
        task,
        [sample.name for sample in task.samples],
        balance=balance,
        normalization="percentile",
        nonfinite=nonfinite,
        progress=progress,
    )


def whole(array):
    return np.asarray(array.read(0, 0, array.height, 0, array.width))


def touching(path, *, side=90, ignore=None):
    """Store an image whose cells touch everywhere."""
    y, x = np.mgrid[:side, :side]
    labels = (1 + (y // 11) * 40 + (x + y // 3) // 13).astype(np.uint16)
    labels[(y // 20 + x // 20) % 3 == 0] = 0
    writer = DatasetWriter(str(path))
    writer.add("a", labels.astype(np.float32), axes="yx", labels=labels, ignore=ignore)
    writer.finish()
    return str(path)


@pytest.mark.parametrize(
    "target", ["foreground", "foreground+boundary", "foreground+distance", "boundary"]
)
def test_boxes_of_targets_and_computed_weights_are_those_of_the_whole_plane(tmp_path, target):
    url = touching(tmp_path / "data.zarr")
    found = prepare(url, target)["a"]
    assert isinstance(found.target, Targets)
    assert isinstance(found.weights, Weights)
    labels = whole(open_dataset(url).samples[0].labels())
    classes = make_target(labels, target)
    task = choose_task(open_dataset(url), target, SILENT)
    expected = weight_map(
        cut_gaps(labels),
        target=classes,
        class_weight=task.balance,
        preset=PRESETS["paper2015"],
    )

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def check(data):
        y0, x0 = (data.draw(st.integers(0, 89)) for _ in range(2))
        y1, x1 = (data.draw(st.integers(start + 1, 90)) for start in (y0, x0))
        box = (0, y0, y1, x0, x1)
        np.testing.assert_array_equal(found.target.read(*box), classes[y0:y1, x0:x1])
        np.testing.assert_array_equal(found.weights.read(*box), expected[y0:y1, x0:x1])

    check()


def test_computed_weights_are_those_that_the_command_stores(tmp_path):
    ignore = np.zeros((90, 90), np.uint8)
    ignore[30:60, 20:50] = 1
    url = touching(tmp_path / "data.zarr", ignore=ignore)
    computed = whole(prepare(url)["a"].weights)
    weights(url)
    stored = prepare(url)["a"]
    assert not isinstance(stored.weights, Weights | Rebalanced)
    np.testing.assert_array_equal(whole(stored.weights), computed)
    assert not computed[ignore == 1].any()
    assert computed[ignore == 0].all()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_balance_is_damped_alike_in_stored_and_computed_weights(tmp_path, balance):
    ignore = np.zeros((90, 90), np.uint8)
    ignore[30:60, 20:50] = 1
    url = touching(tmp_path / "data.zarr", ignore=ignore)
    computed = whole(prepare(url, balance=balance)["a"].weights)
    weights(url)
    stored = whole(prepare(url, balance=balance)["a"].weights)
    np.testing.assert_allclose(stored, computed, atol=1e-5)
    assert stored.dtype == computed.dtype == np.float32
    far_inside = whole(prepare(url)["a"].target) == 1
    inside = computed[far_inside & (ignore == 0)]
    if balance == 0:
        np.testing.assert_array_equal(inside, 1)
    else:
        assert inside.min() != 1


def test_weights_of_another_target_are_computed_anew(kit, tmp_path):
    url = touching(tmp_path / "data.zarr")
    weights(url, target="foreground")
    watching = kit.watching()
    assert not isinstance(prepare(url, "foreground")["a"].weights, Weights)
    other = prepare(url, "boundary", progress=watching)["a"].weights
    assert isinstance(other, Weights)
    assert "1 of 1 samples have no stored weights" in watching.notes[0]


def test_the_preset_of_2019_is_used_as_it_is_stored(tmp_path):
    url = touching(tmp_path / "data.zarr")
    weights(url, preset="freiburg2019")
    stored = whole(open_dataset(url).samples[0].weights)
    for balance in (0.0, 1.0):
        np.testing.assert_array_equal(whole(prepare(url, balance=balance)["a"].weights), stored)


def test_weights_of_foreign_origin_are_used_as_they_are(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[4:9, 4:9] = 1
    own = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", labels, axes="yx", labels=labels, weights=own)
    writer.finish()
    found = prepare(str(tmp_path / "data.zarr"), balance=0.0)["a"]
    np.testing.assert_array_equal(whole(found.weights), own)


def test_each_image_is_normalized_by_itself(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, factor in (("dark", 1), ("bright", 40)):
        image = (np.arange(400).reshape(20, 20) * factor).astype(np.uint16)
        labels = np.eye(20, dtype=np.uint8)
        writer.add(name, image, axes="yx", labels=labels)
    writer.finish()
    found = prepare(str(tmp_path / "data.zarr"))
    dark, bright = (found[name].normalization.apply(whole(found[name].image)) for name in found)
    np.testing.assert_allclose(dark, bright, atol=1e-5)
    assert -0.1 < dark.min() < 0.01
    assert 0.99 < dark.max() < 1.1


def test_only_the_samples_that_are_used_are_read(kit, tmp_path):
    task = choose_task(open_dataset(kit.cells(tmp_path / "d.zarr", count=3)), None, SILENT)
    known = training_samples(
        task, ["s2"], balance=0, normalization="range", nonfinite="error", progress=SILENT
    )
    assert list(known) == ["s2"]
    assert known["s2"].background == 0


def test_nan_is_refused_or_filled(tmp_path):
    image = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    image[3, 4] = np.nan
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", image, axes="yx", labels=np.eye(20, dtype=np.uint8))
    writer.finish()
    url = str(tmp_path / "data.zarr")
    with pytest.raises(NonFiniteError, match="sample 'a'") as caught:
        prepare(url)
    assert caught.value.exit_code == 6
    assert prepare(url, nonfinite="fill")["a"].replace_nonfinite


@pytest.mark.parametrize("written", ["now", "before"])
@pytest.mark.parametrize("kind", ["instances", "classes"])
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_weights_of_copies_are_those_of_their_own_labels(tmp_path, kind, written, balance):
    # Few pixels of foreground, so that w_c of one class is many times that of the other.
    y, x = np.mgrid[:120, :100]
    labels = np.where((y % 40 < 8) & (x % 30 < 9), 1 + (x % 30 > 3) + 4 * (x // 30), 0)
    labels = (labels if kind == "instances" else labels > 0).astype(np.uint8)
    ignore = np.zeros_like(labels)
    ignore[30:50, 20:60] = 1
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", labels, axes="yx", labels=labels, kind=kind, ignore=ignore)
    writer.finish()
    weights(str(tmp_path / "data.zarr"))
    augment(str(tmp_path / "data.zarr"), url := str(tmp_path / "more.zarr"), copies=6)
    dataset = open_dataset(url)
    if written == "before":
        # Then they were moved along, between pixels.
        for sample in dataset.samples:
            attributes = dict(sample.image.weights_attributes)
            attributes.pop("made_from", None)
            update_attributes(sample.weights.url.rpartition("/")[0], **attributes, made_from=None)
            sample.weights.write(0, 0, 0, gaussian_filter(whole(sample.weights), 0.7))
    named = dataset["a"].image.weights_attributes["class_weight"]
    damped = [weight**balance for weight in named.values()]
    assert max(named.values()) > 10 * min(named.values())
    found = prepare(url, balance=balance)
    for sample in dataset.samples[1:]:
        moved, left_out = whole(sample.labels()), whole(sample.ignore)
        moved[left_out != 0] = 0
        cells = cut_gaps(moved) if kind == "instances" else None
        anew = weight_map(
            cells,
            target=moved if cells is None else make_target(cells, "foreground"),
            class_weight=damped,
            ignore=left_out,
        )
        np.testing.assert_allclose(whole(found[sample.name].weights), anew, atol=1e-5)


def test_stored_weights_of_labels_that_were_changed_since_stay_positive(tmp_path):
    url = touching(tmp_path / "data.zarr")
    weights(url)
    labels = open_dataset(url)["a"].labels()
    labels.write(0, 0, 0, np.roll(whole(labels), 15, axis=1))
    assert whole(prepare(url, balance=0.0)["a"].weights).min() >= 1


@pytest.mark.parametrize("value", [None, "much", -1, float("nan"), [], 10**400])
def test_what_is_stored_beside_weights_may_be_anything(value):
    names = ("background", "foreground")
    sound = {"w0": 10.0, "sigma": 5.0, "near_sigma": 0.0, "background": None, "spacing": [1, 2]}
    assert stored_preset(sound).spacing == (1, 2)
    for name in ("w0", "sigma", "near_sigma", "spacing"):
        assert stored_preset(sound | {name: value}) is None
    for foreign in (value, {"background": value, "foreground": 1.0}):
        assert stored_balance({"class_weight": foreign}, names) is None
