import pytest
import torch
from torch import nn

from unetkit.errors import UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.encoder_decoder import (
    EncoderDecoder,
    FallbackBatchNorm,
    drop_unused_layers,
    remove_size_dependence,
)
from unetkit.models.smp import build_linknet


class Deep(nn.Module):
    """Uses the first two of its three layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.encoder = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.rest = nn.Conv2d(2, 2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, image):
        features = self.encoder(self.first(image))
        self.rest(features)
        return self.up(features)


def test_layers_that_the_output_does_not_depend_on_are_dropped():
    network = Deep()
    image = torch.randn(1, 1, 8, 8)
    before = network.eval()(image)
    drop_unused_layers(network, image)
    assert isinstance(network.rest, nn.Identity)
    assert isinstance(network.first, nn.Conv2d)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training
    assert torch.equal(network.eval()(image), before)


def test_up_sampling_does_not_depend_on_the_size_of_the_tile():
    network = Deep().eval()
    image = torch.randn(1, 1, 32, 8)

    def parts_differ():
        whole, part = network(image), network(image[:, :, 8:])
        return not torch.allclose(whole[:, :, 24:48], part[:, :, 8:32], atol=1e-6)

    assert parts_differ()
    remove_size_dependence(network)
    assert not parts_differ()


def test_batch_norm_of_one_value_takes_its_running_statistics():
    usual = nn.BatchNorm2d(2)
    usual.running_mean[:] = torch.tensor([1.0, 2.0])
    patient = FallbackBatchNorm(2)
    patient.load_state_dict(usual.state_dict())
    one = torch.randn(1, 2, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        usual(one)
    assert torch.equal(patient(one), usual.eval()(one))
    usual.train()
    many = torch.randn(2, 2, 3, 3)
    assert torch.equal(patient(many), usual(many))
    assert torch.equal(patient.running_mean, usual.running_mean)


def test_it_holds_its_input_to_the_contract():
    network = EncoderDecoder(Deep(), SizeContract(step=2, minimum=4), in_channels=1)
    with pytest.raises(UsageError, match="got 5; try 4 or 6"):
        network(torch.zeros(1, 1, 5, 4))
    with pytest.raises(UsageError, match="must have 1 channels, got 2"):
        network(torch.zeros(1, 2, 4, 4))


def test_a_frozen_encoder_does_not_learn_until_it_is_thawed():
    torch.manual_seed(0)
    network = build_linknet(in_channels=1, classes=2, encoder="tu-test_resnet")
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)

    def changed():
        """Make a step, and say whether weights and statistics of encoder and decoder moved."""
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.train()
        optimizer.zero_grad()
        network(torch.randn(2, 1, 64, 64)).square().sum().backward()
        optimizer.step()
        moved = {
            n for n, tensor in network.state_dict().items() if not torch.equal(tensor, before[n])
        }
        return {name.split(".")[1] for name in moved}

    network.freeze_encoder()
    assert changed() == {"decoder", "segmentation_head"}
    network.unfreeze_encoder()
    assert changed() == {"encoder", "decoder", "segmentation_head"}
