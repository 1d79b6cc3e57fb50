import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unetkit.models import fixed_order
from unetkit.models.fixed_order import FixedOrder, convolve, convolve_transposed

SMALL = st.integers(1, 3)


@st.composite
def convolutions(draw):
    torch.manual_seed(draw(st.integers(0, 99)))
    groups, kernel = draw(st.integers(1, 2)), (draw(SMALL), draw(SMALL))
    inputs, outputs = groups * draw(SMALL), groups * draw(SMALL)
    image = torch.randn(draw(st.integers(1, 2)), inputs, draw(st.integers(7, 12)), 9)
    numbers = {
        "stride": draw(st.sampled_from([1, 2, (2, 1)])),
        "padding": draw(st.sampled_from([0, 1, (0, 1)])),
        "dilation": draw(st.sampled_from([1, 2, (1, 2)])),
        "groups": groups,
    }
    bias = torch.randn(outputs) if draw(st.booleans()) else None
    return image, (inputs, outputs, groups, kernel), bias, numbers


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolve_is_torchs_convolution(case):
    image, (inputs, outputs, groups, kernel), bias, numbers = case
    weight = torch.randn(outputs, inputs // groups, *kernel)
    expected = functional.conv2d(image, weight, bias, **numbers)
    torch.testing.assert_close(convolve(image, weight, bias, **numbers), expected)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolve_transposed_is_torchs(case):
    image, (inputs, outputs, groups, kernel), bias, numbers = case
    weight = torch.randn(inputs, outputs // groups, *kernel)
    expected = functional.conv_transpose2d(image, weight, bias, **numbers)
    torch.testing.assert_close(convolve_transposed(image, weight, bias, **numbers), expected)


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
    monkeypatch.setattr(fixed_order, "STRIP_BYTES", 1)
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

    monkeypatch.setitem(fixed_order._REPLACEMENTS, functional.conv2d, watch)
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
