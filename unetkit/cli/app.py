"""The command line: which commands there are, and how an error becomes a line and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unetkit.cli import console, tables
from unetkit.cli.options import Call, Command, Json, LazyCommand, Quiet
from unetkit.cli.tables import safe
from unetkit.errors import CheckError, ResourceError, UnetkitError
from unetkit.machine import free_memory, held_memory
from unetkit.progress import format_bytes
from unetkit.registry import Entry, Registry

Body = Callable[..., None]


def written(layout: Callable[[Any], list[Any]] = tables.summary) -> Body:
    """Say where the result is, on stderr what is worth knowing about it."""

    def body(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
        console.written(call(quiet=quiet), json=json, quiet=quiet, layout=layout)

    return body


def found(layout: Callable[[Any], list[Any]]) -> Body:
    """Show what was found."""

    def body(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
        console.found(call(quiet=quiet), json=json, layout=layout)

    return body


def found_at_once(layout: Callable[[Any], list[Any]]) -> Body:
    """Show what was found so soon that nothing was told meanwhile."""

    def body(call: Call, *, json: Json = False) -> None:
        console.found(call(), json=json, layout=layout)

    return body


def described(call: Call, *, json: Json = False) -> None:
    """Show what it is; a card is Markdown, to be kept as it stands."""
    found = call()
    if "card" in found and not json:
        console.emit(found["card"].rstrip())
    else:
        console.found(found, json=json, layout=tables.described)


def trained(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Say where the model is; of several processes only one does."""
    report = call(quiet=quiet)
    from unetkit.commands.train.callbacks import is_main

    if is_main():
        console.written(report, json=json, quiet=quiet, layout=tables.training)


