"""The commands that make a dataset: import, augment, weights."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from unetkit.cli import console
from unetkit.cli.options import (
    OUTPUT,
    Axes,
    BreakLock,
    Channels,
    Json,
    Length,
    Overwrite,
    Preview,
    Quiet,
    Scheduler,
    Seed,
    Workers,
)

LABELS = "Labels"
CHANGE = "Change"


def import_images(
    source: Annotated[
        str,
        typer.Argument(show_default=False, help="A folder, a quoted glob or one image file."),
    ],
    output: Annotated[str, typer.Argument(show_default=False, help="The Zarr to write.")],
    *,
    labels: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=LABELS,
            show_default=False,
            help="Masks: a folder with files of the same stems, one file, or a pattern such as "
            "'DIR/{stem}_mask.png'.",
        ),
    ] = None,
    kind: Annotated[
        Literal["instances", "classes"],
        typer.Option(
            rich_help_panel=LABELS,
            help="What a mask's values are: one id an object, or one value a class.",
        ),
    ] = "instances",
    classes: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=LABELS,
            show_default=False,
            help="Class names in the order of their values: 'background,myelin,axon'.",
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=LABELS,
            show_default=False,
            help="The mask value of pixels that nobody judged.",
        ),
    ] = None,
    connected_components: Annotated[
        bool,
        typer.Option(
            "--connected-components",
            rich_help_panel=LABELS,
            help="Number the separate pieces of a yes/no mask; touching objects become one.",
        ),
    ] = False,
    axes: Axes = None,
    channels: Channels = None,
    pixel_size: Annotated[
        str | None,
        typer.Option(
            show_default="from the file",
            help="Micrometres a pixel: '0.25', '250nm', or 'y,x' as '0.5,0.25'.",
        ),
    ] = None,
    append: Annotated[
        bool,
        typer.Option("--append", rich_help_panel=OUTPUT, help="Add to a dataset that is there."),
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn image files, with or without masks, into Zarr.

    A folder becomes a dataset; one file without masks becomes one image, such as a slide.
    """
    from unetkit.pipeline.import_images import import_images as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            source,
            output,
            labels=labels,
            kind=kind,
            classes=classes,
            ignore=ignore,
            connected_components=connected_components,
            axes=axes,
            channels=channels,
            pixel_size=pixel_size,
            append=append,
            overwrite=overwrite,
            progress=progress,
        )
    console.written(report, json=json, quiet=quiet)


def augment(
    source: Annotated[str, typer.Argument(show_default=False, help="A dataset.")],
    output: Annotated[str, typer.Argument(show_default=False, help="The dataset to write.")],
    *,
    copies: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Deformed copies of each sample; our own choice."),
    ] = 10,
    grid: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=2,
            rich_help_panel=CHANGE,
            help="Displaced points along each side; the paper: 3.",
        ),
    ] = 3,
    sigma: Annotated[
        Length,
        typer.Option(
            metavar="X",
            rich_help_panel=CHANGE,
            help="Standard deviation of their displacements, in pixels, or with a unit as '2um'; "
            "the paper: 10.",
        ),
    ] = 10.0,
    shift: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            rich_help_panel=CHANGE,
            help="Largest shift, in pixels; asked for by the paper, its size our own choice.",
        ),
    ] = 10.0,
    rotation: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            rich_help_panel=CHANGE,
            help="Largest rotation, in degrees; asked for by the paper, its size our own choice.",
        ),
    ] = 15.0,
    flips: Annotated[
        bool,
        typer.Option(
            rich_help_panel=CHANGE, help="Also mirror and turn by quarters; our own choice."
        ),
    ] = True,
    grey: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            rich_help_panel=CHANGE,
            help="Variation of grey values, as a part of their range; asked for by the paper, its "
            "size our own choice.",
        ),
    ] = 0.1,
    allow_folds: Annotated[
        bool,
        typer.Option(
            "--allow-folds",
            rich_help_panel=CHANGE,
            help="Keep movements that fold an image over itself.",
        ),
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="SAMPLE",
            show_default=False,
            help="Make one copy again from its record: 'more.zarr/NAME-aug001'.",
        ),
    ] = None,
    seed: Seed = 0,
    preview: Preview = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add elastically deformed copies of every sample, labels and weights along with the image."""
    from unetkit.pipeline.augment import augment as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            source,
            output,
            copies=copies,
            grid=grid,
            sigma=sigma,
            shift=shift,
            rotation=rotation,
            flips=flips,
            grey=grey,
            allow_folds=allow_folds,
            replay=replay,
            seed=seed,
            preview=preview,
            scheduler=scheduler,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    console.written(report, json=json, quiet=quiet)


def weights(
    source: Annotated[str, typer.Argument(show_default=False, help="A dataset with labels.")],
    *,
    preset: Annotated[
        Literal["paper2015", "freiburg2019"],
        typer.Option(help="Which published weights."),
    ] = "paper2015",
    w0: Annotated[
        float | None,
        typer.Option(
            metavar="X", show_default="by the preset", help="Weight in a gap of zero width."
        ),
    ] = None,
    sigma: Annotated[
        Length | None,
        typer.Option(
            metavar="X",
            show_default="by the preset",
            help="Width of the fall-off, in pixels, or with a unit as '0.5um'.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="What the network will learn: foreground, foreground+boundary or boundary."
        ),
    ] = "foreground",
    report: Annotated[
        bool,
        typer.Option("--report", help="Also count objects, touching pairs and border pixels."),
    ] = False,
    preview: Preview = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    overwrite: Overwrite = False,
    break_lock: BreakLock = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Weight every pixel: more in narrow gaps between objects, balanced over the classes.

    The weights are stored beside the labels.
    """
    from unetkit.pipeline.weights import weights as run

    with console.progress(quiet=quiet) as progress:
        written = run(
            source,
            preset=preset,
            w0=w0,
            sigma=sigma,
            target=target,
            report=report,
            preview=preview,
            scheduler=scheduler,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            break_lock=break_lock,
            progress=progress,
        )
    console.written(written, json=json, quiet=quiet)
