import pytest
import torch
from torch import nn

from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.models import unet
from unetkit.registry import Registry
from unetkit.testing import check_model, tiled_pass, whole_pass


class Blur(nn.Module):
    """One zero-padded 3x3 convolution: exact with a halo of 1, unless a fault is asked for."""

    def __init__(self, *, in_channels, classes, fault=""):
        super().__init__()
        exact = fault not in ("global", "claims not exact")
        self.contract = SizeContract(
            step=1, minimum=4, halo=0 if fault == "no halo" else 1, exact=exact or fault == "global"
        )
        self.fault = fault
        self.layer = nn.Conv2d(in_channels, classes, 3, padding=0 if fault == "unpadded" else 1)
        self.idle = nn.Parameter(torch.ones(2), requires_grad=fault == "idle")

    def forward(self, image):
        if self.fault == "global" or self.fault == "claims not exact":
            image = image - image.mean(dim=(2, 3), keepdim=True)
        if self.fault == "batch":
            image = image - image.mean(dim=0)
        logits = self.layer(image)
        if self.fault == "relu":
            return logits.relu()
        if self.fault == "chance":
            return logits + torch.rand(())
        if self.fault == "nan":
            return logits / 0.0 * 0.0
        return logits


def make(fault=""):
    return lambda *, in_channels, classes: Blur(
        in_channels=in_channels, classes=classes, fault=fault
    )


def test_every_installed_model_of_our_own_keeps_the_contract():
    registry = Registry("unetkit.models", noun="model")
    small = {"unet": {"depth": 1, "width": 2}}
    own = [n for n in registry.names() if registry.entry(n).distribution == "unetkit"]
    assert set(own) == set(small), "give the new model small options here"
    for name in own:
        check_model(registry.get(name), **small[name])


def test_a_padded_model_with_a_true_halo_passes():
    check_model(make())
    check_model(make(), in_channels=3, classes=4)
    check_model(make("claims not exact"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unpadded", r"must return \(1, 2, 4, 9\) for an input of 4 x 9, got \(1, 2, 2, 7\)"),
        ("no halo", "must equal one whole pass in tiles of 1 with 0 pixels"),
        ("global", "must equal one whole pass in tiles of 1 with 1 pixels .* exact=False"),
        ("batch", "treat each image of a batch alone"),
        ("relu", "logits of both signs"),
        ("chance", "repeat itself in evaluation"),
        ("nan", "finite logits"),
        ("idle", "finite gradient, also 'idle', got none"),
    ],
)
def test_a_model_that_breaks_the_contract_is_told_how(fault, words):
    with pytest.raises(CheckError, match=words):
        check_model(make(fault))


def test_what_is_no_model_is_told_so():
    with pytest.raises(CheckError, match="must be a torch module, got str"):
        check_model(lambda *, in_channels, classes: "network")
    with pytest.raises(CheckError, match="must have a SizeContract as its contract, got None"):
        check_model(lambda *, in_channels, classes: nn.Conv2d(in_channels, classes, 1))


def test_weights_that_a_file_does_not_hold_are_found():
    class Forgetful(Blur):
        def __init__(self, **wish):
            super().__init__(**wish)
            self.offset = torch.rand(())

        def forward(self, image):
            return super().forward(image) + self.offset - 0.5

    with pytest.raises(CheckError, match="the same after its weights went through a file"):
        check_model(Forgetful)


def test_whole_pass_is_one_pass_over_the_mirrored_image():
    torch.manual_seed(0)
    network = unet.build(in_channels=1, classes=2, depth=1, width=2).eval()
    image = torch.randn(1, 5, 6)
    mirrored = image
    for axis in (1, 2):
        # 8 pixels of mirror on 5: torch itself mirrors less than the image's size at once.
        index = [abs(i) % (2 * (image.shape[axis] - 1)) for i in range(-8, image.shape[axis] + 9)]
        last = image.shape[axis] - 1
        mirrored = mirrored.index_select(axis, torch.tensor([min(i, 2 * last - i) for i in index]))
    mirrored = mirrored[:, : 5 + 16 + 1, : 6 + 16]
    with torch.no_grad():
        expected = network(mirrored[None])[0, :, :5, :6]
    torch.testing.assert_close(whole_pass(network, image, overlap=8), expected)
    assert torch.equal(
        tiled_pass(network, image, tile=8, overlap=8), whole_pass(network, image, overlap=8)
    )
