"""The whole path on one small image: what a user would type, and how well it did."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.demo.comparison import (
    MethodScores,
    Segmented,
    draw_all,
    draw_held_out,
    draw_seams,
    held_out,
    otsu_objects,
    score,
)
from unetkit.commands.import_images.command import import_images
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.weights.command import weights
from unetkit.errors import InputError, StoppedError, UsageError, command_line
from unetkit.progress import SILENT, Progress
from unetkit.storage.atomic import make_folder, write_bytes, write_json
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image
from unetkit.storage.outputs import check_output, discard
from unetkit.storage.readers import open_file
from unetkit.storage.urls import is_remote, join
from unetkit.views.pictures import png_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from unetkit.options import Overwrite, Seed

# The demo's own choices: small enough for two cores and four minutes, good enough to be seen. More
# steps teach more, and a slow machine has no time for all of them.
STEPS = 1000
TIME = "210s"
MODEL_OPTIONS = ("depth=3", "width=16")
# Smaller than the image, so that there are seams that could be seen.
TILE = 192
# Left of this share of the width the network learns, right of it it is scored.
TRAINED_SHARE = 0.75

_PARTS = ("held-out/image.png", "held-out/labels.png")

# Everything that the demo writes into its folder, and so may replace.
_WRITTEN = (
    "images",
    "masks",
    "held-out",
    "slide.png",
    "training.zarr",
    "slide.zarr",
    "truth.zarr",
    "model.safetensors",
    "model.log.jsonl",
    "model.train",
    "slide.prediction.zarr",
    "held-out.unetkit.zarr",
    "held-out.otsu.zarr",
    "demo.png",
    "held-out.png",
    "seams.png",
    "demo.json",
)


@dataclass(frozen=True)
class DemoReport:
    """What the demo did."""

    output: str  # the folder
    scores: tuple[MethodScores, ...]  # unetkit first, then the threshold without learning
    pictures: tuple[str, ...]  # what to look at
    commands: tuple[str, ...]  # what to run next
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        plain = asdict(self)
        return plain | {name: list(plain[name]) for name in ("scores", "pictures", "commands")}


def demo(
    folder: str = "unetkit-demo",
    *,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> DemoReport:
    """Walk the whole path on a small image of cell nuclei, in a few minutes.

    The network learns from the left three quarters of the image, for at most three and a half
    minutes. The whole image is then segmented in tiles, and the right quarter is scored beside a
    threshold without learning: both segmentations are cut to the quarter, objects of fewer than ten
    pixels that the cut leaves or the method makes are dropped, and what remains is compared with
    the annotation, cut likewise.

    Parameters
    ----------
    folder : str
        Where everything is written.
    seed : int
        Same seed, same result, where there is time for all steps.
    overwrite : bool
        Replace what an earlier demo wrote there.
    progress : Progress
        Told what happens.

    Returns
    -------
    DemoReport

    Raises
    ------
    OutputError
        If the folder exists.
    UsageError
        If it is a URL.
    """
    began = time.monotonic()
    _make_room(folder, overwrite=overwrite)
    image, truth = _pair()
    border = round(image.shape[1] * TRAINED_SHARE)
    _write_inputs(folder, image, truth=truth, border=border)
    try:
        _walk(folder, seed=seed, progress=progress)
    except StoppedError as error:
        # What its commands say of going on is about commands that nobody typed.
        again = command_line("demo", folder, "--overwrite")
        raise StoppedError(
            f"the demo was to walk the whole path, got a signal on the way; '{again}' begins anew",
            signal=error.signal,
        ) from error

    known = Segmented(
        image=image,
        truth=truth,
        predicted=_instances(f"{folder}/slide.prediction.zarr"),
        weights=_weights(f"{folder}/training.zarr"),
        border=border,
    )
    methods = {"unetkit": known.predicted, "otsu": otsu_objects(image)}
    scored = {
        name: _scored(folder, name, labels, known=known, progress=progress)
        for name, labels in methods.items()
    }
    report = DemoReport(
        output=folder,
        scores=tuple(scores for _, scores in scored.values()),
        pictures=_draw(folder, known, scored=scored),
        commands=_commands(folder),
        seconds=round(time.monotonic() - began, 1),
    )
    write_json(f"{folder}/demo.json", {"unetkit": report.to_dict()})
    return report


def _make_room(folder: str, *, overwrite: bool) -> None:
    """Make the folder; with `overwrite`, remove what an earlier demo wrote, and nothing else."""
    if is_remote(folder):
        raise UsageError(f"folder must be a local path, got {folder}; name one on this machine")
    check_output(folder, overwrite=overwrite)
    for name in _WRITTEN:
        discard(join(folder, name))
    # The mark by which a later --overwrite knows the folder, also when this run is cut short.
    for name in (".unetkit", "images", "masks", "held-out"):
        make_folder(join(folder, name))


def _pair() -> tuple[npt.NDArray[np.generic], npt.NDArray[np.integer]]:
    """Read the image and its annotation that come with the package."""
    with ExitStack() as stack:
        image, labels = (
            str(stack.enter_context(as_file(files("unetkit.data").joinpath(name))))
            for name in ("demo_image.png", "demo_labels.png")
        )
        return open_file(image).load(), open_file(labels, labels=True).load()


def _write_inputs(
    folder: str,
    image: npt.NDArray[np.generic],
    *,
    truth: npt.NDArray[np.integer],
    border: int,
) -> None:
    """Write the image files that a user would have."""
    for name, array in {
        "images/nuclei.png": image[:, :border],
        "masks/nuclei.png": truth[:, :border],
        "held-out/image.png": image[:, border:],
        "held-out/labels.png": held_out(truth, border=border).astype(np.uint16),
        "slide.png": image,
    }.items():
        write_bytes(join(folder, name), png_bytes(array))


def _walk(folder: str, *, seed: int, progress: Progress) -> None:
    """Do what the commands do that a user would type, each of them told."""
    at = {name: join(folder, name) for name in (*_WRITTEN, *_PARTS)}
    training, model, slide = at["training.zarr"], at["model.safetensors"], at["slide.zarr"]
    parts = at["held-out/image.png"], at["held-out/labels.png"]

    _tell(progress, "import", at["images"], training, labels=at["masks"])
    import_images(at["images"], training, labels=at["masks"], progress=progress)
    _tell(progress, "weights", training)
    weights(training, progress=progress)
    length: dict[str, Any] = {"steps": STEPS, "time_budget": TIME, "seed": seed}
    _tell(progress, "train", training, output=model, set=MODEL_OPTIONS, **length)
    train(training, output=model, options=MODEL_OPTIONS, **length, progress=progress)
    _tell(progress, "import", at["slide.png"], slide)
    import_images(at["slide.png"], slide, progress=progress)
    _tell(progress, "tile-predict", slide, model=model, tile=TILE)
    tile_predict(slide, model=model, tile=TILE, progress=progress)
    _tell(progress, "import", parts[0], at["truth.zarr"], labels=parts[1])
    import_images(parts[0], at["truth.zarr"], labels=parts[1], progress=progress)


def _tell(progress: Progress, command: str, *arguments: str, **options: Any) -> None:
    """Show a command as a user would type it."""
    words = ["unetkit", command, *arguments]
    for name, value in options.items():
        for item in value if isinstance(value, tuple) else (value,):
            words += [f"--{name.replace('_', '-')}", str(item)]
    progress.note(f"$ {shlex.join(words)}")


def _scored(
    folder: str,
    name: str,
    labels: npt.NDArray[np.integer],
    *,
    known: Segmented,
    progress: Progress,
) -> tuple[npt.NDArray[np.integer], MethodScores]:
    """Cut a method's labels to the part that nobody trained on, and score them."""
    cut = held_out(labels, border=known.border)
    scores = score(
        join(folder, f"held-out.{name}.zarr"),
        join(folder, "truth.zarr"),
        method=name,
        image=known.image[:, known.border :],
        labels=cut,
        progress=progress,
    )
    return cut, scores


