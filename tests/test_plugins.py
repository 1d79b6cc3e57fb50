"""The package that `unetkit plugins new` starts works as plugins/README.md says."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from unetkit.cli.app import main
from unetkit.commands.plugins import new_plugin
from unetkit.models.build import build_model
from unetkit.testing import check_model

README = (Path(__file__).parents[1] / "plugins" / "README.md").read_text()


@pytest.fixture
def shallow(tmp_path, monkeypatch):
    """Start the package of the README and lay it on disk as an editable installation would."""
    folder = tmp_path / "unetkit-shallow"
    new_plugin(str(folder))
    source = folder / "src"
    info = source / "unetkit_shallow-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unetkit-shallow\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[unetkit.models]\nshallow = unetkit_shallow:build\n\n[unetkit.api]\n1 = unetkit_shallow\n"
    )
    monkeypatch.syspath_prepend(source)
    yield folder
    sys.modules.pop("unetkit_shallow", None)


def test_the_started_plugin_is_found_and_keeps_its_contract(shallow):
    model = build_model("shallow", in_channels=1, classes=2, options={"width": 4})
    assert model(torch.zeros(1, 1, 9, 11)).shape == (1, 2, 9, 11)
    check_model(sys.modules["unetkit_shallow"].build, width=4)


def test_the_readme_shows_the_files_that_are_there(shallow):
    for path in ("pyproject.toml", "src/unetkit_shallow/__init__.py", "README.md"):
        assert f"`{path}`" in README
        assert (shallow / path).is_file()
    assert "`tests/test_unetkit_shallow.py`" in README
    (line,) = [
        line.strip()
        for line in (shallow / "pyproject.toml").read_text().splitlines()
        if line.startswith("shallow = ")
    ]
    assert f"`{line}`" in README


def test_the_options_of_the_started_plugin_are_explained(shallow, capsys):
    assert main(["models", "show", "shallow", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert [option["name"] for option in options] == ["layers", "width"]
    assert all(option["meaning"] for option in options)


def run(*command, cwd, code=0):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_wheel_of_it_is_installed_used_and_uninstalled(lab):
    new_plugin(str(lab / "unetkit-shallow"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        lab,
        lab / "unetkit-shallow",
    ]
    built = subprocess.run(list(map(str, pip)), capture_output=True, text=True, check=False)
    if "Could not find a version" in built.stderr:
        pytest.skip("no package index is at hand, so hatchling can't be fetched to build a wheel")
    (wheel,) = lab.glob("*.whl")
    venv.create(lab / "env", with_pip=True, symlinks=True)
    # The fresh environment sees this one's packages, unetkit among them, but not the reverse.
    (site,) = (lab / "env" / "lib").glob("python*/site-packages")
    (site / "outer.pth").write_text("\n".join(filter(None, sys.path)))
    python = lab / "env" / "bin" / "python"
    unetkit = (python, "-m", "unetkit")
    assert "shallow" not in run(*unetkit, "models", cwd=lab).stdout
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=lab)
    listed = json.loads(run(*unetkit, "models", "--json", cwd=lab).stdout)
    row = {
        "name": "shallow",
        "distribution": "unetkit-shallow",
        "version": "0.1.0",
        "status": "installed",
    }
    assert row in listed
    told = json.loads(run(*unetkit, "plugins", "--json", "-q", cwd=lab).stdout)
    assert {**row, "kind": "model", "error": None} in told
    small = ["--set", "layers=2", "--set", "width=4"]
    run(*unetkit, "models", "check", "shallow", *small, cwd=lab)
    run(*unetkit, "import", "images", "--labels", "masks", "data.zarr", cwd=lab)
    run(*unetkit, "train", "data.zarr", "--model", "shallow", *small, "--steps", "2", cwd=lab)
    run(*unetkit, "import", "big.tif", "slide.zarr", cwd=lab)
    run(*unetkit, "tile-predict", "slide.zarr", cwd=lab)
    assert (lab / "slide.prediction.zarr" / "zarr.json").is_file()
    assert "unetkit-shallow" in run(*unetkit, "info", "model.safetensors", cwd=lab).stdout
    run(python, "-m", "pip", "uninstall", "-q", "-y", "unetkit-shallow", cwd=lab)
    assert "shallow" not in run(*unetkit, "models", cwd=lab).stdout
    gone = run(*unetkit, "tile-predict", "slide.zarr", "-o", "again.zarr", cwd=lab, code=5)
    assert "needs model 'shallow' of unetkit-shallow 0.1.0" in gone.stderr
    # No command that a file could have written.
    assert "pip install" not in gone.stderr
    assert run(
        *unetkit, "train", "data.zarr", "--model", "shallow", "-o", "m.safetensors", cwd=lab, code=2
    )
