import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from unetkit.errors import InputError, MissingError
from unetkit.models.encoder_decoder import load_encoder


def encoder(channels=3):
    layers = nn.Sequential()
    layers.add_module("conv_stem", nn.Conv2d(channels, 4, 3, bias=False))
    layers.add_module("layers_0", nn.BatchNorm2d(4))
    return layers


@pytest.fixture
def state():
    torch.manual_seed(0)
    donor = encoder().state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in donor.items()}


def saved(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    return str(path)


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
def test_the_names_of_every_library_are_understood(tmp_path, state, renamed):
    path = saved(tmp_path, {"fc.weight": torch.ones(2), **{renamed(n): state[n] for n in state}})
    network = encoder()
    load_encoder(network, path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_kernels_for_photographs_take_other_channels(tmp_path, state, channels):
    network = encoder(channels)
    load_encoder(network, saved(tmp_path, state))
    photo = encoder()
    load_encoder(photo, saved(tmp_path, state))
    # A grey picture gives what its photograph would give, or about as much.
    grey = torch.rand(1, 1, 6, 6)
    with torch.inference_mode():
        seen = network[0](grey.expand(1, channels, 6, 6))
        expected = photo[0](grey.expand(1, 3, 6, 6))
    torch.testing.assert_close(seen, expected, rtol=1e-5 if channels == 1 else 0.5, atol=0)
    assert torch.equal(network[1].weight, state["layers_0.weight"])


def test_a_file_without_counters_of_batches_will_do(tmp_path, state):
    del state["layers_0.num_batches_tracked"]
    network = encoder()
    load_encoder(network, saved(tmp_path, state))
    assert torch.equal(network[1].weight, state["layers_0.weight"])


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path, state):
    network = encoder()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    del state["layers_0.weight"]
    with pytest.raises(InputError, match=r"got none for 1 \('layers_0.weight'\)"):
        load_encoder(network, saved(tmp_path, state))
    state["layers_0.weight"] = torch.full((4,), torch.nan)
    with pytest.raises(InputError, match="must be finite"):
        load_encoder(network, saved(tmp_path, state))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_no_safetensors_file_is_never_opened(tmp_path):
    with pytest.raises(MissingError, match=r"none, imagenet or a \.safetensors file"):
        load_encoder(encoder(), str(tmp_path / "nothing.safetensors"))

    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"must be a whole \.safetensors file"):
        load_encoder(encoder(), str(path))
    assert not (tmp_path / "ran").exists()
