"""The command that uses a model: tile-predict."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from unetkit.cli import console, tables
from unetkit.cli.options import (
    HARDWARE,
    Axes,
    BreakLock,
    Channels,
    DefaultedOutput,
    Device,
    Json,
    MaxMemory,
    Nonfinite,
    Overwrite,
    Precision,
    Quiet,
    Scheduler,
    Workers,
)

TILES = "Tiles"
RESULT = "Result"


def tile_predict(
    source: Annotated[str, typer.Argument(show_default=False, help="An image or a dataset.")],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            show_default="model.safetensors",
            help="The model file; repeated, the mean of several.",
        ),
    ] = None,
    output: DefaultedOutput = None,
    tile: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=TILES,
            show_default="by the image",
            help="Side of a tile, in pixels; a multiple of the model's step.",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=TILES,
            show_default="by the model",
            help="Pixels of context that a tile sees on each side.",
        ),
    ] = None,
    tta: Annotated[
        Literal["none", "flips", "rotations"],
        typer.Option(
            rich_help_panel=TILES,
            help="Average over turned tiles: 4 flips, or 8 rotations and flips.",
        ),
    ] = "none",
    merge: Annotated[
        Literal["crop", "gaussian"],
        typer.Option(
            rich_help_panel=TILES,
            help="Crop tiles, or blend their windows, for padded models.",
        ),
    ] = "crop",
    probabilities: Annotated[
        Literal["uint8", "float32"],
        typer.Option(rich_help_panel=RESULT, help="How class probabilities are stored."),
    ] = "uint8",
    threshold: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            rich_help_panel=RESULT,
            help="Probability from which it is foreground.",
        ),
    ] = 0.5,
    grow: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RESULT,
            help="Pixels by which objects grow into their gaps.",
        ),
    ] = 1,
    min_size: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RESULT,
            help="Drop objects of fewer pixels than this.",
        ),
    ] = 0,
    skip_below: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            rich_help_panel=TILES,
            show_default=False,
            help="Leave out tiles that are darker than this everywhere.",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TILES,
            show_default=False,
            help="An image of any scale; tiles in which it is 0 are left out.",
        ),
    ] = None,
    require_complete_input: Annotated[
        bool,
        typer.Option(
            "--require-complete-input",
            rich_help_panel=TILES,
            help="Refuse an image of which a chunk is absent.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse an image that is far from what the model was trained on."
        ),
    ] = False,
    channels: Channels = None,
    axes: Axes = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=HARDWARE,
            show_default="1, or what a GPU holds, up to 8",
            help="Tiles, or windows that are blended, that the network sees at once.",
        ),
    ] = None,
    max_memory: MaxMemory = None,
    scheduler: Scheduler = "threads",
    workers: Workers = None,
    nonfinite: Nonfinite = "error",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    overwrite: Overwrite = False,
    break_lock: BreakLock = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    audit: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RESULT,
            help="Predict N windows across seams again; end with code 7 if they differ.",
        ),
    ] = 0,
    ome_version: Annotated[
        Literal["0.5", "0.4"],
        typer.Option(
            "--ome-version", rich_help_panel=RESULT, help="0.4 for viewers that know no Zarr v3."
        ),
    ] = "0.5",
    overview: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=RESULT,
            show_default=False,
            help="Also draw a PNG of the images with outlines.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment images of any size in tiles, without seams."""
    from unetkit.pipeline.tile_predict import tile_predict as run

    with console.progress(quiet=quiet) as progress:
        report = run(
            source,
            model=model or (),
            output=output,
            tile=tile,
            overlap=overlap,
            tta=tta,
            merge=merge,
            probabilities=probabilities,
            threshold=threshold,
            grow=grow,
            min_size=min_size,
            skip_below=skip_below,
            mask=mask,
            require_complete_input=require_complete_input,
            strict=strict,
            channels=channels,
            axes=axes,
            device=device,
            precision=precision,
            batch=batch,
            max_memory=max_memory,
            scheduler=scheduler,
            workers=workers,
            nonfinite=nonfinite,
            resume=resume,
            overwrite=overwrite,
            break_lock=break_lock,
            dry_run=dry_run,
            audit=audit,
            ome_version=ome_version,
            overview=overview,
            progress=progress,
        )
    if dry_run:
        console.found(report.to_dict(), json=json, layout=tables.details)
    else:
        console.written(report, json=json, quiet=quiet)
