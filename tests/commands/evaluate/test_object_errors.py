"""The table of objects: one row each, on both sides, with what became of it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.measure import measure
from unetkit.errors import OutputError, UsageError

TRUTH = np.zeros((40, 40), np.uint16)
TRUTH[2:12, 2:12], TRUTH[20:30, 2:12], TRUTH[20:24, 20:24] = 1, 2, 3
FOUND = np.zeros((40, 40), np.uint16)
FOUND[2:12, 2:11], FOUND[20:24, 2:12], FOUND[25:29, 2:12], FOUND[35, 35] = 7, 8, 9, 10


@pytest.fixture
def stores(write):
    return write("p.zarr", {"=evil": FOUND}), write("t.zarr", {"=evil": TRUTH})


def test_every_object_has_its_row(stores, tmp_path, kit):
    path = tmp_path / "o.csv"
    watching = kit.watching()
    evaluate(*stores, objects=str(path), scheduler="sync", progress=watching)
    assert watching.stages == [["score", 1, 1], ["measure", 2, 2]]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["sample"] for row in rows} == {"'=evil"}
    facts = {(row["side"], row["id"]): (row["kind"], row["partner"], row["iou"]) for row in rows}
    assert facts == {
        ("truth", "1"): ("match", "7", "0.9"),
        ("truth", "2"): ("split", "8", "0.4"),
        ("truth", "3"): ("miss", "", "0.0"),
        ("prediction", "7"): ("match", "1", "0.9"),
        ("prediction", "8"): ("split", "2", "0.4"),
        ("prediction", "9"): ("split", "2", "0.4"),
        ("prediction", "10"): ("false", "", "0.0"),
    }
    assert (rows[0]["centroid_y"], rows[0]["area"], rows[0]["unit"]) == ("6.5", "100", "pixel")


def test_objects_are_measured_as_measure_does(write, tmp_path):
    truth = np.stack([TRUTH, np.roll(TRUTH, 3, axis=1)])
    common = {"pixel_size": {"y": 0.5, "x": 0.5}}
    found, wanted = (write(f"{n}.zarr", {"a": truth}, **common) for n in "pt")
    ours, theirs = str(tmp_path / "o.csv"), str(tmp_path / "m.csv")
    evaluate(found, wanted, objects=ours, scheduler="sync")
    measure(found, csv=theirs, scheduler="sync")
    rows, expected = (
        list(csv.DictReader(Path(path).read_text().splitlines())) for path in (ours, theirs)
    )
    rows = [row for row in rows if row["side"] == "prediction"]
    shared = [name for name in expected[0] if name in rows[0]]
    assert shared == list(expected[0])
    assert [[row[name] for name in shared] for row in rows] == [
        [row[name] for name in shared] for row in expected
    ]
    assert (rows[0]["area"], rows[0]["unit"], len(rows)) == ("25.0", "micrometre", 6)


def test_files_are_refused_before_any_work(stores, tmp_path):
    foreign = tmp_path / "o.csv"
    foreign.write_text("mine\n")
    with pytest.raises(OutputError, match="must not exist yet"):
        evaluate(*stores, objects=str(foreign))
    with pytest.raises(OutputError, match="earlier output"):
        evaluate(*stores, report=str(foreign), overwrite=True)
    assert Path(foreign).read_text() == "mine\n"
    with pytest.raises(UsageError, match="of one prediction, got 2"):
        evaluate(stores[0], stores[0], truth=stores[1], report=str(tmp_path / "r.html"))


@pytest.mark.parametrize(("least", "told"), [(16, False), (17, True), (0, False), (None, False)])
def test_people_hear_that_a_least_size_lets_objects_be_missed(write, kit, least, told):
    # Of the truth one object of 16 pixels is missed; the split one is not.
    attributes = {"prediction": {} if least is None else {"min_size": least}}
    found = write("p.zarr", {"a": FOUND}, attributes=attributes)
    watching = kit.watching()
    evaluate(found, write("t.zarr", {"a": TRUTH}), scheduler="sync", progress=watching)
    words = "1 of the 1 missed objects have fewer pixels than the prediction's least size, 17"
    assert any(note.startswith(words) for note in watching.notes) == told
    assert bool(watching.notes) == told


def test_large_objects_that_are_missed_are_no_fault_of_a_least_size(write, kit):
    truth = np.zeros((40, 40), np.uint16)
    truth[2:12, 2:12], truth[20:30, 2:12], truth[20:24, 20:24] = 1, 2, 3
    found = write(
        "p.zarr", {"a": np.zeros_like(truth)}, attributes={"prediction": {"min_size": 50}}
    )
    watching = kit.watching()
    evaluate(found, write("t.zarr", {"a": truth}), scheduler="sync", progress=watching)
    assert not watching.notes
