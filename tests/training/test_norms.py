"""Statistics that stay as they are; `test_parallel.py` has those of several processes."""

import pytest
import torch
from torch import distributed, nn

from unetkit.training.distributed import SINGLE, ProcessGroup
from unetkit.training.norms import SharedNorm, freeze_statistics, has_statistics, share_statistics


@pytest.fixture
def group_of_one():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()


def test_a_network_has_statistics_or_not():
    assert has_statistics(small())
    assert not has_statistics(nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3)))


def test_frozen_statistics_stay_and_weights_learn():
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


def test_alone_batch_normalization_is_that_of_torch():
    network = small()
    share_statistics(network, SINGLE)
    assert type(network[1]) is nn.BatchNorm2d


def test_shared_normalization_predicts_as_that_of_torch():
    network, shared, image = small(), small(), torch.randn(2, 1, 9, 9)
    share_statistics(shared, ProcessGroup(0, 2))
    assert type(shared[1]) is SharedNorm
    assert list(shared.state_dict()) == list(network.state_dict())
    assert torch.equal(shared.eval()(image), network.eval()(image))


@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}], ids=str
)
@pytest.mark.usefixtures("group_of_one")
def test_shared_normalization_of_one_process_learns_as_that_of_torch(options):
    torch.manual_seed(0)
    own, shared = (nn.Sequential(nn.BatchNorm2d(3, **options)).double() for _ in "ab")
    share_statistics(shared, ProcessGroup(0, 2))
    for _ in range(3):
        image = torch.randn(2, 3, 5, 7, dtype=torch.float64)
        images = [image.clone().requires_grad_() for _ in "ab"]
        for network, one in zip((own, shared), images, strict=True):
            network(one).square().pow(1.5).sum().backward()
        gradients = [one.grad for one in images]
        torch.testing.assert_close(gradients[1], gradients[0])
    for (name, found), (_, expected) in zip(
        shared.state_dict().items(), own.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(found, expected, msg=name)
    for found, expected in zip(shared.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.usefixtures("group_of_one")
def test_one_value_a_channel_takes_the_statistics_that_there_are():
    network = nn.Sequential(nn.BatchNorm2d(3))
    share_statistics(network, ProcessGroup(0, 2))
    value = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(network.train()(value), network.eval()(value))
