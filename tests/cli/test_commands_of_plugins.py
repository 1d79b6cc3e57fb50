from __future__ import annotations

import subprocess
import sys

import pytest

from unetkit.cli.app import main

COMMANDS = "unetkit.commands"
COUNT = """
import typer

app = typer.Typer()

@app.command()
def count(number: int = 3) -> None:
    "Count to a number."
    print("counted to", number)
"""
GROUP = """
import typer

app = typer.Typer()

@app.command()
def one() -> None: print("one")

@app.command()
def two() -> None: print("two")
"""


def test_a_command_from_elsewhere_is_listed_and_runs(lay, capsys):
    module = lay("my-tools", {COMMANDS: {"count": "app"}}, version="2.3", code=COUNT)
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "count" in shown
    assert "from my-tools 2.3" in shown
    assert module not in sys.modules
    assert main(["count", "--number", "5"]) == 0
    assert capsys.readouterr().out == "counted to 5\n"
    assert main(["my-tools/count"]) == 0
    assert capsys.readouterr().out == "counted to 3\n"
    assert main(["count", "--help"]) == 0
    assert "Count to a number." in capsys.readouterr().out
    assert main(["count", "--numbr", "5"]) == 2


def test_a_group_of_commands_runs(lay, capsys):
    lay("my-tools", {COMMANDS: {"tools": "app"}}, code=GROUP)
    assert main(["tools", "two"]) == 0
    assert capsys.readouterr().out == "two\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('bad day')", "ValueError: bad day"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("print('hello'); app = 3", "must be a typer.Typer, got int"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_command_is_a_stub_that_exits_5(lay, code, words, capsys):
    lay("sad-tools", {COMMANDS: {"sad": "app"}}, code=code)
    assert main(["--help"]) == 0
    assert "from sad-tools 0.1" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    capsys.readouterr()
    assert main(["sad", "x"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "command sad (sad-tools 0.1)" in err
    assert words in err


def test_help_imports_no_plugin(lay):
    """A plugin that would end, delay or drown the help proves that nobody imports it."""
    code = "import os; os._exit(9)"
    for group in ("unetkit.models", "unetkit.readers", COMMANDS):
        name = group.split(".")[1]
        lay(f"bad-{name}", {group: {f"bad{name}": "app"}}, code=code)
    program = (
        f"import sys; sys.path.insert(0, {str(lay.folder)!r})\n"
        "from unetkit.cli.app import main\n"
        "assert main(['--help']) == 0\n"
        "assert main(['models']) == 0\n"
        "assert main(['train', '--help']) == 0\n"
        "assert not [m for m in sys.modules if m.startswith('bad_')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "badcommands" in done.stdout
    assert "badmodels" in done.stdout


def test_a_command_of_unetkit_can_not_be_shadowed(lay, capsys):
    lay("a-forger", {COMMANDS: {"info": "app"}}, code=COUNT)
    assert main(["info", "nothing.zarr"]) == 3
    assert "counted" not in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "a-forger/info" in capsys.readouterr().out
    assert main(["a-forger/info"]) == 0
    assert capsys.readouterr().out == "counted to 3\n"


def test_a_command_of_two_distributions_must_be_told_apart(lay, capsys):
    lay("first-tools", {COMMANDS: {"count": "app"}}, code=COUNT)
    lay("second-tools", {COMMANDS: {"count": "app"}}, code=COUNT)
    assert main(["count"]) == 2
    assert "first-tools/count' or 'second-tools/count'" in capsys.readouterr().err
    assert main(["second-tools/count"]) == 0


def test_an_unknown_command_is_still_unknown(capsys):
    assert main(["countt"]) == 2
    assert "No such command 'countt'" in capsys.readouterr().err
