import os
import subprocess
import sys
import time

import pytest

from unetkit.commands import plugins
from unetkit.commands.plugins import list_plugins, new_plugin
from unetkit.errors import OutputError, UsageError

MODELS = "unetkit.models"


def others():
    """Return what is said of every plugin that is not unetkit's own, by name."""
    return {r["name"]: r for r in list_plugins() if r["distribution"].endswith("-test")}


def test_what_comes_along_is_listed_without_being_tried(monkeypatch):
    def run(*_, **__):
        raise AssertionError("no process is needed")

    monkeypatch.setattr(subprocess, "run", run)
    own = [r for r in list_plugins() if r["distribution"] == "unetkit"]
    assert {"model", "reader"} <= {r["kind"] for r in own}
    assert {r["status"] for r in own} == {"installed"}
    assert {r["error"] for r in own} == {None}


def test_each_broken_plugin_has_its_error_and_harms_no_other(lay, monkeypatch, capfd):
    monkeypatch.setattr(plugins, "PATIENCE", 10.0)
    point = {"build": "build"}
    faults = {
        "works": "build = print",
        "prints": "print('hello', flush=True)\nimport os; os.write(1, b'x')\nbuild = print",
        "raises": "raise ValueError('bad day')",
        "exits": "import sys; sys.exit(0)",
        "vanishes": "import os; os._exit(0)",
        "sleeps": "import time; time.sleep(60)",
        "number": "build = 3",
    }
    for name, code in faults.items():
        lay(f"{name}-test", {MODELS: {name: point["build"]}}, code=code)
    lay("later-test", {MODELS: {"later": "build"}}, more="\n[unetkit.api]\n2 = later_test\n")
    lay("verb-test", {"unetkit.commands": {"verb": "app"}}, code="import nothing_of_the_kind")
    started = time.monotonic()
    found = others()
    assert time.monotonic() - started < 60
    assert {n: r["status"] for n, r in found.items()} == {
        **dict.fromkeys(faults, "broken"),
        "works": "installed",
        "prints": "installed",
        "later": "for plugin interface 2",
        "verb": "broken",
    }
    words = {
        "raises": "must be importable, got ValueError: bad day",
        "exits": "must be importable, got SystemExit: 0",
        "vanishes": "must be importable, got exit 0",
        "sleeps": "must be imported in 10 s, got no end",
        "number": "must be callable, got int",
        "later": "must be for version 1 of the plugin interface, got 2",
        "verb": "command verb (verb-test 0.1) must be importable, got ModuleNotFoundError",
    }
    for name, said in words.items():
        assert said in found[name]["error"]
    assert found["works"]["error"] is None
    assert capfd.readouterr() == ("", "")


OWN = """
from torch import nn
from unetkit import SizeContract

class Mine(nn.Module):
    def __init__(self, in_channels, classes, filters):
        super().__init__()
        self.contract = SizeContract(step=1, minimum=3, margin=1, halo=0, exact=True)
        self.layer = nn.Sequential(
            nn.Conv2d(in_channels, filters, 3), nn.LeakyReLU(0.1), nn.Conv2d(filters, classes, 1)
        )

    def forward(self, image):
        return self.layer(image)

def build(*, in_channels: int, classes: int, filters: int = 4) -> Mine:
    return Mine(in_channels, classes, filters)
"""


def test_a_new_package_passes_its_own_test_as_generated(tmp_path):
    folder = tmp_path / "unetkit-shallow"
    report = new_plugin(str(folder))
    assert (report.distribution, report.module, report.model) == (
        "unetkit-shallow",
        "unetkit_shallow",
        "shallow",
    )
    lying = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(report.files) == lying
    assert not any(
        word in path.read_text() + path.name
        for path in folder.rglob("*")
        if path.is_file()
        for word in ("DISTRIBUTION", "MODULE", "MODEL", "UNETKIT")
    )
    for own in (None, OWN):
        if own is not None:
            # The network becomes one's own, with other options, and the test still holds.
            (folder / "src" / "unetkit_shallow" / "__init__.py").write_text(own)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_shipped_linter_finds_nothing_in_a_new_package(tmp_path):
    new_plugin(str(tmp_path / "unetkit-shallow"))
    ruff = [sys.executable, "-m", "ruff"]
    if subprocess.run([*ruff, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("ruff is not installed")
    for check in (["check", "--select", "E,F,W,I,UP,B"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *check, "--no-cache", "--isolated", "--line-length", "100", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("3nets", "a name that a package can have"),
        ("my nets", "a name that a package can have"),
        ("class", "a name that a package can have"),
        ("unetkit", "a name that a package can have"),
        ("unetkit-unet", "that unetkit has not taken, got 'unet'"),
        ("unet", "that unetkit has not taken, got 'unet'"),
        ("torch", "would hide that one; try unetkit-torch"),
        ("NumPy", "a name that no other package has"),
        ("scikit_image", "a name that no other package has"),
        ("skimage", "a name that no other package has"),
        ("onnxscript", "a name that no other package has"),
        ("json", "a name that no other package has"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        new_plugin(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    folder = tmp_path / "unetkit-thesis"
    folder.mkdir()
    with pytest.raises(OutputError, match="must not exist yet"):
        new_plugin(str(folder) + "/")
    assert list(folder.iterdir()) == []


EVIL = "import pathlib; pathlib.Path(__file__).with_name('canary').touch()\n"
TRIED = """
import sys
from unetkit.commands.plugins import list_plugins
sys.path.insert(0, sys.argv[1])
print([row["status"] for row in list_plugins() if row["name"] == "good"])
"""


def test_plugins_are_tried_without_what_lies_in_the_current_folder(lay, tmp_path):
    lay("good-test", {MODELS: {"good": "build"}}, code="import shlex; build = print")
    here = tmp_path / "here"
    here.mkdir()
    for name in ("shlex", "torch", "unetkit", "sitecustomize"):
        (here / f"{name}.py").write_text(EVIL)
    for flags in (["-P"], ["-P", "-X", "utf8"]):
        line = [sys.executable, *flags, "-c", TRIED, str(lay.folder)]
        done = subprocess.run(line, cwd=here, capture_output=True, text=True, check=True)
        assert done.stdout == "['installed']\n"
    assert not (here / "canary").exists()
