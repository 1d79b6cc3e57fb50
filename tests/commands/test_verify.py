"""Damage that reads as background or as other labels without a word is found and named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import CheckError, InputError, MissingError
from unetkit.storage.images import open_image
from unetkit.storage.outputs import partial_url

if TYPE_CHECKING:
    from collections.abc import Callable

TILED: dict[str, Any] = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Hold one prediction that the tests copy."""
    return {"folder": tmp_path_factory.mktemp("made")}


@pytest.fixture
def prediction(kit, made, tmp_path):
    ready = made["folder"] / "slide.prediction.zarr"
    if not ready.exists():
        model = kit.model(made["folder"] / "model.safetensors")
        source, _ = kit.image(made["folder"] / "slide.zarr", (64, 60))
        tile_predict(source, model=model, **TILED)
    return Path(shutil.copytree(ready, tmp_path / "p.zarr"))


def test_what_was_published_is_in_order(prediction):
    report = verify(str(prediction))
    stored = [path for path in prediction.rglob("*") if path.is_file()]
    inside = [path for path in stored if ".unetkit" not in path.parts]
    assert report.chunks == len(inside) > 50
    assert verify(f"{prediction}/").chunks == report.chunks


CHUNK = "labels/instances/0/c/1/1"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)


def swap(path):
    other = path.with_name("2")
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def add(path):
    stray = path.with_name("9")
    shutil.copy(path, stray)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing", Path.unlink, f"{CHUNK} is missing"),
    ("empty", lambda path: path.write_bytes(b""), f"{CHUNK} is 0 bytes long"),
    ("cut off", lambda path: path.write_bytes(path.read_bytes()[:-1]), f"{CHUNK} is"),
    ("longer", lambda path: path.write_bytes(path.read_bytes() + b"junk"), f"{CHUNK} is"),
    ("exchanged", swap, f"{CHUNK} .*labels/instances/0/c/1/2 "),
    ("stray", add, "labels/instances/0/c/1/9 was not there"),
    *((f"bit at {at}", lambda path, at=at: flip(path, at), CHUNK) for at in range(0, 120, 7)),
]


@pytest.mark.parametrize(("what", "damage", "words"), DAMAGES, ids=[d[0] for d in DAMAGES])
def test_damage_is_named(prediction, what, damage, words):
    damage(prediction / CHUNK)
    with pytest.raises(CheckError, match=words) as caught:
        verify(str(prediction))
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("place", [".", "0", "labels", "labels/classes"])
def test_metadata_is_checked_too(prediction, place):
    document = prediction / place / "zarr.json"
    document.write_text(document.read_text().replace("0", "1", 1))
    with pytest.raises((CheckError, InputError)) as caught:
        verify(str(prediction))
    assert "zarr.json" in str(caught.value)


def test_without_the_check_a_missing_chunk_reads_as_background(prediction):
    (prediction / CHUNK).unlink()
    labels = open_image(str(prediction)).labels["instances"]
    np.testing.assert_array_equal(labels.read(0, 16, 32, 16, 32), 0)


def test_many_damages_are_counted(prediction, monkeypatch):
    monkeypatch.setattr(sys.modules[verify.__module__], "NAMED", 5)
    shutil.rmtree(prediction / "0" / "c")
    with pytest.raises(CheckError, match=r"got 16 of .* and 11 more"):
        verify(str(prediction))


def test_what_is_no_finished_prediction_is_refused(prediction, tmp_path):
    with pytest.raises(MissingError):
        verify(str(tmp_path / "nothing.zarr"))
    listing = prediction / ".unetkit" / "chunks.jsonl"
    listing.write_text('{"array": "../..", "key": "x", "length": 1, "crc32": 1}\n')
    with pytest.raises(InputError, match="inside"):
        verify(str(prediction))
    listing.write_text("[]\n")
    with pytest.raises(InputError, match="line 1"):
        verify(str(prediction))
    listing.unlink()
    with pytest.raises(InputError, match="unfinished prediction"):
        verify(str(prediction))
    with pytest.raises(InputError, match="checksums"):
        verify(str(tmp_path))
    assert not Path(partial_url(str(prediction))).exists()
