"""Stores, models and unfinished runs of earlier commits are read, resumed or refused as then."""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import unetkit
from unetkit.cli.app import main
from unetkit.training.sampler import TILES

# By the commit that made it.
ARCHIVES = {
    "6e0e096": "golden.tar.xz",
    "eaadf8f": "golden-eaadf8f.tar.xz",
    "b4d2d8f": "golden-b4d2d8f.tar.xz",
}
PREDICTION, KEPT = "slide.prediction.zarr", ".seen.zarr.eval.unetkit-partial"
# As make.py gave them.
PREDICT = "tile-predict slide.zarr --tile 16 --precision exact --device cpu --scheduler sync"
WEIGH = "weights wide.zarr --scheduler sync"
EVAL = "eval seen.zarr data.zarr --scheduler sync"
TRAIN = (
    "train data.zarr --set depth=1 --set width=2 --recipe-set tile=60 --recipe-set"
    " learning_rate=0.05 --recipe-set averaging=0 --steps 40 --device cpu --precision exact"
    " --workers 0"
)


@pytest.fixture(params=ARCHIVES)
def archive_path(request):
    """Return the archive of each commit in turn."""
    return Path(__file__).with_name(ARCHIVES[request.param])


@pytest.fixture(autouse=True)
def golden(archive_path, tmp_path, monkeypatch):
    """Work in a folder as it was left, files with their times, and return what is known of it."""
    with tarfile.open(archive_path) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = json.loads(Path("whole.json").read_text())
    return known


def same_release(golden):
    """Skip where unfinished runs may not be gone on with; another test holds that."""
    if version("unetkit") != golden["versions"]["unetkit"]:
        pytest.skip("this is another release, which starts unfinished runs afresh")


