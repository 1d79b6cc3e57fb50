import pytest
import torch
from torch import nn

from unetkit import registry
from unetkit.errors import ResourceError, UsageError
from unetkit.models.build import build_model, build_shapes, error_with_line, parse_options


def test_options_from_texts_build_the_model():
    options = parse_options(["width=3", "depth=1"], "unet")
    assert build_model("unet", in_channels=2, classes=2, options=options).head.in_channels == 3
    with pytest.raises(UsageError, match=r"options: depth=4, dropout=0\.5, norm=none, width=64"):
        parse_options(["deph=1"], "unet")
    with pytest.raises(UsageError, match="did you mean 'unet'"):
        parse_options([], "unett")
    with pytest.raises(UsageError, match="did you mean 'unet'"):
        build_model("unett", in_channels=1, classes=2)


@pytest.mark.parametrize(
    ("built", "words"),
    [
        (lambda: nn.Identity(), "a torch module with a size contract, got Identity"),
        (lambda: "network", "a torch module with a size contract, got str"),
        (lambda: 1 / 0, "able to be built, got ZeroDivisionError"),
    ],
)
def test_a_model_that_is_none_is_the_surroundings_fault(monkeypatch, built, words):
    def build(*, in_channels, classes):
        return built()

    monkeypatch.setattr(registry.Registry, "get", lambda *_: build)
    with pytest.raises(ResourceError, match=words):
        build_model("odd", in_channels=1, classes=2)


def test_an_error_is_told_with_the_line_of_the_models_author():
    def faulty():
        return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError) as caught:
        faulty()
    line = faulty.__code__.co_firstlineno + 1
    assert error_with_line(caught.value).endswith(f"(in {__file__}, line {line})")
    caught.value.__traceback__ = None
    assert error_with_line(caught.value).startswith("RuntimeError: ")
    assert " (in " not in error_with_line(caught.value)


def test_an_outline_takes_no_memory_and_has_every_shape():
    options = {"depth": 4, "width": 3000}
    shapes = build_shapes("unet", in_channels=1, classes=2, options=options)
    assert sum(p.numel() for p in shapes.parameters()) > 10**10
    assert all(p.is_meta for p in shapes.parameters())
    with pytest.raises(UsageError, match="depth of model 'unet' must be"):
        build_shapes("unet", in_channels=1, classes=2, options={"depth": 99})
    # Weights are drawn again after an outline.
    made = build_model("unet", in_channels=1, classes=2, options={"width": 2})
    assert float(made.head.weight.detach().std()) > 0


@pytest.mark.usefixtures("computing_build")
def test_a_network_that_computes_while_it_is_built_has_no_outline():
    assert build_shapes("odd", in_channels=1, classes=2, options={"width": 2}) is None
    assert build_model("odd", in_channels=1, classes=2, options={"width": 2}).contract
