"""What is computed in one step is what was computed in two."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unetkit.models import build, convolutions, hardware
from unetkit.models.convolutions import (
    ConvolutionReLU,
    FixedOrder,
    convolve,
    convolve_transposed,
    fuse,
    in_two_steps,
)

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


def pair(seed=0, **options):
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 8, kernel_size=3, **options)
    plain = nn.Sequential(layer, nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1)).eval()
    return plain, fuse(copy.deepcopy(plain))


def logits_of(*networks, image, precision="float32"):
    with torch.inference_mode():
        return [hardware.forward(one, image, precision=precision) for one in networks]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"padding": 1, "stride": 2},
        {"dilation": (2, 1), "padding": (0, 2)},
        {"groups": 4},
    ],
)
@pytest.mark.parametrize("precision", ["exact", "float32", "bfloat16"])
def test_a_fused_network_says_the_same(options, precision):
    plain, fused = pair(**options)
    assert isinstance(fused[0], ConvolutionReLU)
    one, other = logits_of(plain, fused, image=torch.randn(2, 4, 21, 30), precision=precision)
    rough = precision == "bfloat16"
    torch.testing.assert_close(other, one, rtol=1e-2 if rough else 1e-6, atol=1e-5)
    if precision == "exact":
        assert torch.equal(other, one)


def test_a_fused_step_is_taken_where_it_can_be(monkeypatch):
    _, fused = pair()
    calls: list[str] = []
    real = functional.relu

    def relu(image, **how):
        calls.append("relu")
        return real(image, **how)

    monkeypatch.setattr(convolutions.functional, "relu", relu)
    image = torch.randn(1, 4, 9, 9)
    logits_of(fused, image=image)
    with torch.inference_mode():
        usable = convolutions._kind(image) is not None
    assert calls == ([] if usable else ["relu"])
    logits_of(fused, image=image, precision="exact")
    assert calls[-1:] == ["relu"]
    calls.clear()
    with in_two_steps():
        logits_of(fused, image=image)
    assert calls == ["relu"]
    calls.clear()
    # With gradients it learns as before.
    fused(image).sum().backward()
    assert calls == ["relu"]
    assert fused[0].weight.grad is not None


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
        (nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU()),
        (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU()),
        (nn.ConvTranspose2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
        (nn.Conv2d(1, 2, 3), nn.ReLU6()),
        (nn.Conv1d(1, 2, 3), nn.ReLU()),
    ],
)
def test_other_neighbours_stay_as_they_are(layers):
    chain = fuse(nn.Sequential(*layers).eval())
    assert [type(layer) for layer in chain] == [type(layer) for layer in layers]


def test_a_norm_that_still_learns_is_left_alone():
    chain = fuse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train())
    assert isinstance(chain[1], nn.BatchNorm2d)


@pytest.mark.parametrize("precision", ["exact", "float32", "bfloat16"])
def test_a_norm_becomes_part_of_its_convolution(precision):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert values is not None
        values.uniform_(0.5, 2)
    plain = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), norm, nn.ReLU()).eval()
    fused = fuse(copy.deepcopy(plain))
    assert [type(layer) for layer in fused.children()] == [ConvolutionReLU, *2 * [nn.Identity]]
    one, other = logits_of(plain, fused, image=torch.randn(2, 4, 21, 30), precision=precision)
    assert float(one.max()) > 1
    rough = precision == "bfloat16"
    torch.testing.assert_close(other, one, rtol=2e-2, atol=5e-2 if rough else 1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 4, "depth": 2}),
        ("unet", {"width": 4, "depth": 2, "norm": "batch"}),
        ("keras-unet", {"width": 4, "depth": 2}),
        ("smp-unet", {}),
    ],
)
def test_whole_networks_say_the_same(name, options):
    wish = {"in_channels": 1, "classes": 2, "options": options}
    plain, fused = (build.build_model(name, **wish) for _ in "ab")
    image = torch.rand(2, 1, *2 * [plain.contract.legal(64)])
    with torch.no_grad():
        # Statistics that are not those of a fresh network.
        plain.train()(image)
    fused.load_state_dict(plain.state_dict())
    fuse(fused.eval())
    one, other = logits_of(plain.eval(), fused, image=image)
    scale = max(1.0, float(one.abs().max()))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-5 * scale)
    norms = [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not norms or name == "smp-unet"
