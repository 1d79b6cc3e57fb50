"""The report keeps to its published schema, and holds scores to bounds."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.report import parse_bound
from unetkit.errors import CheckError, UsageError
from unetkit.storage.datasets import DatasetWriter

SCHEMA = json.loads(files("unetkit").joinpath("data/eval.schema.json").read_text())


@pytest.fixture
def stores(tmp_path):
    def write(name: str, labels: np.ndarray, kind: str = "instances") -> str:
        writer = DatasetWriter(str(tmp_path / name))
        writer.add("a", labels, axes="yx", labels=labels, kind=kind)
        writer.finish()
        return str(tmp_path / name)

    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[6:, 6:] = 1, 2
    found = np.where(truth == 2, 0, truth)
    return {
        "truth": write("t.zarr", truth),
        "found": write("p.zarr", found),
        "empty": write("e.zarr", 0 * truth),
        "classes": write("c.zarr", truth, "classes"),
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
    with pytest.raises(CheckError, match=r"recall of .*p\.zarr must be at least 0\.9"):
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
