"""Predict, stop, damage, resume, verify, overwrite and export in any order: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from unetkit.commands.export_prediction import export_prediction
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import (
    CheckError,
    InputError,
    MissingError,
    OutputError,
    StoppedError,
    UsageError,
)
from unetkit.storage.outputs import partial_url

OUTPUT, EXPORT = "slide.prediction.zarr", "objects.geojson"
PARTIAL = partial_url(OUTPUT)
SETTINGS = {"a": {"threshold": 0.5}, "b": {"threshold": 0.4}}
TILES = 6
FINGERPRINT, JOURNAL = ".unetkit/fingerprint.json", ".unetkit/journal.txt"
DOCUMENTS = ("zarr.json", "0/zarr.json", "labels/classes/0/zarr.json")


class Plain(HypothesisProvider):
    """Draws by the seed alone: the usual one also takes numbers out of whatever was imported."""

    def _maybe_draw_constant(self, *_, **__):
        return None


@dataclass
class World:
    """The inputs, and what comes of them undisturbed."""

    folder: Path
    watching: type
    contents: object
    whole: dict[str, dict[str, bytes]] = field(default_factory=dict)
    exported: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0  # in which a run says how far it is

    def predict(self, name, progress, **more):
        tile_predict(
            "slide.zarr",
            output=OUTPUT,
            tile=16,
            device="cpu",
            precision="float32",
            scheduler="sync",
            progress=progress,
            **SETTINGS[name],
            **more,
        )


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Return a folder for what is made many times, in memory where that is one, and never wait."""
    patch = pytest.MonkeyPatch()
    patch.delattr(os, "sync", raising=False)
    patch.setattr(os, "fsync", lambda handle: None)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("disk")
    with tempfile.TemporaryDirectory(dir=shared, prefix="unetkit-") as folder:
        yield Path(folder)
    patch.undo()


@pytest.fixture
def world(kit, disk, monkeypatch):
    monkeypatch.setitem(AVAILABLE_PROVIDERS, "plain", Plain)
    folder = disk / "inputs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    kit.model("model.safetensors", depth=1)
    kit.image("slide.zarr", (30, 44))
    world = World(folder, kit.watching, kit.contents)
    for name in SETTINGS:
        progress = kit.watching()
        world.predict(name, progress)
        world.calls = progress.calls
        world.whole[name] = kit.contents(OUTPUT)
        export_prediction(OUTPUT, to="geojson", output=EXPORT)
        world.exported[name] = Path(EXPORT).read_bytes()
        shutil.rmtree(OUTPUT)
        Path(EXPORT).unlink()
    assert world.whole["a"] != world.whole["b"]
    assert progress.stages[0][1] == TILES
    yield world
    shutil.rmtree(folder)


def pixels(files):
    """Return the chunks among files."""
    return {name: content for name, content in files.items() if "/c/" in name}


