import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.training.optimizer import (
    Schedule,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)


def network():
    torch.manual_seed(0)
    found = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3))
    return found.to(memory_format=torch.channels_last)


def step(net, optimizer, seed):
    image = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    net(image).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_an_optimizer_goes_on_bit_for_bit(kit, kind):
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


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(schedule, clock, *, took):
    """Make steps that take so long, and return after which the pace was found."""
    at = None
    for step, seconds in enumerate(took, start=1):
        schedule.begin_step()
        clock.now += seconds
        if schedule.found(step):
            assert at is None, "found once"
            at = step
    return at


def test_the_pace_is_the_median_after_unusual_first_steps():
    clock = Clock()
    schedule = Schedule(500, budget=None, validation=1, clock=clock)
    assert run(schedule, clock, took=[9, 1, 1, *[0.1] * 16, 3.0, 0.1]) == 20
    assert schedule.seconds_a_step == pytest.approx(0.1)
    assert schedule.steps == 500


# Of the second the first three take exactly as long as is waited.
@pytest.mark.parametrize("took", [[8.0, 7.0, 7.0, 7.0], [8.0, 6.0, 6.0, 6.0]])
def test_slow_steps_are_not_waited_for(took):
    clock = Clock()
    schedule = Schedule(1000, budget=None, validation=1, clock=clock)
    assert run(schedule, clock, took=took) == 3
    assert schedule.seconds_a_step == pytest.approx(took[2])


@pytest.mark.parametrize("slow", range(4))
@pytest.mark.parametrize("budget", [None, 60.0])
def test_what_is_paid_once_is_not_taken_for_the_pace(slow, budget):
    clock, took = Clock(), [0.1] * 20
    took[slow] = 25.0
    schedule = Schedule(1000, budget=budget, validation=0, clock=clock)
    assert run(schedule, clock, took=took) == 20
    assert schedule.seconds_a_step == pytest.approx(0.1)
    if budget is not None:
        left = budget * 0.95 - sum(took)
        assert schedule.steps - 20 == pytest.approx(left / 0.1 * 0.9, abs=2)


def test_a_very_slow_first_step_is_not_taken_for_the_pace():
    clock = Clock()
    schedule = Schedule(1000, budget=20, validation=0, clock=clock)
    assert run(schedule, clock, took=[10.0, 0.5, 0.5]) == 3
    assert schedule.seconds_a_step == pytest.approx(0.5)
    assert 10 < schedule.steps < 20


def test_few_steps_need_no_pace():
    clock = Clock()
    assert run(Schedule(5, budget=None, validation=1, clock=clock), clock, took=[0.1] * 5) is None


PACES = {
    "steady": lambda share: 1.0,
    "busy": lambda share: 1.0 if share < 0.3 else 3.0,
    "idle": lambda share: 1.0 if share < 0.3 else 0.3,
    "busy at the end": lambda share: 1.0 if share < 0.9 else 3.0,
    "idle at the end": lambda share: 1.0 if share < 0.8 else 0.5,
    "by turns": lambda share: 3.0 if int(share * 7) % 2 else 1.0,
}


@pytest.mark.parametrize("ending", [0.0, 0.5])
@pytest.mark.parametrize("validation", [0.2, 3.0])
@pytest.mark.parametrize("pace", PACES)
def test_a_budget_is_kept_whatever_else_the_machine_does(pace, validation, ending):
    spent = {}
    for replans in (True, False):
        clock, budget, step, since, validations = Clock(), 120, 0, 0, 0
        options = {"budget": budget, "ending": ending, "replans": replans, "clock": clock}
        schedule = Schedule(1000, validation=2, **options)
        while True:
            slow = PACES[pace]((clock.now - 100) / budget)
            if schedule.is_time_to_validate(step, since=since):
                since = step
                validations += 1
                schedule.begin_validation()
                clock.now += validation * slow
                schedule.replan(step)
            if step >= schedule.steps:
                break
            schedule.begin_step()
            clock.now += 0.1 * slow
            step += 1
            if not schedule.found(step) and schedule.is_over():
                schedule.steps = step
        clock.now += ending * validation * slow
        spent[replans] = (clock.now - 100) / budget
        # A few more than ten, where what is left changes from one to the next.
        assert validations <= 13
    assert 0.9 < spent[True] < 1.1
    if pace in ("busy", "idle"):
        assert not 0.9 < spent[False] < 1.1


