"""A prediction says how much memory it takes, and keeps to what it is given."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unetkit.cli.app import main
from unetkit.commands.tile_predict import resources
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.ensemble import load_ensemble
from unetkit.commands.tile_predict.plan import PredictOptions
from unetkit.commands.tile_predict.resources import Parallelism
from unetkit.errors import ResourceError
from unetkit.geometry.sizes import SizeContract
from unetkit.machine import held_memory
from unetkit.models import unet
from unetkit.storage.datasets import open_dataset

CLASSIC = SizeContract(step=16, minimum=188, margin=92)


def test_a_network_takes_what_its_width_and_precision_take():
    def per_pixel(width, precision="auto"):
        network = unet.build(in_channels=1, classes=2, depth=2, width=width).eval()
        contract = network.contract
        return resources.network_bytes(
            network, in_channels=1, contract=contract, precision=precision
        )

    assert per_pixel(16) == pytest.approx(4 * per_pixel(4))
    assert per_pixel(4, "bfloat16") < per_pixel(4) == per_pixel(4, "float32")
    assert per_pixel(4) < per_pixel(4, "exact")
    # 16 channels of 4 bytes, eight times: 512 bytes a pixel, less what the margin takes off.
    assert per_pixel(16) == pytest.approx(512, rel=0.12)


def test_the_system_tells_how_much_memory_is_free():
    assert 2**20 < resources.available_memory(torch.device("cpu")) < 2**50
    assert 2**20 < held_memory() < 2**45


@pytest.mark.parametrize("max_size", [1, 188, 203, 204, 500, 700, 2000])
@pytest.mark.parametrize("overlap", [92, 108])
def test_the_largest_tile_fits_and_the_next_does_not(max_size, overlap):
    tile = resources.largest_tile(max_size, contract=CLASSIC, overlap=overlap)
    assert tile % CLASSIC.step == 0
    assert tile == 0 or CLASSIC.read_size(tile, overlap) <= max_size
    assert CLASSIC.read_size(tile + CLASSIC.step, overlap) > max_size


def test_largest_and_peak_say_the_same():
    plan = resources.Memory(limit=10**9, base=10**8, pixel=1000.0)
    assert plan.peak(plan.largest) <= plan.limit < plan.peak(plan.largest + 1)
    assert resources.Memory(limit=10**7, base=10**8, pixel=1000.0).largest == 0


@pytest.mark.parametrize("size", [10, 100, 300, 1000])
def test_as_many_as_fit_are_together(size):
    plan = resources.Memory(limit=10**8, base=10**6, pixel=400.0, extra_bytes=300.0)
    batch = plan.fitting(size, max_batch=8)
    assert 1 <= batch <= 8
    assert batch == 1 or replace(plan, batch=batch).peak(size) <= plan.limit
    assert batch == 8 or replace(plan, batch=batch + 1).peak(size) > plan.limit
    assert replace(plan, batch=batch).largest >= size or batch == 1


def test_more_jobs_take_more(slide):
    model = load_ensemble(["model.safetensors"], device="cpu")
    samples = open_dataset(slide).samples

    def peak(parallelism):
        options = PredictOptions(max_memory="16G")
        return resources.memory_for(model, samples, options, parallelism=parallelism).peak(2000)

    one = peak(Parallelism(1, networks=1, threads=1, concurrency=1))
    # The second job only reads and writes meanwhile.
    assert one < peak(Parallelism(2, networks=1, threads=1, concurrency=1)) < 1.5 * one
    two = peak(Parallelism(2, networks=2, threads=1, concurrency=None))
    assert two > one
    assert peak(Parallelism(2, networks=2, threads=1, concurrency=1)) > two + held_memory()


@pytest.mark.parametrize("merge", ["crop", "gaussian"])
def test_a_batch_takes_more(kit, slide, merge):
    kit.model(Path("model.safetensors"), depth=1, name="keras-unet")
    asked = {"tile": 16, "merge": merge, "scheduler": "sync", "dry_run": True}
    peaks = [tile_predict(slide, batch=n, **asked).memory_peak for n in (1, 1000, 2000)]
    assert peaks[0] < peaks[1] < peaks[2]
    free = held_memory() + resources.BESIDE + 2**21
    assert tile_predict(slide, batch=1, max_memory=str(free + 2**24), **asked).batch == 1
    with pytest.raises(ResourceError, match=r"must hold 9000 tiles at once, .* lower --batch"):
        tile_predict(slide, batch=9000, max_memory=str(free), **asked)


def test_a_tile_that_can_not_fit_is_refused_before_work(kit, slide):
    before = kit.contents(".")
    free = held_memory() + resources.BESIDE + 20 * 2**20
    with pytest.raises(ResourceError, match=r"use --tile \d+, or --max-memory \d+M") as caught:
        tile_predict(slide, tile=4096, max_memory=str(free))
    assert caught.value.exit_code == 5
    assert kit.contents(".") == before
    fitting = int(str(caught.value).partition("--tile ")[2].partition(",")[0])
    assert 0 < fitting < 4096
    report = tile_predict(slide, tile=fitting, max_memory=str(free + 2**22), dry_run=True)
    assert report.memory_peak <= report.memory_limit == free + 2**22


def test_memory_for_no_tile_at_all_is_refused(slide, capsys):
    with pytest.raises(ResourceError, match="use fewer --workers, or --max-memory"):
        tile_predict(slide, max_memory="1M")
    assert main(["tile-predict", slide, "--max-memory", "1M"]) == 5
    assert not Path("slide.prediction.zarr").exists()


SHORT = """
import resource, sys
from pathlib import Path
import numpy as np
from unetkit.errors import ResourceError
from unetkit.commands.tile_predict.command import tile_predict

class Hoarder:
    # Once a tile is done, something else takes all the memory that the system allows.
    held = []
    def start(self, what, *, total): pass
    def note(self, text): print(text)
    def advance(self, parts=1, *, status=""):
        if self.held:
            return
        status = Path("/proc/self/status").read_text()
        size = int(status.partition("VmSize:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**24, size + 2**24))
        try:
            while True:
                self.held.append(np.empty(2**20, np.uint8))
        except MemoryError:
            del self.held[-8:]

try:
    tile_predict(
        "wide.zarr", tile=600, precision="float32", device="cpu", scheduler="sync",
        progress=Hoarder(),
    )
except ResourceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells the size")
def test_memory_that_runs_out_ends_in_a_sentence_and_loses_no_tile(
    kit, tmp_path, monkeypatch, run_program
):
    monkeypatch.chdir(tmp_path)
    kit.model(tmp_path / "model.safetensors", width=16)
    kit.image(tmp_path / "wide.zarr", (300, 1200))
    run = run_program(SHORT, code=5)
    *notes, sentence = run.stdout.splitlines()
    assert "smaller --tile, a lower --max-memory" in sentence
    assert any("--resume" in note for note in notes)
    assert not Path("wide.prediction.zarr").exists()
    # The same work where there is memory comes to its end, and to the same bytes.
    options = {"tile": 600, "precision": "float32", "scheduler": "sync"}
    report = tile_predict("wide.zarr", resume=True, **options)
    assert (report.tiles_total, report.tiles_reused) == (2, 1)
    tile_predict("wide.zarr", output="whole.zarr", **options)
    assert kit.differing("wide.prediction.zarr", "whole.zarr") == []
