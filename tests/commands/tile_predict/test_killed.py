"""kill -9 at any moment: the output is absent or complete, and going on gives the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unetkit.commands.verify import verify

# A process that has loaded everything and computed nothing starts one run after another by fork,
# so that a run is short beside the time that loading takes.
PROGRAM = """
import os, random, signal, sys, time, warnings
from pathlib import Path
from unetkit.commands.tile_predict.command import tile_predict

warnings.simplefilter("ignore")
options = {"tile": 16, "precision": "float32", "scheduler": "sync", "device": "cpu"}

def start(output, **more):
    pid = os.fork()
    if pid == 0:
        try:
            report = tile_predict("slide.zarr", output=output, **options, **more)
            Path("reused").write_text(str(report.tiles_reused))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return pid

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.monotonic()
assert end(start("whole.zarr")) == 0
lasted = time.monotonic() - began
chance = random.Random(int(sys.argv[1]))
journal = Path(".killed.zarr.unetkit-partial/.unetkit/journal.txt")
kills, done = 0, 0
while kills < 10:
    if Path("killed.zarr").exists():
        print("finished in between")
        break
    pid = start("killed.zarr", resume=True)
    time.sleep(chance.uniform(0, 0.5 * lasted))
    os.kill(pid, signal.SIGKILL)
    kills += end(pid) == -signal.SIGKILL
    now = journal.read_bytes().count(b"]") if journal.exists() else done
    assert now >= done, "a tile that was done was forgotten"
    done = now
code = end(start("killed.zarr", resume=True))
print(kills, done, code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork to start runs with")
def test_ten_kills_at_random_moments_change_no_byte(kit, slide):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    kills, _, code = map(int, run.stdout.splitlines()[-1].split())
    assert code == 0, run.stderr
    assert kills >= 1
    assert kit.differing("killed.zarr", "whole.zarr") == []
    verify("killed.zarr")
    left = {path.name for path in Path().iterdir() if path.name.startswith(".")}
    assert left == set()
