"""Where compiled inner loops are kept between runs; it does not know what they compute."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
FIRST_USE = "First use on this machine: compiling the inner loops takes some seconds, once."
NOT_KEPT = (
    "No folder can be written to in which compiled inner loops are kept, so that each run compiles"
    f" them anew; {VARIABLE} names one."
)
PACKAGE = Path(__file__).parent


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


def is_compiled(module: str) -> bool:
    """Tell whether an earlier run left compiled code of a module, named by its file's stem."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else _usual_folders()
    return any(next(folder.rglob(f"{module}.*.nbi"), None) for folder in folders)


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
