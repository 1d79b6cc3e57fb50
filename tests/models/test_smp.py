import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from unetkit.commands.models import show_model
from unetkit.errors import InputError, UsageError
from unetkit.models import encoder_decoder, smp
from unetkit.models.build import build_model
from unetkit.models.model_file import load, to_bytes
from unetkit.models.model_header import KEY
from unetkit.models.receptive_field import receptive_field
from unetkit.models.smp import ARCHITECTURES, DEFAULT_HALO, FARTHEST, HALOS, size_contract
from unetkit.options import options_of
from unetkit.testing import check_model

# The smallest encoders there are and narrow decoders. Fresh logits of three of them were all of one
# sign at 16 channels; 64 was tried next and did.
SMALL = {name: {"encoder": "tu-test_resnet", "width": 4} for name in ARCHITECTURES}
SMALL["unet"]["width"] = SMALL["unetplusplus"]["width"] = 1
for wide in ("pspnet", "deeplabv3", "deeplabv3plus"):
    SMALL[wide]["width"] = 64
SMALL["dpt"]["encoder"] = "tu-test_vit"
del SMALL["linknet"]["width"]


def small(name, **options):
    torch.manual_seed(0)
    chosen = {"in_channels": 1, "classes": 2, **SMALL[name], **options}
    return getattr(smp, f"build_{name}")(**chosen)


@pytest.mark.parametrize(
    "name",
    [
        # Its many layers at full resolution take most of a minute.
        pytest.param(name, marks=[pytest.mark.slow] if name == "unetplusplus" else [])
        for name in ARCHITECTURES
    ],
)
def test_every_network_keeps_the_contract_that_plugins_are_held_to(name):
    check_model(getattr(smp, f"build_{name}"), **SMALL[name])


LISTING = """
import sys
from unetkit.registry import Registry
print(*(n for n in Registry("unetkit.models", noun="model").names() if n.startswith("smp-")))
print({"torch", "timm", "segmentation_models_pytorch"} & set(sys.modules))
"""


def test_listing_models_imports_no_network(run_python):
    names, imported = run_python(LISTING).splitlines()
    assert set(names.split()) == {f"smp-{name}" for name in ARCHITECTURES}
    assert imported == "set()"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_builder_of_every_network_shows_its_own_options(name):
    builder = getattr(smp, f"build_{name}")
    options = options_of(builder)
    wide = set() if name == "linknet" else {"width"}
    assert set(options) == {"encoder", "encoder_weights"} | wide
    assert options["encoder"].default == ARCHITECTURES[name].encoder
    assert pickle.loads(pickle.dumps(builder)) is builder
    for option in options:
        assert f"\n{option} : " in builder.__doc__


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels_comes_in(channels):
    network = small("linknet", in_channels=channels, classes=3).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, channels, 64, 96)).shape == (1, 3, 64, 96)


def test_what_it_does_not_take_is_refused():
    with pytest.raises(UsageError, match="classes of model 'smp-unet' must be at least 2, got 1"):
        small("unet", classes=1)
    with pytest.raises(UsageError, match="width of model 'smp-unet' must be at least 1, got 0"):
        small("unet", width=0)
    network = small("linknet")
    with pytest.raises(UsageError, match="got 80; try 64 or 96"):
        network(torch.zeros(1, 1, 80, 64))
    with pytest.raises(UsageError, match="must have 1 channels, got 3"):
        network(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "encoder", "words"),
    [
        ("unet", "resnet19", "did you mean .*resnet18"),
        ("unet", "tu-test_resnett", "did you mean tu-test_resnet"),
        ("unet", "???", "try resnet18"),
        ("dpt", "resnet18", "encoder of model 'smp-dpt' must be one that it can use"),
    ],
)
def test_an_encoder_that_is_unknown_or_cannot_serve_a_network_is_refused(name, encoder, words):
    with pytest.raises(UsageError, match=words):
        small(name, encoder=encoder)


