"""A large image keeps to the memory that it was given, from the first tile to the last level."""

import itertools
import json
import tracemalloc
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from unetkit.commands.verify import verify
from unetkit.geometry.tiles import cover
from unetkit.storage.image_writer import create_image

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="no /proc tells the peak"
)

PROGRAM = """
import json, sys
from pathlib import Path
from unetkit.commands.tile_predict.command import tile_predict
report = tile_predict("large.zarr", max_memory=sys.argv[1], precision="float32", device="cpu")
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"peak": peak, "limit": report.memory_limit, "objects": report.objects,
                  "expected": report.memory_peak}))
"""


def blobs(path, height, width):
    """Store an RGB image of squares of 16 pixels with noise upon them."""
    data = create_image(str(path), shape=(3, height, width), axes="cyx", dtype="u1")
    rng = np.random.default_rng(0)
    for y in range(0, height, 512):
        rows = min(512, height - y)
        coarse = rng.integers(0, 200, (3, -(-rows // 16), -(-width // 16)), np.uint8)
        large = coarse.repeat(16, 1).repeat(16, 2)[:, :rows, :width]
        data.write(0, y, 0, large + rng.integers(0, 40, large.shape, np.uint8))


@pytest.mark.parametrize(
    ("height", "width", "channels", "memory"),
    [
        (4500, 5000, 16, "1500M"),
        pytest.param(9000, 10000, 64, "3G", marks=pytest.mark.slow),
    ],
)
def test_a_large_image_keeps_to_its_memory(
    kit, tmp_path, run_program, height, width, channels, memory
):
    kit.model(tmp_path / "model.safetensors", channels=3, depth=4, width=channels)
    blobs(tmp_path / "large.zarr", height, width)
    found = json.loads(run_program(PROGRAM, memory, threads=2).stdout)
    assert found["peak"] <= min(found["limit"], found["expected"])
    assert found["objects"] > 1000
    verify(str(tmp_path / "large.prediction.zarr"))


CEILING = """
import json, resource, sys, threading
from pathlib import Path
from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict

def status(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0]) * 1024

# The limit counts all that a stack may grow to; usual stacks of threads are 8 MiB.
threading.stack_size(2**20)
# The heap is luckier in one run than in another by about the size of an activation, hence small
# ones, where two runs are compared.
options = {"tile": 256 if sys.argv[2] == "whole" else 512, "precision": "float32"}
options |= {"device": "cpu", "scheduler": "sync"}
report = tile_predict(sys.argv[1], dry_run=True, **options)
held = status("VmData")
# What is said to be taken at most, less what of it is held by now.
limit = held + report.memory_peak - status("VmRSS")
if sys.argv[2] == "half":
    limit = (held + report.memory_peak) // 2
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
code = main(["tile-predict", sys.argv[1], *words, "-q"])
print(json.dumps({"code": code, "peak": status("VmHWM"), "limit": limit}))
"""


def sparse(path, side):
    """Store noise in three places of an image, of which nothing else is stored."""
    data = create_image(str(path), shape=(side, side), axes="yx", dtype="u1", chunk=256)
    noise = np.random.default_rng(0).integers(0, 255, (1, 256, 256), np.uint8)
    last = side // 256 - 1
    for row, column in ((1, 1), (last, 1), (last, last)):
        data.write(0, row * 256, column * 256, noise)
    return str(path)


def below_a_ceiling(run_program, source, share="whole"):
    """Predict where the system gives no more memory than the plan says; what is said on stderr."""
    run = run_program(CEILING, source, share)
    return json.loads(run.stdout.splitlines()[-1]), run.stderr


LARGER = [(10, 3480), pytest.param(100, 11000, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("times", "side"), LARGER)
def test_an_image_many_times_as_large_takes_the_same_memory(
    kit, tmp_path, run_program, times, side
):
    kit.model(tmp_path / "model.safetensors", depth=3, width=16)
    places = {
        name: sparse(tmp_path / f"{name}.zarr", n) for name, n in (("one", 1100), ("many", side))
    }
    peaks: dict[str, list[int]] = {"one": [], "many": []}
    # Activations find the heap in one of two states, 4 % apart, so that each is run twice.
    for name in ("one", "many", "one", "many"):
        rmtree(tmp_path / f"{name}.prediction.zarr", ignore_errors=True)
        found, _ = below_a_ceiling(run_program, places[name])
        assert found["code"] == 0
        peaks[name].append(found["peak"])
    assert (side / 1100) ** 2 > 0.99 * times
    assert min(peaks["many"]) < 1.05 * max(peaks["one"])
    # Instances and class map, if they were held, would not stay unnoticed.
    assert 5 * side**2 > 0.05 * max(peaks["one"])
    verify(str(tmp_path / "many.prediction.zarr"))


def test_half_of_the_memory_ends_in_a_sentence(kit, tmp_path, run_program):
    kit.model(tmp_path / "model.safetensors", depth=3, width=16)
    found, said = below_a_ceiling(run_program, sparse(tmp_path / "one.zarr", 1100), "half")
    assert found["code"] == 5
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("error: memory of cpu must hold the network")
    assert not (tmp_path / "one.prediction.zarr").exists()


MANY = """
import json, os, signal, sys
from pathlib import Path
from unetkit.errors import StoppedError
from unetkit.commands.tile_predict.command import tile_predict

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

class Progress:
    total, left, before = 0, 50, 0
    def start(self, what, *, total): self.total, self.before = total, peak()
    def note(self, text): pass
    def advance(self, parts=1, *, status=""):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)

progress = Progress()
try:
    tile_predict(
        "huge.zarr", tile=64, precision="float32", device="cpu", scheduler="sync",
        progress=progress, resume=sys.argv[1] == "resume",
    )
except StoppedError as error:
    print(json.dumps({"total": progress.total, "grown": peak() - progress.before}))
    sys.exit(error.exit_code)
"""


def test_of_a_million_tiles_only_those_that_are_done_take_room(kit, tmp_path, run_program):
    kit.model(tmp_path / "model.safetensors")
    data = create_image(
        str(tmp_path / "huge.zarr"), shape=(64000, 64000), axes="yx", dtype="u1", chunk=512
    )
    noise = np.random.default_rng(0).integers(0, 255, (1, 512, 2048), np.uint8)
    data.write(0, 0, 0, noise)
    journal = tmp_path / ".huge.prediction.zarr.unetkit-partial" / ".unetkit" / "journal.txt"
    # The second run goes on, and meets the tiles that the first one did as parts that are done.
    for how in ("start", "resume"):
        found = json.loads(run_program(MANY, how, code=143).stdout)
        assert found["total"] == 10**6
        assert found["grown"] < 100 * 2**20
        # The tile that was in work is recorded too where the signal came before it.
        assert len(journal.read_text("ascii").splitlines()) in (50, 51)
    assert not (tmp_path / "huge.prediction.zarr").exists()
    tiles = cover(64000, 64000, tile=64)
    tracemalloc.start()
    kept = list(itertools.islice(tiles, 1000))
    thousand, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All of them, kept, would not stay unnoticed.
    assert thousand / len(kept) * len(tiles) > 100 * 2**20
