"""One network over arrays in memory and tiles of slides alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.commands.tile_predict.ensemble import load_model
from unetkit.errors import NonFiniteError, ResourceError, UsageError
from unetkit.models import hardware
from unetkit.models.inference import predict_array, to_classes, to_probabilities

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def noise(channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((channels, height, width), np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (33, 57), (90, 44)])
@pytest.mark.parametrize("options", [{"tile": 16}, {"tile": 64}, {"tile": 64, "overlap": 30}, {}])
def test_an_array_is_predicted_as_in_one_pass(
    kit: SimpleNamespace, tmp_path: Path, shape: tuple[int, int], options: dict[str, int]
) -> None:
    path = kit.model(tmp_path / "model.safetensors", method="none")
    loaded = load_model(path, device="cpu")
    image = noise(1, *shape)
    image.flags.writeable = False
    got = predict_array(
        loaded.module, image, contract=loaded.header.contract, precision="exact", **options
    )
    expected = kit.one_pass(path, image)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_tiles_off_the_grid_of_pooling_differ(kit: SimpleNamespace, tmp_path: Path) -> None:
    path = kit.model(tmp_path / "model.safetensors", method="none")
    loaded = load_model(path, device="cpu")
    image = noise(1, 60, 60)
    with pytest.raises(UsageError, match="multiple of 4"):
        predict_array(loaded.module, image, contract=loaded.header.contract, tile=18)
    # A contract that knows no grid, but sizes that the network takes.
    blind = replace(loaded.header.contract, step=1, minimum=68)
    off = predict_array(loaded.module, image, contract=blind, tile=26, precision="exact")
    assert not np.allclose(off, kit.one_pass(path, image), atol=1e-3)


def test_the_mode_of_the_network_is_left_as_it_was(kit: SimpleNamespace, tmp_path: Path) -> None:
    loaded = load_model(kit.model(tmp_path / "model.safetensors"), device="cpu")
    module = loaded.module.train()
    first = predict_array(module, noise(1, 20, 20), contract=loaded.header.contract)
    assert module.training
    module.eval()
    second = predict_array(module, noise(1, 20, 20), contract=loaded.header.contract)
    assert not module.training
    np.testing.assert_array_equal(first, second)


def test_an_output_that_is_not_finite_is_named(kit: SimpleNamespace, tmp_path: Path) -> None:
    loaded = load_model(kit.model(tmp_path / "model.safetensors"), device="cpu")
    image = noise(1, 20, 20)
    image[0, 5, 5] = np.inf
    with pytest.raises(NonFiniteError, match=r"NaN or Inf at .* pixels of the tile at row 0"):
        predict_array(loaded.module, image, contract=loaded.header.contract, tile=16)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ResourceError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError),
        (MemoryError("Unable to allocate 3.00 GiB"), ResourceError),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_too_little_memory_is_named(
    kit: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    loaded = load_model(kit.model(tmp_path / "model.safetensors"), device="cpu")
    monkeypatch.setattr(hardware, "forward", fail)
    with pytest.raises(expected) as caught:
        predict_array(loaded.module, noise(1, 20, 20), contract=loaded.header.contract, tile=16)
    assert ("smaller --tile" in str(caught.value)) == (expected is ResourceError)


@settings(max_examples=30, deadline=None)
@given(
    classes=st.integers(2, 12),
    height=st.integers(1, 9),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_probabilities_do_not_depend_on_the_neighbours(
    classes: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = 30 * torch.randn(classes, height, width)
    got = to_probabilities(logits)
    np.testing.assert_allclose(got, torch.softmax(logits.double(), 0), atol=1e-6)
    for y, x in ((0, 0), (height - 1, width - 1)):
        alone = to_probabilities(logits[:, y : y + 1, x : x + 1].contiguous())
        np.testing.assert_array_equal(alone[:, 0, 0], got[:, y, x])


def test_classes_are_the_most_probable() -> None:
    three = np.array([[[0.2, 0.4]], [[0.5, 0.4]], [[0.3, 0.2]]], np.float32)
    np.testing.assert_array_equal(to_classes(three), [[1, 0]])
    two = np.array([[[0.7, 0.5, 0.2]], [[0.3, 0.5, 0.8]]], np.float32)
    np.testing.assert_array_equal(to_classes(two), [[0, 1, 1]])
    np.testing.assert_array_equal(to_classes(two, threshold=0.6), [[0, 0, 1]])
    np.testing.assert_array_equal(to_classes(two, threshold=0.6, positive=0), [[0, 1, 1]])
    assert to_classes(np.zeros((300, 1, 1), np.float32)).dtype == np.uint16
