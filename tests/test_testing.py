import pickle

import pytest
from torch import nn

from unetkit import testing
from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.registry import Registry
from unetkit.testing import check_model

# Options that make each model of the package small enough to be checked in a second.
SMALL = {"unet": {"depth": 1, "width": 2}, "keras-unet": {"depth": 1, "width": 2}}


def test_every_installed_model_of_our_own_keeps_the_contract():
    registry = Registry("unetkit.models", noun="model")
    own = [n for n in registry.names() if registry.entry(n).distribution == "unetkit"]
    # Those of segmentation-models-pytorch have a test file of their own, which takes longer.
    ours = {name for name in own if not name.startswith("smp-")}
    assert ours <= set(SMALL), "give the new model small options here"
    for name in ours:
        check_model(registry.get(name), **SMALL[name])


def test_what_builds_a_model_travels_to_other_processes():
    registry = Registry("unetkit.models", noun="model")
    for name in registry.names():
        build = registry.get(name)
        assert pickle.loads(pickle.dumps(build)) is build


class Blur(nn.Module):
    """One zero-padded 3x3 convolution, which needs a halo of 1."""

    def __init__(self, in_channels, classes, *, halo):
        super().__init__()
        self.contract = SizeContract(step=1, minimum=4, halo=halo)
        self.layer = nn.Conv2d(in_channels, classes, 3, padding=1)

    def forward(self, image):
        return self.layer(image)


def build(*, in_channels: int, classes: int, halo: int = 1) -> Blur:
    return Blur(in_channels, classes, halo=halo)


def test_a_true_claim_passes_with_any_number_of_channels():
    check_model(build)
    check_model(build, in_channels=3, classes=4)


def test_the_first_broken_rule_is_raised():
    with pytest.raises(CheckError, match="no more context than the 0 pixels of its contract"):
        check_model(build, halo=0)


def test_everything_that_an_author_needs_is_public():
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
