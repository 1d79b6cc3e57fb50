"""What a model card says, and that nothing of a file can break it."""

from dataclasses import replace

import pytest

from unetkit.commands.info import info
from unetkit.errors import UsageError
from unetkit.models.decision import Decision
from unetkit.models.model_card import model_card
from unetkit.models.model_header import read_header


@pytest.fixture
def header(small_model):
    told = {"data": "cells.zarr", "trained_on": ["a", "b"], "validated_on": ["c"], "seed": 3}
    return replace(
        read_header(str(small_model)),
        provenance={**told, "warnings": ["Few objects."]},
        scores={"dice": 0.91234, "objects_true": 25, "by_class": {"x": 1}},
        pixel_size={"y": 0.5, "x": 0.25},
        channels="DAPI",
        decision=Decision(threshold=0.4, min_size=9, grow=1, score=0.5, default_score=0.4,
                          images=3, objects=25, reason="neighbours are best"),
    )  # fmt: skip


def test_a_card_says_what_is_known_and_marks_what_is_not(header):
    card = model_card(header, name="nuclei")
    for said in (
        "# nuclei\n",
        "Licence: _to be filled in_",
        "Learned from 2 images of `cells.zarr` (a, b)",
        "Held out for validation: 1 image (c)",
        "1 channel: DAPI",
        "Pixel size: 0.5 x 0.25 micrometres",
        "| dice | 0.912 |\n| objects true | 25 |",
        "average precision 0.500 on 3 held-out images, 0.400 with the default decision",
        "Its scores are of 1 image",
        "- Few objects.",
        "Seed: 3",
    ):
        assert said in card, said
    assert "by_class" not in card


def test_intervals_stand_beside_scores(header):
    told = {
        "data": "more.zarr", "images": 9, "unit": "group", "units": 6, "level": 0.95,
        "scores": {"average_precision": 0.5, "f1": None, "dice of a|b": 0.75},
        "intervals": {"average_precision": [0.4, 0.61234], "f1": None, "dice of a|b": None},
        "reason": None,
    }  # fmt: skip
    known = replace(header, provenance={**header.provenance, "held_out": told})
    card = model_card(known, name="nuclei")
    assert "| score on held-out images | value | 95% interval |" in card
    assert "| average precision | 0.500 | 0.400 to 0.612 |" in card
    assert "| f1 | - | - |\n| dice of a\\|b | 0.750 | - |" in card
    assert "Of 9 images of `more.zarr`, to which the decision was fitted" in card
    assert "The intervals are of 6 groups, drawn anew" in card
    few = {**told, "intervals": {}, "reason": "intervals need 5 images or more, got 1"}
    card = model_card(replace(known, provenance={"held_out": few}), name="nuclei")
    assert "No intervals: intervals need 5 images or more, got 1" in card
    # The file may say anything.
    for odd in ({"scores": {"a": "x"}, "intervals": 3}, {"scores": []}, [1], {"scores": {"a": {}}}):
        assert "# nuclei" in model_card(replace(known, provenance={"held_out": odd}), name="nuclei")


def test_what_is_given_stands_in_it(small_model):
    card = info(str(small_model), card=True, author=("Ada, London",), license="MIT")["card"]
    assert card.startswith("# small\n")
    assert "Authors: Ada, London\n- Licence: MIT" in card
    assert "No scores are known." in card
    assert "the default, fitted to nothing" in card
    with pytest.raises(UsageError, match="add --card"):
        info(str(small_model), license="MIT")
    with pytest.raises(UsageError, match="leave out --card"):
        info("cells.zarr", card=True)


def test_texts_of_a_file_are_only_texts(header):
    bad = replace(header, class_names=("a", "<script>\x1b[31m"), channels="x\n\n# y")
    card = model_card(bad, name="a|b")
    assert "\x1b" not in card
    assert "\\<script\\>" in card
    assert "\n# y" not in card
