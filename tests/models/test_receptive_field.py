import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unetkit.geometry.sizes import SizeContract
from unetkit.models import unet
from unetkit.models.receptive_field import LENGTHS, ReceptiveField, receptive_field


class Stack(nn.Module):
    """Padded convolutions between pooling and up-sampling, none of them alike."""

    def __init__(self, kernels, *, pools=0, right=0):
        super().__init__()
        self.contract = SizeContract(step=2**pools, minimum=2**pools)
        self.layers = nn.ModuleList([nn.Conv2d(1, 1, k, padding=k // 2) for k in kernels])
        self.pools, self.right = pools, right

    def forward(self, image):
        for _ in range(self.pools):
            image = functional.max_pool2d(image, 2)
        for layer in self.layers:
            image = layer(image)
        image = functional.interpolate(image, scale_factor=2**self.pools, mode="nearest")
        return functional.conv2d(functional.pad(image, (0, self.right, 0, self.right)), self.ones)

    @property
    def ones(self):
        return torch.ones(1, 1, self.right + 1, self.right + 1)


@pytest.mark.parametrize(
    ("network", "field", "need"),
    [
        (Stack([5]), ReceptiveField((2,), (2,)), 2),
        (Stack([5, 3]), ReceptiveField((3,), (3,)), 3),
        # A kernel that pads at one end looks one way.
        (Stack([3], right=1), ReceptiveField((1,), (2,)), 2),
        # Pixels 0 and 1 share a cell; a 3x3 over cells adds the cells beside it.
        (Stack([3], pools=1), ReceptiveField((2, 3), (3, 2)), 2),
    ],
)
def test_kernels_look_half_their_size_far_from_every_phase_of_the_step(network, field, need):
    assert receptive_field(network.eval(), in_channels=1) == field
    assert field.least_need(network.contract) == need


@settings(max_examples=15, deadline=None)
@given(
    kernels=st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=3),
    pools=st.integers(0, 2),
    right=st.integers(0, 2),
)
def test_gradients_in_double_precision_agree(kernels, pools, right):
    network = Stack(kernels, pools=pools, right=right).eval()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    field = receptive_field(network, in_channels=1)
    step = network.contract.step
    double = network.double()
    image = torch.zeros(1, 1, 32 * step, 32 * step, dtype=torch.double, requires_grad=True)
    before, after = [], []
    for phase in range(step):
        row = 16 * step + phase
        logits = gradients_pass(double, image)
        (gradient,) = torch.autograd.grad(logits[0, 0, row].sum(), image)
        touched = gradient[0, 0].abs().sum(1).nonzero().flatten()
        before.append(row - int(touched.min()))
        after.append(int(touched.max()) - row)
    # A maximum hands its gradient to one pixel of its cell, a mean to all.
    assert (tuple(before), tuple(after)) == (field.before, field.after)


def gradients_pass(network, image):
    for _ in range(network.pools):
        image = functional.avg_pool2d(image, 2)
    for layer in network.layers:
        image = layer(image)
    image = functional.interpolate(image, scale_factor=2**network.pools, mode="nearest")
    image = functional.pad(image, (0, network.right, 0, network.right))
    return functional.conv2d(image, network.ones.double())


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_classic_network_needs_its_margin_to_the_pixel(depth):
    network = unet.build(in_channels=1, classes=2, depth=depth, width=1).eval()
    field = receptive_field(network, in_channels=1)
    assert field.least_need(network.contract) == network.contract.need == 6 * 2**depth - 4
    assert field.context(network.contract, need=network.contract.need) == network.contract.need


def test_a_network_that_looks_at_the_whole_tile_has_no_bound():
    class Global(Stack):
        def forward(self, image):
            return super().forward(image) + image.mean()

    field = receptive_field(Global([3]).eval(), in_channels=1)
    assert (field.is_bounded, field.reach) == (False, None)
    assert field.least_need(SizeContract(step=1, minimum=1)) is None


@pytest.mark.parametrize(
    ("layer", "reach"),
    [
        # Farther than the first strip: it is measured on a longer one.
        (nn.Conv2d(1, 1, (5, 1), padding=(2 * 80, 0), dilation=(80, 1)), 160),
        (nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), 3),
    ],
)
def test_the_longer_reach_of_both_axes_counts_however_long(layer, reach):
    network = Stack([1])
    network.layers[0] = layer
    assert receptive_field(network.eval(), in_channels=1).reach == (reach, reach)
    assert LENGTHS[0] < 2 * 160
