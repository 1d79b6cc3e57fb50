"""Tables that no spreadsheet runs, and files that are not ours stay."""

import csv

import pytest

from unetkit.errors import OutputError, UsageError
from unetkit.storage.outputs import check_file, write_csv

HOSTILE = ["=cmd|x", "+1", "-2", "@x", "\tq", "\rz", "a,b", 'say "x"', "two\nlines", "plain"]


def test_text_never_begins_a_formula_and_numbers_stay(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(str(path), ("name", "number"), [(text, -1.5) for text in HOSTILE])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    for text, (name, number) in zip(HOSTILE, rows, strict=True):
        assert not name.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert name.removeprefix("'") == text
        assert number == "-1.5"


def test_what_is_not_there_is_empty(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(str(path), ("a", "b", "c"), [(None, float("nan"), 0.1)])
    assert path.read_text() == "a,b,c\n,,0.1\n"


def test_only_our_own_files_are_replaced(tmp_path):
    mine, foreign = tmp_path / "mine.csv", tmp_path / "foreign.csv"
    write_csv(str(mine), ("sample", "id"), [])
    foreign.write_text("patient,diagnosis\n")
    check_file(str(tmp_path / "new.csv"), overwrite=False, begins="sample,id")
    check_file(str(mine), overwrite=True, begins="sample,id")
    with pytest.raises(OutputError, match="add --overwrite"):
        check_file(str(mine), overwrite=False, begins="sample,id")
    for path in (foreign, tmp_path):
        with pytest.raises(OutputError, match="earlier output"):
            check_file(str(path), overwrite=True, begins="sample,id")
    with pytest.raises(UsageError, match="a path on this machine"):
        check_file("s3://b/t.csv", overwrite=False, begins="sample")