def _draw(
    folder: str,
    known: Segmented,
    *,
    scored: Mapping[str, tuple[npt.NDArray[np.integer], MethodScores]],
) -> tuple[str, ...]:
    """Draw the pictures and say where they are."""
    side_by_side, part, seams = (
        join(folder, name) for name in ("demo.png", "held-out.png", "seams.png")
    )
    draw_all(side_by_side, known)
    draw_held_out(
        part,
        known.image[:, known.border :],
        truth=held_out(known.truth, border=known.border),
        methods=scored,
    )
    draw_seams(seams, known, tile=TILE)
    return side_by_side, part, seams


def _instances(url: str) -> npt.NDArray[np.integer]:
    plane = open_image(url).labels["instances"]
    return plane.read(0, 0, plane.height, 0, plane.width)


def _weights(url: str) -> npt.NDArray[np.floating]:
    plane = open_dataset(url).samples[0].weights
    if plane is None:
        raise InputError(f"{url} must have weights, got none; run '{command_line('weights', url)}'")
    return plane.read(0, 0, plane.height, 0, plane.width)


def _commands(folder: str) -> tuple[str, ...]:
    """Say what to run next with the demo's own files."""
    at = {name: shlex.quote(join(folder, name)) for name in (*_WRITTEN, "nuclei.csv")}
    return (
        f"unetkit info {at['model.safetensors']}",
        f"unetkit eval {at['held-out.unetkit.zarr']} {at['truth.zarr']}",
        f"unetkit measure {at['slide.prediction.zarr']} {at['slide.zarr']}"
        f" --csv {at['nuclei.csv']}",
    )
