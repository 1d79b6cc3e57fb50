"""Statistics that stay as they are; `test_parallel.py` has those of several processes."""

from __future__ import annotations

import torch
from torch import nn

from unetkit.training.norms import SharedNorm, freeze_statistics, share_statistics
from unetkit.training.parallel import ALONE, Group


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()


def test_frozen_statistics_stay_and_weights_learn() -> None:
    network, image = small(), torch.randn(2, 1, 9, 9)
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    network(image)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    freeze_statistics(network)
    network(image).sum().backward()
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name])
    assert norm.weight.grad is not None
    assert bool((norm.weight.grad != 0).all())
    # Nothing but the statistics is as when predicting.
    assert network[2].training
    network.train()
    network(image)
    assert norm.running_mean is not None
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_alone_batch_normalization_is_that_of_torch() -> None:
    network = small()
    share_statistics(network, ALONE)
    assert type(network[1]) is nn.BatchNorm2d


def test_shared_normalization_predicts_as_that_of_torch() -> None:
    network, shared, image = small(), small(), torch.randn(2, 1, 9, 9)
    share_statistics(shared, Group(0, 2))
    assert type(shared[1]) is SharedNorm
    assert list(shared.state_dict()) == list(network.state_dict())
    assert torch.equal(shared.eval()(image), network.eval()(image))
