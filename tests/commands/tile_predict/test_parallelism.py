"""Workers times threads is the number of cores."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unetkit.commands.tile_predict import resources
from unetkit.commands.tile_predict.ensemble import load_model
from unetkit.commands.tile_predict.resources import Parallelism, plan_parallelism
from unetkit.geometry.sizes import SizeContract
from unetkit.models import hardware
from unetkit.models.build import build_model


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    monkeypatch.setattr(hardware, "thread_count", lambda workers: max(1, 8 // workers))


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Parallelism(2, networks=1, threads=8, concurrency=1)),
        ("threads", 4, Parallelism(4, networks=4, threads=2, concurrency=None)),
        ("sync", 4, Parallelism(1, networks=1, threads=8, concurrency=1)),
        ("processes", None, Parallelism(8, networks=8, threads=1, concurrency=1)),
        ("processes", 2, Parallelism(2, networks=2, threads=4, concurrency=1)),
        ("local:2", None, Parallelism(None, networks=2, threads=4, concurrency=1)),
        ("tcp://host:1", None, Parallelism(None, networks=1, threads=None, concurrency=None)),
    ],
)
def test_cores_are_shared_out(scheduler, workers, expected):
    parallelism = plan_parallelism(scheduler, workers, device=torch.device("cpu"))
    assert parallelism == expected
    assert parallelism.elsewhere == scheduler.startswith("tcp")


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, Parallelism(8, networks=1, threads=8, concurrency=1)),
        ("threads", 3, Parallelism(3, networks=1, threads=8, concurrency=1)),
        ("local:2", None, Parallelism(8, networks=2, threads=4, concurrency=1)),
        ("local:8", None, Parallelism(16, networks=8, threads=1, concurrency=1)),
        ("local:2", 6, Parallelism(6, networks=2, threads=4, concurrency=1)),
    ],
)
def test_several_threads_feed_a_gpu(scheduler, workers, expected):
    assert plan_parallelism(scheduler, workers, device=torch.device("cuda")) == expected


@pytest.mark.parametrize("name", ["unet", "keras-unet", "smp-unet"])
def test_the_work_of_any_size_follows_from_three(name):
    options = {"smp-unet": {"encoder": "mobilenet_v2"}}.get(name, {"width": 4})
    network = build_model(name, in_channels=3, classes=2, options=options).eval()
    contract = network.contract
    work = resources.work_of(network, in_channels=3, contract=contract)
    for steps in (4, 9):
        size = contract.minimum + steps * contract.step
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, 3, size, size))
        # It counts a multiplication and its addition as two.
        assert 2 * np.polyval(work, size) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_layers_that_are_no_convolutions_are_counted_or_count_for_nothing():
    contract = SizeContract(step=1, minimum=4)

    def at_eight(module):
        return float(np.polyval(resources.work_of(module, in_channels=1, contract=contract), 8))

    class OverChannels(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 5)

        def forward(self, image):
            return self.layer(image.movedim(1, 3)).movedim(3, 1)

    assert at_eight(OverChannels()) == pytest.approx(5 * 64)
    assert at_eight(nn.BatchNorm2d(1).eval()) == 64


def test_seconds_are_in_proportion_to_work(kit, slide):
    model = load_model("model.safetensors", device="cpu")
    found = resources.estimate_throughput(model, overlap=20, precision="float32", max_size=10**9)
    assert found.rate > 0
    work = [np.polyval(found.work, model.header.contract.legal(t + 40)) for t in (64, 512)]
    ratio = found.estimate(512) / found.estimate(64)
    assert ratio == pytest.approx(work[1] / work[0])
    assert found.measure(64) > 0


def test_a_small_memory_is_not_filled_to_find_the_pace(kit, slide, monkeypatch):
    model = load_model("model.safetensors", device="cpu")
    sizes = []
    real = hardware.forward

    def forward(module, batch, *, precision):
        sizes.append(batch.shape[-1])
        return real(module, batch, precision=precision)

    monkeypatch.setattr(hardware, "forward", forward)
    resources.estimate_throughput(model, overlap=20, precision="float32", max_size=100)
    assert 60 < max(sizes) <= 100
    resources.estimate_throughput(model, overlap=20, precision="float32", max_size=1000)
    assert max(sizes) == model.header.contract.legal(128 + 40)
