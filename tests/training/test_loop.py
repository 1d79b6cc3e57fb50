from itertools import count

import numpy as np
import pytest
import torch

from unetkit.errors import NonFiniteError, StoppedError, UsageError
from unetkit.training.checkpoint import Checkpoint, Validation
from unetkit.training.loop import PATIENCE, Callback, Checkpointer, fit
from unetkit.training.optimizer import Schedule


class Diary(Callback):
    """A callback that remembers."""

    def __init__(self):
        self.planned_steps = []
        self.steps = []
        self.losses = []
        self.rates = []
        self.returns = []
        self.validations = []
        self.kept_weights = {}

    def planned(self, step, *, steps, seconds_a_step):
        assert seconds_a_step > 0
        self.planned_steps.append(steps)

    def stepped(self, step, *, loss, rate):
        self.steps.append(step)
        self.losses.append(loss)
        self.rates.append(rate)

    def on_restore(self, step):
        self.returns.append(step)

    def validated(self, step, found, *, better):
        self.validations.append((step, better))

    def kept(self, step, network, found):
        self.kept_weights[step] = network.weight.detach().numpy().copy()


def train(
    kit, *, steps=20, scores=None, validation=0.0, budget=None, batches=None, more=None, **recipe
):
    """Train the smallest network, with scores as they are given, or those of its own loss."""
    network, diary = kit.Dots(), Diary()
    listed = iter(scores or ())

    def validate(network):
        if scores is not None:
            return next(listed)
        images = torch.from_numpy(kit.batch(99).images)
        right = network(images).argmax(dim=1) == (images[:, 0] > 0.5)
        return Validation(float(right.float().mean()), loss=1.0)

    outcome = fit(
        network,
        (kit.batch(k) for k in count()) if batches is None else batches,
        recipe=kit.plain(**{"learning_rate": 0.3, **recipe}),
        schedule=Schedule(steps, budget=budget, validation=validation),
        precision="float32",
        validate=validate,
        callback=diary,
        **(more or {}),
    )
    return outcome, diary, network


@pytest.mark.parametrize(
    ("start", "doubt", "best_step"), [(0.5, 0.0, 0), (0.5, 0.06, 10), (0.5, 0.02, 0), (0.6, 9.0, 0)]
)
def test_a_start_counts_for_as_much_as_is_sure(kit, start, doubt, best_step):
    scores = [Validation(value, loss=1.0) for value in (start, 0.45, 0.44, *8 * [0.3])]
    more = {"start_counts": True, "doubt": lambda: doubt}
    outcome, diary, _ = train(kit, steps=100, scores=scores, more=more)
    assert (outcome.best_step, outcome.best.score) == (best_step, 0.45 if best_step else start)
    assert [step for step, better in diary.validations if better] == sorted({0, best_step})


def test_a_threshold_is_learned(kit):
    outcome, diary, _ = train(kit, steps=150)
    assert outcome.best.score > 0.97
    first, last = diary.losses[0], diary.losses[-1]
    assert first is not None
    assert last is not None
    assert last < first / 3


def test_every_step_is_told_once_with_its_rate(kit):
    outcome, diary, _ = train(kit, steps=30)
    recipe = kit.plain(learning_rate=0.3)
    assert diary.steps == list(range(1, 31))
    assert diary.rates == [recipe.rate(step, 30) for step in range(30)]
    assert diary.planned_steps == [30]
    assert outcome.steps == 30


def test_the_best_network_is_kept_and_ties_go_to_the_lower_loss(kit):
    scores = [
        Validation(0.2, loss=1.0),
        Validation(0.5, loss=1.0),
        Validation(0.4, loss=0.1),
        Validation(0.5, loss=1.0),
        Validation(0.5, loss=0.9),
        # Within a thousandth: chance, and the loss decides.
        Validation(0.5004, loss=0.95),
        Validation(0.4997, loss=0.8),
        *[Validation(0.1, loss=0.0)] * 3,
    ]
    outcome, diary, _ = train(kit, steps=10, scores=scores)
    better = [step for step, was in diary.validations if was]
    assert better == list(diary.kept_weights) == [1, 2, 5, 7]
    assert (outcome.best_step, outcome.best, outcome.stopped_early) == (7, scores[6], False)


