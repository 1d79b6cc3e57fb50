import itertools
import re
from functools import partial

import pytest
import torch
from torch import nn

from unetkit.errors import CheckError
from unetkit.geometry.sizes import SizeContract
from unetkit.models import unet
from unetkit.models.conformance import CHECKS, Trial, built, findings

SMALL = {"depth": 1, "width": 2}
# What breaks a rule, the check that finds it, and what it says.
FAULTS = {
    "unpadded": ("sizes", r"must return \(1, 2, 4, 9\) for an input of 4 x 9, got \(1, 2, 2, 7\)"),
    "no halo": ("context", r"than the 0 pixels of its contract .*, got 1: .* 1 would .* halo=1 in"),
    "global": ("context", r"look at its surroundings only, or say exact=False"),
    "batch": ("batch", "treat each image of a batch alone"),
    "relu": ("logits", "logits of both signs"),
    "chance": ("repetition", "repeat itself in evaluation"),
    "nan": ("logits", "finite logits"),
    "idle": ("learning", "finite gradient, also 'idle', got none"),
    "several": ("learning", "take a batch of 1 in training, got .* more than 1 value"),
    "seedless": ("repetition", "same weights from the same seed"),
    "coarse": ("bfloat16", "give in bfloat16 what it gives in float32"),
    "position": ("tiling", "equal one pass over the whole in tiles with 1 pixels"),
    "falls": ("batch", "must run, got ValueError: one image"),
    "hidden": ("file", "the same after its weights went through a file"),
}


# What a fault makes of logits.
SPOILS = {
    "relu": torch.relu,
    "chance": lambda logits: logits + torch.rand(()),
    "nan": lambda logits: logits / 0.0 * 0.0,
    "coarse": lambda logits: 1e4 * logits - (1e4 * logits.detach()).bfloat16().float() + logits,
    "position": lambda logits: logits + torch.arange(logits.shape[2])[:, None],
}
BUILDS = itertools.count()


class Blur(nn.Module):
    """One zero-padded 3x3 convolution: exact with a halo of 1, unless a fault is asked for."""

    def __init__(self, *, in_channels, classes, fault=""):
        super().__init__()
        halo, exact = int(fault != "no halo"), fault != "claims not exact"
        self.contract = SizeContract(step=1, minimum=4, halo=halo, exact=exact)
        self.fault = fault
        self.layer = nn.Conv2d(in_channels, classes, 3, padding=0 if fault == "unpadded" else 1)
        self.idle = nn.Parameter(torch.ones(2), requires_grad=fault == "idle")
        self.norm = nn.BatchNorm1d(classes) if fault == "several" else None
        if fault == "seedless":
            # a count, not an address: a second network may come to lie where the first was
            chance = torch.Generator().manual_seed(next(BUILDS))
            self.layer.bias.data = torch.rand(classes, generator=chance)
        self.hidden = torch.rand(()) if fault == "hidden" else torch.tensor(0.5)

    def forward(self, image):
        if self.fault in ("global", "claims not exact"):
            image = image - image.mean(dim=(2, 3), keepdim=True)
        if self.fault == "batch":
            image = image - image.mean(dim=0)
        if self.fault == "falls" and len(image) == 1 and image.shape[2] > 16:
            raise ValueError("one image")
        logits = self.layer(image) + self.hidden - 0.5
        if self.norm is not None:
            logits = logits + self.norm(logits.mean(dim=(2, 3)))[:, :, None, None]
        return SPOILS.get(self.fault, nn.Identity())(logits)


def told(build, **more):
    """Give what is found, by the name of the check."""
    return {finding.check: finding for finding in findings(build, **more)}


@pytest.mark.parametrize(("build", "options"), [(Blur, {}), (unet.build, {"depth": 2, "width": 2})])
def test_a_model_that_keeps_everything_passes_every_check(build, options):
    found = told(build, options=options)
    assert list(found) == list(CHECKS)
    assert all(finding.holds for finding in found.values()), found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_breaks_a_rule_is_told_which(fault):
    check, words = FAULTS[fault]
    found = told(partial(Blur, fault=fault))
    assert not found[check].holds
    assert re.search(words, found[check].found), found[check].found
    # Nothing can be asked of a network whose sizes are wrong.
    assert (list(found) == ["interface", "sizes"]) == (fault == "unpadded")


