"""Compiled code finds a place, also where home and package can't be written to."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from unetkit import kernel_cache

WARP = """
import numpy as np
from unetkit.arrays.deformation import Deformation, deform
print(deform(np.ones((1, 4, 4), np.float32), Deformation(angle=90.0)).image.sum())
"""


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """Make every usual folder one that can't be made."""
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.delenv(kernel_cache.VARIABLE, raising=False)
    monkeypatch.setattr(kernel_cache, "_usual_folders", lambda: [file / "a", file / "b"])
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_a_closed_home_gets_a_folder_of_its_own(closed):
    kernel_cache.keep_compiled()
    folder = Path(os.environ[kernel_cache.VARIABLE])
    assert folder.parent == closed
    assert folder.stat().st_mode & 0o777 == 0o700
    kernel_cache.keep_compiled()
    assert os.environ[kernel_cache.VARIABLE] == str(folder)


def test_a_folder_that_others_can_write_to_is_not_trusted(closed):
    open_to_all = closed / f"unetkit-compiled-{os.getuid()}"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    kernel_cache.keep_compiled()
    assert os.environ[kernel_cache.VARIABLE] != str(open_to_all)


@pytest.mark.parametrize("named", [None, "", ".", "compiled"])
@pytest.mark.parametrize("home", ["", ".", "here", None])
def test_the_current_folder_has_no_say(tmp_path, monkeypatch, named, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernel_cache, "PACKAGE", tmp_path / "file" / "that is none")
    (tmp_path / "file").touch()
    for variable, value in ((kernel_cache.VARIABLE, named), ("XDG_CACHE_HOME", home)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    for inside in ("", "."):
        monkeypatch.setenv("HOME", inside)
        kernel_cache.keep_compiled()
        chosen = Path(os.environ[kernel_cache.VARIABLE])
        assert chosen.is_absolute()
        assert not chosen.is_relative_to(tmp_path)
        monkeypatch.setenv(kernel_cache.VARIABLE, named or "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    kernel_cache.keep_compiled()
    assert os.environ[kernel_cache.VARIABLE] == str(tmp_path / "home" / ".cache" / "numba")


def test_settings_of_numba_in_the_current_folder_do_not_count(tmp_path):
    (tmp_path / ".numba_config.yaml").write_text(f"cache_dir: {tmp_path / 'evil'}\n")
    environment = {k: v for k, v in os.environ.items() if k != kernel_cache.VARIABLE}
    line = [sys.executable, "-P", "-c", WARP]
    subprocess.run(line, check=True, capture_output=True, env=environment, cwd=tmp_path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("patience", "said"), [(0.0, [kernel_cache.FIRST_USE]), (60.0, [])])
def test_compiling_that_takes_long_is_said_once(patience, said):
    told = []

    def compiled():
        numba.njit(lambda x: x + 1)(1)

    with kernel_cache.told_of_compiling(told.append, patience=patience):
        for _ in range(3):
            compiled()
    compiled()
    assert told == said


def test_a_warp_runs_and_keeps_its_code_where_it_is_told_to(tmp_path):
    environment = {**os.environ, kernel_cache.VARIABLE: str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WARP], check=True, capture_output=True, text=True, env=environment
    )
    assert float(done.stdout) == 16
    assert list(tmp_path.rglob("warp_kernels.cubic*.nbi"))


@pytest.mark.parametrize("temporary", [None, "."])
def test_where_no_folder_can_be_written_to_nothing_is_kept(closed, monkeypatch, temporary):
    def gettempdir():
        if temporary is None:
            raise FileNotFoundError("no usable temporary directory")
        return str(closed)  # what Python takes for want of another

    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", gettempdir)
    monkeypatch.chdir(closed)
    before = sorted(closed.iterdir())
    kernel_cache.keep_compiled()
    assert not kernel_cache.is_kept()
    assert kernel_cache.note() == kernel_cache.NOT_KEPT
    assert sorted(closed.iterdir()) == before


def test_a_command_works_and_says_so_where_nothing_can_be_kept(tmp_path):
    environment = {**os.environ, kernel_cache.VARIABLE: "/dev/null/no folder"}
    (tmp_path / "nothing.zarr").mkdir()
    words = ["-c", WARP], ["-m", "unetkit", "augment", "nothing.zarr", "more.zarr"]
    warp, command = [
        subprocess.run(
            [sys.executable, *line],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        for line in words
    ]
    assert float(warp.stdout) == 16
    assert command.stderr.splitlines()[0] == kernel_cache.NOT_KEPT
    assert command.returncode == 3
