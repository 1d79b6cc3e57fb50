"""What is known of features holds, and is forgotten once it may not hold any more."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from unetkit.models import build, hardware
from unetkit.models.feature_bounds import LIMIT, FeatureBounds, Growth
from unetkit.models.fusion import fuse


def features(seed=0, *, layout=torch.channels_last):
    torch.manual_seed(seed)
    return torch.randn(2, 3, 5, 4).to(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_nobody_told_is_looked_at_once(layout, kind, monkeypatch):
    image, bounds = features(layout=layout).to(kind), FeatureBounds()
    image[1, 2, 3, 1] = -7.5
    looks: list[int] = []
    real = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda one: looks.append(1) or real(one))
    assert bounds.largest(image) == bounds.largest(image) == 7.5
    assert len(looks) == 1
    assert not bounds.is_positive(image)
    bounds.note(image, largest=9.0)
    assert bounds.largest(image) == 9.0
    assert bounds.measure(image) == bounds.largest(image) == 7.5


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_above_everything(odd):
    image = features()
    image[0, 1, 2, 3] = odd
    assert FeatureBounds().largest(image) == math.inf
    # Also where no weight looks at it.
    assert FeatureBounds().of_sum((image, Growth(gain=0.0, shift=1.0))) == math.inf


@pytest.mark.parametrize("change", [lambda one: one, lambda one: one[:, 1:], lambda one: one[0]])
def test_what_was_changed_is_not_known_any_more(change):
    image, other, bounds = features(), features(1), FeatureBounds()
    part = image[:, :2]
    for one in (image, other):
        bounds.note(one, largest=100.0, positive=True)
    bounds.copy(image, to=part)
    assert bounds.is_positive(part)
    assert bounds.largest(part) == 100.0
    bounds.forget(change(image))
    assert not bounds.is_positive(image)
    assert not bounds.is_positive(part)
    assert bounds.largest(image) == float(image.abs().max())
    assert bounds.is_positive(other)


def test_another_tensor_of_the_same_number_is_another():
    bounds = FeatureBounds()
    for seed in range(50):
        image = features(seed)
        assert not bounds.is_positive(image)
        bounds.note(image, largest=100.0, positive=True)
        del image


@settings(max_examples=60, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    scale=st.floats(1e-3, 1e6),
    seed=st.integers(0, 10**6),
    signs=st.booleans(),
)
def test_no_output_is_above_what_it_may_grow_to(channels, scale, seed, signs):
    torch.manual_seed(seed)
    weight, bias = torch.randn(*channels, 3, 3), torch.randn(channels[0])
    image = scale * torch.randn(1, channels[1], 6, 5)
    if signs:  # the worst there is
        image = scale * weight[:1].sign().repeat(1, 1, 2, 2)
    bounds = FeatureBounds()
    found = bounds.of_sum((image, Growth.of(weight, bias)))
    largest = float(functional.conv2d(image, weight, bias, padding=1).abs().max())
    assert largest <= found
    if signs:
        assert found < 1.1 * float((weight.abs().sum((1, 2, 3)).max() * scale) + bias.abs().max())


def test_a_bound_that_is_too_high_is_looked_at_again():
    image, bounds = features(), FeatureBounds()
    bounds.note(image, largest=LIMIT)
    wanted = float(image.abs().max())
    assert bounds.of_sum((image, Growth(gain=10.0))) == pytest.approx(10 * wanted)
    assert bounds.largest(image) == wanted


NETWORKS = {
    "unet": {"width": 4, "depth": 3},
    "keras-unet": {"width": 4, "depth": 2},
    "smp-unet": {},
}


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_overflows_does_not_pass_for_one_that_does_not(name, scale):
    torch.manual_seed(0)
    plain = build.build_model(name, in_channels=1, classes=2, options=NETWORKS[name]).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(scale)
    image = torch.rand(1, 1, plain.contract.legal(150), plain.contract.legal(150))
    # Of so many digits that nothing overflows.
    fine, fused = copy.deepcopy(plain).double(), fuse(plain)
    with torch.inference_mode():
        wanted = fine(image.double())
        for precision, rough in (("float32", 1e-3), ("bfloat16", 0.2)):
            found = hardware.forward(fused, image, precision=precision).double()
            finite = found.isfinite()
            # What float64 can't hold either is not among these.
            assert (wanted[finite].abs() < 1e39).all()
            close = rough * max([0.0, *wanted[finite].abs().tolist()])
            torch.testing.assert_close(found[finite], wanted[finite], rtol=rough, atol=close)


@pytest.mark.parametrize("odd", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pixel_that_is_no_number_is_seen_in_the_output(odd, precision):
    torch.manual_seed(0)
    plain = build.build_model("unet", in_channels=2, classes=2, options={"width": 4, "depth": 2})
    fused = fuse(copy.deepcopy(plain.eval()))
    image = torch.rand(1, 2, plain.contract.legal(60), plain.contract.legal(60))
    image[0, :, 30, 30] = odd
    with torch.inference_mode():
        seen = [
            ~hardware.forward(one, image, precision=precision).isfinite() for one in (plain, fused)
        ]
    assert seen[0].any()
    assert torch.equal(*seen)
