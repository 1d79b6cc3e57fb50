"""An evaluation that was stopped goes on where it was, to the same bytes, or says why it can't."""

import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.evaluate import cached_counts, counting
from unetkit.commands.evaluate.command import evaluate
from unetkit.engine import block_io
from unetkit.errors import InputError, OutputError, ResourceError, StoppedError
from unetkit.scores import boundaries, contingency, isbi2012
from unetkit.storage import journal, outputs
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.lock import locked

SIDE, CHUNK = 512, 256  # four blocks, once blocks are that small
PARTIAL = ".p.zarr.eval.unetkit-partial"
WORK = {"scheduler": "sync", "bootstrap": 20}


def write(url, seed):
    labels = np.zeros((SIDE, SIDE), np.uint16)
    corners = np.random.default_rng(seed).integers(0, SIDE - 30, size=(60, 2))
    for n, (y, x) in enumerate(corners, start=1):
        labels[y : y + 30, x : x + 20] = n
    place = {"shape": labels.shape, "axes": "yx", "chunk": CHUNK}
    create_image(url, dtype="uint8", **place)
    create_labels(url, "instances", dtype="uint16", **place).write(0, 0, 0, labels)
    return url


@pytest.fixture
def stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(block_io, "BLOCK", CHUNK)
    return write("p.zarr", 0), write("t.zarr", 1)


def full():
    raise ResourceError("the disk must take it, got no room; make room")


@pytest.fixture
def cut_short(kit):
    """Return what evaluates until the disk is full after some blocks."""

    def run(*stores, after, **options):
        with pytest.raises(ResourceError, match="make room"):
            evaluate(*stores, progress=kit.watching(after, full), **options, **WORK)

    return run


def document(report):
    """Give the report, but for how much of the work was there before."""
    return {**report.to_dict(), "tiles_reused": 0}


@pytest.mark.parametrize("borders", [False, True])
def test_going_on_gives_the_report_of_a_single_run(cut_short, stores, borders):
    expected = document(evaluate(*stores, borders=borders, objects="whole.csv", **WORK))
    cut_short(*stores, borders=borders, resume=True, after=3)
    assert Path(PARTIAL).is_dir()
    report = evaluate(*stores, borders=borders, resume=True, objects="again.csv", **WORK)
    assert report.tiles_reused == 3
    assert document(report) == expected
    assert Path("again.csv").read_bytes() == Path("whole.csv").read_bytes()
    # Nothing is left, nor was anything without --resume.
    names = sorted(p.name for p in Path().iterdir())
    assert names == ["again.csv", "p.zarr", "t.zarr", "whole.csv"]


def test_objects_are_kept_too(cut_short, stores):
    cut_short(*stores, resume=True, objects="o.csv", after=6)
    assert not Path("o.csv").exists()
    read = []
    original = journal.Results.get
    journal.Results.get = lambda self, key: read.append(key) or original(self, key)
    try:
        evaluate(*stores, resume=True, objects="o.csv", **WORK)
    finally:
        journal.Results.get = original
    assert len([key for key in read if key.startswith("measure")]) == 8


def test_a_signal_ends_it_at_a_safe_place(kit, stores):
    def end():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="--resume in the same command to go on") as caught:
        evaluate(*stores, resume=True, progress=kit.watching(2, end), **WORK)
    assert caught.value.exit_code == 143
    assert evaluate(*stores, resume=True, **WORK).tiles_reused == 2
    with pytest.raises(StoppedError, match="give --resume to keep what is done"):
        evaluate(*stores, progress=kit.watching(2, end), **WORK)


PROGRAM = """
import os, signal, sys, warnings
from pathlib import Path
from unetkit.engine import block_io
from unetkit.commands.evaluate.command import evaluate
from unetkit.storage.journal import Results

block_io.BLOCK = 256
warnings.simplefilter("ignore")
put, left = Results.put, int(sys.argv[1])

def dying(self, key, tree, arrays):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, key, tree, arrays)

Results.put = dying
evaluate("p.zarr", "t.zarr", resume=True, scheduler="sync", bootstrap=20)
"""


