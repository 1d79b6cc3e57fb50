"""Killed at any moment, a command that is given again ends with the bytes of one that was not.

    UNETKIT_KILLS=500 UNETKIT_FUZZ_SEED=1 python -m pytest -n 2 tests/fuzz/test_kills.py

What may stay after a kill is told by `cleared`: tries to write a file, until an hour is over, and
where the command is not given again its partial and lock. After the next run nothing may be left.
"""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest

SEED = int(os.environ.get("UNETKIT_FUZZ_SEED", "0"))
KILLS = int(os.environ.get("UNETKIT_KILLS", "50"))
ONE = os.environ.get("UNETKIT_FUZZ_CASE")

SYNC = "--scheduler sync"
PREDICT = f"tile-predict slide.zarr --tile 32 --precision float32 --device cpu {SYNC}"
TRAIN = (
    "train data.zarr --set depth=1 --set width=2 --recipe-set tile=32 --recipe-set batch=2"
    " --recipe-set learning_rate=0.05 --device cpu --precision exact --workers 0"
)
# What is needed beside the words of each command, and what is added to give it again.
COMMANDS: dict[str, tuple[str, str]] = {
    "import images new.zarr --labels masks": ("", ""),
    "import tiled.tif new.zarr --labels drawn.json": ("", ""),
    "import images seen.zarr --labels masks --overwrite": ("", ""),
    "import wide.png data.zarr --labels wide-mask.png --append": ("", ""),
    "augment data.zarr new.zarr --copies 1": ("", ""),
    "remove data.zarr two": ("", ""),
    f"weights bare.zarr {SYNC}": ("", "--resume"),
    f"weights data.zarr --overwrite --sigma 4 {SYNC}": ("", ""),
    f"{PREDICT} -o new.zarr": ("model.safetensors", "--resume"),
    f"{PREDICT} --threshold 0.3 -o seen.zarr --overwrite": ("model.safetensors", ""),
    "tile-predict data.zarr --tile 32 --precision exact --device cpu -o seen.zarr --overwrite"
    f" --threshold 0.3 {SYNC}": ("model.safetensors", ""),
    f"{PREDICT} --tile 16 -o slide.prediction.zarr --resume": (
        "model.safetensors .slide.prediction.zarr.unetkit-partial",
        "",
    ),
    f"eval seen.zarr data.zarr --report new.html {SYNC}": ("", ""),
    f"eval seen.zarr data.zarr --resume {SYNC}": (".seen.zarr.eval.unetkit-partial", ""),
    f"measure seen.zarr data.zarr --csv new.csv {SYNC}": ("", ""),
    "export seen.zarr --to geojson -o new.geojson": ("", ""),
    "export seen.zarr --to tiff -o new.tif": ("", ""),
    f"{TRAIN} --steps 2 -o new.safetensors": ("", "--resume"),
    f"{TRAIN} --steps 20 -o begun.safetensors --resume": ("begun.train", ""),
    f"{TRAIN} --steps 2 -o model.safetensors --overwrite": (
        "model.log.jsonl model.training.html",
        "",
    ),
    "tune model.safetensors data.zarr -o new.safetensors --device cpu": ("", ""),
    "models export model.safetensors --size 64 -o new.pt2": ("", ""),
    "plugins new unetkit-new": ("", ""),
}
HALF_WRITTEN = re.compile(r".+\.[0-9a-f]{16}\.tmp")
HOURS = 2 * 3600
# What no two runs write alike, in a log or in the page that is made of it: how long they took.
TIMES = re.compile(rb'"(?:seconds|steps_per_second)": [0-9.e-]+')

# Where a prediction, which is replaced once more by itself, says whose probabilities it has.
WHENCE = re.compile(r"seen\.zarr/(\.unetkit/chunks\.jsonl|\w+/zarr\.json)")


