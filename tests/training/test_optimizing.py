from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from unetkit.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer

if TYPE_CHECKING:
    from types import SimpleNamespace


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    found = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3))
    return found.to(memory_format=torch.channels_last)


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    image = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    net(image).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_an_optimizer_goes_on_bit_for_bit(kit: SimpleNamespace, kind: str) -> None:
    recipe = kit.plain(optimizer=kind, learning_rate=0.1)
    whole, parted = network(), network()
    one, first = make_optimizer(whole, recipe), make_optimizer(parted, recipe)
    for seed in range(6):
        step(whole, one, seed)
        if seed < 3:
            step(parted, first, seed)
    kept = {name: value.clone() for name, value in optimizer_tensors(first).items()}
    # As a file has them: in the plain layout.
    plain = {name: value.contiguous() for name, value in kept.items()} | {"other": torch.ones(1)}
    second, forgetful = make_optimizer(parted, recipe), network()
    forgetful.load_state_dict(parted.state_dict())
    restore_optimizer(second, plain)
    for name, value in optimizer_tensors(second).items():
        assert value.stride() == kept[name].stride()
    fresh = make_optimizer(forgetful, recipe)
    for seed in range(3, 6):
        step(parted, second, seed)
        step(forgetful, fresh, seed)
    pairs = zip(whole.parameters(), parted.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    # The control: without what it remembers the weights would be others.
    pairs = zip(whole.parameters(), forgetful.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
