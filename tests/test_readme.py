"""What the README says is run, so that it stays true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# A full training takes an hour; two steps of a narrow network walk the same path.
SHORT = " --set width=4 --steps 2"


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", README, flags=re.M | re.S)


def commands() -> list[str]:
    """Every shell line but the set-up, with its remark left out."""
    lines = [line.split("  #")[0].strip() for block in shell_blocks() for line in block.split("\n")]
    return [line for line in lines if line and not line.startswith(("#", "python3 -m venv"))]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_readme_has_the_set_up_lines_that_ci_takes() -> None:
    lines = [line for block in shell_blocks() for line in block.split("\n")]
    setup = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(setup) == 2
    assert setup[0].endswith("pip install . && .venv/bin/unetkit demo")
    assert setup[1].endswith("pip install -e '.[test]' && .venv/bin/python -m pytest")


def test_every_command_of_the_readme_runs_in_its_order(lab: Path) -> None:
    ran = []
    for command in commands():
        if command.startswith("unetkit demo"):
            continue  # the demo has its own test
        result = run(command + (SHORT if command.startswith("unetkit train") else ""), lab)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        ran.append(command.split()[1])
    path = ["import", "augment", "weights", "train", "import", "tile-predict", "eval", "info"]
    assert [verb for verb in ran if verb in path][:2] == path[:2]
    assert set(path) <= set(ran)
    assert (lab / "model.safetensors").exists()
    assert (lab / "slide.prediction.zarr" / "zarr.json").exists()


def test_the_readme_lists_every_command_and_every_exit_code() -> None:
    from unetkit import errors
    from unetkit.cli.app import OWN

    names = OWN.keys()
    for name in names:
        assert f"`unetkit {name}" in README, name
    codes = {e.code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "code")}
    for code in codes:
        assert re.search(rf"^\| {code} \|", README, flags=re.M), code


def test_every_picture_of_the_readme_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
