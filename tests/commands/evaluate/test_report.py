"""The report keeps to its schema, holds scores to bounds, and says why a score is not there."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.report import UndefinedReasons, parse_bound
from unetkit.errors import CheckError, UsageError
from unetkit.scores import table
from unetkit.scores.contingency import from_labels
from unetkit.scores.table import Scores, score_classes, score_instances

SCHEMA = json.loads(files("unetkit").joinpath("data/eval.schema.json").read_text())


NOTHING = np.zeros((4, 4), np.uint8)
ONE = np.pad(np.ones((2, 2), np.uint8), 1)


@pytest.fixture
def stores(write):
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[6:, 6:] = 1, 2
    sides = {"truth": truth, "found": np.where(truth == 2, 0, truth), "empty": 0 * truth}
    return {
        **{name: write(f"{name}.zarr", {"a": labels}) for name, labels in sides.items()},
        "classes": write("classes.zarr", {"a": truth}, kind="classes"),
    }


@pytest.mark.parametrize(
    "sides", [("found", "truth"), ("empty", "empty"), ("empty", "truth"), ("classes", "classes")]
)
def test_reports_are_strict_json_of_the_schema(stores, sides):
    report = evaluate(*(stores[side] for side in sides), borders=True, scheduler="sync")
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    document["overall"]["dice"] = "NaN"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_a_comparison_is_of_the_schema_too(stores):
    report = evaluate(stores["found"], stores["empty"], truth=stores["truth"], scheduler="sync")
    jsonschema.validate(json.loads(json.dumps(report.to_dict(), allow_nan=False)), SCHEMA)
    with pytest.raises(CheckError, match=r"recall of .*found\.zarr must be at least 0\.9"):
        report.check(["recall=0.9"])


def test_bounds_hold_or_say_what_was_got(stores):
    report = evaluate(stores["found"], stores["truth"], scheduler="sync")
    report.check(["dice=0.8", "pixel_error=0.1", "average_precision_50=0.5"])
    with pytest.raises(CheckError, match=r"misses of .* must be at most 0, got 1"):
        report.check(["dice=0.8", "misses=0"])
    with pytest.raises(CheckError, match=r"v_rand .* got none"):
        report.check(["v_rand=0.1"])


@pytest.mark.parametrize(("text", "words"), [("dicee=1", "name a score"), ("dice", "a number")])
def test_bounds_that_mean_nothing_are_usage(text, words):
    with pytest.raises(UsageError, match=words):
        parse_bound(text)


def test_what_is_truth_must_be_clear(stores):
    for given in ((), (stores["truth"],), (stores["truth"],) * 3):
        with pytest.raises(UsageError, match="--truth"):
            evaluate(*given)


def facts(**given):
    known = {"kind": "instances", "borders": True, "thin": True, "largest": 16, "alike": True}
    return UndefinedReasons(**{**known, **given})


@pytest.mark.parametrize("truth", [NOTHING, ONE])
@pytest.mark.parametrize("found", [NOTHING, ONE])
@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_reasons_are_those_of_all_that_is_not_there(truth, found, kind):
    score = score_instances if kind == "instances" else score_classes
    scores = score(from_labels(truth, found))
    reasons = facts(kind=kind).of(scores)
    document = scores.to_dict()
    missing = {s.name for s in table.SCORES if table.value_of(s.name, document) is None}
    assert set(reasons) == missing
    assert all(reasons.values())


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ({}, "seg", "it does not apply without true objects"),
        ({"kind": "classes"}, "seg", "scores of objects are for instances"),
        ({"borders": False}, "boundary_f", "worked out with --borders"),
        ({"borders": False}, "v_rand", "worked out with --borders"),
        ({"thin": False}, "v_rand", "for maps of two classes"),
        ({"thin": False}, "boundary_f", "it does not apply where neither side has an outline"),
        ({"largest": 4097**2}, "isbi_rand", "has more than 4096 x 4096 pixels"),
        ({"alike": False}, "warping_error", "some samples have a probability map"),
        ({}, "v_info", "it does not apply where no true object has a pixel"),
    ],
)
def test_the_first_reason_counts(given, name, words):
    assert words in facts(**given).of(Scores(pixels=16))[name]


def test_a_class_map_has_a_curve_for_each_class(write):
    truth = np.repeat([0, 1, 2, 2], 4).reshape(4, 4).astype(np.uint8)
    chance = np.stack([truth == n for n in range(3)]).astype(np.uint8) * 255
    chance[2, 3, 3], chance[1, 3, 3] = 100, 155
    made = {"attributes": {"prediction": {}, "scale": 1 / 255}}
    names = ("outside", "myelin", "axon")
    both = {"image": chance, "labels": truth, "kind": "classes"}
    prediction = write("p.zarr", {"a": both}, channel_names=names, **made)
    wanted = write("t.zarr", {"a": truth}, kind="classes", class_names=names)
    report = evaluate(prediction, wanted, scheduler="sync")
    rows = {(row["name"], row["threshold"]): row for row in report.curve}
    assert len(rows) == 100
    assert rows["axon", 0.38]["recall"] == 1 > rows["axon", 0.4]["recall"] == 7 / 8
    assert rows["myelin", 0.6]["precision"] == 4 / 5 < rows["myelin", 0.62]["precision"] == 1


def test_only_maps_of_all_samples_make_a_curve(write):
    both = [{"image": ONE[None] * 255, "labels": ONE}] * 2
    truth = write("t.zarr", both)
    named = write("p.zarr", both, channel_names=("foreground",))
    assert len(evaluate(named, truth, scheduler="sync").curve) == 50
    assert evaluate(truth, truth, scheduler="sync").curve == ()


def test_a_sample_says_only_what_does_not_hold_for_all(write):
    url = write("t.zarr", {"full": ONE, "empty": NOTHING})
    document = evaluate(url, url, scheduler="sync").to_dict()
    borders = {score.name for score in table.SCORES if score.of == table.BORDERS}
    assert set(document["overall"]["reasons"]) == borders | {"mpq"}
    reasons = {sample["name"]: sample["reasons"] for sample in document["samples"]}
    assert reasons["full"] == {}
    assert reasons["empty"]["seg"] == "it does not apply without true objects"
