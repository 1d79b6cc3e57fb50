"""Where compiled inner loops are kept between runs; it does not know what they compute."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
FIRST_USE = "First use on this machine: compiling the inner loops takes some seconds, once."
PACKAGE = Path(__file__).parent


def keep_compiled() -> None:
    """Make sure that compiled code can be kept somewhere; call before numba is imported.

    Numba keeps it beside the source, else in the user's cache folder, and gives up with an error
    where neither can be written to, as in a container with a read-only home. Then it gets a folder
    of this user's own among the temporary files. A folder that the user named stays.
    """
    if os.environ.get(VARIABLE) or any(_writable(folder) for folder in _usual_folders()):
        return
    os.environ[VARIABLE] = _private_folder()


def is_compiled(module: str) -> bool:
    """Tell whether an earlier run left compiled code of a module, named by its file's stem."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else _usual_folders()
    return any(next(folder.rglob(f"{module}.*.nbi"), None) for folder in folders)


def _usual_folders() -> list[Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache").expanduser()
    return [PACKAGE / "arrays" / "__pycache__", Path(cache, "numba")]


def _writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, which may have to be made first."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> str:
    """Return a folder that nobody else can write to: what lies in it is run."""
    user = os.getuid() if hasattr(os, "getuid") else os.getpid()
    folder = Path(tempfile.gettempdir(), f"unetkit-compiled-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if folder.is_symlink() or found.st_uid != user or found.st_mode & 0o077:
            raise PermissionError(folder)
    except OSError:
        return tempfile.mkdtemp(prefix="unetkit-compiled-")
    return str(folder)
