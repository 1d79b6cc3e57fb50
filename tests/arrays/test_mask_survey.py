"""What masks mean together: objects, classes, binary pictures, or greys."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.arrays.masks import MaskSurvey
from unetkit.errors import LabelError, UsageError


def survey(*masks: np.ndarray, ignore: int | None = None) -> MaskSurvey:
    seen = MaskSurvey(ignore=ignore)
    for number, mask in enumerate(masks):
        seen.add(f"{number}.png", np.asarray(mask), pieces=True)
    return seen


def dots(*values: int) -> np.ndarray:
    """One separate pixel for each value."""
    mask = np.zeros((3, 2 * len(values) + 1), np.uint16)
    mask[1, 1::2] = values
    return mask


def test_own_numbers_are_instances() -> None:
    survey(dots(1, 2, 3), dots(1), dots()).check_instances()


def test_one_object_a_mask_is_no_binary_picture() -> None:
    survey(dots(1), dots(1), dots()).check_instances()


@pytest.mark.parametrize("value", [1, 255])
def test_one_number_for_two_pieces_is_refused(value: int) -> None:
    with pytest.raises(LabelError, match=f"the one number {value} for 3.*touch would merge"):
        survey(dots(value), dots(value, value)).check_instances()


def test_a_cell_in_two_pieces_passes_among_others() -> None:
    survey(dots(1, 1, 2, 3), dots(4, 5)).check_instances()


def test_diagonal_contact_is_one_piece() -> None:
    survey(np.eye(4, dtype=np.uint8)).check_instances()


def test_a_class_map_is_no_instances() -> None:
    with pytest.raises(LabelError, match=r"20 separate pieces for 2 numbers.*--kind classes"):
        survey(dots(*[1, 2] * 10)).check_instances()


def test_a_smoothed_mask_is_no_instances() -> None:
    y, x = np.mgrid[:100, :100]
    distance = np.hypot(y - 40.3, x - 50.6)
    binary = distance < 30
    # The edge fades over two pixels, as after smoothing or resizing.
    blurred = np.clip((31 - distance) / 2, 0, 1) * 255
    survey(binary.astype(np.uint8)).check_instances()
    with pytest.raises(LabelError, match="without JPEG, smoothing"):
        survey(blurred.astype(np.uint8)).check_instances()


def test_white_that_nobody_judged_is_no_object() -> None:
    labels = np.full((9, 9), 255, np.uint8)
    labels[2, 2], labels[5, 5], labels[:, :2] = 1, 2, 0
    survey(labels, ignore=255).check_instances()
    with pytest.raises(LabelError, match="--ignore"):
        survey(labels).check_instances()


def test_a_cell_may_have_the_number_255() -> None:
    survey(dots(1, 2, 255), dots(254, 255, 256)).check_instances()


def test_ignored_pixels_are_no_pieces() -> None:
    seen = survey(dots(1, 255, 255, 255), ignore=255)
    seen.check_instances()
    assert seen.ignored == 3
    with pytest.raises(LabelError):
        survey(dots(255, 255, 255)).check_instances()


def test_planes_are_looked_at_one_by_one() -> None:
    # One cell that goes through three planes is one piece in each.
    survey(np.stack([dots(1), dots(1), dots(1)])).check_instances()


def test_components_need_a_binary_mask() -> None:
    survey(dots(255, 255), dots(255), dots()).check_binary()
    with pytest.raises(LabelError, match=r"values 0, 3, 255 in '1\.png'"):
        survey(dots(255), dots(3, 255)).check_binary()
    with pytest.raises(LabelError, match="the same in all, got 1, 255"):
        survey(dots(255), dots(1)).check_binary()


@pytest.mark.parametrize(
    "values",
    [(0, 255), (0, 1, 2), (0, 127, 255), (0, 128, 255), (0, 85, 170, 255), (1, 3, 7), (0,), (200,)],
)
def test_class_values(values: tuple[int, ...]) -> None:
    mapping = survey(np.array([values])).classes()
    assert mapping == {value: number for number, value in enumerate(sorted(values))}


@pytest.mark.parametrize(
    "values", [(0, 128, 130, 233, 255), (0, 1, 254, 255), (0, 1, 2, 255), tuple(range(256))]
)
def test_greys_are_no_classes(values: tuple[int, ...]) -> None:
    with pytest.raises(LabelError, match=rf"got the {len(values)} values 0, .*in '0\.png'"):
        survey(np.array([values])).classes()


def test_the_mask_with_the_odd_values_is_named() -> None:
    with pytest.raises(LabelError, match=r"5 values 0, 128, 130, 233, 255 in '1\.png' \(in all"):
        survey(np.array([[0, 127, 255]]), np.array([[0, 128, 130, 233, 255]])).classes()


def test_masks_that_are_odd_only_together_are_refused() -> None:
    with pytest.raises(LabelError, match="0, 127, 128, 255"):
        survey(np.array([[0, 127, 255]]), np.array([[0, 128, 255]])).classes()


def test_names_let_any_values_in() -> None:
    seen = survey(np.array([[0, 128, 130, 233, 255]]))
    assert seen.classes(list("abcde")) == {0: 0, 128: 1, 130: 2, 233: 3, 255: 4}
    with pytest.raises(UsageError, match=r"one name for each of the 5 values .*, got 2: a, b"):
        seen.classes(["a", "b"])


def test_the_mapping_is_that_of_all_masks() -> None:
    seen = survey(np.array([[0, 255]]), np.array([[0, 127]]))
    assert seen.classes() == {0: 0, 127: 1, 255: 2}


def test_the_ignored_value_is_no_class() -> None:
    assert survey(np.array([[0, 1, 2, 255]]), ignore=255).classes() == {0: 0, 1: 1, 2: 2}
