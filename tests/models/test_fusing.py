"""What is computed in one step is what was computed in two."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from unetkit.models import build, convolutions, hardware
from unetkit.models.convolutions import ConvolutionReLU, fuse


def pair(seed: int = 0, **options: Any) -> tuple[nn.Sequential, nn.Sequential]:
    made = []
    for _ in range(2):
        torch.manual_seed(seed)
        layer = nn.Conv2d(4, 8, kernel_size=3, **options)
        made.append(nn.Sequential(layer, nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1)).eval())
    return made[0], fuse(made[1])  # type: ignore[return-value]


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
def test_a_fused_network_says_the_same(options: dict[str, Any], precision: str) -> None:
    plain, fused = pair(**options)
    assert isinstance(fused[0], ConvolutionReLU)
    image = torch.randn(2, 4, 21, 30)
    with torch.inference_mode():
        one, other = (hardware.forward(m, image, precision=precision) for m in (plain, fused))
    torch.testing.assert_close(
        other, one, rtol=1e-2 if precision == "bfloat16" else 1e-6, atol=1e-5
    )
    if precision == "exact":
        assert torch.equal(other, one)


def test_a_fused_step_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = pair()
    calls: list[str] = []
    real = functional.relu

    def relu(image: torch.Tensor, **how: Any) -> torch.Tensor:
        calls.append("relu")
        return real(image, **how)

    monkeypatch.setattr(convolutions.functional, "relu", relu)
    image = torch.randn(1, 4, 9, 9)
    with torch.inference_mode():
        hardware.forward(fused, image, precision="float32")
        usable = convolutions._kind(image) is not None
        assert calls == ([] if usable else ["relu"])
        hardware.forward(fused, image, precision="exact")
    assert calls[-1:] == ["relu"]
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
def test_other_neighbours_stay_as_they_are(layers: tuple[nn.Module, ...]) -> None:
    chain = fuse(nn.Sequential(*layers).eval())
    assert [type(layer) for layer in chain] == [type(layer) for layer in layers]


def test_a_norm_that_still_learns_is_left_alone() -> None:
    chain = fuse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train())
    assert isinstance(chain[1], nn.BatchNorm2d)


@pytest.mark.parametrize("precision", ["exact", "float32", "bfloat16"])
def test_a_norm_becomes_part_of_its_convolution(precision: str) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert values is not None
        values.uniform_(0.5, 2)
    plain = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), norm, nn.ReLU()).eval()
    fused = fuse(copy.deepcopy(plain))
    assert [type(layer) for layer in fused.children()] == [ConvolutionReLU, *2 * [nn.Identity]]
    image = torch.randn(2, 4, 21, 30)
    with torch.inference_mode():
        one, other = (hardware.forward(m, image, precision=precision) for m in (plain, fused))
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
def test_whole_networks_say_the_same(name: str, options: dict[str, Any]) -> None:
    plain, fused = (
        build.build_model(name, in_channels=1, classes=2, options=options) for _ in "ab"
    )
    image = torch.rand(2, 1, *2 * [plain.contract.legal(64)])
    with torch.no_grad():
        # Statistics that are not those of a fresh network.
        plain.train()(image)
    fused.load_state_dict(plain.state_dict())
    fuse(fused.eval())
    with torch.inference_mode():
        one, other = (
            hardware.forward(m, image, precision="float32") for m in (plain.eval(), fused)
        )
    scale = max(1.0, float(one.abs().max()))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-5 * scale)
    norms = [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not norms or name == "smp-unet"
