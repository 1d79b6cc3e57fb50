"""Where compiled inner loops are kept between runs; it does not know what they compute."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "NUMBA_CACHE_DIR"
FIRST_USE = "First use on this machine: compiling the inner loops takes up to a minute, once."
NOT_KEPT = (
    "No folder can be written to in which compiled inner loops are kept, so that each run compiles"
    f" them anew; {VARIABLE} names one."
)
PACKAGE = Path(__file__).parent
# Our choice: how long people wait for a compiler without a word, in seconds.
PATIENCE = 2.0


def keep_compiled() -> None:
    """Say where compiled code is kept; call before numba is imported.

    What lies there is run, so that the current folder has no say in it: left to itself, numba looks
    there for a file of settings. An absolute folder that the user named stays; else it is one
    beside the source, in the user's cache, or, where neither can be written to, as in a container
    with a read-only home, one of this user's own among the temporary files. Where there is none at
    all nothing is kept.
    """
    if Path(os.environ.get(VARIABLE, "")).is_absolute():
        return
    usual = next((folder for folder in _usual_folders() if _writable(folder)), None)
    try:
        os.environ[VARIABLE] = _private_folder() if usual is None else str(usual)
    except OSError:
        os.environ[VARIABLE] = os.devnull


def is_kept() -> bool:
    """Tell whether compiled code can be kept where `keep_compiled` said."""
    return _writable(Path(os.environ.get(VARIABLE, os.devnull)))


def note() -> str | None:
    """Say what people should know, once anything is loaded that is compiled."""
    return NOT_KEPT if VARIABLE in os.environ and not is_kept() else None


@contextmanager
def told_of_compiling(note: Callable[[str], None], *, patience: float = PATIENCE) -> Iterator[None]:
    """Say once in a block that inner loops are compiled, when that has taken `patience` seconds.

    What is compiled must be loaded already; what other processes compile is not seen.
    """
    if "numba" not in sys.modules:
        yield
        return
    from numba.core import event as events

    class Compiling(events.Listener):  # type: ignore[misc]
        """Adds up the time that is spent, of loops within loops once."""

        depth, spent, began = 0, 0.0, 0.0
        timer: Timer | None = None

        def on_start(self, event: Any) -> None:
            self.depth += 1
            if self.depth == 1 and self.spent <= patience:
                self.began = time.monotonic()
                self.timer = Timer(patience - self.spent, note, [FIRST_USE])
                self.timer.daemon = True
                self.timer.start()

        def on_end(self, event: Any) -> None:
            self.depth -= 1
            if self.depth == 0 and self.timer is not None:
                self.timer.cancel()
                self.spent += time.monotonic() - self.began
                self.timer = None

    with events.install_listener("numba:compile", Compiling()):
        yield


def _usual_folders() -> list[Path]:
    # "~" stays as it is where there is no home.
    caches = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")  # noqa: PTH111
    cache = next((folder for folder in caches if os.path.isabs(folder)), None)  # noqa: PTH117
    beside = PACKAGE.absolute() / "arrays" / "__pycache__"
    return [beside] if cache is None else [beside, Path(cache, "numba")]


def _writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, which may have to be made first."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> str:
    """Return a folder that nobody else can write to: what lies in it is run."""
    user = os.getuid() if hasattr(os, "getuid") else os.getpid()
    temporary = Path(tempfile.gettempdir())
    if temporary == Path.cwd():  # what is taken where no other folder can be written to
        raise PermissionError(temporary)
    folder = temporary / f"unetkit-compiled-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid != user or found.st_mode & 0o077:
            raise PermissionError(folder)
    except OSError:
        return tempfile.mkdtemp(prefix="unetkit-compiled-")
    return str(folder)