def test_what_is_kept_is_the_network_of_that_step(kit):
    _, diary, _ = train(kit, steps=2, scores=[Validation(1, loss=1), Validation(0, loss=1)])
    _, _, after_one = train(kit, steps=1, warm_up=0.0, schedule="constant")
    _, again, after_two = train(
        kit,
        steps=2,
        warm_up=0.0,
        schedule="constant",
        scores=[Validation(1, loss=1), Validation(0, loss=1)],
    )
    assert list(diary.kept_weights) == [1]
    np.testing.assert_array_equal(again.kept_weights[1], after_one.weight.detach().numpy())
    assert not np.array_equal(again.kept_weights[1], after_two.weight.detach().numpy())


def test_the_average_is_what_is_validated_and_kept(kit):
    _, diary, network = train(kit, steps=3, averaging=0.9, validation=1000.0)
    assert list(diary.kept_weights) == [3]
    assert not np.array_equal(diary.kept_weights[3], network.weight.detach().numpy())


def test_training_at_a_constant_rate_ends_early_when_nothing_becomes_better(kit):
    scores = [Validation(0.5, loss=1), Validation(0.6, loss=1), *[Validation(0.3, loss=0)] * 9]
    outcome, diary, _ = train(kit, steps=100, scores=scores, schedule="constant")
    assert outcome.stopped_early
    assert len(diary.validations) == 2 + PATIENCE
    assert (outcome.steps, outcome.best_step) == (70, 20)
    # Where the rate falls, what comes last is worth waiting for.
    outcome, diary, _ = train(kit, steps=100, scores=scores, schedule="cosine")
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (100, 20, False)


def test_the_last_step_is_no_early_end(kit):
    scores = [*[Validation(0.5, loss=1)] * 5, *[Validation(0.3, loss=0)] * 5]
    outcome, _, _ = train(kit, steps=10, scores=scores, schedule="constant")
    assert (outcome.steps, outcome.stopped_early) == (6, True)
    outcome, _, _ = train(kit, steps=6, scores=scores, schedule="constant")
    assert (outcome.steps, outcome.stopped_early) == (6, False)


def test_statistics_stay_as_they_are_in_the_last_steps(kit):
    seen = []

    class Watched(torch.nn.BatchNorm2d):
        def forward(self, input):  # noqa: A002
            seen.append(float(self.training))
            return super().forward(input)

    network = torch.nn.Sequential(Watched(1), kit.Dots())
    network.weight = network[1].weight
    fit(
        network,
        (kit.batch(k) for k in count()),
        recipe=kit.plain(frozen=0.3),
        schedule=Schedule(10, budget=None, validation=0.0),
        precision="float32",
        validate=lambda _: Validation(1.0, loss=1.0),
        callback=Diary(),
    )
    assert seen == [1.0] * 7 + [0.0] * 3


def test_a_budget_becomes_a_number_of_steps(kit):
    outcome, diary, _ = train(kit, steps=10**9, budget=0.3, validation=0.1)
    assert len(diary.planned_steps) == 1
    assert outcome.steps == diary.planned_steps[0] or outcome.stopped_early


def test_the_same_seed_gives_the_same_bits(kit):
    first, second = (train(kit, steps=25, averaging=0.9)[1].kept_weights for _ in range(2))
    assert list(first) == list(second)
    for step, weights in first.items():
        np.testing.assert_array_equal(weights, second[step])


def test_steps_without_a_finite_loss_are_told_as_skipped(kit):
    batches = [kit.batch(k, fill=np.nan if k in (1, 2) else None) for k in range(5)]
    outcome, diary, _ = train(kit, steps=5, batches=iter(batches))
    assert [loss is None for loss in diary.losses] == [False, True, True, False, False]
    assert outcome.steps == 5


def test_nothing_but_bad_samples_ends_in_numbers_error(kit):
    with pytest.raises(NonFiniteError, match="on tiles of a;"):
        train(kit, steps=20, batches=(kit.batch(fill=np.inf) for _ in count()), validation=1000.0)


def test_no_steps_are_refused(kit):
    with pytest.raises(UsageError, match="steps must be at least 1, got 0"):
        train(kit, steps=0)


