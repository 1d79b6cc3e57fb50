import signal
import threading

import pytest

from unetkit import signals
from unetkit.errors import StoppedError
from unetkit.signals import Stop, stoppable


def work_through(reached, number, *, times):
    with stoppable() as stop:
        stop.check("nothing came")
        for _ in range(times):
            signal.raise_signal(number)
        reached.append("the work went on")
        stop.check("half-way")


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_waits_for_a_safe_place(number):
    reached: list[str] = []
    with pytest.raises(StoppedError, match="half-way") as caught:
        work_through(reached, number, times=1)
    assert reached
    assert caught.value.exit_code == 128 + number


def test_the_second_signal_acts_at_once():
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work_through(reached, signal.SIGINT, times=2)
    assert not reached


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_another_thread_gets_a_stop_that_never_stops():
    got: list[Stop] = []

    def work():
        with stoppable() as stop:
            stop.check("never")
            got.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert got == [Stop(None)]


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_where_signals_are_handed_on_no_later_one_acts_at_once():
    with stoppable(patient=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
