from pathlib import Path

import pytest
import torch

from unetkit.commands.train.initial_weights import Start, adapt, open_start, target_of
from unetkit.errors import MissingError, UsageError
from unetkit.models.build import build_model
from unetkit.models.model_file import load
from unetkit.storage.datasets import open_dataset

OPTIONS = {"depth": 2, "width": 2, "dropout": 0.5, "norm": "none"}


def adapted(start, *, channels=1, names=("background", "foreground")):
    torch.manual_seed(99)
    network = build_model("unet", in_channels=channels, classes=len(names), options=OPTIONS)
    said = adapt(network, start, options=OPTIONS, in_channels=channels, class_names=names)
    return network.eval(), said


@pytest.fixture
def start(kit, tmp_path):
    return open_start(kit.model(tmp_path / "first.safetensors"))


def noise(channels=1):
    return torch.rand(1, channels, 60, 60, generator=torch.Generator().manual_seed(0))


def test_the_same_channels_and_classes_keep_every_weight(start):
    network, said = adapted(start)
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in start.state.items())
    assert len(said) == 1
    assert start.path in said[0]
    assert start.to_dict() == {"file": "first.safetensors", "sha256": start.sha256}


def test_equal_channels_lead_to_what_one_of_them_led_to(start):
    grey = noise()
    network, said = adapted(start, channels=3)
    torch.testing.assert_close(
        network(grey.expand(-1, 3, -1, -1)), load(start.path).module(grey), rtol=1e-4, atol=1e-5
    )
    assert "It took 1 channels and now takes 3" in said[1]


def test_fewer_channels_begin_with_the_mean(kit, tmp_path):
    start = open_start(kit.model(tmp_path / "rgb.safetensors", channels=3))
    network, _ = adapted(start)
    grey = noise()
    before = load(start.path).module(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network(grey), before, rtol=1e-4, atol=1e-5)


def test_classes_of_the_same_name_keep_their_layer_wherever_they_stand(start):
    network, said = adapted(start, names=("myelin", "foreground", "background"))
    old, new = load(start.path).module(noise()), network(noise())
    assert torch.equal(new[:, 1], old[:, 1])
    assert torch.equal(new[:, 2], old[:, 0])
    assert not torch.equal(new[:, 0], old[:, 0])
    assert said[1].endswith("its last layer begins by chance for myelin.")


def test_equally_many_classes_of_other_names_begin_by_chance(start):
    network, said = adapted(start, names=("inside", "boundary"))
    assert not torch.equal(network.state_dict()["head.weight"], start.state["head.weight"])
    assert "by chance for inside, boundary" in said[1]
    fewer, said = adapted(start, names=("foreground", "background"))
    assert torch.equal(fewer(noise()).flip(1), load(start.path).module(noise()))
    assert said[1].endswith("begins as it was for these.")


def test_channels_and_classes_of_networks_of_others_are_found_too(kit, tmp_path):
    first = Path(kit.model(tmp_path / "first.safetensors"))
    header = load(str(first)).header
    options = {"encoder": "tu-test_resnet", "encoder_weights": "none", "width": 8}
    torch.manual_seed(0)
    old = build_model("smp-unet", in_channels=1, classes=2, options=options).eval()
    start = Start("old", header, old.state_dict(), "0")
    object.__setattr__(header, "model", "smp-unet")
    new = build_model("smp-unet", in_channels=2, classes=3, options=options).eval()
    names = ("background", "foreground", "more")
    adapt(new, start, options=options, in_channels=2, class_names=names)
    grey = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(
        new(grey.expand(-1, 2, -1, -1))[:, :2], old(grey), rtol=1e-3, atol=1e-4
    )


def test_a_network_of_another_build_is_refused(start):
    wider = {**OPTIONS, "width": 3}
    network = build_model("unet", in_channels=1, classes=2, options=wider)
    with pytest.raises(UsageError, match=r"built as that of init .*first.safetensors"):
        adapt(
            network, start, options=wider, in_channels=1, class_names=("background", "foreground")
        )
    deeper = {**OPTIONS, "depth": 1}
    with pytest.raises(UsageError, match="leave --model and --set out"):
        adapt(
            build_model("unet", in_channels=1, classes=2, options=deeper),
            start,
            options=deeper,
            in_channels=1,
            class_names=("background", "foreground"),
        )


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingError, match=r"no\.safetensors"):
        open_start(str(tmp_path / "no.safetensors"))


def test_what_was_learned_before_is_learned_again_where_labels_fit(kit, tmp_path):
    names = ("background", "interior", "boundary")
    path = kit.model(tmp_path / "m.safetensors", classes=names, target="foreground+boundary")
    start = open_start(path)
    cells = open_dataset(kit.cells(tmp_path / "cells.zarr"))
    classes = open_dataset(kit.cells(tmp_path / "classes.zarr", kind="classes"))
    assert target_of(start, cells) == "foreground+boundary"
    assert target_of(start, classes) is None
