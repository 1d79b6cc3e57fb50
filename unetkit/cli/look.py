"""The commands that say how good and what things are: eval, measure, export, info, demo."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from unetkit.cli import console, score_tables, tables
from unetkit.cli.options import (
    OUTPUT,
    Axes,
    BreakLock,
    DefaultedOutput,
    Json,
    Overwrite,
    Quiet,
    Scheduler,
    Seed,
    Workers,
)


def evaluate(
    stores: Annotated[
        list[str] | None,
        typer.Argument(
            show_default=False,
            help="A prediction and its truth; or predictions, with --truth.",
        ),
    ] = None,
    *,
    truth: Annotated[
        str | None,
        typer.Option("--truth", show_default=False, help="A labelled image or dataset."),
    ] = None,
    borders: Annotated[
        bool, typer.Option("--borders", help="Also score outlines and thin borders; slower.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="PX", min=0, help="How far outlines may lie apart."),
    ] = 2.0,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", metavar="N", min=0, help="Resamples for the intervals.")
    ] = 1000,
    seed: Seed = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="SCORE=VALUE",
            show_default=False,
            help="End with code 7 if an overall score is worse: 'dice=0.9'.",
        ),
    ] = None,
    list_scores: Annotated[
        bool, typer.Option("--list", help="Only list the scores and what they mean.")
    ] = False,
    objects: Annotated[
        str | None,
        typer.Option(
            "--objects",
            rich_help_panel=OUTPUT,
            show_default=False,
            help="Also write a CSV table of what became of every object.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            rich_help_panel=OUTPUT,
            show_default=False,
            help="Also write an HTML page to look at: scores, pictures, the worst objects.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    break_lock: BreakLock = False,
    axes: Axes = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with the truth: pixels, objects, splits and merges."""
    from unetkit.arrays import catalogue
    from unetkit.pipeline.evaluate import evaluate as run
    from unetkit.pipeline.evaluate_reports import parse_bound

    if list_scores:
        rows = [score.to_dict() for score in catalogue.scores()]
        console.found(rows, json=json, layout=score_tables.listed)
        return
    for bound in fail_under or ():
        parse_bound(bound)
    with console.progress(quiet=quiet) as progress:
        result = run(
            *(stores or ()),
            truth=truth,
            borders=borders,
            tolerance=tolerance,
            bootstrap=bootstrap,
            seed=seed,
            objects=objects,
            report=report,
            overwrite=overwrite,
            resume=resume,
            break_lock=break_lock,
            axes=axes,
            scheduler=scheduler,
            workers=workers,
            progress=progress,
        )
    console.found(result.to_dict(), json=json, layout=score_tables.evaluated)
    if fail_under:
        result.check(fail_under)


def measure(
    prediction: Annotated[
        str, typer.Argument(show_default=False, help="An image or dataset with instances.")
    ],
    image: Annotated[
        str | None,
        typer.Argument(show_default=False, help="Whose intensities are measured too."),
    ] = None,
    *,
    csv: Annotated[
        str | None,
        typer.Option("--csv", show_default="NAME.objects.csv", help="Where the table is written."),
    ] = None,
    axes: Axes = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure every instance: area, place, axes, circularity, intensities."""
    from unetkit.pipeline.measure import measure as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            prediction,
            image,
            csv=csv,
            axes=axes,
            scheduler=scheduler,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    console.written(report, json=json, quiet=quiet)


def export_prediction(
    prediction: Annotated[
        str,
        typer.Argument(show_default=False, help="A prediction, or anything with labels."),
    ],
    *,
    to: Annotated[
        Literal["tiff", "png", "geojson"],
        typer.Option("--to", help="TIFF for Fiji, grey PNG, or outlines for QuPath."),
    ] = "tiff",
    output: DefaultedOutput = None,
    layer: Annotated[
        Literal["instances", "classes", "probabilities"] | None,
        typer.Option(
            "--layer",
            show_default="instances, else classes",
            help="What is written; probabilities as TIFF only.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write labels or probabilities as files that other programs open."""
    from unetkit.pipeline.export_prediction import export_prediction as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            prediction,
            to=to,
            output=output,
            layer=layer,
            overwrite=overwrite,
            progress=progress,
        )
    console.written(report, json=json, quiet=quiet)


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
