"""Killed at any moment, a command that is given again ends with the bytes of one that was not.

UNETKIT_KILLS=500 UNETKIT_FUZZ_SEED=1 python -m pytest -n 2 -m slow tests/fuzz/test_kills.py
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil

import numpy as np
import pytest

pytestmark = pytest.mark.slow

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
    "import tiled.tif new.zarr": ("", ""),
    "import images seen.zarr --labels masks --overwrite": ("", ""),
    "import wide.png data.zarr --labels wide-mask.png --append": ("", ""),
    "augment data.zarr new.zarr --copies 1": ("", ""),
    "remove data.zarr two": ("", ""),
    f"weights bare.zarr {SYNC}": ("", "--resume"),
    f"weights data.zarr --overwrite --sigma 4 {SYNC}": ("", ""),
    f"{PREDICT} -o new.zarr": ("model.safetensors", "--resume"),
    f"{PREDICT} --threshold 0.3 -o seen.zarr --overwrite": ("model.safetensors", ""),
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
}
# What no two runs write alike: times are in them.
LEFT = re.compile(r"\.[0-9a-f]{16}\.tmp$|^data\.zarr/\.two\.[0-9a-f]{16}\.unetkit-old/")
VARYING = ("*.log.jsonl", "*.training.html", "*.html")


def contents(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


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
        """Return what a run leaves behind, what it says, and how often it changes the disk."""
        if command not in self._known:
            folder = self.disk / "undisturbed"
            self.lay(command, folder)
            done = self.forks(folder, f"{command} --json")
            assert done["code"] == 0, done["err"]
            self._known[command] = (contents(folder), done["out"], done["steps"])
            shutil.rmtree(folder)
        return self._known[command]

    def differing(self, command, folder, out):
        """Say what of a folder, and of what was said last, is not as it is undisturbed."""
        whole, said, _ = self.undisturbed(command)
        found = contents(folder)
        names = {
            name
            for name in whole.keys() | found
            if found.get(name) != whole.get(name)
            and not (name in found and name in whole and varies(name))
        }
        if command.startswith("eval") and scores(out) != scores(said):
            names.add("the scores")
        # What was half written or half removed is hidden, and nothing reads it.
        return sorted(name for name in names if not LEFT.search(name))


def scores(said):
    return {**json.loads(said), "tiles_reused": None}


def varies(name):
    return any(fnmatch.fnmatch(name, pattern) for pattern in VARYING)


@pytest.fixture(scope="module")
def runs(seeds, disk, forks):
    return Runs(seeds, disk, forks)


def one_kill(number, runs, folder):
    """Kill a command at a moment drawn by a number; return what is wrong then, or nothing."""
    rng = np.random.default_rng([SEED, number])
    command = list(COMMANDS)[number % len(COMMANDS)]
    *_, steps = runs.undisturbed(command)
    runs.lay(command, folder)
    step = int(rng.integers(1, steps + 1))
    done = runs.forks(folder, f"{command} --json", step=step)
    replay = f"{command}\n  killed before change {step} of {steps}; UNETKIT_FUZZ_SEED={SEED}"
    replay += f" UNETKIT_FUZZ_CASE={number} pytest -n 0 -m slow tests/fuzz/test_kills.py"
    if done["code"] != -9:
        return f"ended with {done['code']}: {done['err'][-300:]}\n  {replay}"
    again = f"{command} {COMMANDS[command][1]} --json"
    done = runs.forks(folder, again)
    wrong = runs.differing(command, folder, done["out"] or "null")
    # What had got to its end refuses to be done once more: the output is there, the sample gone.
    if done["code"] not in (0, 3, 4) or wrong:
        return f"{done['code']}, {wrong[:5]} differ\n  {done['err'][-400:]}\n  {replay}"
    shutil.rmtree(folder)
    return None


def kill(numbers, runs, disk):
    found = [one_kill(number, runs, disk / f"kill{number}") for number in numbers]
    wrong = [text for text in found if text]
    assert not wrong, f"{len(wrong)} of {len(found)} kills\n" + "\n".join(wrong)


PARTS = [[int(ONE)]] if ONE else [range(KILLS)[k : k + 10] for k in range(0, KILLS, 10)]


@pytest.mark.parametrize("numbers", PARTS, ids=lambda numbers: f"{numbers[0]}-{numbers[-1]}")
def test_a_kill_changes_no_byte(numbers, runs, disk):
    kill(numbers, runs, disk)