def contents(folder):
    """Return what is in each file, without times; of an empty folder that it is there."""
    return {
        path.relative_to(folder).as_posix(): plain(path) if path.is_file() else b"a folder"
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def plain(path):
    content = path.read_bytes()
    return TIMES.sub(b"", content) if path.name.endswith((".log.jsonl", ".html")) else content


class Runs:
    """What comes of each command undisturbed."""

    def __init__(self, seeds, disk, forks):
        self.seeds, self.disk, self.forks = seeds, disk, forks
        self._known = {}

    def lay(self, command, folder):
        """Copy what a command works on, files with their times."""
        folder.mkdir()
        for name in {*command.split(), *COMMANDS[command][0].split()}:
            if (self.seeds / name).exists():
                copy = shutil.copytree if (self.seeds / name).is_dir() else shutil.copy2
                copy(self.seeds / name, folder / name)

    def undisturbed(self, command):
        """Return what a run leaves behind, what it says, and what it took."""
        if command not in self._known:
            folder = self.disk / "undisturbed"
            self.lay(command, folder)
            done = self.forks(folder, f"{command} --json")
            assert done["code"] == 0, done["err"]
            self._known[command] = (contents(folder), done)
            shutil.rmtree(folder)
        return self._known[command]

    def differing(self, command, folder, out):
        """Say what of a folder, and of what was said last, is not as it is undisturbed."""
        whole, said = self.undisturbed(command)
        found = contents(folder)
        names = {name for name in whole.keys() | found if found.get(name) != whole.get(name)}
        if "-o seen.zarr --overwrite" in command:
            names = {name for name in names if not WHENCE.fullmatch(name)}
        # A refusal says no scores: the report of a run that got to its end is there.
        if command.startswith("eval") and out and scores(out) != scores(said["out"]):
            names.add("the scores")
        return sorted(names)


def scores(said):
    return {**json.loads(said), "tiles_reused": None}


def an_hour_later(folder):
    """Let what a kill left half written be older than any job that is at work."""
    for path in folder.rglob("*.tmp"):
        if HALF_WRITTEN.fullmatch(path.name):
            then = path.stat().st_mtime - HOURS
            os.utime(path, (then, then))


@pytest.fixture(scope="module")
def runs(seeds, disk, forks):
    return Runs(seeds, disk, forks)


def moment(rng, taken):
    """Draw when to kill: before a change on the disk, or after a time of computing."""
    if rng.random() < 0.5:
        return {"step": int(rng.integers(1, taken["steps"] + 1))}
    return {"after": round(float(rng.uniform(0.001, taken["seconds"])), 4)}


def one_kill(number, runs, folder):
    """Kill a command at moments drawn by a number; return what is wrong then, or nothing."""
    rng = np.random.default_rng([SEED, number])
    command = list(COMMANDS)[number % len(COMMANDS)]
    again = f"{command} {COMMANDS[command][1]}".strip()
    _, taken = runs.undisturbed(command)
    runs.lay(command, folder)
    killed = [moment(rng, taken)]
    done = runs.forks(folder, f"{command} --json", **killed[0])
    # What goes on after a kill may be killed as well.
    while done["code"] < 0 and rng.random() < 0.25:
        an_hour_later(folder)
        killed.append(moment(rng, taken))
        done = runs.forks(folder, f"{again} --json", **killed[-1])
    an_hour_later(folder)
    before = done["code"] if done["code"] >= 0 else 0
    done = runs.forks(folder, f"{again} --json")
    wrong = runs.differing(command, folder, done["out"])
    # What had got to its end refuses to be done once more: the output is there, the sample gone.
    if {before, done["code"]} <= {0, 3, 4} and not wrong:
        shutil.rmtree(folder)
        return None
    replay = f"UNETKIT_FUZZ_SEED={SEED} UNETKIT_FUZZ_CASE={number} pytest -n 0 {__file__}"
    return (
        f"{before}, {done['code']}, {wrong[:5]} differ\n  {command}\n  killed: {killed}\n"
        f"  {done['err'][-400:]}\n  {replay}"
    )


PARTS = [[int(ONE)]] if ONE else [range(KILLS)[k : k + 25] for k in range(0, KILLS, 25)]


@pytest.mark.parametrize("numbers", PARTS, ids=lambda numbers: f"{numbers[0]}-{numbers[-1]}")
def test_a_kill_changes_no_byte(numbers, runs, disk):
    found = [one_kill(number, runs, disk / f"kill{number}") for number in numbers]
    wrong = [text for text in found if text]
    assert not wrong, f"{len(wrong)} of {len(found)} kills\n" + "\n".join(wrong)
