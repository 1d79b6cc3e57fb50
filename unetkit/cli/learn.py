"""The command that makes a model: train."""

from __future__ import annotations

from typing import Annotated

import typer

from unetkit.cli import console
from unetkit.cli.options import (
    HARDWARE,
    OUTPUT,
    BreakLock,
    Channels,
    Device,
    Json,
    Nonfinite,
    Output,
    Overwrite,
    Precision,
    Quiet,
    Seed,
)

MODEL = "Model"
RECIPE = "Recipe"


def train(
    source: Annotated[str, typer.Argument(show_default=False, help="A dataset with labels.")],
    *,
    output: Output = "model.safetensors",
    model: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MODEL, show_default="unet", help="Name of an installed model."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            rich_help_panel=MODEL,
            metavar="KEY=VALUE",
            show_default=False,
            help="An option of the model, such as width=16; may be repeated.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            rich_help_panel=RECIPE,
            help="How to learn: 'default', or 'paper' for the original's settings.",
        ),
    ] = "default",
    recipe_set: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe-set",
            rich_help_panel=RECIPE,
            metavar="KEY=VALUE",
            show_default=False,
            help="A number of the recipe, such as batch=4; may be repeated.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=RECIPE,
            show_default="that of the recipe",
            help="What to make small, such as 'unet+0.5*dice': unet, ce, dice, jaccard, tversky, "
            "focal, lovasz.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Updates of the network.")] = 1000,
    time_budget: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="As many steps as fit, by the pace of the first 20: '90s', '20m', '1h'.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            show_default="by the labels",
            help="What to learn: foreground, foreground+boundary, boundary or classes.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MODEL,
            show_default=False,
            help="A model file to begin with, also for other channels or classes.",
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Train K models, each with another part held out: STEM.fold1.safetensors, ...",
        ),
    ] = 1,
    normalization: Annotated[
        str | None,
        typer.Option(
            show_default="percentile",
            help="How intensities become the network's input: percentile, zscore, range or none.",
        ),
    ] = None,
    tensorboard: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=OUTPUT,
            show_default=False,
            help="Write curves and pictures for TensorBoard as well.",
        ),
    ] = None,
    freeze_encoder: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=MODEL,
            help="Steps at the start in which the encoder keeps its weights.",
        ),
    ] = 0,
    seed: Seed = 0,
    channels: Channels = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=HARDWARE,
            show_default="by the machine",
            help="Threads that draw samples; 0 draws them between the steps.",
        ),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=HARDWARE,
            help="Compute a batch in so many parts, to take less memory.",
        ),
    ] = 1,
    nonfinite: Nonfinite = "error",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    keep_state: Annotated[
        bool,
        typer.Option(
            "--keep-state",
            rich_help_panel=OUTPUT,
            help="Leave the training's state beside the finished model.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    break_lock: BreakLock = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn from a dataset and write a model file."""
    from unetkit.pipeline.train import train as run
    from unetkit.pipeline.train_follow import leads

    with console.progress(quiet=quiet) as progress:
        report = run(
            source,
            output=output,
            model=model,
            options=tuple(options or ()),
            recipe=recipe,
            recipe_set=tuple(recipe_set or ()),
            loss=loss,
            steps=steps,
            time_budget=time_budget,
            target=target,
            init=init,
            folds=folds,
            normalization=normalization,
            tensorboard=tensorboard,
            freeze_encoder=freeze_encoder,
            seed=seed,
            channels=channels,
            device=device,
            precision=precision,
            workers=workers,
            accumulate=accumulate,
            nonfinite=nonfinite,
            resume=resume,
            keep_state=keep_state,
            overwrite=overwrite,
            break_lock=break_lock,
            progress=progress,
        )
    if leads():
        console.written(report, json=json, quiet=quiet)
