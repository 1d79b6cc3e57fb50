"""`python -m unetkit`: the same as the command `unetkit`."""

from __future__ import annotations

import sys

from unetkit.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
