"""A package's blocks equal tile-predict wherever another program cuts them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unetkit.errors import UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models import bioimageio
from unetkit.models.bioimageio import BlockSizes, Blockwise, blockwise, check_packable
from unetkit.models.build import build_model
from unetkit.models.inference import predict_array
from unetkit.models.model_header import read_header
from unetkit.models.smp import ARCHITECTURES, HALOS, size_contract


class Odd(nn.Module):
    """Pools by 4 and pads, and looks 5 pixels further, so that neither size nor halo fits."""

    contract = SizeContract(step=4, minimum=22, margin=5, halo=8)

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 11), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image):
        pooled = nn.functional.max_pool2d(self.first(image), 4)
        return self.last(nn.functional.interpolate(pooled, scale_factor=4.0))


def network(name):
    torch.manual_seed(1)
    if name == "odd":
        return Odd().eval()
    options = {"depth": 2, "width": 4}
    module = build_model(name, in_channels=1, classes=2, options=options).eval()
    with torch.inference_mode():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, 0.3)
    return module


def gap(module, *, sizes=None, beyond=0):
    """Return the largest difference of blocks as bioimageio.core cuts them from tile-predict."""
    own = BlockSizes.of(module.contract)
    used = sizes or own
    kept = 3 * own.step + max(0, own.least - 2 * own.halo)
    shape = (1, kept + 2 * own.halo + own.step + beyond, 2 * kept + 2 * own.halo - own.step)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    wrapped = Blockwise(module, used, margin=module.contract.margin)

    def run(batch):
        with torch.inference_mode():
            return wrapped(torch.from_numpy(batch)).numpy()

    found = blockwise(run, image, halo=used.halo, kept=kept)
    return np.abs(found - predict_array(module, image, contract=module.contract)).max()


@pytest.mark.parametrize("name", ["unet", "keras-unet", "odd"])
def test_blocks_equal_tile_predict(name):
    assert gap(network(name)) < 1e-5


def test_what_is_not_promised_differs():
    module = network("unet")
    own = BlockSizes.of(module.contract)
    assert gap(module, beyond=1) > 1e-3  # a side off the step moves the last block off the grid
    near = BlockSizes(own.step, own.least, own.halo - own.step, own.lead, own.tail)
    assert gap(module, sizes=near) > 1e-3


@given(
    step=st.integers(1, 24),
    margin=st.integers(0, 60),
    halo=st.integers(0, 60),
    more=st.integers(0, 70),
    blocks=st.integers(0, 5),
)
def test_every_block_is_legal_and_on_the_grid(step, margin, halo, more, blocks):
    contract = SizeContract(step=step, minimum=2 * margin + 1 + more, margin=margin, halo=halo)
    sizes = BlockSizes.of(contract)
    block = sizes.least + blocks * step
    assert contract.is_legal(sizes.lead + block + sizes.tail)
    assert sizes.halo >= contract.need
    assert block - 2 * sizes.halo >= 1
    assert (block - 2 * sizes.halo) % step == 0
    # tile-predict's read boxes begin at -need + k * step, those of blocks at -halo - lead.
    assert (sizes.halo + sizes.lead - contract.need) % step == 0


def test_a_network_that_looks_at_whole_tiles_is_refused(small_model):
    header = read_header(str(small_model))
    whole = replace(header, contract=replace(header.contract, exact=False))
    with pytest.raises(UsageError, match=r"tiles equal the whole image.*--to onnx"):
        bioimageio.check_packable(whole)


def test_yaml_is_what_was_described():
    yaml = pytest.importorskip("yaml")
    described = {
        "a": "x: 'y' # \u00e9\n",
        "list": [1, 2.5, None, True],
        "deep": [{"k": {"m": []}, "n": [{"o": 1}, [2]]}],
        "none": {},
    }
    text = "\n".join(bioimageio._yaml(described))
    assert yaml.safe_load(text) == described


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - HALOS.keys()))
def test_networks_that_look_at_a_whole_tile_are_refused(name, small_model):
    contract = size_contract(name, encoder="resnet18", step=32)
    header = replace(read_header(str(small_model)), model=f"smp-{name}", contract=contract)
    with pytest.raises(UsageError, match=f"got 'smp-{name}', which looks at a whole tile at once"):
        check_packable(header)
