import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from unetkit.cli.tables import (
    described,
    details,
    model,
    predicted,
    safe,
    scores,
    summary,
    table,
    training,
    value,
    walk,
)


def shown(*parts, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def lines(document):
    return [line.rstrip() for line in shown(*details(document)).splitlines()]


def test_amounts_and_times_have_units():
    plan = {"output_bytes": 39146837, "memory_peak": 1577819953, "expected_seconds": 125.4}
    assert lines(plan) == [
        "output bytes      37.33 MiB",
        "memory peak       1.47 GiB",
        "expected seconds  2 min 05 s",
    ]
    assert shown(*details({"bytes": 781, "memory_peak": 781})).split() == [
        *("bytes", "781"),
        *("memory", "peak", "781", "bytes"),
    ]


def test_a_score_of_a_model_has_one_name():
    sides = [{"data": "a.zarr", "objects": 25, "score": 0.566, "before": 0.513}]
    held_out = {
        "data": "a.zarr + b.zarr",
        "scores": {"average_precision": 0.577},
        "intervals": {"average_precision": None},
        "reason": "intervals need 5 images or more, got 2",
        "datasets": sides,
    }
    document = {
        "kind": "model",
        "scores": {"average_precision": 0.473, "old_score": 0.553, "old_dice": 0.9},
        "decision": {"threshold": 0.5, "score": 0.577, "default_score": 0.473},
        "provenance": {"held_out": held_out, "seed": 0},
    }
    found = "\n".join(line.rstrip() for line in shown(*described(document)).splitlines())
    for score in ("0.577", "0.473", "0.566", "0.513"):
        assert found.count(score) == 1
    assert "0.553" not in found
    assert "with the default decision\n  average precision  0.473\n  old dice" in found
    assert "intervals\n" not in found
    # A file that keeps no more has these alone.
    document["provenance"] = {"seed": 0}
    assert "default score  0.473" in shown(*described(document))
    assert shown(*described({"kind": "array"})) == shown(*details({"kind": "array"}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # Plain values come first and parts are indented.
        (
            {"contract": {"step": 16, "exact": True}, "model": "unet", "scores": {}},
            ["model   unet", "scores  -", "contract", "  step   16", "  exact  yes"],
        ),
        # A list says once what all rows share.
        (
            {
                "samples": [
                    {"name": "a", "axes": "yx", "objects": 3},
                    {"name": "b", "axes": "yx", "source": "x"},
                ]
            },
            [
                "samples",
                "  axes  yx",
                "  name  objects  source",
                "  ─────────────────────",
                "  a           3  -",
                "  b           -  x",
            ],
        ),
        # A list of one needs no table.
        (
            {"samples": [{"name": "a", "shape": [512, 640]}]},
            ["samples", "  name   a", "  shape  512 x 640"],
        ),
    ],
)
def test_a_document_is_laid_out(document, expected):
    assert lines(document) == expected


def test_the_options_of_a_model_have_all_their_columns_whatever_they_share():
    row = {"name": "width", "value": 4, "takes": "a whole number", "meaning": None}
    heading = ["name", "value", "takes", "meaning"]
    for rows in ([row, {**row, "name": "depth"}], [row]):
        lines = shown(*model({"name": "unet", "options": rows})).splitlines()
        assert lines[1].strip() == "options"
        assert lines[2].split() == heading
        assert [line.split()[:2] for line in lines[4:]] == [[r["name"], "4"] for r in rows]
    assert shown(*model({"options": []})).split() == ["options", "-"]


def test_a_summary_leaves_out_what_is_empty_but_no_zero_that_tells_something():
    report = {"output": "a.zarr", "objects": 0, "largest_difference": 0.0, "names": ["a"]}
    report |= {"skipped_hidden": 0, "damaged_parts": 0}
    report |= {"error": None, "note": "", "kind": "[x]\x1b"}
    assert shown(*summary(report)) == "objects 0, largest difference 0, kind [x]\\x1b\n"
    assert summary({"output": "a.zarr"}) == []


def test_a_training_and_a_prediction_say_on_one_line_what_came_of_them():
    reached = {
        "output": "m.safetensors",
        "score": 0.5,
        "score_name": "AP",
        "validated_on": 3,
        "best_step": 80,
        "steps": 90,
        "seconds": 125.0,
        "decision": None,
    }
    line = "AP {} on 3 held-out parts, kept from step 80 of 90, 2 min 05 s\n"
    assert shown(*training(reached)) == line.format("0.500")
    fitted = {**reached, "decision": {"score": 0.625}}
    assert shown(*training(fitted)) == line.format("0.625")
    folds = {"output": "m.safetensors", "folds": 5, "score": 0.5}
    assert shown(*training(folds)) == "folds 5, score 0.5\n"
    found = {"samples": 2, "objects": 0, "tiles_total": 9, "tiles_reused": 0, "retries": 3,
             "threshold": 0.5, "min_size": 0, "grow": 1, "batch": 1, "seconds": 2.0}  # fmt: skip
    assert shown(*predicted(found), width=200) == (
        "samples 2, objects 0, tiles total 9, retries 3, threshold 0.5, min size 0, grow 1,"
        " seconds 2 s\n"
    )


def test_scores_stand_under_each_other():
    overall = {
        "average_precision_at": {"0.50": 0.5, "0.75": None},
        "average_precision": 0.25,
        "seg": 0.5,
        "dice": 1.0,
        "iou": 1.0,
        "pixel_error": 0.0,
        "adapted_rand_error": 0.1,
        "voi": 0.2,
        "objects_predicted": 24,
        "objects_true": 30,
        "objects_matched": 18,
    }
    one = {"kind": "instances", "overall": overall, "mean": overall, "samples": [{"name": "a"}]}
    text = shown(*scores(one))
    assert "average precision at IoU 0.5            0.500" in text
    assert "average precision at IoU 0.75               -" in text
    assert "adapted Rand error, for membranes       0.100" in text
    assert "mean of samples" not in text
    two = one | {"samples": [overall | {"name": "[a]\x1b"}, overall | {"name": "b"}]}
    text = shown(*scores(two))
    assert "mean of samples" in text
    assert "[a]\\x1b" in text


def test_scores_of_classes_name_each_class():
    overall = {"dice": 0.5, "iou": 0.4, "pixel_error": 0.1}
    each = {"name": "my[elin]", "dice": 0.5, "iou": 0.4, "pixels_true": 7, "pixels_predicted": 8}
    document = {
        "kind": "classes",
        "overall": overall | {"classes": [each]},
        "mean": overall,
        "samples": [overall | {"name": "a"}, overall | {"name": "b"}],
    }
    text = shown(*scores(document))
    assert "my[elin]" in text
    assert "average precision" not in text


def test_the_demo_says_what_to_run_next():
    row = {
        "method": "unetkit",
        "average_precision_50": 0.75,
        "average_precision": 0.5,
        "objects": 29,
        "matched": 28,
        "objects_true": 30,
    }
    document = {"scores": [row], "pictures": ["d/demo.png"], "commands": ["unetkit info d"]}
    text = shown(*walk(document))
    for part in (
        "unetkit",
        "0.750",
        "29     28            30",
        "  d/demo.png\n",
        "  unetkit info d\n",
    ):
        assert part in text


def test_names_are_escaped_and_markup_stays_text():
    text = shown(*details({"na[/]me": "img[/].zarr \x1b[2J", "rows": [{"[red]": "\u202ex"}]}))
    assert "na[/]me" in text
    assert "img[/].zarr \\x1b[2J" in text
    assert "[red]" in text
    assert "\\u202ex" in text
    assert "\x1b" not in text


def test_numbers_stand_right_and_words_left():
    lines = shown(table([{"n": 7, "w": "long word"}, {"n": 1234, "w": "x"}])).splitlines()
    rows = [line for line in lines if "7" in line or "1234" in line]
    assert rows[0].index("7") == rows[1].index("4")
    assert rows[0].index("l") == rows[1].index("x")


def test_values_say_what_is_not_there_and_one_column_is_enough():
    assert value(None) == value([]) == "-"
    assert value(0.5) == "0.5"
    assert value({"y": 0.25, "x": 0.25}) == "y 0.25, x 0.25"
    assert shown(*details({"a": 1, "b": {"c": "long text"}, "d": [{"e": 1, "f": 2}]}), width=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cells[dapi,gfp].ome.zarr", "cells[dapi,gfp].ome.zarr"),
        ("img[/].zarr", "img[/].zarr"),
        (":smile: größe µm 細胞", ":smile: größe µm 細胞"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("a\x9b2Jb", "a\\x9b2Jb"),
        ("gnp.\u202ezarr", "gnp.\\u202ezarr"),
        ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        ("byte \udcff", "byte \\udcff"),
        ("line\u2028break", "line\\u2028break"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_a_name_is_shown_as_text(text, shown):
    assert safe(text) == shown


@given(st.text())
def test_nothing_that_commands_a_terminal_is_left(text):
    left = {unicodedata.category(character) for character in safe(text)} & {"Cc", "Cs", "Zl", "Zp"}
    assert not left
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in safe(text))


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_harmless_names_are_left_alone(text):
    assert safe(text) == text
