"""The options that mean the same in every command, each with its name and its help said once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from unetkit.cli import console, tables
from unetkit.cli.tables import safe
from unetkit.errors import CheckError, ResourceError
from unetkit.registry import Entry, Registry

# What has a unit or is in pixels; Typer takes no union, so that it hands over what was typed.
if TYPE_CHECKING:
    Length = float | str
else:
    Length = str

HARDWARE = "Hardware"
OUTPUT = "Output"

Output = Annotated[
    str,
    typer.Option("--output", "-o", rich_help_panel=OUTPUT, help="Where the result is written."),
]
DefaultedOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        rich_help_panel=OUTPUT,
        show_default="beside the input",
        help="Where the result is written.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", rich_help_panel=OUTPUT, help="Replace an earlier result of unetkit."
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object on stdout."),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Say nothing but errors."),
]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, help="Same seed, same result."),
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        show_default=False,
        help="Names of the array's axes, slowest first, such as 'zyx'; needed where the file "
        "does not say.",
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        show_default="all",
        help="Channels to use, in this order, by name or number: 'DAPI' or '0,2'.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        rich_help_panel=HARDWARE,
        help="Where the network runs: auto, cpu, cuda, cuda:1 or mps.",
    ),
]
Precision = Annotated[
    Literal["auto", "exact", "float32", "bfloat16", "float16"],
    typer.Option(
        "--precision",
        rich_help_panel=HARDWARE,
        help="Numbers to compute with; 'exact' gives the same bits on every run, slower.",
    ),
]
Scheduler = Annotated[
    str,
    typer.Option(
        "--scheduler",
        rich_help_panel=HARDWARE,
        help="Who runs the tiles: threads, sync, processes, local:4, tcp://host:8786 or file:PATH.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        rich_help_panel=HARDWARE,
        show_default="by the machine",
        help="How many work at once.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        rich_help_panel=HARDWARE,
        show_default="half of what is free",
        help="The most memory to take, such as 8G.",
    ),
]
BreakLock = Annotated[
    bool,
    typer.Option(
        "--break-lock",
        rich_help_panel=OUTPUT,
        help="Take the result over from another job that is known to be dead.",
    ),
]
Nonfinite = Annotated[
    Literal["error", "fill"],
    typer.Option(
        "--nonfinite",
        help="What to do about NaN and infinite pixels: stop, or read them as 0.",
    ),
]
Preview = Annotated[
    str | None,
    typer.Option(
        "--preview",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Also draw a PNG picture to look at.",
    ),
]

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
    from unetkit.commands.import_images.command import import_images as run

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
    from unetkit.commands.augment.command import augment as run

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
    from unetkit.commands.weights.command import weights as run

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
    from unetkit.commands.train.callbacks import is_main
    from unetkit.commands.train.command import train as run

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
    if is_main():
        console.written(report, json=json, quiet=quiet)


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
    from unetkit.commands.tile_predict.command import tile_predict as run

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
    from unetkit.commands.evaluate.command import evaluate as run
    from unetkit.commands.evaluate.report import parse_bound
    from unetkit.scores import table

    if list_scores:
        rows = [score.to_dict() for score in table.SCORES]
        console.found(rows, json=json, layout=tables.listed)
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
    console.found(result.to_dict(), json=json, layout=tables.evaluated)
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
    from unetkit.commands.measure import measure as run

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
    from unetkit.commands.export_prediction import export_prediction as run

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
    from unetkit.commands.info import info as run

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
    from unetkit.commands.demo.command import demo as run

    with console.progress(quiet=quiet) as progress:
        report = run(folder, seed=seed, overwrite=overwrite, progress=progress)
    console.written(report, json=json, quiet=quiet, layout=tables.walk)


PANEL = "Plugins"


class PluggedCommand(TyperCommand):
    """What stands for a command until it is called.

    Parameters
    ----------
    name : str
        The name on the command line.
    entry : Entry
        Who offers it.
    """

    def __init__(self, name: str, entry: Entry) -> None:
        origin = safe(f"from {entry.distribution} {entry.version}")
        super().__init__(name=safe(name), help=origin, rich_help_panel=PANEL)
        self.entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Load the command and let it read its arguments.

        Raises
        ------
        ResourceError
            If the distribution is broken, or offers no Typer application.
        """
        found = _commands().get(self.entry.full_name)
        if not isinstance(found, typer.Typer):
            raise ResourceError(
                f"command {self.entry} must be a typer.Typer, got {type(found).__name__}; install"
                f" another version of {self.entry.distribution} or remove it"
            )
        return typer.main.get_command(found).make_context(info_name, args, parent, **extra)


class OpenGroup(TyperGroup):
    """The commands of unetkit, and behind them those of other distributions.

    A command of unetkit's own can't be shadowed; one of the same name from elsewhere is called
    ``distribution/name``.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every name, without importing a plugin."""
        return [*super().list_commands(ctx), *self._plugged()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command of unetkit, or what stands for one of another distribution."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = self._plugged().get(cmd_name)
        if entry is None and _commands().offers(cmd_name):
            # A name of two distributions, or a full name: the registry knows or says so.
            entry = _commands().entry(cmd_name)
        return None if entry is None else PluggedCommand(cmd_name, entry)

    def called(self, name: str, *, full_name: str) -> str:
        """Return how a command of another distribution is called: unetkit's own come first."""
        return full_name if name in self.commands else name

    def _plugged(self) -> dict[str, Entry]:
        return {
            self.called(name, full_name=entry.full_name): entry
            for name, entry in _commands().entries()
        }


def _commands() -> Registry:
    return Registry("unetkit.commands", noun="command")


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
    from unetkit.commands.models import list_models as run

    console.found(run(), json=json, layout=lambda rows: [tables.table(rows)])


@models.command("show", epilog="Example: unetkit models show unet --set depth=3")
def show_model(
    source: Source, *, options: Options = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Say which sizes a model takes, what its options mean and how many parameters it has."""
    from unetkit.commands.models import show_model as run

    with console.progress(quiet=quiet) as progress:
        found = run(source, options=options or (), progress=progress)
    console.found(found, json=json, layout=tables.model)


@models.command("check", epilog="Example: unetkit models check unet --set depth=2 --set width=4")
def check_model(
    source: Source, *, options: Options = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Hold a model to everything that unetkit relies on, with real passes."""
    from unetkit.commands.models import check_model as run

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
    from unetkit.commands.export_model import export_model as run

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
    from unetkit.commands.plugins import list_plugins as run

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
    from unetkit.commands.plugins import new_plugin as run

    console.written(run(folder), json=json, quiet=quiet)
