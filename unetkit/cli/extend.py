"""The commands about what can be added: models and plugins."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from unetkit.cli import console, tables
from unetkit.cli.options import Json, Overwrite, Quiet
from unetkit.cli.plugged import OpenGroup
from unetkit.errors import CheckError

Source = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", show_default=False, help="An installed model, or a .safetensors file."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="An option of the model, such as width=16; may be repeated.",
    ),
]

models = typer.Typer(no_args_is_help=False, invoke_without_command=True)
plugins = typer.Typer(no_args_is_help=False, invoke_without_command=True)


@models.callback(epilog="Example: unetkit models show unet")
def list_models(context: typer.Context, *, json: Json = False) -> None:
    """List the models; show, check or export one."""
    if context.invoked_subcommand is not None:
        return
    from unetkit.pipeline.models import list_models as run

    console.found(run(), json=json, layout=lambda rows: [tables.table(rows)])


@models.command("show", epilog="Example: unetkit models show unet --set depth=3")
def show_model(
    source: Source, *, options: Options = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Say which sizes a model takes, what its options mean and how many parameters it has."""
    from unetkit.pipeline.models import show_model as run

    with console.progress(quiet=quiet) as progress:
        found = run(source, options=options or (), progress=progress)
    console.found(found, json=json, layout=tables.model)


@models.command("check", epilog="Example: unetkit models check unet --set depth=2 --set width=4")
def check_model(
    source: Source, *, options: Options = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Hold a model to everything that unetkit relies on, with real passes."""
    from unetkit.pipeline.models import check_model as run

    with console.progress(quiet=quiet) as progress:
        report = run(source, options=options or (), progress=progress)
    console.found(report.to_dict(), json=json, layout=tables.checks)
    if not report.holds:
        raise CheckError(
            f"model {source!r} must keep every rule, got {len(report.broken)} broken"
            f" ({', '.join(report.broken)}); the table says how"
        )


@models.command("export", epilog="Example: unetkit models export model.safetensors --to onnx")
def export_model(
    source: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="A .safetensors model file.")
    ],
    *,
    to: Annotated[
        Literal["pt2", "onnx"],
        typer.Option("--to", help="The format: torch.export, or ONNX (extra 'onnx')."),
    ] = "pt2",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            show_default="beside the file",
            help="Where the export is written.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PIXELS",
            min=1,
            show_default="512, or the next size that fits",
            help="Height and width of what the export takes.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs, and compare what it computes there."""
    from unetkit.pipeline.export import export_model as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            source, to=to, output=output, size=size, overwrite=overwrite, progress=progress
        )
    console.written(report, json=json, quiet=quiet)


@plugins.callback(epilog="Example: unetkit plugins new unetkit-mynet")
def list_plugins(context: typer.Context, *, json: Json = False, quiet: Quiet = False) -> None:
    """List models, readers and commands from everywhere, with what is wrong with a broken one."""
    if context.invoked_subcommand is not None:
        return
    from unetkit.pipeline.plugins import list_plugins as run

    with console.progress(quiet=quiet) as progress:
        rows = run(progress=progress)
    group = context.find_root().command
    for row in rows:
        if row["kind"] == "command" and isinstance(group, OpenGroup):
            full_name = f"{row['distribution']}/{row['name']}"
            row["name"] = group.called(row["name"], full_name=full_name)
    console.found(rows, json=json, layout=lambda rows: [tables.table(rows)])


@plugins.command("new", epilog="Example: unetkit plugins new unetkit-mynet")
def new_plugin(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", show_default=False, help="A new folder; its name is the package's."
        ),
    ],
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a package with a model of your own and the test that it keeps its contract."""
    from unetkit.pipeline.plugins import new_plugin as run

    console.written(run(folder), json=json, quiet=quiet)
