"""`python -m unetkit`: the same as the command `unetkit`."""

from __future__ import annotations

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def leave_current_folder() -> None:
    """Let no file of the current folder stand for a module: Python looks there first for `-m`.

    Where unetkit itself lies there, it comes last.
    """
    if not sys.flags.safe_path and os.path.abspath(sys.path[0]) == os.getcwd():  # noqa: PTH100, PTH109
        here = sys.path.pop(0)
        if os.path.samefile(here or ".", HOME):  # noqa: PTH121 - nothing else is loaded before
            sys.path.append(HOME)


if __name__ == "__main__":
    leave_current_folder()
    from unetkit.cli.app import main

    sys.exit(main())
