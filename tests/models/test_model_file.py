import hashlib
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from unetkit.errors import InputError, NonFiniteError, ResourceError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.build import build_model
from unetkit.models.model_file import check_content, load, to_bytes
from unetkit.models.model_header import KEY, read_header

OPTIONS = {"depth": 1, "width": 2}
OTHER = SizeContract(step=1, minimum=18, margin=8)


def network():
    torch.manual_seed(3)
    return build_model("unet", in_channels=1, classes=2, options=OPTIONS)


@pytest.fixture
def written(header_of):
    """Return what gives the bytes of a model and its header, with a change."""

    def write(module, **change):
        return to_bytes(module, header_of(module, **{"options": OPTIONS, **change}))

    return write


@pytest.fixture
def model_path(written, stored):
    return Path(stored(written(network())))


def rewrite(path, *, state=None, **change):
    """Write the file again with another state or header, as a forger would."""
    header = read_header(str(path)).to_dict()
    tensors = safetensors.torch.load(path.read_bytes()) if state is None else state
    text = json.dumps({**header, **change})
    path.write_bytes(safetensors.torch.save(tensors, metadata={KEY: text}))
    return str(path)


def test_what_is_saved_is_loaded_and_takes_no_random_numbers(model_path):
    module = network().eval()
    state = torch.get_rng_state()
    loaded = load(str(model_path))
    assert torch.equal(torch.get_rng_state(), state)
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


def test_the_same_model_gives_the_same_bytes(model_path, written):
    module, content = network(), model_path.read_bytes()
    assert written(module) == content
    assert written(module.to(memory_format=torch.channels_last)) == content
    assert written(module, options=dict(reversed(OPTIONS.items()))) == content
    again = load(str(model_path))
    assert to_bytes(again.module, again.header) == content


def test_saving_refuses_what_can_not_be_loaded(written):
    module = network()
    with pytest.raises(UsageError, match="must have the contract of its module"):
        written(module, contract=OTHER)
    with pytest.raises(UsageError, match="got 'widht'"):
        written(module, options={"widht": 2})
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"NaN or Inf in 'head.bias'"):
        written(module)


def test_tensors_that_share_their_memory_are_saved(written):
    module = network()
    module.merge[0][0].bias = module.merge[0][2].bias
    assert safetensors.torch.load(written(module))


def test_weights_that_are_not_those_of_the_network_or_not_finite_are_refused(model_path):
    state = safetensors.torch.load(model_path.read_bytes())
    head = state["head.weight"]
    cases = {
        "NaN or Inf in 'head.weight'": {**state, "head.weight": head + torch.nan},
        "or Inf in 'head.weight'": {**state, "head.weight": head - torch.inf},
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
        ({"target": "classes", "class_names": ["a", "b", "c"]}, "of another shape"),
        ({"contract": OTHER.to_dict()}, "must have the size contract of model 'unet'"),
    ],
)
def test_a_header_that_does_not_fit_its_weights_is_refused(model_path, change, words):
    with pytest.raises(InputError, match=words):
        load(rewrite(model_path, **change))


def test_a_header_that_asks_for_terabytes_is_refused_by_its_shapes(model_path):
    # Were the network built first, this would end for want of memory, as ResourceError.
    for width, error, words in (
        (4000, InputError, "exactly the weights of its network"),
        (10**18, ResourceError, "must be able to be built"),
        (10**30, InputError, "strict JSON, got the number 1000"),
    ):
        path = rewrite(model_path, options={"depth": 6, "dropout": 0.5, "width": width})
        with pytest.raises(error, match=words):
            load(path)


def test_a_model_whose_plugin_is_not_installed_names_it(model_path):
    path = rewrite(model_path, model="attention", distribution="good-nets", version="1.2")
    with pytest.raises(ResourceError, match=r"'attention' of good-nets 1\.2, which is") as caught:
        load(path)
    # No command that a file could have written.
    assert not re.search("keras-unet|pip install", str(caught.value))
    with pytest.raises(ResourceError, match="of good-nets , which is"):
        load(rewrite(model_path, model="a", distribution="good-nets", version="1 && rm -r"))
    for name in (
        "a; rm -r .",
        "../folder",
        "-r evil",
        "git+https://evil",
        "a\nb",
        "a" * 200,
        "\u0430b",
    ):
        with pytest.raises(InputError, match="distribution of the header is unfit"):
            load(rewrite(model_path, distribution=name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "foo"}, "a target out of foreground, foreground"),
        ({"target": "boundary"}, "the classes inside, boundary for target boundary"),
        ({"target": "foreground+boundary"}, "the classes background, interior, boundary"),
        ({"class_names": ["foreground", "background"]}, "the classes background, foreground"),
        ({"normalization": "foo"}, "a normalization out of percentile"),
    ],
)
def test_a_header_that_gives_the_classes_another_meaning_is_refused(model_path, change, words):
    with pytest.raises(InputError, match=words) as caught:
        load(rewrite(model_path, **change))
    assert caught.value.exit_code == 3
    sound = {"target": "classes", "class_names": ["a", "b"], "normalization": "range"}
    assert load(rewrite(model_path, **sound)).header.target == "classes"


def test_weights_have_a_checksum_that_is_compared_where_there_is_one(model_path):
    content = model_path.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    assert safetensors.torch.load(flipped)
    model_path.write_bytes(flipped)
    for read in (load, lambda path: check_content(Path(path).read_bytes(), path=path)):
        with pytest.raises(InputError, match=r"must be whole.*another checksum"):
            read(str(model_path))
    # What an earlier version wrote has none.
    header = {k: v for k, v in read_header(str(model_path)).to_dict().items() if k != "checksum"}
    state = safetensors.torch.load(content)
    model_path.write_bytes(safetensors.torch.save(state, metadata={KEY: json.dumps(header)}))
    assert load(str(model_path)).header.checksum == ""
    assert check_content(model_path.read_bytes(), path="").checksum == ""


def test_a_model_that_computes_while_it_is_built_is_loaded(model_path, computing_build):
    with torch.device("meta"), pytest.raises(ResourceError):
        build_model("unet", in_channels=1, classes=2, options=OPTIONS)
    assert load(str(model_path)).module.contract == read_header(str(model_path)).contract
