"""Hold the network to unetkit's contract and its gates to their paper."""

import pytest
import torch
from unetkit_attention import HALOS, Gate, build

from unetkit.errors import UsageError
from unetkit.testing import check_model, receptive_field


@pytest.mark.parametrize("depth", [1, 2])
def test_it_keeps_the_contract(depth):
    check_model(build, in_channels=2, classes=3, depth=depth, width=4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_halo_is_the_measured_one(depth):
    network = build(in_channels=1, classes=2, depth=depth, width=1).eval()
    field = receptive_field(network, in_channels=1)
    assert field.least_need(network.contract) == network.contract.need == HALOS[depth]


def test_a_gate_only_damps_and_shuts_where_interest_is_low():
    torch.manual_seed(0)
    gate = Gate(3, 6)
    skip, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 6, 4, 4)
    with torch.inference_mode():
        assert (gate(skip, coarse).abs() <= skip.abs()).all()
        gate.interest.bias.fill_(1e4)
        torch.testing.assert_close(gate(skip, coarse), skip)
        gate.interest.bias.fill_(-1e4)
        assert not gate(skip, coarse).any()


def test_numbers_out_of_range_are_refused():
    with pytest.raises(UsageError, match="depth of model 'attention-unet' must be from 1 to 5"):
        build(in_channels=1, classes=2, depth=6)