def contents(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def run(command, capsys):
    assert main([*command.split(), "--json"]) == 0, capsys.readouterr().err
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def refused(command, words, capsys):
    before = contents(".")
    assert main(command.split()) == 4
    assert words in capsys.readouterr().err
    assert contents(".") == before


FINGERPRINT = ".unetkit/fingerprint.json"
# By which other programs take the records for an array: the earliest stores have none.
LATER = ".unetkit/zarr.json"


def assert_same(made, whole, golden):
    """Compare stores byte by byte, or, where other libraries packed them, pixel by pixel."""
    packers = ("torch", "numpy", "zarr", "numcodecs")
    if all(version(name) == golden["versions"][name] for name in packers):
        stored, wanted = contents(made), contents(whole)
        fingerprints = [json.loads(each.pop(FINGERPRINT)) for each in (stored, wanted)]
        assert_holds(*fingerprints)
        wanted.setdefault(LATER, stored[LATER])
        assert stored == wanted
    assert contents(made).keys() == contents(whole).keys() | {LATER}
    one, other = (unetkit.open_image(place) for place in (made, whole))
    arrays = [(one.data, other.data), *((one.labels[key], other.labels[key]) for key in one.labels)]
    for array, wanted in arrays:
        box = (0, 0, array.height, 0, array.width)
        # Another processor may round the last bit of a probability otherwise.
        at_most = 1 if array.has_channels else 0
        np.testing.assert_allclose(array.read(*box), wanted.read(*box), rtol=1e-5, atol=at_most)
    assert {"classes", "instances"} <= one.labels.keys() or one.data.dtype == np.float32


def assert_holds(found, wanted):
    """Compare what JSON holds; newer reports may say more."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            assert_holds(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_holds(one, other)
    else:
        assert found == (pytest.approx(wanted, rel=1e-6) if type(wanted) is float else wanted)


def test_the_archive_tells_nothing_of_where_it_was_made(archive_path):
    with tarfile.open(archive_path) as archive:
        owners = {(info.uid, info.gid, info.uname, info.gname) for info in archive}
    assert owners == {(0, 0, "", "")}
    for name, content in contents(".").items():
        for word in (b"/home/", b"/root", b"/tmp", b"/work", b'"host"', b'"pid"'):
            assert word not in content, (name, word)


def test_a_dataset_and_a_model_are_read(golden, capsys):
    samples = unetkit.open_dataset("data.zarr").samples
    for sample in samples:
        data, labels, weights = sample.data, sample.labels(), sample.weights
        box = (0, 0, data.height, 0, data.width)
        assert zlib.crc32(data.read(*box).tobytes()) == golden["data"][sample.name]
        assert labels.read(*box).max() > 1
        assert weights.read(*box).min() > 0
    assert [sample.name for sample in samples] == ["s0", "s1", "s2", "s3"]
    for name in ("data.zarr", "slide.zarr", "seen.zarr", "whole.zarr", "model.safetensors"):
        assert run(f"info {name}", capsys)
    assert run(f"{PREDICT} -o new.zarr", capsys)["tiles_reused"] == 0
    assert_same("new.zarr", "whole.zarr", golden)


def test_a_prediction_is_verified_and_a_flipped_bit_found():
    for name in ("whole.zarr", "seen.zarr"):
        assert main(["verify", name]) == 0
    chunk = next(Path("whole.zarr", "0", "c").rglob("1"))
    chunk = chunk if chunk.is_file() else next(path for path in chunk.rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    assert main(["verify", "whole.zarr"]) == 7


def test_a_prediction_goes_on(golden, capsys):
    same_release(golden)
    report = run(f"{PREDICT} --resume", capsys)
    assert (report["tiles_total"], report["tiles_reused"]) == (16, 7)
    assert_same(PREDICTION, "whole.zarr", golden)


def test_a_finished_prediction_has_nothing_to_do(golden, capsys):
    same_release(golden)
    Path("whole.zarr").rename("done.zarr")
    before = contents("done.zarr")
    assert run(f"{PREDICT} -o done.zarr --resume", capsys)["tiles_reused"] == 16
    assert contents("done.zarr") == before


def test_weights_go_on(golden, capsys):
    same_release(golden)
    report = run(f"{WEIGH} --resume", capsys)
    assert (report["tiles_total"], report["tiles_reused"]) == (2, 1)
    assert_same("wide.zarr/wide/weights", "weights", golden)
    assert run("weights data.zarr --scheduler sync --resume", capsys)["tiles_reused"] == 4


def test_counts_go_on_where_they_mean_the_same(golden, capsys):
    same_release(golden)
    if "counts" in Path(KEPT, FINGERPRINT).read_text():
        report = run(f"{EVAL} --resume", capsys)
        assert (report["tiles_total"], report["tiles_reused"]) == (4, 2)
        assert_holds(report["overall"], golden["eval"]["overall"])
        return
    assert main([*EVAL.split(), "--resume"]) == 4
    assert "counts: None before" in capsys.readouterr().err
    assert Path(KEPT).exists()
    report = run(EVAL, capsys)  # as the message says
    assert (report["tiles_total"], report["tiles_reused"]) == (4, 0)
    before, now = golden["eval"]["overall"], report["overall"]
    for name in ("dice", "iou", "average_precision", "seg", "pq", "voi", "objects_true"):
        assert now[name] == pytest.approx(before[name], rel=1e-12), name


def test_a_training_goes_on(golden, capsys):
    same_release(golden)
    whole = Path("model.safetensors").rename("whole.safetensors")
    report = run(f"{TRAIN} --resume", capsys)
    assert report["resumed_at_step"] == 23
    if golden.get("tiles") != TILES:
        assert any("makes its deformed tiles otherwise" in text for text in report["warnings"])
        assert not Path("model.train").exists()
        return
    # On the machine on which it was begun it would be the same to the last bit.
    made, wanted = (safetensors.numpy.load_file(path) for path in ("model.safetensors", whole))
    assert made.keys() == wanted.keys()
    for name, tensor in made.items():
        np.testing.assert_allclose(tensor, wanted[name], rtol=1e-3, atol=1e-4)
    logs = [Path(f"{stem}.log.jsonl").read_text().splitlines() for stem in ("model", "whole")]
    lines, before = ([json.loads(line) for line in log] for log in logs)
    # A later version may warn of more, as of a poor score.
    warned = [
        {line["text"] for line in log if line["event"] == "warning"} for log in (lines, before)
    ]
    assert warned[0] >= warned[1]
    lines, before = ([one for one in log if one["event"] != "warning"] for log in (lines, before))
    assert [line["event"] for line in lines] == [line["event"] for line in before]
    for line, other in zip(lines, before, strict=True):
        assert line.get("step") == other.get("step")
        assert line.get("loss", 0) == pytest.approx(other.get("loss", 0), rel=1e-3)
    told = [run(f"info {path}", capsys) for path in ("model.safetensors", whole)]
    for model in told:
        for key in ("source", "scores", "checksum", "bytes"):
            model.pop(key)
        for key in ("torch", "machine"):
            model["provenance"].pop(key)
    now, then = told
    # No decision was fitted at first, and what is said of it may still change.
    now.pop("decision"), then.pop("decision")
    assert_holds(now, then)
    assert not Path("model.train").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{PREDICT} --resume --threshold 0.4", " before, 0.4 now"),
        (f"{PREDICT} -o whole.zarr --resume --grow 2", " before, 2 now"),
        (f"{WEIGH} --resume --sigma 4", "settings.sigma: 5.0 before, 4.0 now"),
        (f"{TRAIN} --resume --seed 1", "seed: 0 before, 1 now"),
        (PREDICT, "--resume goes on with them"),
        (WEIGH, "--resume goes on with them"),
        (TRAIN, "add --resume to go on with it"),
    ],
)
def test_other_settings_are_refused(command, words, golden, capsys):
    same_release(golden)
    if command.startswith("train"):
        Path("model.safetensors").unlink()
    refused(command, words, capsys)


@pytest.mark.parametrize(
    ("command", "chunk"),
    [
        (PREDICT, "slide.zarr/0/c/0/0"),
        (EVAL, "data.zarr/s1/labels/instances/0/c/0/0"),
    ],
)
def test_an_input_that_was_written_anew_is_refused(command, chunk, golden, capsys):
    same_release(golden)
    os.utime(chunk)
    refused(f"{command} --resume", "must", capsys)


@pytest.mark.parametrize(
    ("command", "fingerprint"),
    [
        (PREDICT, f".{PREDICTION}.unetkit-partial/.unetkit/fingerprint.json"),
        (WEIGH, "wide.zarr/wide/.weights.unetkit-partial/.unetkit/fingerprint.json"),
        (EVAL, f"{KEPT}/.unetkit/fingerprint.json"),
    ],
)
def test_an_unfinished_run_of_another_release_is_refused(command, fingerprint, golden, capsys):
    release = golden["versions"]["unetkit"]
    text = Path(fingerprint).read_text()
    assert f'"{release}"' in text
    other = json.loads(text.replace(f'"{release}"', '"0.0.9"'))
    other.pop("checksum", None)  # which the earliest have not
    Path(fingerprint).write_text(json.dumps(other))
    refused(f"{command} --resume", f"0.0.9 before, {version('unetkit')} now", capsys)
