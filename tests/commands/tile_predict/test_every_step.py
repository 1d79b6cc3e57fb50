"""kill -9 and power cuts at every change of a name and before every fsync: the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A process that has loaded everything and computed nothing starts one run after another by fork.
# In a run that is to be killed an audit hook counts what changes names on the disk, and a wrapper
# what waits for the disk. It is killed before step n, that is after step n - 1.
PROGRAM = """
import os, random, signal, sys, warnings
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
            report = tile_predict(sys.argv[1], output=output, **options, **more)
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

# Only what happens once the new output is complete can touch the earlier one.
REPLACED = """
assert end(start("earlier.zarr", threshold=0.4)) == 0
assert end(start("whole.zarr", step=10**9)) == 0
earlier, whole, steps = contents("earlier.zarr"), contents("whole.zarr"), Path("steps").read_text()
bad = []
assert earlier != whole
for step in range(int(steps) - 30, int(steps) + 100):
    os.system("cp -r earlier.zarr killed.zarr")
    if end(start("killed.zarr", step=step, overwrite=True)) == 0:
        break
    found = contents("killed.zarr")
    if found not in ({}, earlier) and found.keys() - {".unetkit/journal.txt"} != whole.keys():
        bad.append((step, "neither the one nor the other"))
    if end(start("killed.zarr", overwrite=True)) != 0:
        bad.append((step, "can't be done again"))
    elif contents("killed.zarr") != whole or beside():
        bad.append((step, f"other bytes, or {beside()}"))
    os.system("rm -rf killed.zarr")
    for path in beside():
        os.system(f"rm -rf {path}")
print(step - int(steps) + 30)
print(bad)
"""


def run(program, *arguments):
    """Run it; return the number of steps, and what went wrong at which."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    steps, bad = done.stdout.splitlines()[-2:]
    return int(steps), f"{bad}\n{done.stderr[-4000:]}" if bad != "[]" else bad


FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork to start runs with")


@pytest.mark.slow
@FORK
@pytest.mark.parametrize("end", ["kill", "power"])
def test_an_end_before_every_step_changes_no_byte(kit, slide, end):
    kit.image(Path("small.zarr"), (18, 30))
    steps, bad = run(RESUMED, "small.zarr", "0", "10000", end)
    assert bad == "[]"
    assert steps > 100


@pytest.mark.slow
@FORK
def test_an_end_before_every_step_of_a_replacement_loses_neither(kit, slide):
    kit.image(Path("small.zarr"), (18, 30))
    steps, bad = run(REPLACED, "small.zarr")
    assert bad == "[]"
    assert steps > 40


# What is taken away, with what end, and what happens then.
GUARDS = [
    ("partial.sweep = lambda folder: None", "kill", "other bytes"),
    ("partial.sync_documents = lambda folder: None", "power", "can't be resumed"),
    ("run.tile_checksum = lambda job: zip_of(job)", "power", "other bytes"),
]


@pytest.mark.slow
@FORK
@pytest.mark.parametrize(("removed", "end", "words"), GUARDS)
def test_without_the_guard_it_would(kit, slide, removed, end, words):
    kit.image(Path("small.zarr"), (18, 30))
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
