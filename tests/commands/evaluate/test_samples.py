"""Which samples are compared with which, what maps they have, and what is refused by name."""

import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.samples import match_samples, probability_map
from unetkit.errors import InputError, MissingError
from unetkit.storage.images import open_image

CELLS, OTHERS = np.array([[1, 0, 2], [1, 0, 2]]), np.array([[0, 3, 3], [0, 0, 4]])
SQUARE = np.ones((8, 8), np.uint8)


def test_samples_are_paired_by_name(write):
    matched = match_samples(
        write("p.zarr", dict.fromkeys("abc", SQUARE)), write("t.zarr", dict.fromkeys("ca", SQUARE))
    )
    assert [(a.name, b.name) for a, b in matched.pairs] == [("c", "c"), ("a", "a")]
    assert matched.unpaired == ("b",)
    assert matched.kind == "instances"


def test_pixels_of_another_size_are_refused(write):
    found = write("p.zarr", {"a": SQUARE}, pixel_size={"y": 0.5, "x": 0.5})
    wanted = write("t.zarr", {"a": SQUARE}, pixel_size={"y": 0.25, "x": 0.5})
    with pytest.raises(InputError, match=r"one size, got 0\.5 and 0\.25 micrometres in y"):
        match_samples(found, wanted)
    assert match_samples(found, found).pairs
    assert match_samples(found, write("u.zarr", {"a": SQUARE})).pairs


@pytest.mark.parametrize("swapped", [False, True])
def test_sides_that_stand_in_each_others_place_are_noticed(kit, swapped, write):
    truth = write("truth.zarr", {"a": CELLS})
    made = {"attributes": {"prediction": {"model": "unet"}}}
    predicted = write("predicted.zarr", {"a": CELLS}, **made)
    heard = kit.watching()
    evaluate(*((truth, predicted) if swapped else (predicted, truth)), progress=heard)
    assert any("the prediction stands first" in note for note in heard.notes) == swapped


def test_two_sides_of_one_sample_match_whatever_their_names(write):
    prediction = write("p.zarr", {"slide": CELLS})
    truth = write("t.zarr", {"annotated": CELLS})
    assert list(evaluate(prediction, truth).samples) == ["annotated"]
    # An image inside a dataset is one sample too.
    assert evaluate(f"{prediction}/slide", truth).overall.seg == 1


def test_samples_are_matched_by_name_not_by_order(write):
    prediction = write("p.zarr", {"b": OTHERS, "a": CELLS})
    report = evaluate(prediction, write("t.zarr", {"a": CELLS, "b": OTHERS}))
    assert report.overall.pixel_error == 0
    assert list(report.samples) == ["a", "b"]


def test_what_has_no_truth_is_left_out_and_said(kit, write):
    prediction = write("p.zarr", dict.fromkeys("abc", CELLS))
    truth = write("t.zarr", {"a": CELLS, "b": None})
    heard = kit.watching()
    report = evaluate(prediction, truth, progress=heard)
    assert list(report.samples) == ["a"]
    assert report.unlabelled == ("b",)
    assert report.unpaired == ("b", "c")
    assert len(heard.notes) == 2