def test_weights_from_a_local_file_make_the_encoder(stored):
    donor = small("unet", in_channels=3).network.encoder.state_dict()
    donor = {name: tensor + 1 for name, tensor in donor.items()}
    path = stored(safetensors.torch.save(donor))
    network = small("linknet", in_channels=3, encoder_weights=path).network
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, donor[name])
    path = stored(safetensors.torch.save({"conv1.weight": torch.zeros(2)}))
    with pytest.raises(InputError, match="must hold every weight of the encoder"):
        small("unet", encoder_weights=path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("imagnet", "did you mean imagenet"), ("None", "did you mean none"), ("x", "leave it out")],
)
def test_a_word_that_is_no_weights_is_refused_with_the_near_one(weights, words):
    with pytest.raises(UsageError, match=rf"got '{weights}'; {words}"):
        small("unet", encoder_weights=weights)
    with pytest.raises(UsageError, match="nobody published such weights"):
        smp.fetch("tu-test_resnet.of_nobody")


FETCHING = """
from unetkit.errors import ResourceError
from unetkit.models.smp import fetch
for encoder in ("resnet18", "tu-test_resnet.r160_in1k"):
    try:
        fetch(encoder)
    except ResourceError as error:
        print(error)
"""


@pytest.mark.parametrize(
    "surroundings", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_imagenet_without_a_network_says_in_one_sentence_what_to_do(
    tmp_path, surroundings, run_python
):
    surroundings = {**surroundings, "HF_HOME": str(tmp_path)}
    first, second = run_python(FETCHING, env=surroundings).splitlines()
    assert "copy model.safetensors of https://huggingface.co/smp-hub/resnet18.imagenet" in first
    assert first.endswith("set encoder_weights=FILE.safetensors")
    assert "https://huggingface.co/timm/test_resnet.r160_in1k" in second


def test_a_model_file_needs_its_first_weights_no_more(tmp_path, stored, header_of, monkeypatch):
    first = tmp_path / "encoder.safetensors"
    safetensors.torch.save_file(small("linknet").network.encoder.state_dict(), first)
    options = {**SMALL["linknet"], "encoder_weights": str(first)}
    network = build_model("smp-linknet", in_channels=1, classes=2, options=options).eval()
    header = header_of(network, model="smp-linknet", options=options)
    path = stored(to_bytes(network, header))
    first.unlink()
    loaded = load(path)
    assert loaded.header.options["encoder_weights"] == "none"
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.module(image), network(image))
    # Whatever a file says, it makes nobody fetch or open anything.
    state = safetensors.torch.load(Path(path).read_bytes())
    for weights in ("imagenet", str(Path(path).resolve()), "/etc/passwd.safetensors"):
        forged = header_of(network, model="smp-linknet", options={**options}).to_dict()
        forged["options"]["encoder_weights"] = weights
        text = json.dumps({**forged, "distribution": "unetkit"})
        safetensors.torch.save_file(state, path, metadata={KEY: text})
        with monkeypatch.context() as patch:
            patch.setattr(smp, "fetch", None)
            patch.setattr(encoder_decoder, "load_encoder", None)
            assert load(path).header.options["encoder_weights"] == "none"
            shown = {option["name"]: option["value"] for option in show_model(path)["options"]}
        assert shown["encoder_weights"] == "none"


@pytest.mark.parametrize("name", HALOS)
def test_measured_halos_are_steps_and_not_too_far(name):
    for encoder, halo in HALOS[name].items():
        contract = size_contract(name, encoder=encoder, step=32)
        assert (contract.halo, contract.exact) == (halo, True)
        assert halo % 32 == 0
        assert halo <= FARTHEST


@pytest.mark.parametrize(
    ("name", "encoder"), [("unet", "resnet34"), ("deeplabv3", "resnet18"), ("dpt", "tu-test_vit")]
)
def test_a_network_that_was_not_measured_is_not_called_exact(name, encoder):
    contract = size_contract(name, encoder=encoder, step=16)
    assert (contract.halo, contract.exact) == (DEFAULT_HALO, False)


@pytest.mark.slow
@pytest.mark.parametrize("name", HALOS)
@pytest.mark.parametrize("encoder", HALOS["unet"])
def test_every_halo_is_what_is_measured(name, encoder):
    if encoder not in HALOS[name]:
        pytest.skip(f"{name} with {encoder} was not measured")
    options = {} if name == "linknet" else {"width": 1}
    builder = getattr(smp, f"build_{name}")
    network = builder(in_channels=1, classes=2, encoder=encoder, **options).eval()
    field = receptive_field(network, in_channels=1)
    assert field.least_need(network.contract) == network.contract.need
