import os
import subprocess
import sys
from pathlib import Path

import pytest

import unetkit


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("unetkit ")


def test_its_exit_code_reaches_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "nothing"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("beside", [False, True])
def test_no_file_of_the_current_folder_is_imported(tmp_path, beside):
    for name in ("zarr", "numba", "typer", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    if beside:
        (tmp_path / "unetkit").symlink_to(Path(unetkit.__file__).parent)
    (tmp_path / "nothing.zarr").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "info", "nothing.zarr"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: nothing.zarr must be a Zarr store")
