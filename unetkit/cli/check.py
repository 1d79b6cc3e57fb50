"""The command that checks what is stored: verify."""

from __future__ import annotations

from typing import Annotated

import typer

from unetkit.cli import console, tables
from unetkit.cli.options import Json, Quiet


def verify(
    prediction: Annotated[str, typer.Argument(show_default=False, help="A prediction.")],
    *,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that every chunk of a prediction is as it was published."""
    from unetkit.pipeline.verify import verify as run

    with console.progress(quiet=quiet) as progress:
        report = run(prediction, progress=progress)
    console.found(report.to_dict(), json=json, layout=tables.details)
