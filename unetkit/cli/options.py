"""The options that mean the same in every command, each with its name and its help said once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

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
