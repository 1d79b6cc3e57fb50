import pytest
import torch
from torch import nn

from unetkit.errors import UsageError
from unetkit.models.keras_unet import build
from unetkit.models.receptive_field import receptive_field
from unetkit.testing import check_model


def padded(**options):
    torch.manual_seed(0)
    return build(**{"in_channels": 1, "classes": 2, "width": 2, **options}).eval()


def test_the_layers_are_those_of_the_keras_code():
    with torch.device("meta"):
        network = build(in_channels=1, classes=2)
        shape = network(torch.empty(1, 1, 512, 512)).shape
    assert shape == (1, 2, 512, 512)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    ups = [layer.out_channels for layer in layers if layer.kernel_size == (2, 2)]
    assert ups == [512, 256, 128, 64]
    assert [m.out_channels for m in network.down[-1] if isinstance(m, nn.Conv2d)] == [1024, 1024]
    assert (network.head.kernel_size, network.head.out_channels) == ((3, 3), 2)
    # Keras' own summary of this code names 31,031,685 with a 1x1 convolution of 3 numbers on top.
    assert sum(p.numel() for p in network.parameters()) == 31_031_682


def test_drop_out_acts_after_the_two_lowest_levels_and_in_the_skip():
    network = padded(depth=2, width=4)
    seen = []
    network.dropout.register_forward_hook(lambda _, inputs, output: seen.append(output))
    merged = []
    network.merge[0].register_forward_pre_hook(lambda _, inputs: merged.append(inputs[0]))
    network.train()(torch.randn(1, 1, 16, 16))
    assert [tuple(output.shape[1:]) for output in seen] == [(8, 8, 8), (16, 4, 4)]
    assert torch.equal(merged[0][:, :8], seen[0])


def test_convolutions_of_2x2_pad_below_and_right():
    network = padded(depth=1, width=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.up[0].weight[0, 0, 1, 1] = 1
        # Every 3x3 hands its first channel on; the first one after the join takes the lower path.
        for layer in (*network.down[0][::2], *network.down[1][::2], network.merge[0][2]):
            layer.weight[0, 0, 1, 1] = 1
        network.merge[0][0].weight[0, 1, 1, 1] = 1
        network.head.weight[0, 0, 1, 1] = 1
        image = torch.zeros(1, 1, 8, 8)
        image[0, 0, 4, 4] = 1
        # Pooled to (2, 2), spread over 4 and 5, and moved one pixel towards the start.
        found = network(image)[0, 0].nonzero().tolist()
    assert found == [[3, 3], [3, 4], [4, 3], [4, 4]]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_halo_is_what_a_tile_sees(depth):
    network = padded(depth=depth, width=1)
    step = 2**depth
    field = receptive_field(network, in_channels=1)
    assert (field.before[0], field.after[-1]) == (6 * step - 2, 7 * step - 2)
    assert field.least_need(network.contract) == network.contract.need == 7 * step


@pytest.mark.parametrize("depth", [1, 2])
def test_it_keeps_the_contract_that_plugins_are_held_to(depth):
    check_model(build, in_channels=2, classes=3, depth=depth, width=4)


def test_a_halo_one_step_shorter_shows_seams(tiles_differ):
    network, image = padded(depth=2, width=4), torch.randn(1, 40, 40)
    assert tiles_differ(network, image, tile=8, overlap=28) == 0
    assert tiles_differ(network, image, tile=8, overlap=24) > 0


def test_what_it_does_not_take_is_refused():
    with pytest.raises(UsageError, match="depth of model 'keras-unet' must be from 1 to 6, got 7"):
        build(in_channels=1, classes=2, depth=7)
    network = padded(depth=2)
    with pytest.raises(UsageError, match="must have 1 channels, got 2"):
        network(torch.zeros(1, 2, 8, 8))
    with pytest.raises(UsageError, match="got 10; try 8 or 12"):
        network(torch.zeros(1, 1, 10, 8))
