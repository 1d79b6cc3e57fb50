"""What help shows, on any terminal; what shells complete; and that neither loads what is heavy."""

import os
from functools import partial

import pytest

from tests.cli.conftest import HOMES, python
from unetkit.cli.app import main
from unetkit.options import declared, parameters_of

HEAVY = ["torch", "zarr", "dask", "distributed", "numba", "scipy", "skimage", "numpy", "PIL"]
HEAVY += ["tifffile"]
# Options that only the command line has, beside `--json` and `--quiet`.
OWN = {"eval": ["--fail-under", "--list"], "": ["--install-completion", "--show-completion"]}


run = partial(python, "-m", "unetkit")


def flags(command):
    """Return what help must list of a command."""
    options = [o for o in parameters_of(declared(HOMES[command])).values() if not o.is_argument]
    names = {o.name: (o.shown.flags or (f"--{o.name}",))[0] for o in options}
    listed = [flag.replace("_", "-") for name, flag in names.items() if name != "progress"]
    return [*listed, *OWN.get(command, []), "--json", "--help"]


def headings(out):
    return [line.strip("\u256d\u256e\u2500 ") for line in out.splitlines() if line[0:1] == "\u256d"]


def test_the_commands_are_those_of_the_path(typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = typed(["--help"]).out
    path = ["import", "augment", "weights", "remove", "train", "tile-predict", "curve", "tune"]
    path += ["correct"]
    path += ["eval", "measure", "suggest", "view", "review", "export", "info", "verify", "demo"]
    path += ["models", "plugins"]
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("\u2502 ")]
    assert [name for name in rows if name in HOMES] == path
    assert [name.split(".")[0] for name in headings(out)] == ["Options", "1", "2", "3", "4"]


@pytest.mark.parametrize("command", HOMES)
def test_every_command_explains_itself_and_cuts_no_word_off_where_there_is_little_room(
    command, typed, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    out = typed([*command.split(), "--help"]).out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert all(flag in out for flag in flags(command))
    # With room there are boxes.
    monkeypatch.setenv("COLUMNS", "120")
    out, err = typed([*command.split(), "--help"])
    assert err == ""
    assert "\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}" in out
    assert f"Example: unetkit {command}" in out
    assert all(flag in out for flag in flags(command))
    assert "`" not in out


def test_help_tells_bounds_choices_defaults_and_headings(typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = typed(["tile-predict", "--help"]).out
    for words in (
        "[0<=x<=1]",
        "<none|flips|rotations>",
        "[default: none]",
        "[default: (by the image)]",
        "-o ",
        "SIZE",
    ):
        assert words in out
    panels = ["Arguments", "Options", "Output", "Tiles", "Result", "Size", "Hardware"]
    assert headings(out) == panels
    assert "--no-flips" in typed(["augment", "--help"]).out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("unetkit ", ["import", "augment", "weights", "remove", "train", "tile-predict", "curve"]),
        ("unetkit tr", ["train"]),
        ("unetkit models ", ["show", "check", "export"]),
        ("unetkit tile-predict a.zarr --tta ", ["none", "flips", "rotations"]),
        ("unetkit tile-predict --t", ["--tile", "--tta", "--threshold"]),
        ("unetkit train --precision b", ["bfloat16"]),
        ("unetkit nothing ", ["import"]),
        ("unetkit import a", []),
    ],
)
def test_a_shell_completes_commands_options_and_choices(typed, offered, monkeypatch, capsys):
    monkeypatch.setenv("_UNETKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(f"{typed}.".split()) - 1))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split()[: len(offered) or 1] == offered


def test_a_shell_is_told_how_to_complete():
    # So that the shell is named and not guessed.
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = run("--show-completion", "bash", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_UNETKIT_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize("typed", ["", "--help", "-h", "train --help", "models --help"])
def test_help_loads_nothing_heavy(typed):
    program = (
        "import sys\n"
        "from unetkit.cli.app import main\n"
        f"code = main({typed.split()!r})\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python("-c", program)
    assert done.stderr == "0 []\n"
    assert "Usage: unetkit" in done.stdout


def test_the_version_is_data():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("unetkit 0.")


def test_a_bad_terminal_is_good_enough(tmp_path):
    environment = {**os.environ, "COLUMNS": "1", "LINES": "1", "FORCE_COLOR": "1", "TERM": "dumb"}
    for arguments in (["--help"], ["train", "--help"]):
        done = run(*arguments, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, "")


def test_help_that_nobody_reads_to_its_end_is_no_error():
    read, write = os.pipe()
    os.close(read)
    result = run("import", "--help", stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
