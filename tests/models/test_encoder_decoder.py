import pickle
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn

from unetkit.errors import InputError, MissingError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.encoder_decoder import (
    EncoderDecoder,
    FallbackBatchNorm,
    drop_unused_layers,
    load_encoder,
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
    network, image = Deep(), torch.randn(1, 1, 8, 8)
    before = network.eval()(image)
    drop_unused_layers(network, image)
    assert isinstance(network.rest, nn.Identity)
    assert isinstance(network.first, nn.Conv2d)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training
    assert torch.equal(network.eval()(image), before)


def test_up_sampling_does_not_depend_on_the_size_of_the_tile():
    network, image = Deep().eval(), torch.randn(1, 1, 32, 8)

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
        now = network.state_dict()
        return {name.split(".")[1] for name in now if not torch.equal(now[name], before[name])}

    network.freeze_encoder()
    assert changed() == {"decoder", "segmentation_head"}
    network.unfreeze_encoder()
    assert changed() == {"encoder", "decoder", "segmentation_head"}


def encoder(channels=3):
    stem, norm = nn.Conv2d(channels, 4, 3, bias=False), nn.BatchNorm2d(4)
    return nn.Sequential(OrderedDict(conv_stem=stem, layers_0=norm))


@pytest.fixture
def state():
    torch.manual_seed(0)
    donor = encoder().state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in donor.items()}


@pytest.fixture
def loaded(stored):
    """Return what loads weights from a file into an encoder for so many channels."""

    def load(state, network=None):
        network = network or encoder()
        load_encoder(network, stored(safetensors.torch.save(state)))
        return network

    return load


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name,
        lambda name: f"model.{name}",
        lambda name: name.replace("layers_0", "layers.0"),
        lambda name: f"network.encoder.model.{name}",
        lambda name: f"encoder.{name}",
    ],
)
def test_the_names_of_every_library_are_understood(loaded, state, renamed):
    network = loaded({"fc.weight": torch.ones(2), **{renamed(n): state[n] for n in state}})
    assert all(torch.equal(tensor, state[n]) for n, tensor in network.state_dict().items())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_kernels_for_photographs_take_other_channels(loaded, state, channels):
    network, photo = loaded(state, encoder(channels)), loaded(state)
    # A grey picture gives what its photograph would give, or about as much.
    grey = torch.rand(1, 1, 6, 6)
    with torch.inference_mode():
        seen = network[0](grey.expand(1, channels, 6, 6))
        expected = photo[0](grey.expand(1, 3, 6, 6))
    torch.testing.assert_close(seen, expected, rtol=1e-5 if channels == 1 else 0.5, atol=0)
    assert torch.equal(network[1].weight, state["layers_0.weight"])


def test_a_file_without_counters_of_batches_will_do(loaded, state):
    del state["layers_0.num_batches_tracked"]
    assert torch.equal(loaded(state)[1].weight, state["layers_0.weight"])


def test_what_does_not_fit_is_refused_and_changes_nothing(loaded, state):
    network = encoder()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    del state["layers_0.weight"]
    with pytest.raises(InputError, match=r"got none for 1 \('layers_0.weight'\)"):
        loaded(state, network)
    state["layers_0.weight"] = torch.full((4,), torch.nan)
    with pytest.raises(InputError, match="must be finite"):
        loaded(state, network)
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())


def test_what_is_no_safetensors_file_is_never_opened(tmp_path, stored):
    with pytest.raises(MissingError, match=r"none, imagenet or a \.safetensors file"):
        load_encoder(encoder(), str(tmp_path / "nothing.safetensors"))

    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    path = stored(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"must be a whole \.safetensors file"):
        load_encoder(encoder(), path)
    assert not (tmp_path / "ran").exists()
