"""The commands that say how good and what things are: eval, info, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from unetkit.cli import console, tables
from unetkit.cli.options import Axes, Json, Overwrite, Quiet, Scheduler, Seed, Workers


def evaluate(
    prediction: Annotated[
        str, typer.Argument(show_default=False, help="A prediction, or any labelled image.")
    ],
    truth: Annotated[str, typer.Argument(show_default=False, help="A labelled image or dataset.")],
    *,
    axes: Axes = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a prediction with the truth: pixels, objects, splits and merges."""
    from unetkit.pipeline.evaluate import evaluate as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            prediction,
            truth,
            axes=axes,
            scheduler=scheduler,
            workers=workers,
            progress=progress,
        )
    console.found(report.to_dict(), json=json, layout=tables.scores)


def info(
    source: Annotated[
        str, typer.Argument(show_default=False, help="A Zarr of any kind, or a model file.")
    ],
    *,
    json: Json = False,
) -> None:
    """Describe a dataset, an image, a prediction or a model file."""
    from unetkit.pipeline.info import info as run

    console.found(run(source), json=json, layout=tables.details)


def demo(
    folder: Annotated[str, typer.Argument(help="Where everything is written.")] = "unetkit-demo",
    *,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Walk the whole path on a small image of cell nuclei, in a few minutes."""
    from unetkit.pipeline.demo import demo as run

    with console.progress(quiet=quiet) as progress:
        report = run(folder, seed=seed, overwrite=overwrite, progress=progress)
    console.written(report, json=json, quiet=quiet, layout=tables.walk)
