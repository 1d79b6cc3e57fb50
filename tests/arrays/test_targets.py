"""Gaps and targets, against a plain reading of their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unetkit.arrays.meanings import OF_IDS, TARGETS, check_target, default_target, target_names
from unetkit.arrays.targets import CLASS_SHIFT, cut_gaps, make_target
from unetkit.errors import LabelError, UsageError

label_maps = hnp.arrays(
    st.sampled_from([np.uint8, np.int32, np.uint32, np.int64]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.integers(0, 4),
)


def cut_plainly(labels):
    out = labels.copy()
    for y, x in np.argwhere(labels):
        for v, u in ((y, x - 1), (y - 1, x - 1), (y - 1, x), (y - 1, x + 1)):
            if v < 0 or not 0 <= u < labels.shape[1] or labels[v, u] in (0, labels[y, x]):
                continue
            if u <= x or labels[v, x] == 0:
                out[y, x] = 0
    return out


@settings(max_examples=80, deadline=None)
@given(label_maps)
def test_gaps_are_cut_as_defined(labels):
    cut = cut_gaps(labels)
    assert cut.dtype == labels.dtype
    assert (cut == cut_plainly(labels)).all()


@settings(max_examples=80, deadline=None)
@given(label_maps)
def test_after_the_cut_no_two_instances_touch_and_a_second_cut_changes_nothing(labels):
    cut = cut_gaps(labels)
    assert (cut_gaps(cut) == cut).all()
    padded = np.pad(cut, 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    for y, x in np.argwhere(cut):
        assert set(np.unique(around[y, x])) <= {0, cut[y, x]}


@settings(max_examples=40, deadline=None)
@given(label_maps, st.sampled_from(OF_IDS))
def test_targets_are_the_same_from_cut_and_uncut_labels(labels, target):
    made = make_target(labels, target)
    assert made.dtype == np.uint8
    assert (made == make_target(cut_gaps(labels), target)).all()
    assert made.max(initial=0) < len(target_names(target))


def test_single_cells_are_never_cut_and_may_be_read_only():
    labels = np.full((4, 4), 2**32 - 1, np.uint32)
    labels.setflags(write=False)
    assert (cut_gaps(labels) == labels).all()


def test_a_gap_is_one_pixel_wide_and_on_the_later_cell():
    assert cut_gaps(np.array([[1, 1, 2, 2], [1, 1, 2, 2]])).tolist() == [[1, 1, 0, 2]] * 2
    assert cut_gaps(np.array([[1], [1], [2], [2]]))[:, 0].tolist() == [1, 1, 0, 2]


def test_foreground_and_boundary_are_opposites():
    labels = np.array([[0, 1, 1, 2, 2]])
    assert make_target(labels, "foreground").tolist() == [[0, 1, 1, 0, 1]]
    assert make_target(labels, "boundary").tolist() == [[1, 0, 0, 1, 0]]


def test_three_classes_close_the_gap_between_two_cells_with_boundary():
    labels = np.zeros((5, 9), int)
    labels[1:4, 1:4] = 1
    labels[1:4, 4:8] = 2
    assert make_target(labels, "foreground+boundary").tolist() == [
        [0, 0, 0, 0, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 2, 2, 2, 2, 0],
        [0, 2, 1, 2, 2, 2, 1, 2, 0],
        [0, 2, 2, 2, 2, 2, 2, 2, 0],
        [0, 0, 0, 0, 2, 0, 0, 0, 0],
    ]
    # The edge of the image is no boundary.
    assert (make_target(np.ones((3, 3), int), "foreground+boundary") == 1).all()


def test_classes_stay_as_stored_and_one_beyond_uint8_is_refused():
    classes = np.array([[0, 1, 2, 255]], np.int64)
    assert make_target(classes, "classes").tolist() == classes.tolist()
    assert make_target(classes, "classes").dtype == np.uint8
    for value in (-1, 256):
        with pytest.raises(LabelError, match="classes must be within 0 to 255, got"):
            make_target(np.array([[0, value]]), "classes")


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((1, 2, 2), int)])
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_no_label_map_is_refused(labels, target):
    assert make_target(np.zeros((2, 2), int), target).shape == (2, 2)
    with pytest.raises(LabelError, match=r"labels must be integers of shape \(Y, X\), got"):
        make_target(labels, target)


def test_an_unknown_target_is_refused_by_name():
    check_target("boundary")
    for refuse in (check_target, target_names, lambda t: make_target(np.zeros((1, 1), int), t)):
        with pytest.raises(UsageError, match=r"target must be one of foreground, .* got 'cells'"):
            refuse("cells")


def test_names_and_defaults():
    assert target_names("foreground") == ("background", "foreground")
    assert target_names("boundary") == ("inside", "boundary")
    assert target_names("classes", ["sky", "sea"]) == ("sky", "sea")
    assert default_target("instances") == "foreground"
    assert default_target("classes") == "classes"


def test_the_class_of_a_cell_is_learned_inside_of_it():
    ids = np.zeros((5, 8), np.int64)
    ids[:, :3], ids[:, 4:7] = 7, 9
    labels = ids + (np.select([ids == 7, ids == 9], [2, 1], 0) << CLASS_SHIFT)
    # The rim of either cell and what lies between them are the boundary.
    assert (
        make_target(labels, "classes+boundary").tolist()
        == [
            [3, 3, 1, 1, 1, 2, 1, 0],
        ]
        * 5
    )
    assert target_names("classes+boundary", ("background", "a", "b")) == (
        "background", "boundary", "a", "b",
    )  # fmt: skip
    with pytest.raises(LabelError, match=r"got object 7 of none; .*--kind instances\+classes"):
        make_target(ids, "classes+boundary")


@pytest.mark.parametrize("name", ["boundary", "background"])
def test_a_class_of_objects_has_no_name_that_is_learned_beside_it(name):
    assert target_names("classes+boundary", ("background", "a")) == ("background", "boundary", "a")
    with pytest.raises(UsageError, match=f"background or boundary, .* got '{name}'"):
        target_names("classes+boundary", ("background", "a", name))
