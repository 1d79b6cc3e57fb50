"""Predictions that are cut off, and programs in processes of their own."""

import os
import subprocess
import sys

import pytest

from unetkit.commands.tile_predict.command import tile_predict


@pytest.fixture
def cut_off(kit):
    """Return what starts a prediction whose power is cut at a given part."""

    def start(source, *, at, **asked):
        def fail():
            raise OSError("power cut")

        progress = kit.watching(at=at, act=fail)
        with pytest.raises(OSError, match="power cut"):
            tile_predict(source, progress=progress, **asked)
        return progress

    return start


@pytest.fixture
def run_program(tmp_path):
    """Return what runs a program in the test's folder, in a process of its own."""

    def run(program, *arguments, threads=1, code=0):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=False,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run
