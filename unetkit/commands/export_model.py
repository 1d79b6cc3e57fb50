"""Write a model file for other programs, with proof that it computes the same there."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from unetkit.arrays.normalization import fit
from unetkit.errors import InputError, UnetkitError, UsageError
from unetkit.models.bioimageio import LARGEST_GAP, Told, check_packable, fitting_name, pack
from unetkit.models.export import InputSizes, check_onnx, export
from unetkit.models.inference import predict_array, to_classes
from unetkit.models.joint_header import usual_decision
from unetkit.models.model_card import NORMALIZATIONS, model_card
from unetkit.models.model_file import load
from unetkit.models.model_header import PACKED, SUFFIX, export_path, open_model
from unetkit.progress import SILENT, collects_warnings, warn
from unetkit.storage.atomic import write_bytes
from unetkit.storage.datasets import open_dataset
from unetkit.storage.outputs import check_output
from unetkit.storage.urls import base_name, is_remote
from unetkit.views.pictures import cover_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unetkit.models.model_file import LoadedModel
    from unetkit.models.model_header import ModelHeader
    from unetkit.options import Opt
    from unetkit.progress import Progress

# Our choice: what a cover shows at most, and noise in the place of an image has, in pixels a side.
SIDE = 512


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` wrote."""

    output: str
    format: str  # pt2, onnx or bioimageio
    # Of the images that it takes: `minimum` + k * `step` pixels along each axis; a step of 0 is one
    # size only.
    minimum: int
    step: int
    # From the original: of a logit on a probe, as a share of the largest; or of a probability,
    # predicted by blocks, in a package.
    largest_difference: float
    bytes: int
    example: str = ""  # the image that a package shows and is tried with
    # Of a network alone: pixels that its output has less on each side, and what makes its input.
    margin: int | None = None
    normalization: str = ""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {**asdict(self), "warnings": list(self.warnings)}


@collects_warnings
def export_model(
    source: Annotated[str, Opt(metavar="FILE")],
    *,
    to: Literal["pt2", "onnx", "bioimageio"] = "pt2",
    output: Annotated[
        str | None,
        Opt(
            flags=("--output", "-o"),
            default="beside the file",
        ),
    ] = None,
    size: Annotated[int | None, Opt(metavar="PIXELS", min=1, default="any that fits")] = None,
    sample: Annotated[
        str | None,
        Opt(metavar="ZARR", panel="bioimageio", default="held-out images, where they are found"),
    ] = None,
    name: Annotated[str | None, Opt(panel="bioimageio", default="that of the file")] = None,
    author: Annotated[tuple[str, ...], Opt(panel="bioimageio", metavar="NAME")] = (),
    license: Annotated[  # noqa: A002 - what the format and everybody calls it
        str | None, Opt(panel="bioimageio", metavar="SPDX")
    ] = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.models.model_header:check_new_model_export")
    ] = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write a model for other programs, and compare what it computes there.

    Parameters
    ----------
    source : str
        A .safetensors model file.
    to : {"pt2", "onnx", "bioimageio"}
        The format: ``pt2``, which torch.export.load reads, ``onnx``, or ``bioimageio``, a package
        for bioimage.io (both: extra 'onnx').
    output : str, optional
        Where the export is written.
    size : int, optional
        One height and width for all images, in pixels, rounded up to what the model takes; for
        programs that can't have several.
    sample : str, optional
        A dataset or image, for a package's cover and its own test; what is shown goes with it.
    name : str, optional
        What the package calls the model.
    author : sequence of str
        Who made the model, as NAME or 'NAME, AFFILIATION'; may be repeated.
    license : str, optional
        What the model may be used for, such as CC-BY-4.0.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told about the work.

    Returns
    -------
    ExportReport

    Raises
    ------
    UsageError
        If an option belongs to another format, or no package can keep what the model promises.
    InputError
        If the model file is missing or damaged, or the sample doesn't fit it.
    OutputError
        If the output exists.
    ResourceError
        If a package is missing.
    CheckError
        If the export computes something else.
    """
    told = {"sample": sample, "name": name, "author": author, "license": license}
    _check_options(to, size=size, told=told)
    output = output or export_path(source, to)
    check_output(
        output, inputs=[source, *([] if sample is None else [sample])], overwrite=overwrite
    )
    loaded = load(source)
    header = loaded.header
    if to == "bioimageio":
        said = Told(fitting_name(name or base_name(source).removesuffix(SUFFIX)), author, license)
        if name not in (None, said.name):
            warn(progress, f"name {name!r} becomes {said.name!r}, since it may have no other signs")
        return _package(
            loaded, said, source=source, sample=sample, output=output, progress=progress
        )
    side = None if size is None else header.contract.legal(size)
    if side != size:
        warn(progress, f"size {size} becomes {side}, the next that the model takes")
    progress.start("export", total=1)
    facts = {"header": header.to_dict(), "sha256": loaded.sha256}
    takes = InputSizes.of(header.contract, channels=header.in_channels, size=side)
    written = export(loaded.module, to=to, sizes=takes, facts=facts)
    write_bytes(output, written.content)
    progress.advance()
    progress.note(_usage(header, takes))
    return ExportReport(
        *(output, to, takes.minimum, takes.step, written.gap, len(written.content)),
        margin=header.contract.margin,
        normalization=header.normalization,
    )


def _usage(header: ModelHeader, takes: InputSizes) -> str:
    """Say what a program must do that has the network alone."""
    least, step, margin = takes.minimum, takes.step, header.contract.margin
    sides = f"{least} pixels"
    if step:
        sides = f"{least} + {step} k pixels ({least}, {least + step}, {least + 2 * step}, ...)"
    how = NORMALIZATIONS.get(header.normalization, header.normalization)
    size = "in maps of the same size"
    if margin:
        size = (
            f"in maps whose height and width are {2 * margin} pixels smaller: mirror the image by"
            f" {margin} pixels at each border, and they are of the image's size"
        )
    return (
        f"It takes float32 images (N, {takes.channels}, height, width) with sides of {sides},"
        f" normalized by numbers of the whole image: {how}, unclipped. It returns a logit for each"
        f" of {len(header.class_names)} classes {size}."
    )


def _check_options(to: str, *, size: int | None, told: dict[str, Any]) -> None:
    """Refuse options of another format, and what a package can't hold."""
    given = [option for option, value in told.items() if value]
    if to != "bioimageio":
        if given:
            raise UsageError(
                f"{given[0]} must come with a package, got --to {to}; add --to bioimageio"
            )
        return
    if size is not None:
        raise UsageError(f"a package must take any size that fits, got {size}; leave out --size")
    for author in told["author"]:
        if not author.partition(",")[0].strip() or "/" in author:
            raise UsageError(
                f"an author must be a name, or a name and an affiliation after a comma, without a"
                f" slash, got {author!r}; try --author 'Ada Lovelace, University of London'"
            )
    licence = told["license"]
    if licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        raise UsageError(
            f"license must be the short name of one, as spdx.org lists them, got {licence!r};"
            " try CC-BY-4.0"
        )


