"""Killed at any moment or cut off from power: absent or complete, and resumed to the same bytes."""

import os
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.storage.images import open_image

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork to start runs with")

# A process that has loaded everything and computed nothing starts one run after another by fork.
# In a run that is to be killed an audit hook counts what changes names on the disk, and a wrapper
# what waits for the disk. It is killed before step n, that is after step n - 1.
PROGRAM = """
import os, random, signal, sys, time, warnings
from pathlib import Path
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.storage import pyramids

warnings.simplefilter("ignore")
# So that small images have smaller levels too.
pyramids.LARGEST_TOP = 16
options = {"tile": 16, "precision": "float32", "scheduler": "sync", "device": "cpu"}
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir"}

def kill_before(number):
    # Logs what is safe on the disk by then.
    passed, safe = [0], open("safe", "w")

    def step(*_):
        passed[0] += 1
        if passed[0] > number:
            os.kill(os.getpid(), signal.SIGKILL)

    def flushing(handle):
        step()
        fsync(handle)
        print(os.fstat(handle).st_ino, file=safe, flush=True)

    def flushing_all():
        step()
        sync()
        print("all", file=safe, flush=True)

    sys.addaudithook(lambda event, arguments: step() if event in STEPS else None)
    fsync, sync = os.fsync, os.sync
    os.fsync, os.sync = flushing, flushing_all
    return passed

def cut_power(folder, seed):
    # Leaves of what was not flushed nothing, an empty file or all, by chance.
    safe = set(Path("safe").read_text().split())
    chance = random.Random(seed)
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "all" not in safe and str(path.stat().st_ino) not in safe:
            what = chance.randrange(3)
            if what == 0:
                path.unlink()
            elif what == 1:
                path.write_bytes(b"")

def start(output, *, step=None, **more):
    pid = os.fork()
    if pid == 0:
        try:
            passed = None if step is None else kill_before(step)
            report = tile_predict(sys.argv[1], output=output, **{**options, **more})
            Path("report").write_text(f"{report.tiles_reused} {report.status}")
            Path("steps").write_text(str(passed and passed[0]))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def contents(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

def beside():
    return sorted(path.name for path in Path().iterdir() if path.name.startswith("."))

def journalled(partial):
    # A line that says that a tile is done ends with its checksum.
    path = Path(partial, ".unetkit", "journal.txt")
    return path.read_bytes().count(b"]\\n") if path.exists() else 0
"""

# Kills a run at ten random moments; what a run of its own takes is measured first.
RANDOM = """
began = time.monotonic()
assert end(start("whole.zarr")) == 0
lasted = time.monotonic() - began
chance = random.Random(3)
kills, done = 0, 0
while kills < 10 and not Path("killed.zarr").exists():
    pid = start("killed.zarr", resume=True)
    time.sleep(chance.uniform(0, 0.5 * lasted))
    os.kill(pid, signal.SIGKILL)
    kills += end(pid) == -signal.SIGKILL
    partial = ".killed.zarr.unetkit-partial"
    now = journalled(partial) if Path(partial, ".unetkit", "journal.txt").exists() else done
    assert now >= done, "a tile that was done was forgotten"
    done = now
assert end(start("killed.zarr", resume=True)) == 0
print(kills)
print(beside())
"""

# Makes sure first that all the steps are met with, then is killed at one after the other.
RESUMED = """
first, last, cut = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "power"
assert end(start("whole.zarr", step=10**9)) == 0
whole, steps = contents("whole.zarr"), int(Path("steps").read_text())
bad = []
for step in range(first, min(last, steps)):
    code = end(start("killed.zarr", step=step, resume=True))
    # One run takes a few steps more than another, by how its threads meet.
    if code == 0 and int(Path("steps").read_text()) <= step:
        break
    assert code == -signal.SIGKILL, code
    there = Path("killed.zarr").exists()
    if there and contents("killed.zarr").keys() - {".unetkit/journal.txt"} != whole.keys():
        bad.append((step, "an unfinished output was published"))
    partial = ".killed.zarr.unetkit-partial"
    if cut and not there:
        cut_power(partial, step)
    done = 0 if cut else journalled(partial)
    if end(start("killed.zarr", resume=True)) != 0:
        bad.append((step, "can't be resumed"))
    elif int(Path("report").read_text().split()[0]) < done:
        bad.append((step, "tiles that were done were done again"))
    elif contents("killed.zarr") != whole:
        found = contents("killed.zarr")
        names = [n for n in found.keys() | whole if found.get(n) != whole.get(n)]
        bad.append((step, f"other bytes, such as {sorted(names)[:5]}"))
    elif beside():
        bad.append((step, f"left {beside()}"))
    for path in ("killed.zarr", *beside()):
        os.system(f"rm -rf {path}")
print(steps)
print(bad)
"""

