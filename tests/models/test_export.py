import io
import json
import sys

import pytest
import torch
from torch import nn

from unetkit.errors import CheckError, ResourceError
from unetkit.models import unet
from unetkit.models.export import export
from unetkit.models.inference import logits_of


@pytest.fixture
def network():
    torch.manual_seed(0)
    return unet.build(in_channels=2, classes=3, depth=1, width=2).eval()


def written(network, to):
    return export(network, to=to, in_channels=2, size=20, facts={"model": "unet"})


def test_a_pt2_computes_the_same_and_says_how_nearly(network):
    content, gap = written(network, "pt2")
    told = {"unetkit.json": ""}
    program = torch.export.load(io.BytesIO(content), extra_files=told)
    image = torch.randn(1, 2, 20, 20)
    with torch.inference_mode():
        found = program.module()(image)
    torch.testing.assert_close(found, logits_of(network, image), rtol=1e-4, atol=1e-5)
    facts = {"model": "unet", "input": [1, 2, 20, 20], "largest_difference": gap}
    assert json.loads(told["unetkit.json"]) == facts
    assert 0 <= gap < 1e-5


def test_an_onnx_computes_the_same_and_says_how_nearly(network):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    content, gap = written(network, "onnx")
    proto = onnx.load_from_string(content)
    (entry,) = [e for e in proto.metadata_props if e.key == "unetkit"]
    assert json.loads(entry.value)["largest_difference"] == gap < 1e-4
    (given,) = proto.graph.input
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == [1, 2, 20, 20]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_its_name_is_told(network, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=rf"{package}.*pip install 'unetkit\[onnx\]'"):
        written(network, "onnx")


def test_a_network_that_can_not_be_written_is_one_sentence(network):
    class Choosing(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    with pytest.raises(ResourceError, match="must be one that pt2 can hold"):
        export(Choosing(), to="pt2", in_channels=1, size=4, facts={})


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
        export(Remembering(), to="pt2", in_channels=1, size=4, facts={})