@settings(max_examples=50, deadline=None)
@given(seconds=st.floats(0.5, 30), budget=st.floats(1, 1000), validation=st.floats(0, 50))
def test_a_budget_becomes_steps_that_fit_into_it(seconds, budget, validation):
    clock = Clock()
    schedule = Schedule(1000, budget=budget, validation=validation, clock=clock)
    step = since = 0
    while step < schedule.steps:
        schedule.begin_step()
        clock.now += seconds
        step += 1
        schedule.found(step)
        if schedule.is_time_to_validate(step, since=since):
            since = step
            clock.now += validation * seconds
    known = 20 if 20 * seconds < budget / 4 else max(budget / 4, 3 * seconds) / seconds + 1
    spent = clock.now - 100
    # No budget can be held that ends before the pace is known, or before one validation.
    assert spent <= max(budget, (known + 1 + 11 * validation) * seconds)
    if budget > 200 * seconds * (1 + validation):
        assert spent > 0.75 * budget


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize(("most", "made"), [(400, 400), (10**6, 10**4)])
def test_a_budget_makes_no_more_steps_than_were_asked_for(pace, most, made):
    clock, step, since, plans = Clock(), 0, 0, set()
    schedule = Schedule(most, budget=1000, most=most, validation=2, replans=True, clock=clock)
    while step < schedule.steps:
        schedule.begin_step()
        clock.now += 0.1 * PACES[pace]((clock.now - 100) / 1000)
        step += 1
        if not schedule.found(step) and schedule.is_over():
            schedule.steps = step
        if schedule.is_time_to_validate(step, since=since):
            since = step
            schedule.begin_validation()
            clock.now += 0.2
            schedule.replan(step)
        plans.add(schedule.steps)
    if most == made:
        # From the first step on, so that the learning rate falls as it does without a budget.
        assert plans == {step} == {most}
    else:
        assert 0.3 * made < step < 3.4 * made
        assert 900 < clock.now - 100 < 1100


@pytest.mark.parametrize(
    ("steps", "validation", "at"),
    [
        (1000, 0.1, [*range(100, 1001, 100)]),
        (1000, 20, [200, 400, 600, 800, 1000]),
        (60, 7.5, [60]),
        (100, 500, [100]),
        (95, 0.1, [*range(9, 95, 9), 95]),
        (1, 3, [1]),
    ],
)
def test_validations_are_few_and_take_a_tenth_of_the_time(steps, validation, at):
    schedule = Schedule(steps, budget=None, validation=validation)
    found = [0]
    for step in range(1, steps + 1):
        if schedule.is_time_to_validate(step, since=found[-1]):
            found.append(step)
    assert found[1:] == at


@pytest.mark.parametrize("known", [False, True])
def test_a_pace_goes_on_where_it_was(*, known):
    clock = Clock()
    first = Schedule(10**6, budget=100, validation=0, clock=clock)
    run(first, clock, took=[1.0] * (20 if known else 5))
    kept = first.to_dict()
    clock.now += 1000
    second = Schedule(10**6, budget=100, validation=0, clock=clock)
    second.restore(kept)
    assert second.seconds_a_step == (1.0 if known else None)
    if known:
        assert second.steps == first.steps
        assert not second.found(21)
        return
    # What was used up of the budget before counts, the pause between does not.
    second.begin_step()
    clock.now += 1
    assert not second.found(6)  # the first step of a process is no usual one
    for step in range(7, 21):
        second.begin_step()
        clock.now += 1
        second.found(step)
    assert second.steps == pytest.approx(20 + (100 * 0.95 - 20) * 0.9, abs=1)
