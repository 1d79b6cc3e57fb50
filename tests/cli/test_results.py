"""Commands on real data: what stands on stdout, what on stderr, and the exit code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from unetkit.cli.app import main
from unetkit.storage.chunks import write_list
from unetkit.storage.image_writer import create_image


@pytest.fixture
def labelled(imported, nuclei, tmp_path, monkeypatch):
    """Make a dataset `a.zarr` of two samples and go to its folder."""
    imported("a", one=nuclei, two=nuclei)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stores(imported, tmp_path, monkeypatch):
    """Make `truth.zarr` of six samples and `worse.zarr`, which lacks an object in each."""
    for name in ("truth", "worse"):
        samples = {}
        for n in range(6):
            samples[str(n)] = labels = np.zeros((30, 40), dtype=np.uint8)
            labels[4:14, 4:14] = 1
            labels[16:26, 20 : 32 - n] = 2 if name == "truth" else 0
        imported(name, **samples)
    monkeypatch.chdir(tmp_path)


def test_scores_are_data(labelled, typed):
    out, err = typed(["eval", "a.zarr", "a.zarr"])
    assert "average precision at IoU 0.5" in out
    assert "two" in out
    assert "average" not in err
    out, err = typed(["eval", "a.zarr", "a.zarr", "--json", "--quiet"])
    assert err == ""
    assert json.loads(out)["overall"]["average_precision_at"]["0.50"] == 1.0


def test_a_store_is_described(labelled, typed):
    out, err = typed(["info", "a.zarr"])
    assert err == ""
    assert "30 x 40" in out
    assert json.loads(typed(["info", "a.zarr", "--json"]).out)["kind"] == "dataset"


EVAL = ["eval", "worse.zarr", "truth.zarr", "--quiet"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--borders"], ["95% interval", "From 6 images, resampled.", "warping"]),
        (
            [],
            ["Not there: scores of borders are worked out with --borders."],
        ),
        (
            ["--truth", "truth.zarr"],  # 2 of 2^6 exchanges
            ["p (Holm)", "0.031", "With 6 images no p (Holm) can be below 0.03125."],
        ),
    ],
)
def test_intervals_reasons_and_comparisons_are_shown(stores, typed, options, words):
    out = typed([*EVAL, *options]).out
    assert [one for one in words if one not in out] == []
    assert "--borders" not in options or "Not there" not in out
    if "--truth" in options:
        assert len(json.loads(typed([*EVAL, *options, "--json"]).out)["predictions"]) == 2


def test_predictions_without_any_object_are_compared(imported, tmp_path, monkeypatch, typed):
    imported("nothing", **{str(n): np.zeros((30, 40), np.uint8) for n in range(6)})
    monkeypatch.chdir(tmp_path)
    out = typed(["eval", "nothing.zarr", "nothing.zarr", "--truth", "nothing.zarr", "-q"]).out
    # Two scores of the shown ones apply to nothing, and have no p.
    rows = [line.split() for line in out.splitlines() if "nothing.zarr  nothing.zarr" in line]
    assert {row[0]: row[-1] for row in rows}["pq"] == "-"


def test_a_mean_says_what_it_leaves_out(stores, imported, typed):
    imported("one", **{str(n): np.zeros((30, 40), np.uint8) for n in range(6)})
    out = typed(["eval", "one.zarr", "truth.zarr", "--borders", "-q"]).out
    assert "samples, the others have none" not in out  # none of them has a score
    blank = {str(n): np.zeros((30, 40), np.uint8) for n in range(6)}
    blank["3"][4:14, 4:14] = 1
    imported("two", **blank)
    out = typed(["eval", "two.zarr", "truth.zarr", "--borders", "-q"]).out
    assert "The mean is of 1 of 6 samples, the others have none:" in out


def test_a_bound_that_does_not_hold_is_code_7_after_the_scores(stores, typed):
    arguments = [*EVAL, "--json"]
    out, err = typed([*arguments, "--fail-under", "recall=0.9"], 7)
    assert json.loads(out)["overall"]["recall"] < 0.9
    assert err.startswith("error: recall of worse.zarr must be at least 0.9, got 0.")
    assert main([*arguments, "--fail-under", "precision=0.9"]) == 0
    assert main([*arguments, "--fail-under", "nothing=1"]) == 2


def test_the_scores_are_listed(typed):
    out, err = typed(["eval", "--list"])
    assert err == ""
    assert "warping_error" in out
    rows = json.loads(typed(["eval", "--list", "--json"]).out)
    assert {row["name"] for row in rows} > {"dice", "pq", "isbi_rand"}


@pytest.fixture
def stored(tmp_path):
    url = str(tmp_path / "a.zarr")
    data = create_image(url, shape=(4, 8), axes="yx", dtype="u1", chunk=4)
    data.write(0, 0, 0, np.eye(4, 8, dtype=np.uint8)[None])
    Path(url, ".unetkit").mkdir()
    write_list(url, f"{url}/.unetkit/chunks.jsonl")
    return url


def test_what_is_in_order_ends_well(stored, typed):
    assert json.loads(typed(["verify", stored, "--json", "--quiet"]).out)["chunks"] == 3


def test_damage_ends_with_7_and_names_the_chunk(stored, typed):
    Path(stored, "0", "c", "0", "0").write_bytes(b"")
    out, err = typed(["verify", stored], 7)
    assert out == ""
    assert "0/c/0/0 is 0 bytes long" in err


def test_images_become_a_dataset_with_weights(imported, nuclei, tmp_path, monkeypatch, typed):
    imported("data", a=nuclei)
    monkeypatch.chdir(tmp_path)
    for arguments, written in (
        (["import", "data/images", "again.zarr", "--labels", "data/masks"], "again.zarr"),
        (["augment", "data.zarr", "more.zarr", "--copies", "1"], "more.zarr"),
        (["weights", "more.zarr", "--preview", "weights.png"], "more.zarr"),
    ):
        assert typed(arguments).out == f"{written}\n"
    assert (tmp_path / "weights.png").is_file()
    assert main(["import", "data/images", "data.zarr"]) == 4
    assert typed(["weights", "more.zarr", "--quiet", "--overwrite"]).out == "more.zarr\n"


def test_what_is_missing_is_named(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    for arguments in (["train", "nothing.zarr"], ["tile-predict", "nothing.zarr"]):
        out, err = typed(arguments, 3)
        assert (out, err[:7]) == ("", "error: ")
        assert "nothing.zarr" in err
    assert list(tmp_path.iterdir()) == []


def test_what_was_judged_is_laid_out_or_one_document(labelled, typed):
    assert typed(["review", "a.zarr", "--count", "3"]).out == "a.review.html\n"
    page = Path("a.review.html").read_text(encoding="utf-8")
    record = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])["record"]
    verdicts = ("right", "not an object", None)
    for one, verdict in zip(record["objects"], verdicts, strict=True):
        one["verdict"] = verdict
    Path("j.json").write_text(json.dumps(record))
    out, err = typed(["review", "a.zarr", "--score", "j.json"])
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "2 of 4 objects judged so share 95% interval"
    assert "right 1 50.0% 25.0% to 75.0%" in lines
    assert "not an object 1 50.0% 25.0% to 75.0%" in lines
    assert "missed beside it 0 0.0% 0.0% to 50.0%" in lines
    assert any(line.startswith("name objects judged right") for line in lines)
    assert "2 of 3 objects are judged" in err
    document = json.loads(typed(["review", "a.zarr", "--score", "j.json", "--json", "-q"]).out)
    assert (document["objects"], document["judged"], document["drawn"]) == (4, 2, 3)
    assert sum(one["judged"] for one in document["samples"]) == 2
    assert len(document["warnings"]) == 1