def _package(
    loaded: LoadedModel,
    told: Told,
    *,
    source: str,
    sample: str | None,
    output: str,
    progress: Progress,
) -> ExportReport:
    """Write a package for bioimage.io."""
    header = loaded.header
    check_packable(header)
    check_onnx()
    image, example = _example(header, source, sample)
    progress.start("export", total=3)
    cover = None
    if example:
        progress.note(f"The package shows and holds a part of {example}.")
        cover = _cover(loaded, image)
    else:
        warn(
            progress,
            "no held-out image was found, so the package has no cover and is tried with noise;"
            " name a dataset or an image with --sample",
        )
    progress.advance(status="image")
    package = pack(loaded.module, header, image)
    progress.advance(status="blocks")
    sizes = package.sizes
    sides = (
        f"In programs that use bioimageio.core, predicted by blocks, it equals unetkit's"
        f" tile-predict to {LARGEST_GAP} ({package.gap:.1g} when it was written) for images whose"
        f" height and width are multiples of {sizes.step} pixels and at least as large as a block,"
        f" {sizes.least} pixels or a multiple of {sizes.step} more. Pad others first. There are no"
        f" objects in it, only probabilities; `{PACKED}` in the package is the model for unetkit."
    )
    card = model_card(
        header, name=told.name, licence=told.licence, authors=told.authors, more=[sides]
    )
    with open_model(source) as stream:
        model = stream.read()
    content = package.to_bytes(told, example=example, card=card, model=model, cover=cover)
    write_bytes(output, content)
    progress.advance(status="file")
    return ExportReport(
        output, "bioimageio", sizes.least, sizes.step, package.gap, len(content), example
    )


def _example(
    header: ModelHeader, source: str, sample: str | None
) -> tuple[NDArray[np.float32], str]:
    """Return raw intensities (C, Y, X) and what they are of; noise, and nothing, without any."""
    data = header.provenance.get("data")
    if sample is not None:
        return _of_dataset(header, sample)
    if isinstance(data, str) and not is_remote(source):
        for folder in (Path(source).parent, Path()):
            # What is there may be another by that name, or none.
            with suppress(UnetkitError):
                return _of_dataset(header, str(folder / base_name(data)))
    shape = (header.in_channels, SIDE, SIDE)
    return np.random.default_rng(0).random(shape, np.float32), ""


def _of_dataset(header: ModelHeader, url: str) -> tuple[NDArray[np.float32], str]:
    """Return the middle of an image of a dataset, of those that were held out if there are any."""
    dataset = open_dataset(url, trained=header.channels)
    told = header.provenance
    held_out = set(told.get("validated_on") or ()) - set(told.get("trained_on") or ())
    if base_name(url) != told.get("data"):
        held_out = set()
    chosen = next((s for s in dataset.samples if s.name in held_out), dataset.samples[0])
    data = chosen.data
    if data.channel_count != header.in_channels:
        raise InputError(
            f"{url} must have {header.in_channels} channels, as the model takes, got"
            f" {data.channel_count} in {chosen.name!r}; name other images with --sample"
        )
    (y, height), (x, width) = (
        (max(0, n - SIDE) // 2, min(n, SIDE)) for n in (data.height, data.width)
    )
    block = data.read(data.planes // 2, y, y + height, x, x + width)
    name = chosen.name if dataset.kind != "dataset" else f"{chosen.name} of {base_name(url)}"
    return block.astype(np.float32), name


def _cover(loaded: LoadedModel, image: NDArray[np.float32]) -> bytes:
    """Draw an image beside what the model finds in it."""
    header = loaded.header
    seen = fit(lambda: [image], method=header.normalization).apply(image)
    probabilities = predict_array(loaded.module, seen, contract=header.contract)
    decision = header.decision or usual_decision(header)
    threshold = 0.5 if decision.threshold is None else decision.threshold
    return cover_picture(
        image, to_classes(probabilities, threshold=threshold, target=header.target)
    )
