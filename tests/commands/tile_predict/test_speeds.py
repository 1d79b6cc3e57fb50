"""How fast networks are is remembered between runs, and only for what it was measured on."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unetkit.commands.tile_predict import speeds
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.ensemble import load_model
from unetkit.commands.tile_predict.speeds import Speed, speed_of
from unetkit.models import hardware


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return where speeds are kept in a test."""
    monkeypatch.setenv(speeds.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "speeds"


@pytest.fixture
def model(kit, tmp_path):
    return load_model(kit.model(tmp_path / "m.safetensors"), device="cpu")


def ask(model, *, seconds=1.0, size=64, precision="float32"):
    return speed_of(model, size, precision=precision, measure=lambda: seconds)


def test_what_was_measured_once_is_remembered(cache, model):
    assert ask(model, seconds=2.5) == Speed(2.5, remembered=False)
    assert ask(model, seconds=7.0) == Speed(2.5, remembered=True)
    assert len(list(cache.iterdir())) == 1


OTHERS = {
    "size": lambda model, patch: ask(model, size=65),
    "precision": lambda model, patch: ask(model, precision="exact"),
    "weights": lambda model, patch: ask(replace(model, sha256="0" * 64)),
    "unetkit": lambda model, patch: patch.setattr(speeds, "__version__", "0.0.0"),
    "torch": lambda model, patch: patch.setattr(torch, "__version__", "2.0.0"),
    "processor": lambda model, patch: patch.setattr(speeds, "processor_name", lambda: "other"),
    "processors": lambda model, patch: patch.setattr(speeds, "processor_count", lambda: 4099),
    "instructions": lambda model, patch: patch.setattr(
        hardware, "processor_features", lambda: frozenset({"other"})
    ),
    "allocator": lambda model, patch: patch.setenv("MALLOC_ARENA_MAX", "17"),
    "limited instructions": lambda model, patch: patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2"),
    "threads": lambda model, patch: patch.setattr(torch, "get_num_threads", lambda: 4099),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_is_otherwise_is_measured_anew(cache, model, monkeypatch, other):
    ask(model, seconds=2.0)
    # It changes what is around, or asks about something else itself.
    found = other(model, monkeypatch)
    found = ask(model) if found is None else found
    assert found == Speed(1.0, remembered=False)
    assert len(list(cache.iterdir())) == 2


DAMAGED = (
    *("", "{", "[]", "null", "[" * 100_000, '{"of": {}, "seconds": 3.0}', '{"seconds": 3.0}'),
    *("nan", "inf", "-1.0", "0.0", "3", "true", '"3.0"'),
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_entry_counts_as_none_and_is_mended(cache, model, text):
    ask(model, seconds=2.0)
    (entry,) = cache.iterdir()
    of = json.dumps(json.loads(entry.read_text())["of"])
    number = text.replace("nan", "NaN").replace("inf", "Infinity")
    whole = text == "" or text[0] in "{[" or text == "null"
    entry.write_text(text if whole else f'{{"of": {of}, "seconds": {number}}}')
    assert ask(model) == Speed(1.0, remembered=False)
    assert ask(model, seconds=9.0) == Speed(1.0, remembered=True)


def test_an_entry_ages(cache, model):
    ask(model, seconds=2.0)
    (entry,) = cache.iterdir()
    for days, found in ((speeds.DAYS - 1, Speed(2.0, True)), (speeds.DAYS + 1, Speed(1.0, False))):
        when = time.time() - days * 24 * 3600
        os.utime(entry, (when, when))
        assert ask(model) == found


@pytest.mark.parametrize("place", [os.devnull, "file/below a file"])
def test_where_nothing_can_be_written_it_is_measured(model, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(speeds.VARIABLE, str(tmp_path / place))
    for _ in range(2):
        assert ask(model) == Speed(1.0, remembered=False)


def test_a_home_that_is_none_is_no_error(model, monkeypatch):
    for name in (speeds.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "not/absolute")
    monkeypatch.setenv("HOME", "nor/this")
    assert speeds.folder() is None
    assert ask(model) == Speed(1.0, remembered=False)


def test_the_folder_is_the_one_named_or_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/a/home")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    monkeypatch.setenv(speeds.VARIABLE, "/mine")
    assert speeds.folder() == Path("/mine/speeds")
    monkeypatch.delenv(speeds.VARIABLE)
    assert speeds.folder() == Path("/fast/unetkit/speeds")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert speeds.folder() == Path("/a/home/.cache/unetkit/speeds")


def test_the_oldest_are_forgotten(cache, model, monkeypatch):
    monkeypatch.setattr(speeds, "MOST", 3)
    for size in range(5):
        ask(model, size=size)
        for entry in cache.iterdir():
            before = entry.stat().st_mtime - 10
            os.utime(entry, (before, before))
    kept = {json.loads(entry.read_text())["of"]["size"] for entry in cache.iterdir()}
    assert kept == {2, 3, 4}


def test_jobs_at_the_same_time_do_not_meet(cache, model, monkeypatch):
    monkeypatch.setattr(speeds, "MOST", 2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: ask(model, size=n % 5, seconds=1.0 + n % 5), range(200)))
    assert [speed.seconds for speed in found] == [1.0 + n % 5 for n in range(200)]
    assert all(json.loads(entry.read_text())["seconds"] >= 1 for entry in cache.iterdir())


def test_a_prediction_by_what_is_remembered_is_the_same(cache, kit, slide, monkeypatch):
    runs = []
    real = hardware.forward

    def forward(module, batch, *, precision):
        runs.append(batch.shape[-1])
        return real(module, batch, precision=precision)

    monkeypatch.setattr(hardware, "forward", forward)
    notes = kit.watching()
    first = tile_predict(slide, output="a.zarr", precision="exact")
    measured, runs[:] = len(runs), []
    again = tile_predict(slide, output="b.zarr", precision="exact", progress=notes)
    assert (first.speed_remembered, again.speed_remembered) == (False, True)
    # The input that shows the speed was run twice.
    assert len(runs) == measured - 2
    assert again.tile == first.tile
    assert any(
        note.endswith("with the speed that an earlier run measured on cpu") for note in notes.notes
    )
    assert tile_predict(slide, output="c.zarr", precision="exact", dry_run=True).speed_remembered
    assert kit.differing("a.zarr", "b.zarr") == []


def test_a_small_image_loads_nothing_that_it_does_not_need(kit, slide, run_program):
    program = """
import sys
from unetkit.commands.tile_predict.command import tile_predict
tile_predict("slide.zarr", output="o.zarr", tile=int(sys.argv[1]))
unused = {"dask", "scipy.ndimage", "scipy.sparse", "pandas", "xarray", "jinja2", "skimage"}
print(sorted(unused & sys.modules.keys()))
"""
    assert run_program(program, "96").stdout == "[]\n"
