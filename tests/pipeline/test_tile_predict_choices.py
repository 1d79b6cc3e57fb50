"""The choices that nobody made: tile, precision, and who computes on which cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from unetkit.engine.tileio import fit_image
from unetkit.geometry.sizes import SizeContract
from unetkit.models import hardware, unet
from unetkit.pipeline import tile_predict_choices as choices
from unetkit.pipeline.tile_predict_worker import load_model
from unetkit.storage.datasets import open_dataset

if TYPE_CHECKING:
    from types import SimpleNamespace

CLASSIC = SizeContract(step=16, minimum=188, margin=92)
HUGE = 10**9


@pytest.mark.parametrize(
    ("shapes", "most", "expected"),
    [
        ([(100, 70)], HUGE, 112),
        ([(30_000, 30_000)], HUGE, 2048),
        # One tile of 1104 computes less than four of 1024.
        ([(1100, 1100)], HUGE, 1104),
        # Two of 1024 compute less than one of 2048.
        ([(1000, 2040)], HUGE, 1024),
        ([(30_000, 30_000)], 2000, 1024),
        ([(30_000, 30_000)], 1000, 512),
        ([(30_000, 30_000)], 10, 512),
        # Three of 512 compute less than two of 704.
        ([(100, 70), (700, 300)], HUGE, 512),
        ([(100, 70), (600, 600)], HUGE, 608),
    ],
)
def test_the_tile_that_computes_least_and_fits(
    shapes: list[tuple[int, int]], most: int, expected: int
) -> None:
    tile = choices.choose_tile(shapes, contract=CLASSIC, overlap=92, most=most)
    assert tile == expected
    assert tile % CLASSIC.step == 0


def test_the_largest_input_grows_with_the_memory_and_shrinks_with_the_width() -> None:
    narrow = unet.build(in_channels=1, classes=2, depth=2, width=4).eval()
    wide = unet.build(in_channels=1, classes=2, depth=2, width=16).eval()

    def largest(network: torch.nn.Module, memory: int) -> int:
        return choices.largest_input(
            network, in_channels=1, contract=network.contract, memory=memory
        )

    assert largest(narrow, 4 * 2**30) == pytest.approx(2 * largest(narrow, 2**30), rel=0.01)
    assert largest(narrow, 2**30) == pytest.approx(2 * largest(wide, 2**30), rel=0.01)
    # 16 channels of 4 bytes, six times: 384 bytes a pixel, less what the margin takes off.
    assert largest(wide, 2**30) == pytest.approx((2**30 / 384) ** 0.5, rel=0.06)


def test_the_system_tells_how_much_memory_is_free() -> None:
    assert 2**20 < choices.available_memory(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    ("scheduler", "workers", "expected"),
    [
        ("threads", None, choices.Hands(2, networks=1, threads=8, at_once=1)),
        ("threads", 4, choices.Hands(4, networks=4, threads=2, at_once=None)),
        ("sync", 4, choices.Hands(1, networks=1, threads=8, at_once=1)),
        ("processes", None, choices.Hands(8, networks=8, threads=1, at_once=1)),
        ("processes", 2, choices.Hands(2, networks=2, threads=4, at_once=1)),
        ("local:2", None, choices.Hands(None, networks=2, threads=4, at_once=1)),
        ("tcp://host:1", None, choices.Hands(None, networks=1, threads=None, at_once=None)),
    ],
)
def test_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    workers: int | None,
    expected: choices.Hands,
) -> None:
    monkeypatch.setattr(hardware, "thread_count", lambda workers: max(1, 8 // workers))
    hands = choices.share_cores(scheduler, workers, device=torch.device("cpu"))
    assert hands == expected


@pytest.mark.parametrize(
    ("low", "flips", "expected"),
    [
        (None, 0.0, "float32"),
        ("bfloat16", 0.0, "bfloat16"),
        ("bfloat16", 2e-4, "float32"),
    ],
)
def test_a_low_precision_is_taken_only_where_labels_stay(
    kit: SimpleNamespace,
    slide: str,
    monkeypatch: pytest.MonkeyPatch,
    low: str | None,
    flips: float,
    expected: str,
) -> None:
    monkeypatch.setattr(hardware, "low_precision", lambda device: low)
    monkeypatch.setattr(choices, "_flips", lambda *_, **__: flips)
    samples = open_dataset(slide).samples
    model = load_model("model.safetensors", device="cpu")
    chosen = choices.choose_precision(
        model, samples, [fit_image(samples[0].data)], overlap=20, fill=False
    )
    assert chosen == expected


def test_the_most_varied_of_evenly_spaced_tiles_is_compared(
    kit: SimpleNamespace, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    monkeypatch.setattr(choices, "PROBE_TILE", 16)
    monkeypatch.setattr(hardware, "low_precision", lambda device: "bfloat16")
    monkeypatch.setattr(
        choices, "_flips", lambda model, block, tile, *, low: compared.append(block.std()) or 0.0
    )
    kit.image(Path("other.zarr"), (2, 40, 33), axes="zyx", seed=4)
    samples = open_dataset(slide).samples + open_dataset("other.zarr").samples
    model = load_model("model.safetensors", device="cpu")
    contract = model.header.contract
    places = list(choices._probes(samples, contract=contract, overlap=20))
    assert len(places) == choices.PROBES
    assert {number for number, _, _ in places} == {0, 1}
    assert {plane for number, plane, _ in places if number == 1} == {0, 1}
    fitted = [fit_image(sample.data) for sample in samples]
    blocks = [
        fitted[number].apply(choices.read_tile(samples[number].data, plane, tile))
        for number, plane, tile in places
    ]
    choices.choose_precision(model, samples, fitted, overlap=20, fill=False)
    assert compared == [max(block.std() for block in blocks)]


def test_flips_are_counted(kit: SimpleNamespace, slide: str) -> None:
    model = load_model("model.safetensors", device="cpu")
    samples = open_dataset(slide).samples
    (_, plane, tile), *_ = choices._probes(samples, contract=model.header.contract, overlap=20)
    block = fit_image(samples[0].data).apply(choices.read_tile(samples[0].data, plane, tile))
    assert choices._flips(model, block, tile, low="float32") == 0
    assert 0 < choices._flips(model, block, tile, low="bfloat16") < 0.2
