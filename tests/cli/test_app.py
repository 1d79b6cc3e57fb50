from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.cli.app import app, main
from unetkit.errors import (
    CheckError,
    InputError,
    LabelError,
    MissingError,
    NonFiniteError,
    OutputError,
    ResourceError,
    StoppedError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

FUNCTIONS = {
    "import": "import_images",
    "augment": "augment",
    "weights": "weights",
    "train": "train",
    "tile-predict": "tile_predict",
    "eval": "evaluate",
    "measure": "measure",
    "export": "export_prediction",
    "info": "info",
    "verify": "verify",
    "demo": "demo",
}
COMMANDS: dict[str, Callable[..., Any]] = {
    str(command.name): command.callback for command in app.registered_commands if command.callback
}
# What the command line adds to a function, and what it takes away.
OWN = {"json", "quiet", "stores", "list_scores", "fail_under"}
LIBRARY = {"progress", "stores"}


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unetkit", *arguments],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def test_the_commands_are_those_of_the_path() -> None:
    assert list(COMMANDS) == list(FUNCTIONS)


@pytest.mark.parametrize("command", FUNCTIONS)
def test_options_and_defaults_are_those_of_the_function(
    command: str, module_of: Callable[[str], ModuleType]
) -> None:
    name = FUNCTIONS[command]
    ours = parameters(COMMANDS[command])
    theirs = parameters(getattr(module_of(name), name))
    assert set(ours) - OWN == set(theirs) - LIBRARY
    for parameter in set(ours) - OWN:
        # A list cannot be a default; the empty one is written as None.
        default = ours[parameter].default
        theirs_default = theirs[parameter].default
        if theirs_default == ():
            assert default is None
        else:
            assert default == theirs_default
            assert type(default) is type(theirs_default)


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_command_explains_itself(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"Example: unetkit {command}" in out
    for name, parameter in parameters(COMMANDS[command]).items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            shown = {"options": "set", "list_scores": "list"}.get(name, name.replace("_", "-"))
            assert f"--{shown}" in out


@pytest.mark.parametrize("command", FUNCTIONS)
def test_help_cuts_no_word_off_where_there_is_little_room(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    for name, parameter in parameters(COMMANDS[command]).items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            shown = {"options": "set", "list_scores": "list"}.get(name, name.replace("_", "-"))
            assert f"--{shown}" in out
    # With room there are boxes again.
    monkeypatch.setenv("COLUMNS", "120")
    assert main([command, "--help"]) == 0
    assert "\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("train", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    heavy = [
        "torch",
        "zarr",
        "dask",
        "distributed",
        "numba",
        "scipy",
        "skimage",
        "numpy",
        "PIL",
        "tifffile",
    ]
    program = (
        "import sys\n"
        "from unetkit.cli.app import main\n"
        f"code = main({list(arguments)!r})\n"
        f"print(code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stderr == "0 []\n"
    assert "Usage: unetkit" in done.stdout


def test_the_version_is_data() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("unetkit 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "x"], "Did you mean 'train'? 'unetkit --help' lists what there is"),
        (["train"], "Missing argument"),
        (["train", "data.zarr", "--steps", "many"], "--steps"),
        (["train", "data.zarr", "--steps", "0"], "--steps"),
        (["train", "data.zarr", "--overlp", "3"], "--overlp"),
        (
            ["import", "a", "b", "--kind", "cells"],
            "for '--kind': 'cells' is not one of 'instances', 'classes'; 'unetkit import --help'",
        ),
        (["info", "a", "b"], "b"),
        (["--nothing"], "--nothing"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "--help" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x must be y, got z"), 2),
        (InputError("x must be y, got z"), 3),
        (MissingError("x must be y, got z"), 3),
        (LabelError("x must be y, got z"), 3),
        (OutputError("x must be y, got z"), 4),
        (ResourceError("x must be y, got z"), 5),
        (NonFiniteError("x must be y, got z"), 6),
        (CheckError("x must be y, got z"), 7),
        (UnavailableError("x must be y, got z"), 75),
        (StoppedError("x must be y, got z", signal=signal.SIGTERM), 143),
    ],
)
def test_an_error_is_its_sentence_and_its_code(
    error: Exception,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(error, monkeypatch)
    assert main(["info", "x"]) == code
    assert capsys.readouterr() == ("", "error: x must be y, got z\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.zarr"), 5, "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out.zarr"), 5, "Permission denied"),
        (MemoryError("Unable to allocate 3 TiB"), 5, "3 TiB"),
        (ImportError("x.so: failed to map segment from shared object"), 5, "memory must hold"),
        (RuntimeError("can't start new thread"), 5, "fewer --workers"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: BaseException,
    code: int,
    said: str,
    *,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(error, monkeypatch)
    assert main(["info", "x"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ValueError("a bug"), OSError("a bug"), KeyError("a bug")]
)
def test_a_bug_shows_where_it_is(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    assert main(["info", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert "a bug" in err


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(source: str) -> dict[str, Any]:
        raise error

    monkeypatch.setattr("unetkit.commands.info.info", raises)


def test_nothing_there_is_exit_3_and_creates_nothing(tmp_path: Path) -> None:
    done = run("info", "nothing[/]\x1b[2J.zarr", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "nothing[/]" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_libraries_are_not_for_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warns(source: str) -> dict[str, Any]:
        import warnings

        warnings.warn("an old name", DeprecationWarning, stacklevel=2)
        return {"kind": source}

    monkeypatch.setattr("unetkit.commands.info.info", warns)
    monkeypatch.setattr(sys, "warnoptions", [])
    assert main(["info", "x", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"kind": "x"}
    assert err == ""


def test_a_bad_terminal_is_good_enough(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMNS": "1", "LINES": "1", "FORCE_COLOR": "1", "TERM": "dumb"}
    for arguments in (["--help"], ["train", "--help"]):
        done = run(*arguments, cwd=tmp_path, env=environment)
        assert (done.returncode, done.stderr) == (0, "")


def test_help_that_nobody_reads_to_its_end_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "unetkit", "import", "--help"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
