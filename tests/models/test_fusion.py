"""What is computed together is what was computed layer by layer."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unetkit.models import build, fusion, hardware
from unetkit.models.fusion import (
    Convolution,
    ConvolutionReLU,
    Deferred,
    Enlarged,
    UpConvolution,
    fuse,
    fused_kind,
    fusing,
)


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


def test_layers_compute_together_where_they_can(monkeypatch):
    _, fused = pair()
    calls: list[str] = []
    real = functional.relu

    def relu(image, **how):
        calls.append("relu")
        return real(image, **how)

    monkeypatch.setattr(fusion.functional, "relu", relu)
    image = torch.randn(1, 4, 9, 9)
    logits_of(fused, image=image)
    with torch.inference_mode():
        usable = fused_kind(image) is not None
    assert calls == ([] if usable else ["relu"])
    logits_of(fused, image=image, precision="exact")
    assert calls[-1:] == ["relu"]
    calls.clear()
    with torch.inference_mode():
        fused(image)
    assert calls == ["relu"]
    calls.clear()
    # With gradients it learns as before.
    hardware.forward(fused, image, precision="float32").sum().backward()
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
    kinds = [type(layer) for layer in layers]
    chain = fuse(nn.Sequential(*layers).eval())
    plain = [nn.Conv2d if type(layer) is Convolution else type(layer) for layer in chain]
    assert plain == kinds
    assert not any(isinstance(layer, ConvolutionReLU) for layer in chain)


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
        ("smp-unetplusplus", {}),
        ("smp-linknet", {}),
        ("smp-fpn", {}),
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
    assert not norms or name.startswith("smp-")


class Expanding(nn.Module):
    """A step of an expanding path, as networks have it in many ways."""

    def __init__(self, *, learned, padding, beside, bias, relu):
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, bias=bias) if learned else nn.Upsample(None, 2)
        given = (4 if learned else 6) + sum(beside)
        conv = nn.Conv2d(given, 7, 3, padding=padding, bias=bias)
        self.conv = nn.Sequential(conv, nn.ReLU()) if relu else conv
        self.first = len(beside) // 2

    def forward(self, image, beside):
        enlarged = self.up(image)
        if beside:
            enlarged = torch.cat([*beside[: self.first], enlarged, *beside[self.first :]], 1)
        return self.conv(enlarged)


STEPS = st.fixed_dictionaries(
    {
        "learned": st.booleans(),
        "padding": st.sampled_from([0, 1]),
        "beside": st.sampled_from([(), (5,), (3, 2), (1, 2, 2)]),
        "bias": st.booleans(),
        "relu": st.booleans(),
    }
)


@settings(max_examples=80, deadline=None)
@given(step=STEPS, height=st.integers(1, 6), width=st.integers(2, 9), images=st.integers(1, 2))
def test_an_image_is_convolved_before_it_is_enlarged(step, height, width, images):
    torch.manual_seed(height)
    plain = Expanding(**step).eval()
    fused = fuse(copy.deepcopy(plain))
    height += 1 - step["padding"]
    small = torch.randn(images, 6, height, width)
    beside = [torch.randn(images, count, 2 * height, 2 * width) for count in step["beside"]]
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        wanted = plain(small, beside)
        kind = fused_kind(small)
        if kind is not None and height > 1:
            patch.setattr(Enlarged, "computed", lambda _: pytest.fail("it was enlarged"))
        with fusing(kind):
            found = fused(small, beside)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16), fusing(fused_kind(small)):
            rough = fused(small, [one.bfloat16() for one in beside])
        torch.testing.assert_close(rough.float(), wanted, rtol=0.02, atol=0.06)


def test_what_is_put_off_is_computed_for_whoever_asks():
    torch.manual_seed(0)
    plain = nn.ConvTranspose2d(3, 4, 2, 2)
    fused, small, other = fuse(copy.deepcopy(plain)), torch.randn(1, 3, 5, 4), torch.randn(4, 10, 8)
    assert type(fused) is UpConvolution
    asked = [
        lambda image: image + other,
        lambda image: functional.relu(image),
        lambda image: image[:, :, 1:-1],
        lambda image: image.numpy() if type(image) is torch.Tensor else (image * 1).numpy(),
        lambda image: torch.cat([image, image], dim=2),
        lambda image: torch.cat([image, other[None]], dim=1).mean((2, 3)),
        lambda image: functional.max_pool2d(image, 2),
        lambda image: functional.interpolate(image, scale_factor=2),
        lambda image: functional.conv2d(image, torch.ones(2, 4, 3, 3)),
        lambda image: functional.pad(image, (1, 1, 1, 1), mode="reflect"),
    ]
    with torch.inference_mode():
        for ask in asked:
            wanted = ask(plain(small))
            with fusing(fused_kind(small)):
                found = fused(small)
                assert isinstance(found, Deferred) or fused_kind(small) is None
                assert (found.shape, found.dtype) == ((1, 4, 10, 8), torch.float32)
                torch.testing.assert_close(ask(found) + 0, wanted + 0, rtol=1e-5, atol=1e-5)


class Changing(nn.Module):
    """Changes in place what was enlarged, joined, or both."""

    def __init__(self, change):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1)
        self.change = change

    def forward(self, image, beside):
        image, beside = image * 1, beside * 1
        enlarged = self.up(image)
        joined = torch.cat([beside, enlarged], dim=1)
        self.change(image, beside, enlarged, joined)
        return self.conv(joined) + self.conv(torch.cat([enlarged, beside], dim=1))


CHANGES = {
    "what was enlarged": lambda image, beside, enlarged, joined: functional.relu(image, True),
    "a part of it": lambda image, beside, enlarged, joined: image[:, :1].mul_(3),
    "what was joined": lambda image, beside, enlarged, joined: beside.neg_(),
    "a value": lambda image, beside, enlarged, joined: beside.__setitem__((0, 1), 5.0),
    "by an operator": lambda image, beside, enlarged, joined: image.__imul__(2),
    "as an output": lambda image, beside, enlarged, joined: torch.neg(beside, out=beside),
    "the enlarged": lambda image, beside, enlarged, joined: nn.ReLU(inplace=True)(enlarged),
    "the joined": lambda image, beside, enlarged, joined: joined.clamp_(min=0),
    "nothing": lambda image, beside, enlarged, joined: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_put_off_is_what_it_was_when_it_was_asked_for(change):
    torch.manual_seed(0)
    plain = Changing(change).eval()
    fused = fuse(copy.deepcopy(plain))
    image, beside = torch.randn(1, 4, 6, 5), torch.randn(1, 4, 12, 10)
    with torch.inference_mode():
        wanted = plain(image, beside)
        with fusing(fused_kind(image)):
            found = fused(image, beside)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 4, 2, 2)])
def test_a_network_that_ends_with_enlarging_gives_numbers(last):
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), last).eval()
    fused, image = fuse(copy.deepcopy(plain)), torch.randn(1, 1, 8, 7)
    one, other = logits_of(plain, fused, image=image)
    assert type(one) is type(other) is torch.Tensor
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_weights_are_brought_into_order_once(monkeypatch):
    fused = fuse(Expanding(learned=True, padding=1, beside=(5,), bias=True, relu=True).eval())
    small, beside = torch.randn(1, 6, 4, 4), [torch.randn(1, 5, 8, 8)]
    seen: list[int] = []
    real = fusion.compose
    monkeypatch.setattr(fusion, "compose", lambda *given: seen.append(1) or real(*given))
    with torch.inference_mode(), fusing(fused_kind(small)):
        first = fused(small, beside)
        assert torch.equal(fused(small, beside), first)
    assert len(seen) <= 1
    # They are no state: what is stored of a network is what was learned.
    assert set(fused.state_dict()) == {"up.weight", "up.bias", "conv.0.weight", "conv.0.bias"}


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_pooling_is_torchs(kind):
    torch.manual_seed(0)
    image = torch.randn(2, 5, 9, 12).to(kind).to(memory_format=torch.channels_last)
    image[0, 0, 0, 0], image[0, 1, 3, 2] = torch.nan, -torch.nan
    image[1, 1, 2, 2], image[1, 1, 4:6, 4:6] = torch.inf, -torch.inf
    with torch.inference_mode():
        wanted = functional.max_pool2d(image, 2)
        with fusing(kind):
            for found in (nn.MaxPool2d(2)(image), functional.max_pool2d(image, (2, 2))):
                torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
            # Others are left to torch.
            assert nn.MaxPool2d(3, 2, 1)(image).shape == (2, 5, 5, 6)
            assert nn.MaxPool2d(2, ceil_mode=True)(image).shape == (2, 5, 5, 6)
            places = nn.MaxPool2d(2, return_indices=True)(image.float())[1]
            assert places.dtype == torch.int64


def test_what_a_relu_made_is_pooled_by_its_bits(monkeypatch):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)).eval()
    fused, seen = fuse(copy.deepcopy(plain)), []
    real = fusion.pool
    monkeypatch.setattr(fusion, "pool", lambda *one, **how: seen.append(how) or real(*one, **how))
    image = 100 * torch.randn(2, 4, 23, 18)
    for precision, rough in (("float32", 1e-5), ("bfloat16", 2e-2)):
        one, other = logits_of(plain, fused, image=image, precision=precision)
        torch.testing.assert_close(other, one, rtol=rough, atol=rough * float(one.abs().max()))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        if fused_kind(image) is not None:
            assert seen.count({"positive": True}) == 2
    values = torch.tensor([0.0, -0.0, 1e-40, 3.0, 3.02, 1e30, torch.inf], dtype=torch.bfloat16)
    known = values[torch.randint(7, (2, 5, 9, 12))].to(memory_format=torch.channels_last)
    found = real(known, positive=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, functional.max_pool2d(known, 2), rtol=0, atol=0)


CHANGES_BELOW_ZERO = {
    "whole": lambda image: image.neg_(),
    "a part of it": lambda image: image[:, 1:].sub_(9),
    "as an output": lambda image: torch.neg(image, out=image),
    "by an index": lambda image: image.__setitem__((0, slice(2)), -7.0),
    "another": lambda image: -image,
}


@pytest.mark.parametrize("change", CHANGES_BELOW_ZERO.values(), ids=CHANGES_BELOW_ZERO)
def test_what_a_relu_made_and_another_changed_is_pooled_by_its_values(change):
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.chain = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU())

        def forward(self, image):
            image = self.chain(image)
            changed = change(image)
            # What is written by an index has no value.
            return functional.max_pool2d(image if changed is None else changed, 2)

    torch.manual_seed(0)
    plain = Changed().eval()
    fused, image = fuse(copy.deepcopy(plain)), torch.randn(1, 2, 8, 8)
    one, other = logits_of(plain, fused, image=image, precision="bfloat16")
    assert float(one.min()) < 0
    torch.testing.assert_close(other, one, rtol=2e-2, atol=1e-2)


def test_networks_of_other_types_are_left_to_torch():
    layer = fuse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval().double())
    found = logits_of(layer, image=torch.randn(1, 1, 5, 5, dtype=torch.float64))[0]
    assert found.dtype == torch.float64