def test_one_network_of_one_sign_is_chance():
    class Shifted(Blur):
        def __init__(self, **wish):
            super().__init__(**wish)
            with torch.no_grad():
                self.layer.weight.mul_(1e-3)
                self.layer.bias.copy_(torch.randn(1).expand(2))

    assert told(Shifted)["logits"].holds


def test_a_model_that_looks_at_everything_passes_when_it_says_so():
    found = told(partial(Blur, fault="claims not exact"))
    assert all(finding.holds for finding in found.values()), found
    assert found["context"].found.startswith("looks at the whole tile")
    assert re.search(r"differ from the whole by 0\.\d+", found["tiling"].found)


def test_the_measured_numbers_are_told():
    found = {name: f.found for name, f in told(unet.build, options=SMALL | {"depth": 2}).items()}
    assert "434" not in found["interface"]
    assert "step=4, minimum=44, margin=20" in found["interface"]
    assert found["sizes"] == "as promised for 44, 48, 52, 64"
    assert "on up to 23 pixels of the input above or left of it and 23 below" in found["context"]
    assert "; 20 pixels of context make tiles exact" in found["context"]
    assert found["context"].endswith("; the contract says 20")
    assert re.search(r"by 0 of the largest logit, 0\.\d+ off the step grid", found["tiling"])


def test_what_is_no_model_ends_the_trial():
    (found,) = findings(lambda *, in_channels, classes: "network")
    assert (found.holds, "must be a torch module, got str" in found.found) == (False, True)
    (found,) = findings(lambda *, in_channels, classes: nn.Conv2d(in_channels, classes, 1))
    assert "must have a SizeContract as its contract, got None" in found.found


def test_options_that_no_file_can_hold_are_found():
    found = told(lambda *, size, **wish: Blur(**wish), options={"size": {3}})
    assert "options that JSON can hold" in found["file"].found
    assert {name for name, finding in found.items() if not finding.holds} == {"file"}


def test_a_trained_model_is_checked_as_it_is():
    wish = {"in_channels": 2, "classes": 3}
    module = unet.build(**wish, **SMALL)
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    found = told(unet.build, **wish, options=SMALL, module=module)
    assert "finite logits" in found["logits"].found
    assert found["sizes"].holds


def test_the_numbers_are_the_same_every_time_and_take_no_random_ones():
    state = torch.get_rng_state()
    assert told(unet.build, options=SMALL) == told(unet.build, options=SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert issubclass(CheckError, RuntimeError)


WISH = {"in_channels": 1, "classes": 2, **SMALL}


def trial():
    module = built(unet.build, WISH, seed=0)
    return Trial(build=unet.build, module=module, in_channels=1, classes=2, options=SMALL)


def test_a_seed_gives_one_network_and_takes_nobodys_random_numbers():
    state = torch.get_rng_state()
    first, second, other = (built(unet.build, WISH, seed=s).head.weight for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_images_are_small_legal_the_same_and_not_square():
    batch = trial().batch(3)
    assert batch.shape == (3, 1, 34, 36)
    assert all(trial().contract.is_legal(size) for size in batch.shape[2:])
    assert torch.equal(batch, trial().batch(3))


def test_the_uneven_copy_has_no_bias_of_zero_and_leaves_the_model_alone():
    one = trial()
    assert not one.module.head.bias.any()
    uneven = one.uneven()
    assert uneven.head.bias.all()
    assert torch.equal(uneven.head.bias, one.uneven().head.bias)
    assert torch.equal(uneven.head.weight, one.module.head.weight)
    assert not one.module.head.bias.any()
    # The model can be made again.
    assert torch.equal(one.fresh(seed=0).head.weight, one.module.head.weight)
    assert not torch.equal(one.fresh(seed=1).head.weight, one.module.head.weight)