class Store(RuleBasedStateMachine):
    """An output and its partial, and what must be there of either."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.folder = Path(tempfile.mkdtemp(dir=world.folder.parent))
        shutil.copytree(world.folder, self.folder, dirs_exist_ok=True)
        os.chdir(self.folder)
        self.inputs = world.contents(".")
        # The settings of a finished output, its files, and those that were published.
        self.output, self.files, self.published = None, {}, {}
        # The settings of an unfinished one, its tiles that count, and whether it can go on.
        self.partial, self.done, self.sound = None, set(), True
        self.exported = None

    @property
    def whole(self):
        """Whether the finished output is as it was published."""
        return self.files == self.published

    def teardown(self):
        os.chdir(self.world.folder)
        shutil.rmtree(self.folder)

    @rule(
        name=st.sampled_from(sorted(SETTINGS)),
        way=st.sampled_from(["plain", "resume", "overwrite"]),
        at=st.none() | st.integers(1, TILES + 4),
        end=st.sampled_from(["stop", "fault"]),
    )
    def predict(self, name, way, at, end):
        """Predict, to the end or until a signal or a fault of the disk comes."""
        progress = self.world.watching(at=at, act=getattr(self, end))
        more = {} if way == "plain" else {way: True}
        if self.refuses(name, way):
            before = self.world.contents(".")
            with pytest.raises((OutputError, InputError)):
                self.world.predict(name, progress, **more)
            assert self.world.contents(".") == before
            return
        if way == "resume" and self.output and not self.partial:
            self.world.predict(name, progress, **more)
            return
        reused = self.done if way == "resume" and self.partial else set()
        try:
            self.world.predict(name, progress, **more)
        except (StoppedError, OSError):
            assert at is not None
            assert at <= self.world.calls
            self.partial, self.sound = name, True
            self.done = self.journalled()
            # What was told as done is safe, but for tiles that a damaged output could not give.
            assert len(self.done) >= min(TILES, at) or not self.whole
        else:
            # A stop that comes with the last call has nothing left to stop.
            last = self.world.calls - (end == "stop")
            assert at is None or at > last
            self.output, self.files = name, self.world.contents(OUTPUT)
            self.published = self.files
            self.partial, self.done = None, set()
            # Its documents tell which output it has taken probabilities from, if any.
            whole = self.world.whole[name]
            assert pixels(self.files) == pixels(whole)
            assert self.files.keys() == whole.keys()
        assert progress.stages[0][1] == TILES
        assert reused <= self.done or self.output

    def refuses(self, name, way):
        """Say whether a prediction must not begin."""
        if way == "plain":
            return bool(self.output or self.partial)
        if way == "overwrite":
            return False
        if self.partial:
            return self.partial != name or not self.sound
        return bool(self.output) and self.output != name

    def stop(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def fault(self):
        raise OSError("power cut")

    def journalled(self):
        """Return the tiles that are done by the journal."""
        lines = Path(PARTIAL, JOURNAL).read_text().splitlines()
        return {line.split('"')[1] for line in lines if '"slide/' in line}

    @precondition(lambda self: self.output)
    @rule(number=st.integers(0), how=st.sampled_from(["flip", "cut", "remove"]))
    def damage_output(self, number, how):
        """Damage a chunk or a document of what is finished."""
        names = [name for name in sorted(self.files) if not name.startswith(".unetkit")]
        self.damage(OUTPUT, names[number % len(names)], how)
        self.files = self.world.contents(OUTPUT)

    @precondition(lambda self: self.partial and self.done)
    @rule(number=st.integers(0), how=st.sampled_from(["flip", "cut", "remove"]))
    def damage_tile(self, number, how):
        """Damage a chunk of what is unfinished: its tile is made again."""
        names = sorted(name for name in self.world.contents(PARTIAL) if "/c/" in name)
        if names:
            name = names[number % len(names)]
            self.damage(PARTIAL, name, how)

    @precondition(lambda self: self.partial)
    @rule(
        name=st.sampled_from([*DOCUMENTS, FINGERPRINT]),
        how=st.sampled_from(["cut", "remove", "edit"]),
    )
    def damage_document(self, name, how):
        """Damage a document of what is unfinished: it is refused, and stays."""
        # Of groups only some attributes matter.
        matters = how != "edit" or name.endswith("0/zarr.json")
        if matters and Path(PARTIAL, name).exists():
            self.damage(PARTIAL, name, how)
            self.sound = False
            self.predict(self.partial, "resume", at=None, end="stop")

    def damage(self, store, name, how):
        path = Path(store, name)
        content = path.read_bytes()
        # A chunk may have a second name in the other store, whose bytes are to stay.
        path.unlink()
        if how == "remove" or not content:
            return
        # One that was cut before can't be edited.
        if how == "edit" and self.sound:
            document = json.loads(content)
            document["attributes"] = {**document.get("attributes", {}), "other": 1}
            path.write_text(json.dumps(document))
        elif how in ("cut", "edit"):
            path.write_bytes(content[: len(content) // 2])
        else:
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    @rule()
    def verify(self):
        """Find what is damaged, and nothing else."""
        if self.output is None:
            with pytest.raises(MissingError):
                verify(OUTPUT)
        elif self.whole:
            verify(OUTPUT)
        else:
            with pytest.raises((CheckError, InputError)):
                verify(OUTPUT)

    @rule(overwrite=st.booleans())
    def export(self, overwrite):
        """Export what is there; what was exported before is lost to nothing but a new export."""
        try:
            export_prediction(OUTPUT, to="geojson", output=EXPORT, overwrite=overwrite)
        except (InputError, UsageError):
            assert not (self.output and self.whole)
        except OutputError:
            assert self.exported is not None
            assert not overwrite
        else:
            assert self.output
            assert overwrite or self.exported is None
            self.exported = Path(EXPORT).read_bytes()
            assert not self.whole or self.exported == self.world.exported[self.output]

    @invariant()
    def all_is_there(self):
        """Look at what lies in the folder, each file of it."""
        found = self.world.contents(".")
        for name, content in self.inputs.items():
            assert found.pop(name) == content
        if self.exported is not None:
            assert found.pop(EXPORT) == self.exported
        stores = {
            store: {
                name.removeprefix(f"{store}/"): found.pop(name)
                for name in list(found)
                if name.startswith(f"{store}/")
            }
            for store in (OUTPUT, PARTIAL)
        }
        assert found == {}
        assert stores[OUTPUT] == self.files
        assert bool(stores[PARTIAL]) == bool(self.partial)


def run(world, examples, steps):
    run_state_machine_as_test(
        lambda: Store(world),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Making a failure smaller would take many minutes.
            phases=(Phase.explicit, Phase.generate),
            database=None,
            derandomize=True,
            backend="plain",
        ),
    )


def test_nothing_is_lost_in_any_order(world):
    run(world, 15, 12)


@pytest.mark.slow
def test_nothing_is_lost_in_any_order_at_length(world):
    run(world, 200, 40)
