"""kill -9 at every change of a name and before every fsync: going on gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from unetkit.pipeline.verify import verify

if TYPE_CHECKING:
    from types import SimpleNamespace

# A process that has loaded everything and computed nothing starts one run after another by fork.
# In a run that is to be killed an audit hook counts what changes names on the disk, and a wrapper
# what waits for the disk. It is killed before step n, that is after step n - 1.
PROGRAM = """
import os, signal, sys, warnings
from pathlib import Path
from unetkit.pipeline.tile_predict import tile_predict
from unetkit.storage import pyramids

warnings.simplefilter("ignore")
# So that small images have smaller levels too.
pyramids.LARGEST_TOP = 16
options = {"tile": 16, "precision": "float32", "scheduler": "sync", "device": "cpu"}
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir"}

def kill_before(number):
    left = [number]

    def step(*_):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, arguments: step() if event in STEPS else None)
    fsync, sync = os.fsync, os.sync
    os.fsync = lambda handle: (step(), fsync(handle))
    os.sync = lambda: (step(), sync())

def start(output, *, step=None, **more):
    pid = os.fork()
    if pid == 0:
        try:
            if step is not None:
                kill_before(step)
            report = tile_predict(sys.argv[1], output=output, **options, **more)
            Path("report").write_text(f"{report.tiles_reused} {report.status}")
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

RESUMED = """
assert end(start("whole.zarr")) == 0
whole = contents("whole.zarr")
step, bad = 0, []
while True:
    code = end(start("killed.zarr", step=step, resume=True))
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    there = Path("killed.zarr").exists()
    if there and contents("killed.zarr").keys() - {".unetkit/journal.txt"} != whole.keys():
        bad.append((step, "an unfinished output was published"))
    done = journalled(".killed.zarr.unetkit-partial")
    if end(start("killed.zarr", resume=True)) != 0:
        bad.append((step, "can't be resumed"))
    elif int(Path("report").read_text().split()[0]) < done:
        bad.append((step, "tiles that were done were done again"))
    elif contents("killed.zarr") != whole:
        names = contents("killed.zarr").keys() ^ whole.keys()
        bad.append((step, f"other bytes, such as {sorted(names)[:5]}"))
    elif beside():
        bad.append((step, f"left {beside()}"))
    step += 1
    for path in ("killed.zarr", *beside()):
        os.system(f"rm -rf {path}")
print(step)
print(bad)
"""


def run(program: str, *arguments: str) -> tuple[int, str]:
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork to start runs with")
def test_a_kill_before_every_step_changes_no_byte(kit: SimpleNamespace, slide: str) -> None:
    kit.image(Path("small.zarr"), (18, 30))
    steps, bad = run(RESUMED, "small.zarr")
    assert steps > 60
    assert bad == "[]"
    verify("killed.zarr")