def predicted(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Say where the prediction is, or what would be done."""
    report = call(quiet=quiet)
    if call.given["dry_run"]:
        console.found(report, json=json, layout=tables.details)
    else:
        console.written(report, json=json, quiet=quiet, layout=tables.predicted)
    report.check()


def reviewed(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Say where the page is, or show what was judged on it."""
    report = call(quiet=quiet)
    if call.given["score"] is None:
        console.written(report, json=json, quiet=quiet)
    else:
        console.found(report, json=json, layout=tables.reviewed)


def viewed(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Say where it is to be seen, and serve it until Ctrl-C, which is how it is meant to end."""
    # A script that reads the link may end the view before `wait` is reached.
    with call(quiet=quiet) as view:
        console.written(view, json=json, quiet=quiet, layout=tables.viewed)
        view.wait()


def evaluated(
    call: Call,
    *,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORE=VALUE",
            show_default=False,
            help="End with code 7 if an overall score is worse: 'dice=0.9'.",
        ),
    ] = None,
    list_scores: Annotated[
        bool, typer.Option("--list", help="Only list the scores and what they mean.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the scores, and judge them by the bounds."""
    if list_scores:
        from unetkit.scores.table import SCORES

        console.found([s.to_dict() for s in SCORES], json=json, layout=tables.listed)
        return
    call.check()
    if fail_under:
        from unetkit.commands.evaluate.sides import parse_bound

        for bound in fail_under:
            parse_bound(bound)
    result = call(quiet=quiet)
    console.found(result, json=json, layout=tables.evaluated)
    if fail_under:
        result.check(fail_under)


def model_checked(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Show what was checked, and end with an error if anything is broken."""
    report = call(quiet=quiet)
    console.found(report, json=json, layout=tables.checks)
    if not report.holds:
        raise CheckError(
            f"model {report.model!r} must keep every rule, got {len(report.broken)} broken"
            f" ({', '.join(report.broken)}); the table says how"
        )


def plugins_listed(call: Call, *, json: Json = False, quiet: Quiet = False) -> None:
    """Show a line for each plugin, a command by the name that it is called by."""
    rows = call(quiet=quiet)
    for row in rows:
        if row["kind"] == "command":
            row["name"] = called(row["name"], f"{row['distribution']}/{row['name']}")
    console.found(rows, json=json, layout=tables.rows)


# By the heading below which help lists them.
COMMANDS = {
    "1. Prepare annotated images": (
        Command(
            "import",
            "import_images.command:import_images",
            written(),
            "images/ --labels masks/ data.zarr",
        ),
        Command(
            "augment",
            "augment.command:augment",
            written(),
            "data.zarr more.zarr --copies 10 --preview more.png",
        ),
        Command("weights", "weights.command:weights", written(), "more.zarr --preview weights.png"),
        Command(
            "remove",
            "import_images.command:remove_samples",
            written(),
            "data.zarr a01 a02",
        ),
    ),
    "2. Train and predict": (
        Command(
            "train", "train.command:train", trained, "more.zarr --set width=16 --time-budget 20m"
        ),
        Command(
            "tile-predict",
            "tile_predict.command:tile_predict",
            predicted,
            "slide.zarr --overlap 92",
        ),
        Command(
            "curve", "train.curve:curve", written(), "data.zarr --time-budget 2h --set width=16"
        ),
        Command("tune", "tune:tune", written(), "model.safetensors data.zarr"),
        Command(
            "correct",
            "import_images.corrections:correct",
            written(),
            "slide.prediction.zarr --from edited.geojson --judged judged",
        ),
    ),
    "3. Score and look": (
        Command("eval", "evaluate.command:evaluate", evaluated, "slide.prediction.zarr truth.zarr"),
        Command(
            "measure",
            "measure:measure",
            written(),
            "slide.prediction.zarr slide.zarr --csv cells.csv",
        ),
        Command("suggest", "suggest:suggest", written(), "slide.prediction.zarr --count 5"),
        Command("view", "view:view", viewed, "slide.prediction.zarr --open"),
        Command("review", "review:review", reviewed, "slide.prediction.zarr --count 100"),
        Command(
            "export",
            "export_prediction:export_prediction",
            written(),
            "slide.prediction.zarr --to geojson -o slide.geojson",
        ),
        Command("info", "info:info", described, "slide.prediction.zarr"),
        Command("verify", "verify:verify", found(tables.details), "slide.prediction.zarr"),
        Command("demo", "demo.command:demo", written(tables.walk)),
    ),
    "4. Add models": (
        Command(
            "models",
            "models:list_models",
            found_at_once(tables.rows),
            "show unet",
            help="List the models; show, check or export one.",
            subcommands=(
                Command("show", "models:show_model", found(tables.model), "unet --set depth=3"),
                Command(
                    "check", "models:check_model", model_checked, "unet --set depth=2 --set width=4"
                ),
                Command(
                    "export", "export_model:export_model", written(), "model.safetensors --to onnx"
                ),
            ),
        ),
        Command(
            "plugins",
            "plugins:list_plugins",
            plugins_listed,
            "new unetkit-mynet",
            subcommands=(Command("new", "plugins:new_plugin", written(), "unetkit-mynet"),),
        ),
    ),
}
OWN = {command.name: command for commands in COMMANDS.values() for command in commands}


class Root(TyperGroup):
    """The commands of unetkit, and behind them those of other distributions.

    A command of unetkit's own can't be shadowed; one of the same name from elsewhere is called
    ``distribution/name``. Listing them imports neither a command's module nor a plugin.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, commands in COMMANDS.items():
            for command in commands:
                build = partial(command.build, self.rich_markup_mode)
                self.add_command(LazyCommand(command.name, command.summary(), panel, load=build))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every name."""
        return [*super().list_commands(ctx), *_plugged()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what stands for a command of unetkit or of another distribution."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        entry = _plugged().get(cmd_name)
        if entry is None and _registry().offers(cmd_name):
            # A name of two distributions, or a full name: the registry knows or says so.
            entry = _registry().entry(cmd_name)
        if entry is None:
            return None
        origin = safe(f"from {entry.distribution} {entry.version}")
        return LazyCommand(safe(cmd_name), origin, "Plugins", load=partial(_load, entry))


def called(name: str, full_name: str) -> str:
    """Return how a command of another distribution is called: unetkit's own come first."""
    return full_name if name in OWN else name


def _registry() -> Registry:
    return Registry("unetkit.commands", noun="command")


def _plugged() -> dict[str, Entry]:
    return {called(name, entry.full_name): entry for name, entry in _registry().entries()}


def _load(entry: Entry) -> Any:
    """Load a command of another distribution."""
    found = _registry().get(entry.full_name)
    if not isinstance(found, typer.Typer):
        raise ResourceError(
            f"command {entry} must be a typer.Typer, got {type(found).__name__}; install"
            f" another version of {entry.distribution} or remove it"
        )
    return typer.main.get_command(found)


# With fewer columns help stands without boxes.
NARROWEST = 72

# Typer exports this one class of its usage errors; the base of all of them is the one above.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

# What Python says where the system refuses it another thread; it has no error of its own.
_NO_THREAD = "can't start new thread"

# What the loader says where it has no memory for a library that is needed only now.
_NO_ROOM = ("failed to map segment from shared object", "cannot allocate memory")

# What the machine or its administrator refuses, and no line of unetkit can mend.
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_REFUSED |= {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG}

app = typer.Typer(
    name="unetkit",
    cls=Root,
    help="From a folder of annotated microscopy images to seamless segmentations of slides of "
    "any size.",
    epilog="Start with: unetkit demo",
    no_args_is_help=True,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: `arguments`, or what the shell handed over, are what follows `unetkit`.

    The exit code is 0, or that of the error, of which one line stands on stderr.
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
        console.fail(_too_little_memory(error))
        return 5
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        console.fail(
            "the system must allow another thread, got none; use fewer --workers, or raise the "
            "limits that 'ulimit -a' lists"
        )
        return 5
    if isinstance(error, OSError) and error.errno in _REFUSED:
        where = f" at {error.filename!r}" if error.filename else ""
        console.fail(f"the system must allow the work, got '{error.strerror}'{where}")
        return 5
    traceback.print_exception(error)
    return 1


def _too_little_memory(error: Exception) -> str:
    """Say how much memory there is and what takes less; Python's own error is often without words.

    What would read the figures may find no memory either.
    """
    got = " ".join(str(error).split()) or "too little"
    with suppress(Exception):
        held, free = format_bytes(held_memory()), format_bytes(free_memory())
        got = f"{got}: this process holds {held} and {free} are free"
    return f"memory must hold the work, got {got}; try a smaller --tile or fewer --workers"


def _usage(error: Exception) -> str:
    """Say what Typer did not understand, and where the options are listed."""
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    message = message.replace(": Value error, ", ": ", 1)
    end = "" if message.endswith("?") else ";"
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "unetkit"
    return f"{message}{end} '{command} --help' lists what there is"