def test_a_kill_loses_the_block_at_work_alone(stores):
    expected = document(evaluate(*stores, **WORK))
    run = subprocess.run([sys.executable, "-c", PROGRAM, "3"], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL
    # A block that the disk lost after it was noted down is done again.
    lost = sorted(Path(PARTIAL).glob("*.npz"))[0]
    lost.write_bytes(b"")
    report = evaluate(*stores, resume=True, **WORK)
    assert report.tiles_reused == 1
    assert document(report) == expected


@pytest.mark.parametrize("changed", ["truth", "chunk"])
def test_other_data_are_not_mixed_in(cut_short, stores, changed):
    cut_short(*stores, resume=True, after=2)
    if changed == "truth":
        write("other.zarr", 2)
    else:
        place = Path("t.zarr/labels/instances/0/c/0/0")
        place.write_bytes(place.read_bytes())
    sides = ("p.zarr", "other.zarr" if changed == "truth" else "t.zarr")
    with pytest.raises(OutputError, match=r"must be of the same evaluation .* before, .* now"):
        evaluate(*sides, resume=True, **WORK)
    # It is not lost by that, and starting afresh says what it does.
    assert list(Path(PARTIAL).glob("*.npz"))


def test_what_an_edit_would_do_unnoticed(cut_short, stores, monkeypatch):
    # Were files not looked at, blocks of before an edit would be mixed with those of after it.
    monkeypatch.setattr(cached_counts, "fingerprint", lambda url: {})
    cut_short(*stores, resume=True, after=2)
    place = Path("t.zarr/labels/instances/0/c/0/0")
    place.unlink()
    mixed = evaluate(*stores, resume=True, **WORK)
    assert mixed.tiles_reused == 2
    assert mixed.overall != evaluate(*stores, **WORK).overall


def test_one_at_a_time(stores):
    with locked(PARTIAL), pytest.raises(OutputError, match="one job at a time"):
        evaluate(*stores, resume=True, **WORK)
    assert evaluate(*stores, resume=True, **WORK).tiles_reused == 0


def test_long_runs_keep_results_without_being_asked(kit, cut_short, stores, monkeypatch):
    monkeypatch.setattr(cached_counts, "SAVE_MIN_BLOCKS", 4)
    cut_short(*stores, after=2)
    assert evaluate(*stores, resume=True, **WORK).tiles_reused == 2
    # Another job at work there is no reason not to answer.
    with locked(PARTIAL):
        assert evaluate(*stores, **WORK).tiles_reused == 0
    cut_short(*stores, after=2)
    heard = kit.watching()
    assert evaluate(*stores, progress=heard, **WORK).tiles_reused == 0
    assert "started afresh" in heard.notes[0]


@pytest.mark.parametrize("asked", [False, True])
def test_a_full_disk_ends_only_what_was_asked_for(stores, monkeypatch, asked):
    monkeypatch.setattr(cached_counts, "SAVE_MIN_BLOCKS", 4)
    expected = document(evaluate(*stores, **WORK))
    monkeypatch.setattr(journal.Results, "put", lambda *given: full())
    if asked:
        with pytest.raises(ResourceError, match="make room"):
            evaluate(*stores, resume=True, **WORK)
    else:
        assert document(evaluate(*stores, **WORK)) == expected


def test_what_no_second_run_could_mend_leaves_nothing(stores):
    place = Path("t.zarr/labels/instances/0/c/1/1")
    place.write_bytes(place.read_bytes()[:-9])
    with pytest.raises(InputError, match="must be readable"):
        evaluate(*stores, resume=True, **WORK)
    assert not Path(PARTIAL).exists()


def test_counts_of_another_version_are_not_added_to(cut_short, stores, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(cached_counts, "COUNTS", 1)
        cut_short(*stores, resume=True, after=3)
    with pytest.raises(OutputError, match="of the same evaluation"):
        evaluate(*stores, resume=True, **WORK)


def test_several_predictions_each_keep_their_own(cut_short, stores):
    both = (stores[0], write("q.zarr", 3))
    expected = evaluate(*both, truth=stores[1], **WORK)
    cut_short(*both, truth=stores[1], resume=True, after=6)
    report = evaluate(*both, truth=stores[1], resume=True, **WORK)
    assert [one.tiles_reused for one in report.reports] == [4, 2]
    assert report.comparisons == expected.comparisons
    assert sorted(p.name for p in Path().iterdir()) == ["p.zarr", "q.zarr", "t.zarr"]


def test_results_come_back_as_they_were():
    value = {
        None: isbi2012.Topology(np.array([2]), np.array([5]), *np.ones((2, 1), bool)),
        0.1: boundaries.Surfaces(np.array([3]), np.array([4])),
    }
    arrays = {}
    tree = json.loads(json.dumps(cached_counts.pack(value, arrays), allow_nan=False))
    found = cached_counts.unpack(tree, arrays)
    assert list(found) == [None, 0.1]
    assert (found[None].splits, found[None].y.tolist()) == (1, [2])
    assert found[0.1].counts.tolist() == [4]
    with pytest.raises(KeyError):
        cached_counts.unpack({"kind": "Popen", "parts": {}}, {})


@pytest.mark.parametrize("part", [{"array": "long"}, 1.5, {"kind": "Surfaces", "parts": {}}])
def test_results_of_other_forms_are_none(part):
    arrays = {"a": np.zeros(2, np.int64), "long": np.zeros(3, np.int64)}
    whole = {"kind": "Surfaces", "parts": {"keys": {"array": "a"}, "counts": {"array": "a"}}}
    assert len(cached_counts.unpack(whole, arrays).keys) == 2
    whole["parts"]["counts"] = part
    with pytest.raises((ValueError, KeyError)):
        cached_counts.unpack(whole, arrays)


def put_in_place_of(key, tree, content=None):
    """Exchange a kept result for another with a checksum that is right."""
    with journal.Journal(PARTIAL) as record:
        kept = journal.Results(PARTIAL, record)
        kept.put(key, tree, {})
        if content is not None:
            (path,) = {kept._path(key)}
            path.write_bytes(content)
            record.record(key, checksum=zlib.crc32(content))


@pytest.mark.parametrize(
    ("tree", "content"),
    [({"array": ["a0"]}, None), ({"kind": "Counted", "parts": {"no": 1}}, None), (1, b"no zip")],
)
def test_a_result_that_no_run_kept_is_made_again(cut_short, stores, tree, content):
    expected = document(evaluate(*stores, **WORK))
    cut_short(*stores, resume=True, after=3)
    put_in_place_of(next(iter(journal.Journal(PARTIAL).done())), tree, content)
    report = evaluate(*stores, resume=True, **WORK)
    assert report.to_dict()["tiles_reused"] == 2
    assert document(report) == expected


def test_names_of_what_is_kept_stay():
    block = {"sample": 0, "plane": 2, "instances": True}
    block |= dict.fromkeys(("prediction", "truth", "ignore"))
    kept = counting.Block(**block, rows=(0, 512), columns=(512, 640))
    assert kept.key == "count 0 2 (0, 512) (512, 640)"
    assert counting.BorderBlock(**block).key == "borders 0 2 None (0, 0)"
    nothing = contingency.merge([])
    plane = counting.ThresholdedPlane(nothing, nothing, isbi2012.Topology(*np.zeros((4, 0))))
    tree = cached_counts.pack({None: plane}, {})
    assert tree["entries"][0][1]["kind"] == "Proposal"


def test_results_lie_outside_of_any_store(stores):
    create_image("d.zarr", shape=(8, 8), axes="yx", dtype="uint8")
    place = outputs.partial_url(cached_counts._beside("d.zarr/0"))
    assert place == ".d.zarr.eval.unetkit-partial"
    assert cached_counts._beside("s3://bucket/slide.zarr") == "slide.zarr.eval"
