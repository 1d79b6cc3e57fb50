"""A run ends at a tile boundary, nothing of it is lost, and each chunk is written once."""

import math
import os
import signal
from collections import Counter
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
from zarr.storage import LocalStore, WrapperStore

from unetkit.commands.tile_predict import command
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.plan import Plan
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import StoppedError
from unetkit.storage import nodes
from unetkit.storage.images import open_image
from unetkit.storage.planes import PlaneArray

TILED = {"tile": 16, "precision": "exact", "scheduler": "sync"}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_it_between_tiles(kit, slide, number, code):
    progress = kit.watching(at=4, act=lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError, match=r"of 16 tiles; .* --resume") as caught:
        tile_predict(slide, **{**TILED, "scheduler": "threads"}, progress=progress)
    assert caught.value.exit_code == code
    assert not Path("slide.prediction.zarr").exists()
    report = tile_predict(slide, **TILED, resume=True)
    assert report.tiles_reused >= 4


class Watched(WrapperStore[LocalStore]):
    """A folder as zarr sees it, which writes down what is done to chunks, in order."""

    seen = []  # noqa: RUF012

    def _note(self, what, key):
        if not key.endswith((".json", ".zarray", ".zgroup", ".zattrs")):
            self.seen.append((str(self._store.root), what, key))

    async def get(self, key, *rest, **more):
        self._note("get", key)
        return await super().get(key, *rest, **more)

    async def set(self, key, value):
        self._note("set", key)
        await super().set(key, value)

    async def delete(self, key):
        # What a chunk of nothing but background is written by.
        self._note("set", key)
        await super().delete(key)


@pytest.fixture
def watched(monkeypatch):
    """Return what is done to the chunks of all arrays that are opened, in order."""

    def watching(url, *, read_only):
        return Watched(LocalStore(url, read_only=read_only))

    nodes.opened.cache_clear()
    monkeypatch.setattr(nodes, "LocalStore", watching)
    monkeypatch.setattr(Watched, "seen", [])
    yield Watched.seen
    nodes.opened.cache_clear()


def sets_and_reads(seen, folder):
    """Count how often each chunk below a folder is set; name those read before the last is.

    One writer for each chunk sets it once, whole: where a part of it is written, what is there is
    read first.
    """
    found = {}
    for place in {place for place, _, _ in seen if Path(folder).resolve() in Path(place).parents}:
        own = [(what, key) for at, what, key in seen if at == place]
        last = max((n for n, (what, _) in enumerate(own) if what == "set"), default=-1)
        sets = Counter(key for what, key in own if what == "set")
        early = {key for what, key in own[: last + 1] if what == "get"}
        found[Path(place).relative_to(Path(folder).resolve()).as_posix()] = (sets, early)
    return found


@pytest.mark.parametrize(("scheduler", "workers"), [("sync", None), ("threads", 4)])
@pytest.mark.parametrize("tile", [32, 1104])
def test_each_chunk_is_set_once_and_none_is_read_while_its_array_is_written(
    kit,
    tmp_path,
    watched,
    tile,
    scheduler,
    workers,
):
    model = kit.model(tmp_path / "model.safetensors")
    # The larger one has a smaller level, and chunks of half a tile.
    source, _ = kit.image(tmp_path / "slide.zarr", (130, 150) if tile == 32 else (1060, 1130))
    report = tile_predict(
        source, model=model, tile=tile, precision="float32", scheduler=scheduler, workers=workers
    )
    partial = str(tmp_path / ".slide.prediction.zarr.unetkit-partial")
    found = sets_and_reads(watched, partial)
    levels = ["0"] if tile == 32 else ["0", "1"]
    wanted = {
        f"{group}{n}" for group in ("", "labels/classes/", "labels/instances/") for n in levels
    }
    # An image of one block has no ids that are not final yet.
    assert found.keys() == wanted | ({".unetkit/work/0"} if tile != 32 else set())
    made = open_image(report.output)
    for name, data in [("", made.data), *made.labels.items()]:
        level = f"labels/{name}/0" if name else "0"
        parts = [-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]
        assert len(found[level][0]) == math.prod(parts)
    for name, (sets, early) in found.items():
        assert set(sets.values()) == {1}, name
        assert early == set(), name


