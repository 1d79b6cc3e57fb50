"""A browser without a window, for pictures of pages that only a browser can draw."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# WebGL without a graphics card, no first-run questions, and no way to any other machine.
FLAGS = (
    "headless=new",
    "use-angle=swiftshader",
    "enable-unsafe-swiftshader",
    "no-first-run",
    "disable-extensions",
    "disable-background-networking",
    "disable-component-update",
    "disable-dev-shm-usage",
    "hide-scrollbars",
    "force-device-scale-factor=1",
    "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "remote-debugging-port=0",
    # What a single page has no use for, and what each costs tens of megabytes: WebGL alone is drawn
    # by the process that stands for a graphics card, and no second page or network is prepared.
    "disable-gpu-compositing",
    "disable-features=SpareRendererForSitePerProcess",
    "enable-features=NetworkServiceInProcess2",
)


def find_browser() -> str:
    """Return the path of a browser of the Chromium family."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ResourceError(
            "a browser must be installed to draw the picture, got no Chromium, Chrome or Edge;"
            " install one, or leave --png out and open the page"
        )
    return found


@contextmanager
def headless(url: str, *, size: tuple[int, int]) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a page open in a browser that nobody sees, with a profile of its own that is removed."""
    program = find_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"user-data-dir={Path(profile)}", "window-size={},{}".format(*size)]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("no-sandbox")  # Chromium has none for root
        process = subprocess.Popen(
            [program, *(f"--{flag}" for flag in flags), url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
