"""A low precision is chosen only where it leaves the labels as they are."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from unetkit.arrays import boxes
from unetkit.commands.tile_predict import precision
from unetkit.commands.tile_predict.ensemble import load_model
from unetkit.commands.tile_predict.plan import PredictOptions
from unetkit.engine.block_io import fit_image
from unetkit.geometry.sizes import SizeContract
from unetkit.models import hardware
from unetkit.storage.datasets import open_dataset
from unetkit.storage.image_writer import create_image

CLASSIC = SizeContract(step=16, minimum=188, margin=92)
HUGE = 10**9


def plan_of(samples, models, fitted):
    """Return what is known of a plan when its precision is chosen."""
    return SimpleNamespace(
        model=SimpleNamespace(models=models),
        samples=samples,
        normalizations=[(one,) * len(models) for one in fitted],
        averaging=SimpleNamespace(members=[SimpleNamespace(overlap=20)] * len(models)),
        options=PredictOptions(),
    )


@pytest.mark.parametrize(
    ("low", "flips", "expected"),
    [
        (None, 0.0, "float32"),
        ("bfloat16", 0.0, "bfloat16"),
        ("bfloat16", 2e-4, "float32"),
    ],
)
def test_a_low_precision_is_taken_only_where_labels_stay(
    kit,
    slide,
    monkeypatch,
    low,
    flips,
    expected,
):
    monkeypatch.setattr(hardware, "low_precision", lambda device: low)
    monkeypatch.setattr(precision, "_flips", lambda *_, **__: flips)
    samples = open_dataset(slide).samples
    model = load_model("model.safetensors", device="cpu")
    chosen = precision.choose_precision(
        plan_of(samples, [model], [fit_image(samples[0].data)]), max_size=HUGE
    )
    assert chosen.name == expected
    said = "bfloat16 would change 0.02% of the labels" if flips else None
    assert chosen.reason == said


def test_the_most_varied_of_evenly_spaced_tiles_is_compared(kit, slide, monkeypatch):
    compared = []
    monkeypatch.setattr(precision, "PROBE_TILES", (16,))
    monkeypatch.setattr(hardware, "low_precision", lambda device: "bfloat16")
    monkeypatch.setattr(
        precision, "_flips", lambda model, block, tile, *, low: compared.append(block.std()) or 0.0
    )
    kit.image(Path("other.zarr"), (2, 40, 33), axes="zyx", seed=4)
    samples = open_dataset(slide).samples + open_dataset("other.zarr").samples
    model = load_model("model.safetensors", device="cpu")
    contract = model.header.contract
    places = list(precision._probes(samples, contract, overlap=20, max_size=HUGE))
    assert len(places) == precision.PROBES
    assert {number for number, _, _ in places} == {0, 1}
    assert {plane for number, plane, _ in places if number == 1} == {0, 1}
    fitted = [fit_image(sample.data) for sample in samples]
    blocks = [
        fitted[number].apply(boxes.read_tile(samples[number].data, plane, tile))
        for number, plane, tile in places
    ]
    precision.choose_precision(plan_of(samples, [model], fitted), max_size=HUGE)
    assert compared == [max(block.std() for block in blocks)]


@pytest.mark.parametrize(("side", "expected"), [(60, 128), (3900, 128), (4500, 256)])
def test_a_long_job_is_probed_on_larger_tiles(kit, tmp_path, side, expected):
    create_image(str(tmp_path / "any.zarr"), shape=(side, side), axes="yx", dtype="u1", chunk=512)
    samples = open_dataset(str(tmp_path / "any.zarr")).samples
    assert precision._probe_side(samples, CLASSIC, overlap=92, max_size=HUGE) == expected
    assert precision._probe_side(samples, CLASSIC, overlap=92, max_size=260) == 64
    assert precision._probe_side(samples * 300, CLASSIC, overlap=92, max_size=HUGE) >= expected


def test_flips_are_counted(kit, slide):
    model = load_model("model.safetensors", device="cpu")
    samples = open_dataset(slide).samples
    (_, plane, tile), *_ = precision._probes(
        samples, model.header.contract, overlap=20, max_size=HUGE
    )
    block = fit_image(samples[0].data).apply(boxes.read_tile(samples[0].data, plane, tile))
    assert precision._flips(model, block, tile, low="float32") == 0
    assert 0 < precision._flips(model, block, tile, low="bfloat16") < 0.2
