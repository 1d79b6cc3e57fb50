"""What layers make of an input is told by shapes, and by numbers where a network needs those."""

from __future__ import annotations

import torch
from torch import nn

from unetkit.models.fusing import fuse
from unetkit.models.layers import run_layers
from unetkit.models.making import make


class NeedsNumbers(nn.Module):
    """Asks for a value in between, which shapes do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, kernel_size=3)
        self.ran_on: list[str] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.ran_on.append(image.device.type)
        return self.layer(image) * (1 if float(image.sum()) == 0 else 2)


def test_shapes_are_those_of_a_real_run() -> None:
    network = fuse(make("unet", in_channels=2, classes=3, options={"depth": 2, "width": 4}).eval())
    real: list[tuple[int, ...]] = []
    for layer in network.modules():
        layer.register_forward_hook(lambda layer, given, made: real.append(tuple(made.shape)))
    with torch.inference_mode():
        network(torch.zeros(1, 2, 60, 60))
    wanted = list(real)
    real.clear()
    runs = run_layers(network, in_channels=2, size=60)
    assert [tuple(run.made) for run in runs] == wanted == real
    assert {tuple(run.given)[1] for run in runs if run.layer is network} == {2}


def test_nothing_of_the_network_is_changed() -> None:
    network = make("unet", in_channels=1, classes=2, options={"depth": 1, "width": 2}).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run_layers(network, in_channels=1, size=44)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_network_that_needs_numbers_gets_them() -> None:
    network = NeedsNumbers().eval()
    runs = run_layers(network, in_channels=1, size=8)
    assert network.ran_on == ["meta", "cpu"]
    assert [(type(run.layer), tuple(run.made)) for run in runs] == [
        (nn.Conv2d, (1, 3, 6, 6)),
        (NeedsNumbers, (1, 3, 6, 6)),
    ]