def test_a_chunk_that_tiles_share_would_be_noticed(kit, tmp_path, watched, monkeypatch):
    # Without the guards: chunks of two tiles a side, and nothing that refuses a part of one.
    monkeypatch.setattr(Plan, "chunk", property(lambda plan: 2 * plan.tile))
    monkeypatch.setattr(PlaneArray, "_check_writable", lambda *_: None)
    model = kit.model(tmp_path / "model.safetensors")
    source, _ = kit.image(tmp_path / "slide.zarr", (130, 150))
    tile_predict(source, model=model, tile=32, precision="float32", scheduler="sync")
    partial = str(tmp_path / ".slide.prediction.zarr.unetkit-partial")
    for name in ("0", "labels/classes/0"):
        sets, early = sets_and_reads(watched, partial)[name]
        assert max(sets.values()) == 4
        assert early


def predicted(kit, model, source, output, **options):
    """Predict, and return the values of all arrays, however they are cut into chunks."""
    made = open_image(
        tile_predict(
            source,
            model=model,
            output=output,
            precision="exact",
            probabilities="float32",
            **options,
        ).output
    )
    return {
        name: kit.read(data).tobytes() for name, data in [("", made.data), *made.labels.items()]
    }


def cut(kit, folder, side):
    """Store an image of noise in chunks of so many pixels; its pixels are always the same."""
    place = folder / f"chunks{side}.zarr"
    if not place.exists():
        kit.image(place, (130, 150), chunk=side)
    return str(place)


# Each tile with each size of the input's chunks; the numbers of workers take turns.
THIN = [
    (tile, chunk, (1, 2, 4)[(row + column) % 3])
    for row, tile in enumerate((32, 64, 96))
    for column, chunk in enumerate((16, 50, 64))
]


def test_tiles_chunks_and_workers_make_no_difference(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors")
    first = cut(kit, tmp_path, 32)
    alone = predicted(kit, model, first, str(tmp_path / "alone.zarr"), tile=160, scheduler="sync")
    assert alone.keys() == {"", "classes", "instances"}
    for tile, chunk, workers in THIN:
        options = {"tile": tile, "scheduler": "threads", "workers": workers}
        output = str(tmp_path / f"{tile}-{chunk}.zarr")
        found = predicted(kit, model, cut(kit, tmp_path, chunk), output, **options)
        assert found == alone, (tile, chunk, workers)
    # One other pixel is not overlooked.
    source, image = kit.image(tmp_path / "other.zarr", (130, 150))
    image[0][0, 70, 70] ^= 0x4000
    open_image(source).data.write(0, 0, 0, image[0])
    other = predicted(kit, model, source, str(tmp_path / "o.zarr"), tile=160, scheduler="sync")
    assert all(other[name] != alone[name] for name in alone)


# Processes begin once for each number of them, which takes most of the time.
@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_all_of_them_together_make_no_difference(kit, tmp_path, monkeypatch, workers, scheduler):
    model = kit.model(tmp_path / "model.safetensors")
    first = cut(kit, tmp_path, 32)
    alone = predicted(kit, model, first, str(tmp_path / "alone.zarr"), tile=160, scheduler="sync")
    with open_scheduler(scheduler, workers) as opened:
        monkeypatch.setattr(command, "open_scheduler", lambda *_: nullcontext(opened))
        for tile, chunk in product((32, 64, 96), (16, 50, 64)):
            options = {"tile": tile, "scheduler": scheduler, "workers": workers}
            output = str(tmp_path / f"{tile}-{chunk}.zarr")
            found = predicted(kit, model, cut(kit, tmp_path, chunk), output, **options)
            assert found == alone, (tile, chunk)
