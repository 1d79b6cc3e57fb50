"""What layers make of an input is told without the time that it takes to compute it."""

import pytest
import torch
from torch import nn

from unetkit.models.build import build_model
from unetkit.models.cost import largest_tensor, run_layers
from unetkit.models.fusion import fuse


class Odd(nn.Module):
    """Has a convolution of each unusual kind."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, kernel_size=(3, 5), stride=2, padding=1, dilation=(1, 2), groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, kernel_size=3, padding="same"),
            nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1, output_padding=2, groups=2),
            nn.Conv2d(6, 3, kernel_size=1, padding_mode="reflect", bias=False),
        )

    def forward(self, image):
        return self.layers(image)


def classic():
    return build_model("unet", in_channels=2, classes=3, options={"depth": 2, "width": 4})


@pytest.mark.parametrize("build", [classic, Odd])
@pytest.mark.parametrize("fused", [True, False])
def test_shapes_are_those_of_a_real_run(build, fused):
    network = build().eval()
    network = fuse(network) if fused else network
    real: list[tuple[int, ...]] = []
    for layer in network.modules():
        layer.register_forward_hook(lambda layer, given, made: real.append(tuple(made.shape)))
    with torch.inference_mode():
        network(torch.zeros(1, 2, 60, 60))
    runs = run_layers(network, in_channels=2, size=60)
    assert 2 * [tuple(run.made) for run in runs] == real
    assert {tuple(run.given)[1] for run in runs if run.layer is network} == {2}


def test_what_is_made_between_layers_counts_as_large():
    class Enlarged(nn.Module):
        def forward(self, image):
            large = nn.functional.interpolate(torch.cat([image] * 3, dim=1), scale_factor=2)
            return large[:, :1, ::2, ::2]

    assert largest_tensor(Enlarged(), in_channels=2, size=8) == 3 * 2 * 16 * 16
    assert {run.made.numel() for run in run_layers(Enlarged(), in_channels=2, size=8)} == {64}
    assert largest_tensor(nn.MaxPool2d(2), in_channels=2, size=8) == 2 * 8 * 8


def test_nothing_of_the_network_is_changed():
    network = build_model("unet", in_channels=1, classes=2, options={"depth": 1, "width": 2}).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run_layers(network, in_channels=1, size=44)
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())


@pytest.mark.parametrize(
    ("work", "loads"),
    [
        ("run_layers(build_model(*unet).eval(), in_channels=1, size=188)", False),
        ("build_shapes(*unet)", False),
        # Random numbers without memory load it, which takes seconds.
        ("with torch.device('meta'): build_model(*unet)", True),
    ],
)
def test_no_compiler_is_loaded_for_it(run_python, work, loads):
    program = f"""
import sys
import torch
from unetkit.models.cost import run_layers
from unetkit.models.build import build_model, build_shapes
{work.replace("*unet", "'unet', in_channels=1, classes=2")}
print("torch._dynamo" in sys.modules)
"""
    assert run_python(program) == f"{loads}\n"
