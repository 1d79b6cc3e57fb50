"""The command line: which commands there are, and how an error becomes a line and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import Annotated

import typer

from unetkit.cli import console, options, tables
from unetkit.cli.options import Json, OpenGroup, Quiet
from unetkit.errors import UnetkitError


def verify(
    prediction: Annotated[str, typer.Argument(show_default=False, help="A prediction.")],
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that every chunk of a prediction is as it was published."""
    from unetkit.commands.verify import verify as run

    with console.progress(quiet=quiet) as progress:
        report = run(prediction, progress=progress)
    console.found(report.to_dict(), json=json, layout=tables.details)


PREPARE = "1. Prepare annotated images"
LEARN = "2. Train and predict"
LOOK = "3. Score and look"
EXTEND = "4. Add models"

# With fewer columns help stands without boxes.
NARROWEST = 72

# Typer exports this one class of its usage errors; the base of all of them is the one above.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

# What Python says where the system refuses it another thread; it has no error of its own.
_NO_THREAD = "can't start new thread"

# What the loader says where it has no memory for a library that is needed only now.
_NO_ROOM = ("failed to map segment from shared object", "cannot allocate memory")

# What the machine or its administrator refuses, and no line of unetkit can mend.
_SURROUNDINGS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EIO,
        errno.ENAMETOOLONG,
    }
)

app = typer.Typer(
    name="unetkit",
    cls=OpenGroup,
    help="From a folder of annotated microscopy images to seamless segmentations of slides of "
    "any size.",
    epilog="Start with: unetkit demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from unetkit.version import __version__

        console.emit(f"unetkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


app.command(
    "import",
    rich_help_panel=PREPARE,
    epilog="Example: unetkit import images/ --labels masks/ data.zarr",
)(options.import_images)
app.command(
    "augment",
    rich_help_panel=PREPARE,
    epilog="Example: unetkit augment data.zarr more.zarr --copies 10 --preview more.png",
)(options.augment)
app.command(
    "weights",
    rich_help_panel=PREPARE,
    epilog="Example: unetkit weights more.zarr --preview weights.png",
)(options.weights)
app.command(
    "train",
    rich_help_panel=LEARN,
    epilog="Example: unetkit train more.zarr --set width=16 --time-budget 20m",
)(options.train)
app.command(
    "tile-predict",
    rich_help_panel=LEARN,
    epilog="Example: unetkit tile-predict slide.zarr --overlap 92",
)(options.tile_predict)
app.command(
    "eval",
    rich_help_panel=LOOK,
    epilog="Example: unetkit eval slide.prediction.zarr truth.zarr",
)(options.evaluate)
app.command(
    "measure",
    rich_help_panel=LOOK,
    epilog="Example: unetkit measure slide.prediction.zarr slide.zarr --csv cells.csv",
)(options.measure)
app.command(
    "export",
    rich_help_panel=LOOK,
    epilog="Example: unetkit export slide.prediction.zarr --to geojson -o slide.geojson",
)(options.export_prediction)
app.command(
    "info",
    rich_help_panel=LOOK,
    epilog="Example: unetkit info slide.prediction.zarr",
)(options.info)
app.command(
    "verify",
    rich_help_panel=LOOK,
    epilog="Example: unetkit verify slide.prediction.zarr",
)(verify)
app.command(
    "demo",
    rich_help_panel=LOOK,
    epilog="Example: unetkit demo",
)(options.demo)
app.add_typer(options.models, name="models", rich_help_panel=EXTEND)
app.add_typer(options.plugins, name="plugins", rich_help_panel=EXTEND)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands after `unetkit`; left out, what the shell handed over.

    Returns
    -------
    int
        The exit code: 0, or the code of the error, of which one line stands on stderr.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    # Boxes cut words off where there is no room for them; a command's plain help folds its lines.
    narrow = len(given) > 1 and get_terminal_size().columns < NARROWEST
    app.rich_markup_mode = None if narrow else "rich"
    with warnings.catch_warnings():
        if not sys.warnoptions:
            # People read sentences that they can act on, not the warnings of libraries.
            warnings.simplefilter("ignore")
        try:
            # Outside its stand-alone mode Typer hands back exit codes and raises errors.
            code = app(given or ["--help"], prog_name="unetkit", standalone_mode=False)
        except Exception as error:
            return _explain(error)
        except KeyboardInterrupt:
            code = 130
        except SystemExit as error:
            # Rich leaves by this door when nobody reads its help any more; that is no fault.
            if not isinstance(error.__context__, BrokenPipeError):
                raise
            code = 0
    if code == 130:
        console.fail("stopped by Ctrl-C")
    return int(code or 0)


def _explain(error: Exception) -> int:
    """Turn an error into what stands on stderr and the exit code."""
    if isinstance(error, UnetkitError):
        console.fail(str(error))
        return error.exit_code
    if isinstance(error, _UsageError):
        console.fail(_usage(error))
        return 2
    unloaded = isinstance(error, ImportError) and any(said in str(error) for said in _NO_ROOM)
    if unloaded or isinstance(error, MemoryError):
        console.fail(f"memory must hold the work, got {error or 'none left'}; try a smaller tile")
        return 5
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        console.fail(
            "the system must allow another thread, got none; use fewer --workers, or raise the "
            "limits that 'ulimit -a' lists"
        )
        return 5
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        where = f" at {error.filename!r}" if error.filename else ""
        console.fail(f"the system must allow the work, got '{error.strerror}'{where}")
        return 5
    traceback.print_exception(error)
    return 1


def _usage(error: Exception) -> str:
    """Say what Typer did not understand, and where the options are listed."""
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    message = message.replace(": Value error, ", ": ", 1)
    end = "" if message.endswith("?") else ";"
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "unetkit"
    return f"{message}{end} '{command} --help' lists what there is"
