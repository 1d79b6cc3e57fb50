"""Sums in one order are torch's, and have the same bits wherever a pixel lies."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unetkit.models import convolutions
from unetkit.models.convolutions import FixedOrder, convolve, convolve_transposed

SMALL = st.integers(1, 3)


CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "groups": st.integers(1, 2),
        "kernel": st.tuples(SMALL, SMALL),
        "channels": st.tuples(SMALL, SMALL),
        "images": st.integers(1, 2),
        "height": st.integers(7, 12),
        "stride": st.sampled_from([1, 2, (2, 1)]),
        "padding": st.sampled_from([0, 1, (0, 1)]),
        "dilation": st.sampled_from([1, 2, (1, 2)]),
        "biased": st.booleans(),
    }
)


def drawn(case, *, transposed):
    """Return image, weight, bias and the numbers of a convolution."""
    torch.manual_seed(case["seed"])
    groups = case["groups"]
    inputs, outputs = (groups * count for count in case["channels"])
    image = torch.randn(case["images"], inputs, case["height"], 9)
    first, second = (inputs, outputs) if transposed else (outputs, inputs)
    weight = torch.randn(first, second // groups, *case["kernel"])
    bias = torch.randn(outputs) if case["biased"] else None
    numbers = {name: case[name] for name in ("stride", "padding", "dilation", "groups")}
    return (image, weight, bias), numbers


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [(convolve, functional.conv2d), (convolve_transposed, functional.conv_transpose2d)],
)
@settings(max_examples=60)
@given(case=CASES)
def test_convolutions_are_torchs(ours, torchs, case):
    tensors, numbers = drawn(case, transposed=ours is convolve_transposed)
    torch.testing.assert_close(ours(*tensors, **numbers), torchs(*tensors, **numbers))


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_padding_by_word(kernel):
    image, weight = torch.randn(1, 2, 9, 9), torch.randn(3, 2, kernel, kernel)
    for word in ("same", "valid"):
        expected = functional.conv2d(image, weight, padding=word)
        torch.testing.assert_close(convolve(image, weight, padding=word), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 30), st.integers(3, 30), st.data())
def test_a_pixel_has_the_same_bits_in_every_cut_out(inputs, outputs, y, size, data):
    torch.manual_seed(inputs)
    image, weight = torch.randn(1, inputs, 61, 64), torch.randn(outputs, inputs, 3, 3)
    x = data.draw(st.integers(0, 64 - size))
    part = convolve(image[:, :, y : y + size, x : x + size], weight)
    whole = convolve(image, weight)
    assert torch.equal(part, whole[:, :, y : y + size - 2, x : x + size - 2])


def test_neither_threads_nor_strips_change_a_bit(monkeypatch):
    image, weight = torch.randn(1, 3, 60, 70), torch.randn(5, 3, 3, 3)
    whole = convolve(image, weight)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(convolve(image, weight), whole)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(convolutions, "STRIP_BYTES", 1)
    assert torch.equal(convolve(image, weight), whole)


def test_the_sum_runs_over_channels_rows_and_columns():
    # In float32 1e8 + 1 - 1e8 is 0 from left to right and 1 in another order.
    image = torch.tensor([1e8, 1.0, -1e8, 1.0]).view(1, 4, 1, 1)
    assert convolve(image, torch.ones(1, 4, 1, 1)).item() == 1.0
    assert convolve(image.view(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 1.0
    assert convolve(image.flip(1), torch.ones(1, 4, 1, 1)).item() == 0.0


def test_the_mode_replaces_convolutions_without_gradients_only(monkeypatch):
    seen = []

    def watch(*args, **kwargs):
        seen.append(1)
        return convolve(*args, **kwargs)

    monkeypatch.setitem(convolutions._REPLACEMENTS, functional.conv2d, watch)
    layer, image = nn.Conv2d(1, 2, 3), torch.randn(1, 1, 5, 5)
    with FixedOrder():
        layer(image).sum().backward()
        assert layer.weight.grad is not None
        assert not seen
        layer.double()(image.double())
        assert not seen
        layer.float()
        with torch.no_grad():
            layer(image)
        assert len(seen) == 1
    with torch.no_grad():
        layer(image)
    assert len(seen) == 1