# Kills a run five times, after drawn parts of what floods and numbers its blocks.
SEPARATED = """
from unetkit.commands.tile_predict import plan
from unetkit.progress import SILENT

plan.BLOCK = 16
scheduler, threshold, seed_level = sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
parted = {"separate": "watershed", "threshold": threshold, "seed_level": seed_level, "seed_size": 4}
chance = random.Random(5)

class Killing(type(SILENT)):
    stage, left = "", 0

    def start(self, what, *, total):
        self.stage = what

    def advance(self, parts=1, *, status=""):
        self.left -= self.stage == "number objects"
        if self.left == 0 and self.stage == "number objects":
            time.sleep(chance.uniform(0, 0.01))
            os.kill(os.getpid(), signal.SIGKILL)

def separate(output, left):
    progress, how = Killing(), {**parted, "scheduler": scheduler, "workers": 2}
    progress.left = left
    return end(start(output, progress=progress, resume=True, **how))

assert separate("whole.zarr", 10**9) == 0
# Seeds, floods, parts and ids of sixteen blocks.
kills = [separate("killed.zarr", left) for left in chance.sample(range(1, 65), 5)]
assert separate("killed.zarr", 10**9) == 0
print(kills.count(-signal.SIGKILL))
print(beside())
"""

# The earlier one is there at every step until the new one is whole, and may be gone on with.
REPLACED = """
first, every, earlier = int(sys.argv[2]), int(sys.argv[3]), {sys.argv[4]: 2}
assert end(start("earlier.zarr", **earlier)) == 0
os.system("cp -r earlier.zarr whole.zarr")
assert end(start("whole.zarr", step=10**9, overwrite=True)) == 0
earlier, whole = contents("earlier.zarr"), contents("whole.zarr")
steps, bad = int(Path("steps").read_text()), []
assert earlier != whole
for step in range(first if first >= 0 else steps + first, steps + 100, every):
    os.system("rm -rf whole.zarr && cp -r earlier.zarr whole.zarr")
    if end(start("whole.zarr", step=step, overwrite=True)) == 0:
        break
    found = contents("whole.zarr")
    if found not in ({}, earlier) and found.keys() - {".unetkit/journal.txt"} != whole.keys():
        bad.append((step, "neither the one nor the other"))
    # Before anything was begun there is nothing to go on with.
    if end(start("whole.zarr", resume=True)) != 0 and end(start("whole.zarr", overwrite=True)) != 0:
        bad.append((step, "can't be done again"))
    elif contents("whole.zarr") != whole or beside():
        bad.append((step, f"other bytes, or {beside()}"))
    os.system("rm -rf whole.zarr")
    for path in beside():
        os.system(f"rm -rf {path}")
print(step)
print(bad)
"""


@pytest.fixture
def run(kit, slide, run_program):
    """Return what runs a program on a small image: the number of steps, and what went wrong."""
    kit.image(Path("small.zarr"), (18, 30))

    def start(program, source="small.zarr", *arguments):
        done = run_program(PROGRAM + program, source, *arguments)
        steps, bad = done.stdout.splitlines()[-2:]
        return int(steps), f"{bad}\n{done.stderr[-4000:]}" if bad != "[]" else bad

    return start


def test_ten_kills_at_random_moments_change_no_byte(kit, run):
    kills, left = run(RANDOM, "slide.zarr")
    assert kills >= 1
    assert left == "[]"
    assert kit.differing("killed.zarr", "whole.zarr") == []
    verify("killed.zarr")


# The processes of every run take some seconds to begin.
@pytest.mark.parametrize(
    "scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_kills_while_objects_are_parted_change_no_byte(kit, run, scheduler):
    tile_predict("slide.zarr", output="first.zarr")
    data = open_image("first.zarr").data
    stored = data.read(0, 0, data.height, 0, data.width)[1]
    numbers = [str(float(np.quantile(stored, share)) / 255) for share in (0.3, 0.8)]
    kills, left = run(SEPARATED, "slide.zarr", scheduler, *numbers)
    assert kills == 5
    assert left == "[]"
    assert kit.differing("killed.zarr", "whole.zarr") == []
    made = open_image("killed.zarr")
    assert made.attributes["prediction"]["separate"] == "watershed"
    assert made.labels["instances"].read(0, 0, data.height, 0, data.width).max() > 1
    verify("killed.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "power"])
def test_an_end_before_every_step_changes_no_byte(run, end):
    steps, bad = run(RESUMED, "small.zarr", "0", "10000", end)
    assert bad == "[]"
    assert steps > 100


@pytest.mark.slow
@pytest.mark.parametrize(("first", "otherwise"), [("-30", "batch"), ("0", "grow")])
def test_an_end_before_every_step_of_a_replacement_loses_neither(run, first, otherwise):
    steps, bad = run(REPLACED, "small.zarr", first, "1", otherwise)
    assert bad == "[]"
    assert steps > 100


def test_an_end_before_some_steps_of_another_decision_loses_neither(run):
    steps, bad = run(REPLACED, "small.zarr", "3", "40", "grow")
    assert bad == "[]"
    assert steps > 80


# What is taken away, with what end, and what happens then.
GUARDS = [
    ("partial.sweep = lambda folder: None", "kill", "other bytes"),
    ("partial.sync_documents = lambda folder: None", "power", "can't be resumed"),
    ("run.tile_checksum = lambda job: zip_of(job)", "power", "other bytes"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("removed", "end", "words"), GUARDS)
def test_without_the_guard_it_would(run, removed, end, words):
    before = """
from unetkit.commands.tile_predict import run
from unetkit.storage import partial
zip_of = lambda job: journal_of(job)
def journal_of(job):
    from unetkit.storage.journal import Journal
    return Journal(".killed.zarr.unetkit-partial").done()[job.key]
"""
    _, bad = run(before + removed + "\n" + RESUMED, "small.zarr", "30", "75", end)
    assert words in bad
