import hashlib
import json

import pytest
import safetensors.torch
import torch

from unetkit import registry
from unetkit.errors import InputError, NonFiniteError, ResourceError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models import build as build_
from unetkit.models.build import build_model
from unetkit.models.model_file import load, to_bytes
from unetkit.models.model_header import KEY, ModelHeader, read_header

OPTIONS = {"depth": 1, "width": 2}


def network():
    torch.manual_seed(3)
    return build_model("unet", in_channels=1, classes=2, options=OPTIONS)


def header_of(module, **change):
    fields = {
        "model": "unet",
        "options": OPTIONS,
        "in_channels": 1,
        "class_names": ("background", "foreground"),
        "target": "foreground",
        "contract": module.contract,
        "normalization": "percentile",
    }
    return ModelHeader(**{**fields, **change})


@pytest.fixture
def model_path(tmp_path):
    module = network()
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(module, header_of(module)))
    return path


def rewrite(path, *, state=None, **change):
    """Write the file again with another state or header, as a forger would."""
    header = read_header(str(path)).to_dict()
    tensors = safetensors.torch.load(path.read_bytes()) if state is None else state
    text = json.dumps({**header, **change})
    path.write_bytes(safetensors.torch.save(tensors, metadata={KEY: text}))
    return str(path)


def test_what_is_saved_is_loaded(model_path):
    module = network().eval()
    loaded = load(str(model_path))
    image = torch.randn(1, 1, 20, 22)
    assert torch.equal(loaded.module(image), module(image))
    assert not loaded.module.training
    assert loaded.sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert loaded.header == read_header(str(model_path))


def test_writing_adds_who_offers_the_model_and_the_defaults(model_path):
    header = load(str(model_path)).header
    assert header.full_name == "unetkit/unet"
    assert header.version
    assert header.options == {"depth": 1, "dropout": 0.5, "norm": "none", "width": 2}
    assert header.parameters == sum(p.numel() for p in network().parameters())
    with model_path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        assert list(json.loads(stream.read(size))["__metadata__"]) == [KEY]


def test_the_same_model_gives_the_same_bytes(model_path):
    module = network()
    content = model_path.read_bytes()
    assert to_bytes(module, header_of(module)) == content
    assert to_bytes(module.to(memory_format=torch.channels_last), header_of(module)) == content
    turned = header_of(module, options=dict(reversed(OPTIONS.items())))
    assert to_bytes(module, turned) == content
    again = load(str(model_path))
    assert to_bytes(again.module, again.header) == content


def test_loading_leaves_the_random_numbers_alone(model_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(str(model_path))
    assert torch.equal(torch.rand(3), expected)


def test_saving_refuses_what_can_not_be_loaded():
    module = network()
    with pytest.raises(UsageError, match="must have the contract of its module"):
        to_bytes(module, header_of(module, contract=SizeContract(step=1, minimum=1)))
    with pytest.raises(UsageError, match="got 'widht'"):
        to_bytes(module, header_of(module, options={"widht": 2}))
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"NaN or Inf in 'head.bias'"):
        to_bytes(module, header_of(module))


def test_tensors_that_share_their_memory_are_saved():
    module = network()
    module.merge[0][0].bias = module.merge[0][2].bias
    assert safetensors.torch.load(to_bytes(module, header_of(module)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(model_path, value):
    state = safetensors.torch.load(model_path.read_bytes())
    state["head.weight"][0] = value
    path = rewrite(model_path, state=state)
    with pytest.raises(InputError, match=r"NaN or Inf in 'head.weight'"):
        load(path)


def test_missing_unknown_and_ill_shaped_weights_are_refused(model_path):
    state = safetensors.torch.load(model_path.read_bytes())
    cases = {
        "1 missing .'head.bias'": {k: v for k, v in state.items() if k != "head.bias"},
        "1 unknown .'more'": {**state, "more": torch.ones(1)},
        "1 of another shape .'head.bias'": {**state, "head.bias": torch.ones(3)},
        "16 missing .*, 16 unknown .'module.": {f"module.{k}": v for k, v in state.items()},
    }
    for words, other in cases.items():
        with pytest.raises(InputError, match=words):
            load(rewrite(model_path, state=other))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"depth": 2, "dropout": 0.5, "width": 2}}, "exactly the weights"),
        ({"options": {"depth": 99}}, "depth of model 'unet' must be"),
        ({"options": {"widht": 2}}, "got 'widht'"),
        ({"options": {"width": "2"}}, "must be a whole number"),
        ({"in_channels": 2}, "of another shape"),
        ({"class_names": ["a", "b", "c"]}, "of another shape"),
        (
            {"contract": SizeContract(step=1, minimum=18, margin=8).to_dict()},
            "must have the size contract of model 'unet'",
        ),
    ],
)
def test_a_header_that_does_not_fit_its_weights_is_refused(model_path, change, words):
    with pytest.raises(InputError, match=words):
        load(rewrite(model_path, **change))


def test_a_header_that_asks_for_terabytes_is_refused_by_its_shapes(model_path):
    # Were the network built first, this would end for want of memory, as ResourceError.
    path = rewrite(model_path, options={"depth": 6, "dropout": 0.5, "width": 4000})
    with pytest.raises(InputError, match="exactly the weights of its network"):
        load(path)
    path = rewrite(model_path, options={"depth": 6, "dropout": 0.5, "width": 10**30})
    with pytest.raises(ResourceError, match="must be able to be built"):
        load(path)


def test_a_model_whose_plugin_is_not_installed_names_it(model_path):
    path = rewrite(model_path, model="attention", distribution="good-nets", version="1.2")
    with pytest.raises(
        ResourceError, match=r"good-nets 1\.2.*pip install 'good-nets==1\.2'"
    ) as caught:
        load(path)
    assert "keras-unet" not in str(caught.value)


def test_a_model_that_computes_while_it_is_built_is_loaded(model_path, monkeypatch):
    build = build_.models().get("unet")

    def counting(
        *,
        in_channels: int,
        classes: int,
        depth: int,
        dropout: float,
        norm: str = "none",
        width: int,
    ):
        torch.ones(1).item()
        return build(in_channels=in_channels, classes=classes, depth=depth, width=width)

    monkeypatch.setattr(registry.Registry, "get", lambda *_: counting)
    with torch.device("meta"), pytest.raises(ResourceError):
        build_model("unet", in_channels=1, classes=2, options={**OPTIONS, "dropout": 0.5})
    assert load(str(model_path)).module.contract == read_header(str(model_path)).contract
