"""What a user is told about an import, in words and as plain values."""

import json

import numpy as np

from unetkit.commands.import_images.command import ImportReport, notes
from unetkit.commands.import_images.masks import MaskRules
from unetkit.storage.image_file import ImageFile

FILE = ImageFile("a.jpg", "yx", (1, 1), np.dtype(np.uint8), lambda _: iter(()))


def report(**changes):
    plain = {"output": "a.zarr", "made": "dataset", "samples": 3, "labelled": 1, "unlabelled": 2}
    return ImportReport(**{**plain, **changes})  # type: ignore[arg-type]


def test_plain_values_are_json():
    values = report(mapping={"0": 0}, class_names=("a",), axes=("yx",)).to_dict()
    assert json.loads(json.dumps(values))["samples"] == 3


def test_nothing_odd_is_nothing_said():
    assert notes(report(), [FILE], MaskRules(), asked=False) == []


def test_what_was_passed_over_or_dropped():
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
