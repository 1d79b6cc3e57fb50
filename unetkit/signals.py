"""Stop in good order when the system or the user asks for it; it does not know what is safe."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Ctrl-C, what cluster schedulers send before they end a job, and the end of a remote session;
# not every system has them all.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


@dataclass
class Stop:
    """Whether a signal came; ask between two pieces of work."""

    signal: int | None = None

    def check(self, message: str) -> None:
        """End the work here, with a message of how to go on, if a signal came."""
        if self.signal is not None:
            raise StoppedError(message, signal=self.signal)


@contextmanager
def stoppable(*, patient: bool = False) -> Iterator[Stop]:
    """Turn the first of `SIGNALS` inside a `with` block into a note for `Stop.check`.

    The second one acts at once, as it would outside. One that is ignored, as `nohup` has it, stays
    so. Python hands signals to the main thread alone; in another one nothing changes.

    If `patient`, no later signal acts at once either: whoever started several processes hands on a
    Ctrl-C that they have heard already.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def restore() -> None:
        for number, handler in before.items():
            # None stands for a handler that was not set from Python and can't be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def remember(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        if not patient:
            restore()

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in heeded}
    try:
        yield stop
    finally:
        restore()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal that would end the process end a `with` block as Ctrl-C does.

    What is held there, such as a lock, is let go of on the way out, which ends in a StoppedError.
    As in `stoppable` the second signal acts as it would outside, and only the main thread hears.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        restore()
        came.append(number)
        raise KeyboardInterrupt

    def restore() -> None:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)

    # Ctrl-C is not among them.
    deadly = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in deadly:
            signal.signal(number, interrupt)
        yield
    except BaseException as error:
        if not came:
            raise
        name = signal.Signals(came[0]).name
        raise StoppedError(
            f"the work must go on to its end, got {name}; give the same command again",
            signal=came[0],
        ) from error
    finally:
        restore()
