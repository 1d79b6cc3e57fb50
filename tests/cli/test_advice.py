"""What messages tell users to do can be done: the commands and options that they name exist."""

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer

from tests.cli.conftest import HOMES
from unetkit.cli.app import app

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# A command is quoted, with or without what follows its name, or stands at the start.
COMMAND = re.compile(r"(?:^|'|: )unetkit ([a-z][^']*)")
EXTRA = re.compile(r"unetkit\[(\w+)\]")


@dataclass(frozen=True)
class Message:
    """A text of the source that names a command or an option; `{}` stands for what varies."""

    module: str  # such as storage/images
    line: int
    text: str

    @property
    def homes(self) -> set[str]:
        """The commands that may say it: those of its module, or all."""
        module = "unetkit." + self.module.replace("/", ".")
        package = module.rpartition(".")[0] if module.count(".") > 2 else module
        return {name for name, home in HOMES.items() if home.startswith(package)} or set(HOMES)

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}: {self.text}"


@cache
def messages():
    """Find them all, but for docstrings, flags by themselves and what declares an option."""
    return tuple(_messages())


def _messages():
    for path in sorted((ROOT / "unetkit").rglob("*.py")):
        tree = ast.parse(path.read_text())
        apart = {part for node in ast.walk(tree) for part in _no_messages(node)}
        module = path.relative_to(ROOT / "unetkit").with_suffix("").as_posix()
        for node in ast.walk(tree):
            if getattr(getattr(node, "func", None), "id", "") == "command_line":
                yield Message(module, node.lineno, f"'unetkit {node.args[0].value} {{}}'")
            if node in apart or not isinstance(node, ast.Constant | ast.JoinedStr):
                continue
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(p.value if _is_text(p) else "{}" for p in parts)
            flag = re.fullmatch(rf"{OPTION.pattern}( [a-z]+)?|--\{{\}}.*", text)
            if not flag and (OPTION.search(text) or COMMAND.search(text) or EXTRA.search(text)):
                yield Message(module, node.lineno, text)


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _no_messages(node):
    if isinstance(node, ast.JoinedStr):
        return node.values
    if isinstance(node, ast.Expr):
        return [node.value]  # a docstring
    called = getattr(node, "func", None)
    if getattr(called, "id", getattr(called, "attr", "")) in ("Opt", "Option", "Command"):
        return list(ast.walk(node))
    return []


@cache
def parameters(command):
    """Return what a command takes by option, with its parameter."""
    found = typer.main.get_command(app)
    for word in command.split():
        found = found.get_command(None, word)
        found = found._load() if hasattr(found, "_load") else found
    return {flag: p for p in found.params for flag in (*p.opts, *p.secondary_opts)} | {"--help": 0}


def command_of(words):
    """Return the longest name of a command with which words begin; None where there is none."""
    names = [" ".join(words[:n]).rstrip(".,;") for n in (2, 1)]
    return next((name for name in names if name in HOMES), None)


def lacking(text, homes):
    """Return what a text names and what is not there, for the commands that may say it."""
    named = []
    for quoted in COMMAND.findall(text):
        command = command_of(quoted.split())
        if command is None and not quoted.startswith("{}"):
            yield f"unetkit {quoted}"
            continue
        named.append(command)
        yield from (o for o in OPTION.findall(quoted) if o not in parameters(command))
    known = {option for command in {*homes, *named} for option in parameters(command)}
    yield from (o for o in OPTION.findall(COMMAND.sub("", text)) if o not in known)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield from (e for e in EXTRA.findall(text) if e not in extras["optional-dependencies"])


FOREIGN = {"--scheduler-file"}  # of Dask


def test_every_command_and_option_that_a_message_names_exists():
    found = {str(m): set(lacking(m.text, m.homes)) - FOREIGN for m in messages()}
    assert len(found) > 100
    assert {text: names for text, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "home", "lost"),
    [
        ("run 'unetkit importe {}'", "train", ["unetkit importe {}"]),
        ("run 'unetkit weights --resum'", "train", ["--resum"]),
        ("run 'unetkit weights'; add --sigma", "verify", []),
        ("add --sigma", "verify", ["--sigma"]),
        ("'unetkit models show --set' does", "info", []),
        ("pip install 'unetkit[cloud]'", "info", ["cloud"]),
    ],
)
def test_a_name_that_is_not_there_is_found(text, home, lost):
    assert list(lacking(text, {home})) == lost
