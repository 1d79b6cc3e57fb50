from dataclasses import replace

import numpy as np
import pytest
import torch

from unetkit.errors import NonFiniteError
from unetkit.training.trainer import HOPELESS, Average, Trainer


class Steep(torch.nn.Module):
    """Finite logits whose gradient is infinite: the square root at 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def forward(self, images):
        return images * self.weight.sqrt()[:, None, None]


def weights_of(network):
    return [value.numpy().copy() for value in network.state_dict().values()]


def test_a_step_is_the_optimizers_own(kit):
    recipe = kit.plain(optimizer="sgd", momentum=0.9, clip=1e9)
    network, twin = kit.Dots(), kit.Dots()
    trainer = Trainer(network, recipe, precision="float32")
    optimizer = torch.optim.SGD(twin.parameters(), lr=1.0, momentum=0.9)
    for step, rate in enumerate((0.1, 0.2, 0.05)):
        batch = kit.batch(step)
        logits = twin(torch.from_numpy(batch.images))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert trainer.learn(batch, rate=rate) == pytest.approx(loss.item(), rel=1e-5)
    for found, expected in zip(weights_of(network), weights_of(twin), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_long_gradient_is_cut(kit):
    network = kit.Dots()
    before = weights_of(network)
    trainer = Trainer(network, kit.plain(optimizer="sgd", clip=1e-3), precision="float32")
    trainer.learn(kit.batch(), rate=1.0)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(weights_of(network), before, strict=True))
    assert 0 < np.sqrt(moved) <= 1.001e-3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_a_step_without_a_finite_loss_changes_nothing(kit, fill, optimizer):
    network = kit.Dots()
    trainer = Trainer(network, kit.plain(optimizer=optimizer, averaging=0.9), precision="float32")
    trainer.learn(kit.batch(), rate=0.1)
    before = weights_of(network)
    assert trainer.learn(kit.batch(fill=fill), rate=0.1) is None
    for found, expected in zip(weights_of(network), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    with trainer.average.inside(network):
        assert all(np.isfinite(value).all() for value in weights_of(network))
    assert trainer.learn(kit.batch(), rate=0.1) is not None


def test_a_step_without_a_finite_gradient_changes_nothing(kit):
    network = Steep()
    trainer = Trainer(network, kit.plain(), precision="float32")
    assert trainer.learn(kit.batch(), rate=0.1) is None
    np.testing.assert_array_equal(weights_of(network)[0], [0, 0])


def test_the_tenth_such_step_in_a_row_ends_it_and_names_the_samples(kit):
    trainer = Trainer(kit.Dots(), kit.plain(), precision="float32")
    bad = kit.batch(names=("film 3", "b01", "b01"), fill=np.nan)
    for _ in range(HOPELESS - 1):
        trainer.learn(bad, rate=0.1)
    trainer.learn(kit.batch(), rate=0.1)  # one good step, and the count begins anew
    for _ in range(HOPELESS - 1):
        trainer.learn(bad, rate=0.1)
    with pytest.raises(
        NonFiniteError, match="10 steps in a row, on tiles of b01, film 3"
    ) as caught:
        trainer.learn(bad, rate=0.1)
    assert caught.value.exit_code == 6


def test_a_loss_in_float16_is_scaled_and_still_learned_from(kit):
    network = kit.Dots()
    before = weights_of(network)
    trainer = Trainer(network, kit.plain(optimizer="sgd"), precision="float16")
    losses = [trainer.learn(kit.batch(k), rate=0.5) for k in range(5)]
    assert all(loss is not None for loss in losses)
    moved = [abs(a - b).max() for a, b in zip(weights_of(network), before, strict=True)]
    assert 0.01 < max(moved) < 10


def test_the_average_follows_as_its_formula_says(kit):
    network = kit.Dots()
    average = Average(network, 0.5)
    expected = [value.astype(np.float64) for value in weights_of(network)]
    for step in range(8):
        with torch.no_grad():
            network.weight += 0.3 * step
        average.follow(network)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = [
            keep * old + (1 - keep) * new
            for old, new in zip(expected, weights_of(network), strict=True)
        ]
    own = weights_of(network)
    with average.inside(network):
        for found, wanted in zip(weights_of(network), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for found, wanted in zip(weights_of(network), own, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_network_is_itself_again_after_an_error(kit):
    network = kit.Dots()
    average = Average(network, 0.5)
    with torch.no_grad():
        network.weight += 1
    own = weights_of(network)
    inside = []

    def fail():
        with average.inside(network):
            inside.extend(weights_of(network))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not np.array_equal(inside[0], own[0])
    np.testing.assert_array_equal(weights_of(network)[0], own[0])


def test_no_average_is_the_network_as_it_is(kit):
    network = kit.Dots()
    average = Average(network, 0.0)
    with torch.no_grad():
        network.weight += 1
    own = weights_of(network)
    average.follow(network)
    with average.inside(network):
        np.testing.assert_array_equal(weights_of(network)[0], own[0])


def test_counters_of_a_network_are_copied_and_not_averaged():
    network = torch.nn.BatchNorm2d(1)
    average = Average(network, 0.9)
    network.train()
    network(torch.ones(1, 1, 4, 4))
    network(torch.ones(1, 1, 4, 4))
    average.follow(network)
    network(torch.ones(1, 1, 4, 4))
    with average.inside(network):
        assert network.num_batches_tracked.item() == 2


class Normed(torch.nn.Module):
    """A network with running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, images):
        return self.norm(images) * self.weight[:, None, None]


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_running_statistics_are_as_before_a_bad_step(kit, fill):
    network = Normed()
    trainer = Trainer(network, kit.plain(), precision="float32")
    trainer.learn(kit.batch(), rate=0.1)
    before = weights_of(network)
    assert trainer.learn(kit.batch(fill=fill), rate=0.1) is None
    for found, expected in zip(weights_of(network), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    # The control: the forward pass alone has spoilt them.
    network.train()
    network(torch.from_numpy(kit.batch(fill=fill).images))
    assert not all(np.isfinite(value).all() for value in weights_of(network))


def test_after_ten_bad_steps_it_goes_back_once_and_then_gives_up(kit):
    network = kit.Dots()
    trainer = Trainer(network, kit.plain(averaging=0.9), precision="float32")
    trainer.learn(kit.batch(), rate=0.1)
    trainer.remember(trainer.state({}))
    good = weights_of(network)
    trainer.learn(kit.batch(1), rate=0.1)
    bad = kit.batch(names=("film 3",), fill=np.nan)
    for _ in range(HOPELESS):
        assert not trainer.restored
        assert trainer.learn(bad, rate=0.1) is None
    assert trainer.restored
    for found, expected in zip(weights_of(network), good, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert trainer.learn(kit.batch(2), rate=0.1) is not None
    for _ in range(HOPELESS - 1):
        trainer.learn(bad, rate=0.1)
    with pytest.raises(NonFiniteError, match="on tiles of film 3; look at these"):
        trainer.learn(bad, rate=0.1)


def test_weights_that_ran_away_are_taken_back(kit):
    network = kit.Dots()
    trainer = Trainer(network, kit.plain(optimizer="sgd", clip=1e9), precision="float32")
    trainer.remember(trainer.state({}))
    # A rate so high that weights overflow, after which no loss is finite.
    assert trainer.learn(kit.batch(), rate=3e38) is not None
    losses = [trainer.learn(kit.batch(k), rate=3e38) for k in range(HOPELESS)]
    assert losses == [None] * HOPELESS
    assert trainer.learn(kit.batch(), rate=0.1) is not None


def test_drop_out_is_a_function_of_the_step(kit):
    class Dropping(kit.Dots):
        def forward(self, images):
            return torch.nn.functional.dropout(super().forward(images), training=self.training)

    def loss(seed, burned):
        torch.rand(burned)
        trainer = Trainer(Dropping(), kit.plain(), precision="float32")
        return trainer.learn(replace(kit.batch(), seed=seed), rate=0.1)

    assert loss(5, 0) == loss(5, 17) != loss(6, 0)


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_a_batch_in_parts_is_the_same_step(kit, parts):
    batch = kit.batch(names=tuple("abcde"))
    batch.weights[0, :9] = 0
    whole, parted = kit.Dots(), kit.Dots()
    recipe = kit.plain(optimizer="sgd", clip=1e9, loss="unet+ce")
    one = Trainer(whole, recipe, precision="float32")
    other = Trainer(parted, recipe, precision="float32", accumulate=parts)
    first, second = (trainer.learn(batch, rate=0.5) for trainer in (one, other))
    assert first == pytest.approx(second, rel=1e-5)
    for found, expected in zip(weights_of(parted), weights_of(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_scale_of_float16_comes_down_also_while_it_goes_back(kit):
    trainer = Trainer(kit.Dots(), kit.plain(), precision="float16")
    trainer.remember(trainer.state({}))
    for _ in range(HOPELESS):
        trainer.learn(kit.batch(fill=np.inf), rate=0.1)
    assert trainer.restored
    scale = trainer.state({}).facts["learner"]["scaler"]["scale"]
    assert scale == 2.0**16 / 2**HOPELESS
