from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import pytest

from unetkit.cli.app import main
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
        (
            ["augment", "a", "b", "--grid", "1"],
            "Input should be greater than or equal to 2",
        ),
        (["tile-predict", "a", "--threshold", "2"], "less than or equal to 1"),
        (["info", "a", "b"], "b"),
        (["--nothing"], "--nothing"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments, said, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "--help" in err
    assert err.count("\n") == 1


def test_a_wrong_option_is_refused_before_anything_heavy_is_loaded():
    program = (
        "import sys\n"
        "from unetkit.cli.app import main\n"
        "code = main(['train', 'a.zarr', '--steps', '0'])\n"
        "sys.exit(code if 'torch' not in sys.modules and 'zarr' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 2


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
def test_an_error_is_its_sentence_and_its_code(error, code, capsys, monkeypatch):
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
def test_what_the_machine_refuses_is_one_line(error, code, said, *, capsys, monkeypatch):
    fail_with(error, monkeypatch)
    assert main(["info", "x"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ValueError("a bug"), OSError("a bug"), KeyError("a bug")]
)
def test_a_bug_shows_where_it_is(error, capsys, monkeypatch):
    fail_with(error, monkeypatch)
    assert main(["info", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert "a bug" in err


def fail_with(error, monkeypatch):
    def raises(source):
        raise error

    monkeypatch.setattr("unetkit.commands.info.info", raises)


def test_nothing_there_is_exit_3_and_creates_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "info", "nothing[/]\x1b[2J.zarr"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "nothing[/]" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_libraries_are_not_for_the_user(capsys, monkeypatch):
    def warns(source):
        import warnings

        warnings.warn("an old name", DeprecationWarning, stacklevel=2)
        return {"kind": source}

    monkeypatch.setattr("unetkit.commands.info.info", warns)
    monkeypatch.setattr(sys, "warnoptions", [])
    assert main(["info", "x", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"kind": "x"}
    assert err == ""
