from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unetkit.errors import StoppedError
from unetkit.training.checkpoint import Checkpoint, Validation
from unetkit.training.loop import Checkpointer, TrainingResult, fit
from unetkit.training.optimizer import Schedule

if TYPE_CHECKING:
    from types import SimpleNamespace


class Memory:
    """Holds states as files would, and wants one at given calls."""

    def __init__(self, *due: int) -> None:
        self.due = due
        self.calls = 0
        self.contents: list[bytes] = []

    def is_due(self) -> bool:
        self.calls += 1
        return self.calls in self.due

    def save(self, state: Checkpoint) -> None:
        self.contents.append(state.to_bytes())

    def finish(self) -> None:
        pass

    @property
    def last(self) -> Checkpoint:
        return Checkpoint.from_bytes(self.contents[-1], path="memory")


class Stop:
    """A callback that stops after a step."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.told: list[tuple[Any, ...]] = []

    def planned(self, step: int, *, steps: int, seconds_a_step: float) -> None:
        pass

    def stepped(self, step: int, *, loss: float | None, rate: float) -> None:
        self.told.append((step, loss, rate))
        if step == self.at:
            raise StoppedError("enough", signal=15)

    def on_restore(self, step: int) -> None:
        self.told.append(("back", step))

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        self.told.append((step, found.score, better))

    def kept(self, step: int, network: torch.nn.Module, found: Validation) -> None:
        self.told.append(("kept", step))


def train(
    kit: SimpleNamespace,
    callback: Stop,
    checkpointer: Checkpointer | None,
    *,
    start: int = 0,
    **recipe: Any,
) -> tuple[TrainingResult, torch.nn.Module]:
    network = kit.Dots()

    def validate(network: torch.nn.Module) -> Validation:
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
def test_a_stopped_training_goes_on_bit_for_bit(
    kit: SimpleNamespace, at: int, optimizer: str
) -> None:
    whole, first, second, store = Stop(), Stop(at), Stop(), Memory()
    expected, network = train(kit, whole, None, optimizer=optimizer)
    with pytest.raises(StoppedError):
        train(kit, first, Checkpointer(store), optimizer=optimizer)
    assert store.last.facts["position"]["step"] == at
    checkpointer = Checkpointer(start=store.last)
    outcome, again = train(kit, second, checkpointer, start=at, optimizer=optimizer)
    assert outcome == expected
    assert first.told + second.told == whole.told
    assert all(map(torch.equal, network.state_dict().values(), again.state_dict().values()))
    # The control: weights alone do not suffice.
    bare = Checkpoint(store.last.tensors, store.last.facts)
    poor = {k: v for k, v in bare.tensors.items() if not k.startswith("optimizer.")}
    _, other = train(
        kit, Stop(), Checkpointer(start=Checkpoint(poor, bare.facts)), start=at, optimizer=optimizer
    )
    assert not all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))


def test_states_are_kept_when_due_and_at_the_end_where_wanted(kit: SimpleNamespace) -> None:
    store = Memory(3, 7)
    train(kit, Stop(), Checkpointer(store, more=lambda: {"mine": 1}))
    steps = [Checkpoint.from_bytes(c, path="").facts["position"]["step"] for c in store.contents]
    assert steps == [2, 6]
    assert store.last.facts["more"] == {"mine": 1}
    train(kit, Stop(), Checkpointer(store, final=True))
    assert store.last.facts["position"]["step"] == 20


def test_a_state_that_is_not_finite_is_not_kept(kit: SimpleNamespace) -> None:
    store = Memory()
    network = kit.Dots()

    def spoil(network: torch.nn.Module) -> Validation:
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
