import errno
import json
import signal
import sys
from functools import partial

import pytest

from tests.cli.conftest import python
from unetkit import errors
from unetkit.cli.app import main


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
        (["augment", "a", "b", "--grid", "1"], "Input should be greater than or equal to 2"),
        (["tile-predict", "a", "--threshold", "2"], "less than or equal to 1"),
        (["info", "a", "b"], "b"),
        (["--nothing"], "--nothing"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments, said, typed):
    out, err = typed(arguments, 2)
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
    assert python("-c", program).returncode == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.InputError, 3),
        (errors.MissingError, 3),
        (errors.LabelError, 3),
        (errors.OutputError, 4),
        (errors.ResourceError, 5),
        (errors.NonFiniteError, 6),
        (errors.CheckError, 7),
        (errors.UnavailableError, 75),
        (partial(errors.StoppedError, signal=signal.SIGTERM), 143),
    ],
)
def test_an_error_is_its_sentence_and_its_code(error, code, capsys, monkeypatch):
    fail_with(error("x must be y, got z"), monkeypatch)
    assert main(["info", "x"]) == code
    assert capsys.readouterr() == ("", "error: x must be y, got z\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.zarr"), 5, "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out.zarr"), 5, "Permission denied"),
        (MemoryError("Unable to allocate 3 TiB"), 5, "3 TiB"),
        (MemoryError(), 5, "got too little: this process holds "),
        (MemoryError(" "), 5, "iB are free; try a smaller --tile or fewer --workers"),
        (ImportError("x.so: failed to map segment from shared object"), 5, "memory must hold"),
        (RuntimeError("can't start new thread"), 5, "fewer --workers"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
        # A bug shows where it is.
        (RuntimeError("a bug"), 1, "a bug"),
        (ValueError("a bug"), 1, "a bug"),
        (OSError("a bug"), 1, "a bug"),
        (KeyError("a bug"), 1, "a bug"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, code, said, *, typed, monkeypatch):
    fail_with(error, monkeypatch)
    out, err = typed(["info", "x"], code)
    assert out == ""
    assert said in err
    assert err.startswith("Traceback") if code == 1 else err.count("\n") == 1


def fail_with(error, monkeypatch):
    def raises(source):
        raise error

    monkeypatch.setattr("unetkit.commands.info.info", raises)


def test_nothing_there_is_exit_3_and_creates_nothing(tmp_path):
    done = python("-m", "unetkit", "info", "nothing[/]\x1b[2J.zarr", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert "nothing[/]" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_libraries_are_not_for_the_user(typed, monkeypatch):
    def warns(source):
        import warnings

        warnings.warn("an old name", DeprecationWarning, stacklevel=2)
        return {"kind": source}

    monkeypatch.setattr("unetkit.commands.info.info", warns)
    monkeypatch.setattr(sys, "warnoptions", [])
    out, err = typed(["info", "x", "--json"])
    assert json.loads(out) == {"kind": "x"}
    assert err == ""
