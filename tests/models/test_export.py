import io
import json
import sys

import pytest
import torch
from torch import nn

from unetkit.errors import CheckError, ResourceError
from unetkit.models import unet
from unetkit.models.build import build_model
from unetkit.models.export import InputSizes, export, run_onnx
from unetkit.models.inference import logits_of


@pytest.fixture
def network():
    torch.manual_seed(0)
    return unet.build(in_channels=2, classes=3, depth=1, width=2).eval()


def written(network, to, *, size=None):
    sizes = InputSizes.of(network.contract, channels=2, size=size)
    return export(network, to=to, sizes=sizes, facts={"model": "unet"})


def ran(written, to):
    """Return what computes an export, and what is kept in it."""
    if to == "onnx":
        onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
        (entry,) = (
            e for e in onnx.load_from_string(written.content).metadata_props if e.key == "unetkit"
        )
        run = run_onnx(written.content)
        return lambda image: torch.from_numpy(run(image.numpy())), json.loads(entry.value)
    told = {"unetkit.json": ""}
    program = torch.export.load(io.BytesIO(written.content), extra_files=told)
    return program.module(), json.loads(told["unetkit.json"])


@pytest.mark.parametrize(
    ("to", "size", "kept"),
    [
        ("pt2", None, ["any", 2, "18 + 2 k", "18 + 2 k"]),
        ("pt2", 20, [1, 2, 20, 20]),
        # Seconds each, since torch tells by algebra which sizes are alike.
        ("onnx", None, ["any", 2, "18 + 2 k", "18 + 2 k"]),
        ("onnx", 20, [1, 2, 20, 20]),
    ],
)
def test_an_export_computes_the_same_and_says_how_nearly(network, to, size, kept):
    if to == "onnx":
        pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    made = written(network, to, size=size)
    run, facts = ran(made, to)
    assert facts == {"model": "unet", "input": kept, "largest_difference": made.gap}
    assert 0 <= made.gap < 1e-5
    for shape in [(1, 2, 20, 20)] if size else [(1, 2, 18, 46), (3, 2, 50, 22)]:
        image = torch.randn(shape)
        with torch.inference_mode():
            found = run(image)
        torch.testing.assert_close(found, logits_of(network, image), rtol=1e-4, atol=1e-5)


def test_a_pt2_refuses_what_is_off_the_grid(network):
    run, _ = ran(written(network, "pt2"), "pt2")
    with pytest.raises(AssertionError, match="Guard failed"):
        run(torch.randn(1, 2, 19, 20))


def test_the_least_size_is_one_that_the_export_takes():
    """Of one pixel on the coarsest level torch can't tell what it may become."""
    options = {"depth": 2, "width": 2}
    module = build_model("keras-unet", in_channels=2, classes=2, options=options).eval()
    made = written(module, "pt2")
    assert (module.contract.minimum, made.sizes.minimum) == (4, 8)
    run, _ = ran(made, "pt2")
    assert run(torch.randn(2, 2, 8, 8)).shape == (2, 2, 8, 8)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_its_name_is_told(network, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=rf"{package}.*pip install 'unetkit\[onnx\]'"):
        written(network, "onnx")


def test_a_network_that_can_not_be_written_is_one_sentence(network):
    class Choosing(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    for sizes, remedy in ((InputSizes(1, 4, 0), "; try"), (InputSizes(1, 4, 2), "; add --size")):
        with pytest.raises(ResourceError, match=f"must be one that pt2 can hold.*{remedy}"):
            export(Choosing(), to="pt2", sizes=sizes, facts={})


def test_an_export_that_computes_something_else_is_refused():
    class Remembering(nn.Module):
        """Computes in the first call what no later one does."""

        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, image):
            self.calls += 1
            return image * self.calls

    with pytest.raises(CheckError, match="got a difference of"):
        export(Remembering(), to="pt2", sizes=InputSizes(1, 4, 0), facts={})
