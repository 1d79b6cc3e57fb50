import sys

import pytest

from tests.cli.conftest import python
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


def test_a_command_from_elsewhere_is_listed_and_runs(lay, typed):
    module = lay("my-tools", {COMMANDS: {"count": "app"}}, version="2.3", code=COUNT)
    shown = typed(["--help"]).out
    assert "count" in shown
    assert "from my-tools 2.3" in shown
    assert module not in sys.modules
    assert typed(["count", "--number", "5"]).out == "counted to 5\n"
    assert typed(["my-tools/count"]).out == "counted to 3\n"
    assert "Count to a number." in typed(["count", "--help"]).out
    assert main(["count", "--numbr", "5"]) == 2


def test_a_group_of_commands_runs(lay, typed):
    lay("my-tools", {COMMANDS: {"tools": "app"}}, code=GROUP)
    assert typed(["tools", "two"]).out == "two\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('bad day')", "ValueError: bad day"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("print('hello'); app = 3", "must be a typer.Typer, got int"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_command_is_a_stub_that_exits_5(lay, code, words, typed):
    lay("sad-tools", {COMMANDS: {"sad": "app"}}, code=code)
    assert "from sad-tools 0.1" in typed(["--help"]).out
    typed(["models", "--json"])
    out, err = typed(["sad", "x"], 5)
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
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "badcommands" in done.stdout
    assert "badmodels" in done.stdout


def test_a_command_of_unetkit_can_not_be_shadowed(lay, typed):
    lay("a-forger", {COMMANDS: {"info": "app"}}, code=COUNT)
    assert "counted" not in typed(["info", "nothing.zarr"], 3).out
    assert "a-forger/info" in typed(["--help"]).out
    assert typed(["a-forger/info"]).out == "counted to 3\n"


def test_a_command_of_two_distributions_must_be_told_apart(lay, typed):
    lay("first-tools", {COMMANDS: {"count": "app"}}, code=COUNT)
    lay("second-tools", {COMMANDS: {"count": "app"}}, code=COUNT)
    assert "first-tools/count' or 'second-tools/count'" in typed(["count"], 2).err
    assert main(["second-tools/count"]) == 0


def test_an_unknown_command_is_still_unknown(typed):
    assert "No such command 'countt'" in typed(["countt"], 2).err