def test_a_stack_needs_its_axes_and_the_prediction_does_not(place, write):
    import zarr

    stack = np.stack([np.stack([SQUARE, SQUARE])])
    group = zarr.open_group(place("stack.zarr"), mode="w")
    group.create_array("images", data=stack)
    group.create_array("labels", data=stack)
    channels = np.zeros((3, 2, 8, 8), np.uint8)
    write("p.zarr", {"a": {"image": channels, "labels": stack[0]}})
    prediction = place("p.zarr/a")  # an image whose own axes are czyx
    assert evaluate(prediction, place("stack.zarr"), axes="zyx").overall.seg == 1
    with pytest.raises(InputError, match="must name its 3 dimensions"):
        evaluate(prediction, place("stack.zarr"))


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [
        (
            {"a": SQUARE[:7]},
            {"b": SQUARE},
            r"prediction 'a' and truth 'b' must be of one size, got 7 x 8 in .*p.zarr.* and "
            r"8 x 8 in .*t.zarr",
        ),
        ({"a": np.stack([SQUARE, SQUARE])}, {"a": SQUARE}, "got 2 planes of 8 x 8 in"),
        (
            {"a": {"labels": SQUARE, "kind": "classes"}},
            {"a": SQUARE},
            "sample 'a' in .*p.zarr must have labels of the truth's kind 'instances', got classes",
        ),
        ({"a": None}, {"a": {"labels": SQUARE, "kind": "classes"}}, "kind 'classes', got none"),
        (
            {"a": SQUARE},
            {"a": None},
            "sample 'a' in .*t.zarr has no labels; run 'unetkit import' with --labels",
        ),
        (
            {"a": SQUARE},
            {"a": SQUARE, "b": SQUARE, "c": SQUARE},
            "p.zarr must have every labelled sample of .*t.zarr, got none named 'b', 'c'; predict",
        ),
        (
            {"a": SQUARE},
            dict.fromkeys("abcdef", SQUARE),
            "got none named 'b', 'c', 'd' and 2 more; predict the whole dataset",
        ),
        (
            {"a": SQUARE, "b": SQUARE},
            {"a": SQUARE, "b": {"labels": SQUARE, "kind": "classes"}},
            "must be of one kind, got instances in 'a' and classes in 'b'",
        ),
        (
            {"a": {"labels": SQUARE, "kind": "classes", "class_names": ("cell", "nothing")}},
            {"a": {"labels": SQUARE, "kind": "classes", "class_names": ("nothing", "cell")}},
            "got cell, nothing and nothing, cell; give the masks .* 0 to cell, 1 to nothing",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(prediction, truth, words, write):
    with pytest.raises(InputError, match=words) as caught:
        evaluate(write("p.zarr", prediction), write("t.zarr", truth))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("prediction", "truth", "calls"),
    [
        ("0 255", "outside cell", True),
        ("outside cell", "outside cell", False),
        ("", "outside cell", False),
        ("outside cell", "", False),
    ],
)
def test_other_class_names_are_compared_by_number_and_said(kit, write, prediction, truth, calls):
    sides = [
        write(f"{n}.zarr", {"a": SQUARE}, kind="classes", class_names=tuple(names.split()))
        for n, names in enumerate((prediction, truth))
    ]
    heard = kit.watching()
    report = evaluate(*sides, progress=heard)
    said = (
        "Classes are compared by number: the prediction calls them 0, 255, the truth outside, cell."
    )
    assert heard.notes == [said] * calls
    assert report.overall.dice == 1
    assert [one.name for one in report.overall.classes] == (truth or prediction).split()


def test_nothing_there_is_said_and_nothing_is_created(place, tmp_path, write):
    truth = write("t.zarr", {"a": SQUARE})
    with pytest.raises(MissingError, match=r"p\.zarr"):
        evaluate(place("p.zarr"), truth)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.zarr"]


@pytest.fixture
def image(write):
    def make(names, attributes):
        stack = np.full((len(names), 6, 7), 51, np.uint8)
        stack[-1] = 255
        parts = {"image": stack, "labels": stack[0], "channel_names": names}
        return open_image(write("p.zarr", {"a": parts}, attributes=attributes) + "/a")

    return make


def test_instances_have_the_channel_of_their_inside(image):
    found = probability_map(image(("boundary", "foreground"), {"scale": 1 / 255}), "instances")
    assert (found.labels, found.names, found.foreground) == ((1,), ("foreground",), True)
    assert found.read(0, 0, 6, 0, 7).tolist() == np.ones((1, 6, 7)).tolist()


def test_classes_have_a_channel_each(image):
    names = ("background", "myelin", "axon")
    found = probability_map(image(names, {"scale": 1 / 255, "prediction": {}}), "classes")
    assert (found.labels, found.names) == ((1, 2), ("myelin", "axon"))
    assert found.read(0, 0, 2, 0, 2)[:, 0, 0] == pytest.approx([0.2, 1])


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_an_image_is_no_map(image, kind):
    assert probability_map(image(("DAPI", "GFP"), {}), kind) is None
