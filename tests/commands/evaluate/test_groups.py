"""Where images are of groups, such as animals, scores and intervals go by these."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate.command import evaluate
from unetkit.scores import bootstrap

SCHEMA = json.loads(files("unetkit").joinpath("data/eval.schema.json").read_text())
MEMBERS = [("a", 4), ("b", 1), ("c", 2), ("d", 1), ("e", 3)]
GROUPS = [group for group, count in MEMBERS for _ in range(count)]


def labels(seed, *, lost=0.0):
    rng = np.random.default_rng(seed)
    found = ndimage.label(ndimage.gaussian_filter(rng.random((24, 24)), 1.5) > 0.53)[0]
    gone = rng.random(found.max() + 1) < lost
    return np.where(gone[found], 0, found).astype(np.uint16)


@pytest.fixture
def stores(write):
    """Store a truth of eleven images of five groups, and two predictions that know no groups."""

    def store(groups=GROUPS, *, kind="instances"):
        made = [
            {f"s{n}": labels(n, lost=lost) for n in range(len(groups))} for lost in (0, 0.2, 0.5)
        ]
        if kind == "classes":
            made = [{name: np.minimum(one, 1) for name, one in side.items()} for side in made]
        truth = {name: {"labels": one} for name, one in made[0].items()}
        for (_, parts), group in zip(truth.items(), groups, strict=True):
            parts |= {} if group is None else {"group": group}
        found = [write(f"p{n}.zarr", side, kind=kind) for n, side in enumerate(made[1:])]
        return found, write("t.zarr", truth, kind=kind)

    return store


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_each_group_has_the_scores_of_its_images_as_one(stores, write, kind):
    (found, _), truth = stores(kind=kind)
    report = evaluate(found, truth, scheduler="sync", bootstrap=20)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert [one["name"] for one in document["groups"]] == list("abcde")
    first = {f"s{n}": labels(n) for n in range(4)}
    ours = {f"s{n}": labels(n, lost=0.2) for n in range(4)}
    if kind == "classes":
        first, ours = ({n: np.minimum(one, 1) for n, one in s.items()} for s in (first, ours))
    alone = evaluate(
        write("pa.zarr", ours, kind=kind),
        write("ta.zarr", first, kind=kind),
        scheduler="sync",
    )
    wanted = alone.to_dict()["overall"]
    got = document["groups"][0]
    assert {name: got[name] for name in wanted if name != "reasons"} == {
        name: value for name, value in wanted.items() if name != "reasons"
    }


def test_intervals_and_comparisons_resample_groups(stores):
    found, truth = stores()
    report = evaluate(*found, truth=truth, scheduler="sync", bootstrap=300)
    certainty = report.reports[0].certainty
    assert (certainty.unit, certainty.units) == ("group", 5)
    # Recall of pixels drawn by hand: whole groups come and go.
    parts = [
        np.sum(
            [
                [np.sum((labels(n) > 0) & (labels(n, lost=0.2) > 0)), np.sum(labels(n) > 0)]
                for n, own in enumerate(GROUPS)
                if own == group
            ],
            axis=0,
        )
        for group in "abcde"
    ]
    times = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=256)
    more = np.random.default_rng(0)
    more.multinomial(5, np.full(5, 0.2), size=256)
    times = np.concatenate([times, more.multinomial(5, np.full(5, 0.2), size=44)])
    sums = times @ np.array(parts)
    wanted = bootstrap._middle(sums[:, 0] / sums[:, 1], 5)
    assert certainty.intervals["recall"] == pytest.approx(wanted)
    assert report.to_dict()["smallest_p"] == 2 / 2**5
    row = next(row for row in report.comparisons if row.score == "recall")
    assert row.p == 2 / 2**5


@pytest.mark.parametrize("groups", [["a"] * 6, list("aabcdd")])
def test_few_groups_give_no_interval_however_many_images_they_have(stores, groups):
    (found, _), truth = stores(groups)
    report = evaluate(found, truth, scheduler="sync")
    assert report.certainty.reason == f"intervals need 5 groups or more, got {len(set(groups))}"
    assert report.certainty.intervals == {}


def test_nothing_is_said_of_groups_where_there_are_none(stores):
    (found, _), truth = stores([None] * 6)
    report = evaluate(found, truth, scheduler="sync", bootstrap=20)
    assert "groups" not in report.to_dict()
    assert report.certainty.unit == "image"