def test_a_watcher_may_end_it(kit):
    class Impatient(Diary):
        def stepped(self, step, *, loss, rate):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            kit.Dots(),
            iter([kit.batch()]),
            recipe=kit.plain(),
            schedule=Schedule(3, budget=None, validation=0),
            precision="float32",
            validate=lambda network: Validation(0, loss=0),
            callback=Impatient(),
        )


class Memory:
    """Holds states as files would, and wants one at given calls."""

    def __init__(self, *due):
        self.due = due
        self.calls = 0
        self.contents = []

    def is_due(self):
        self.calls += 1
        return self.calls in self.due

    def save(self, state):
        self.contents.append(state.to_bytes())

    def finish(self):
        pass

    @property
    def last(self):
        return Checkpoint.from_bytes(self.contents[-1], path="memory")


class Stop(Callback):
    """A callback that stops after a step."""

    def __init__(self, at=0):
        self.at = at
        self.told = []

    def stepped(self, step, *, loss, rate):
        self.told.append((step, loss, rate))
        if step == self.at:
            raise StoppedError("enough", signal=15)

    def on_restore(self, step):
        self.told.append(("back", step))

    def validated(self, step, found, *, better):
        self.told.append((step, found.score, better))

    def kept(self, step, network, found):
        self.told.append(("kept", step))


def train_from(kit, callback, checkpointer, *, start=0, **recipe):
    network = kit.Dots()

    def validate(network):
        return Validation(float(network.weight.detach()[0]), loss=1.0)

    outcome = fit(
        network,
        (kit.batch(k) for k in count(start)),
        recipe=kit.plain(**{"learning_rate": 0.05, "averaging": 0.9} | recipe),
        schedule=Schedule(20, budget=None, validation=0.5),
        precision="float32",
        validate=validate,
        callback=callback,
        checkpointer=checkpointer,
    )
    return outcome, network


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("at", [1, 9, 10, 19])
def test_a_stopped_training_goes_on_bit_for_bit(kit, at, optimizer):
    whole, first, second, store = Stop(), Stop(at), Stop(), Memory()
    expected, network = train_from(kit, whole, None, optimizer=optimizer)
    with pytest.raises(StoppedError):
        train_from(kit, first, Checkpointer(store), optimizer=optimizer)
    assert store.last.facts["position"]["step"] == at
    checkpointer = Checkpointer(start=store.last)
    outcome, again = train_from(kit, second, checkpointer, start=at, optimizer=optimizer)
    assert outcome == expected
    assert first.told + second.told == whole.told
    assert all(map(torch.equal, network.state_dict().values(), again.state_dict().values()))
    # The control: weights alone do not suffice.
    bare = Checkpoint(store.last.tensors, store.last.facts)
    poor = {k: v for k, v in bare.tensors.items() if not k.startswith("optimizer.")}
    _, other = train_from(
        kit, Stop(), Checkpointer(start=Checkpoint(poor, bare.facts)), start=at, optimizer=optimizer
    )
    assert not all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))


def test_states_are_kept_when_due_and_at_the_end_where_wanted(kit):
    store = Memory(3, 7)
    train_from(kit, Stop(), Checkpointer(store, more=lambda: {"mine": 1}))
    steps = [Checkpoint.from_bytes(c, path="").facts["position"]["step"] for c in store.contents]
    assert steps == [2, 6]
    assert store.last.facts["more"] == {"mine": 1}
    train_from(kit, Stop(), Checkpointer(store, final=True))
    assert store.last.facts["position"]["step"] == 20


def test_a_state_that_is_not_finite_is_not_kept(kit):
    store = Memory()
    network = kit.Dots()

    def spoil(network):
        with torch.no_grad():
            network.weight.fill_(torch.inf)
        return Validation(0.0, loss=1.0)

    with pytest.raises(StoppedError):
        fit(
            network,
            (kit.batch(k) for k in count()),
            recipe=kit.plain(),
            schedule=Schedule(20, budget=None, validation=0.5),
            precision="float32",
            validate=spoil,
            callback=Stop(11),
            checkpointer=Checkpointer(store),
        )
    assert store.contents == []
