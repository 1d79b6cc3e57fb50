"""What a prediction stores: probabilities, class maps, instances, and how they were made."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.arrays.uncertainty import LEVELS, MEASURE
from unetkit.commands.tile_predict.ensemble import common_value
from unetkit.commands.tile_predict.magnification import MODEL_SIZE, RescaledSample
from unetkit.commands.tile_predict.plan import PredictOptions, missing_chunks
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.models.decision import OF_WATERSHED
from unetkit.progress import SILENT, span, warn, warnings_of
from unetkit.storage import outputs, urls
from unetkit.storage.chunks import write_list
from unetkit.storage.collections import create_plate
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import (
    create_image,
    create_labels,
    create_uncertainty,
    update_attributes,
)
from unetkit.storage.images import detect, open_image
from unetkit.storage.journal import CHUNK_LIST, FOLDER, Journal
from unetkit.storage.nodes import GroupNode, is_consolidated, read_node
from unetkit.storage.ome import UNCERTAINTY, label_names, provenance_marks
from unetkit.storage.partial import PartialLabels
from unetkit.storage.pyramids import add_pyramid, steps_of
from unetkit.storage.urls import base_name
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.progress import Progress, Told
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.ome import OmeVersion
    from unetkit.storage.partial import Partial
    from unetkit.storage.planes import PlaneArray

# What a user allows a partial.
ALLOWED = ("resume", "overwrite", "break_lock", "dry_run")
# What the numbers pass through.
PACKAGES = ("torch", "numpy", "zarr")
# These decide about no pixel.
UNSAID = ("max_memory", "require_complete_input", "strict")
# What is told of the settings beside the command.
TOLD = ("tile", "overlap", "tta", "merge", "precision", "batch", "threshold", "grow", "min_size")
# Settled by the plan, whether asked for or not.
SETTLED = ("tile", "precision", "batch")


def provenance(plan: Plan, *, origin: str, warnings: Sequence[str]) -> dict[str, Any]:
    """Say what a prediction is made with; files by their names only, since folders are private.

    `command` makes the same pixels from the same files again, with the choices that were made
    automatically written out; `model_sha256` tells whether a model file is the same, and is a list
    where several were averaged.
    """
    chunks, absent = missing_chunks(plan.inventories)
    decision = plan.model.header.decision
    return {
        "unetkit": __version__,
        "command": command_of(plan, origin=origin),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "source": base_name(origin),
        "model": common_value([file.header.full_name for file in plan.model.files]),
        "model_sha256": common_value([file.sha256 for file in plan.model.files]),
        **plan.model.networks,
        "target": plan.model.header.target,
        **{name: _settled(plan, name) for name in TOLD},
        **plan.options.separation,
        **({"uncertainty": {"looks": plan.looks}} if plan.options.uncertainty else {}),
        **({} if decision is None else {"decision": decision.to_dict()}),
        **plan.judged,
        "input_chunks": chunks,
        "input_chunks_absent": absent,
        **({"warnings": list(warnings)} if warnings else {}),
    }


def stored_warnings(url: str) -> tuple[str, ...]:
    """Return what was warned of when a prediction was made, or begun."""
    return _warnings_in(told_of(url))


def told_of(url: str) -> dict[str, Any]:
    """Return what `provenance` said of a prediction."""
    node = read_node(url)
    told = provenance_marks(node).get("prediction") if isinstance(node, GroupNode) else None
    return told if isinstance(told, dict) else {}


def _warnings_in(told: Mapping[str, Any]) -> tuple[str, ...]:
    found = told.get("warnings")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _settled(plan: Plan, name: str) -> Any:
    return getattr(plan if hasattr(plan, name) else plan.options, name)


def command_of(plan: Plan, *, origin: str) -> str:
    """Write the command line that settles all that a plan settles about the pixels."""
    words = ["unetkit", "tile-predict", base_name(origin)]
    for path in plan.model.paths:
        words += ["--model", base_name(path)]
    # A model that brings a decision may be fitted anew, which must not change what this makes.
    decided = set(plan.model.header.decision.numbers if plan.model.header.decision else ())
    decided |= {"separate"} if "seed_level" in decided else set()
    # Numbers of a watershed are refused without one.
    decided -= set() if plan.options.separation else set(OF_WATERSHED)
    for option in fields(PredictOptions):
        value = getattr(plan if option.name in SETTLED else plan.options, option.name)
        usual = value == option.default and option.name not in decided
        if value is True and not usual and option.name not in UNSAID:
            words.append(f"--{option.name.replace('_', '-')}")
        elif option.name in SETTLED or not (usual or option.name in UNSAID):
            words += [f"--{option.name.replace('_', '-')}", str(value)]
    picked = plan.samples[0].data.picked
    if picked is not None:
        words += ["--channels", ",".join(map(str, picked))]
    if plan.mask is not None:
        words += ["--mask", base_name(plan.mask.data.url.removesuffix("/0"))]
    return shlex.join(words)


WORK = "work"
# The side of its chunks, in pixels, where they can be halved.
LARGEST_WORK = 512


@dataclass(frozen=True)
class SampleOutput:
    """What is made of one sample; what an earlier run left is taken up again."""

    plan: Plan
    sample: Sample
    normalizations: tuple[Normalization, ...]  # one for each network
    place: str  # where it is made
    provenance: dict[str, Any]
    begun: bool  # whether an earlier run, or this one, has made all of it
    rescaled: RescaledSample | None = None  # how the image is read, where at another pixel size
    published: SampleOutput | None = None  # at the image's own size, where this is at the model's
    # What was opened, by its place: to look at its documents again takes longer than a small tile.
    arrays: dict[str, PlaneArray] = field(default_factory=dict, compare=False, repr=False)

    def _once(self, place: str, make: Callable[[], PlaneArray]) -> PlaneArray:
        if place not in self.arrays:
            self.arrays[place] = make()
        return self.arrays[place]

    @property
    def all(self) -> tuple[SampleOutput, ...]:
        """List it, and the same at the image's own size."""
        return (self,) if self.published is None else (self, self.published)

    def create(self) -> None:
        """Create the arrays that tiles are written into, that of the image's own size first."""
        for output in reversed(self.all):
            output.probabilities()
            output.classes()
            output.uncertainty()

    def probabilities(self) -> PlaneArray:
        """Open the array of probabilities, after creating it where it is not there."""
        return self._once(self.place, self._probabilities)

    def _probabilities(self) -> PlaneArray:
        if read_node(self.place) is not None:
            return open_image(self.place).data.with_absolute_url()
        self._check_not_begun(self.place)
        data, names = self.sample.data, self.plan.model.header.class_names
        axes = "".join(axis for axis in "tczyx" if axis == "c" or axis in data.axes)
        kind = self.plan.options.probabilities
        told = self.sample.image.pixel_size if self.plan.options.pixel_size else None
        array = create_image(
            self.place,
            shape=[len(names) if axis == "c" else data.size(axis) for axis in axes],
            axes=axes,
            dtype=kind,
            chunk=self.plan.chunk,
            channel_names=names,
            pixel_size=self.sample.image.pixel_size,
            placement=self.sample.image.placement,
            attributes={
                # A stored value times this is the probability.
                "scale": 1 / 255 if kind == "uint8" else 1.0,
                **({} if told is None else {"pixel_size": told}),
                "normalization": common_value([each.to_dict() for each in self.normalizations]),
                # The channels of the image that the networks saw, where these were chosen.
                **({} if data.picked is None else {"picked_channels": list(data.picked)}),
                **self._rescaled(),
                "prediction": self.provenance,
            },
            name=self.sample.name,
            ome_version=self.plan.options.ome_version,
        )
        return array.with_absolute_url()

    def _rescaled(self) -> dict[str, Any]:
        if self.rescaled is None:
            return {}
        return {"rescaled": {**self.rescaled.to_dict(), "at": self.plan.options.at}}

    def classes(self) -> PlaneArray:
        """Open the class map, likewise."""
        return self._once(urls.join(self.place, "labels", "classes"), self._classes)

    def _classes(self) -> PlaneArray:
        names = self.plan.model.header.class_names
        new = NewLabels(
            *(self.place, "classes", self._plain_axes, self._plain_shape, self.plan.chunk),
            {"class_names": list(names)},
        )
        if (earlier := new.earlier()) is not None:
            return earlier
        self._check_not_begun(urls.join(self.place, "labels"))
        return new.create(np.min_scalar_type(len(names) - 1), listed=True)

    @property
    def _plain_axes(self) -> str:
        return "".join(axis for axis in "tzyx" if axis in self.sample.data.axes)

    @property
    def _plain_shape(self) -> tuple[int, ...]:
        return tuple(self.sample.data.size(axis) for axis in self._plain_axes)

    def uncertainty(self) -> PlaneArray | None:
        """Open how unsure all looks are, likewise; None where it is not asked for."""
        if not self.plan.options.uncertainty:
            return None
        return self._once(urls.join(self.place, UNCERTAINTY), self._uncertainty)

    def _uncertainty(self) -> PlaneArray:
        earlier = open_image(self.place).uncertainty
        if earlier is not None:
            return earlier.with_absolute_url()
        place = urls.join(self.place, UNCERTAINTY)
        self._check_not_begun(place)
        # What was begun when an earlier run was killed.
        outputs.discard(place)
        array = create_uncertainty(
            self.place,
            shape=self._plain_shape,
            axes=self._plain_axes,
            chunk=self.plan.chunk,
            attributes={
                "measure": MEASURE,
                # A stored value times this is the share.
                "scale": 1 / LEVELS,
                "looks": self.plan.looks,
            },
        )
        return array.with_absolute_url()

    def _check_not_begun(self, lost: str) -> None:
        """Make sure that nothing is made in the place of what an earlier run had made."""
        if self.begun:
            raise OutputError(
                f"{lost} must hold and list what a run that was stopped had written, got less;"
                " bring it back, or start afresh with --overwrite, without --resume"
            )

    def instances(self) -> NewLabels:
        """Say how the instances are made; they count once they are listed."""
        place = urls.absolute(self.place)
        return NewLabels(place, "instances", self._plain_axes, self._plain_shape, self.plan.chunk)


@dataclass(frozen=True)
class NewLabels:
    """Labels of an image that are yet to be made; it travels to workers, who may make them."""

    image: str
    name: str
    axes: str
    shape: tuple[int, ...]
    chunk: int
    attributes: dict[str, Any] = field(default_factory=dict)

    def earlier(self) -> PlaneArray | None:
        """Open what an earlier run made and listed."""
        if self.name not in label_names(read_node(urls.join(self.image, "labels"))):
            return None
        found = open_image(self.image).labels.get(self.name)
        return None if found is None else found.with_absolute_url()

    def create(self, dtype: np.dtype[Any], *, listed: bool = False) -> PlaneArray:
        """Create them, or open what an earlier run made."""
        if (earlier := self.earlier()) is not None:
            return earlier
        # What was begun when an earlier run was killed is not listed yet.
        outputs.discard(urls.join(self.image, "labels", self.name))
        array = create_labels(
            self.image,
            self.name,
            shape=self.shape,
            axes=self.axes,
            dtype=dtype,
            chunk=self.chunk,
            attributes=self.attributes,
            listed=listed,
        )
        return array.with_absolute_url()


Layout = Literal["image", "dataset", "plate"]


def layout_of(dataset: Dataset) -> Layout:
    """Say how a prediction is laid out: of several images a dataset, of a plate a plate."""
    if dataset.kind == "plate":
        return "plate"
    return "image" if dataset.kind in ("image", "array") else "dataset"


def place_in(url: str, sample: Sample, layout: Layout) -> str:
    """Say where a sample lies in a prediction."""
    if layout == "image":
        return url
    return urls.join(url, sample.path if layout == "plate" else sample.name)


@dataclass(frozen=True)
class PredictionStore:
    """What is made in a partial: one image, a dataset of them, or a plate."""

    partial: Partial
    plan: Plan
    origin: str  # what is read
    layout: Layout
    progress: Progress = SILENT  # knows what there was to be warned of
    _outputs: list[tuple[SampleOutput, ...]] = field(default_factory=list, compare=False)

    @property
    def url(self) -> str:
        """Where it is made."""
        return self.partial.folder

    @property
    def in_place(self) -> bool:
        """Whether only labels are kept, beside the images that they are of."""
        return isinstance(self.partial, PartialLabels)

    def outputs(self) -> tuple[SampleOutput, ...]:
        """Say where the output of each sample is made; creates what is around them, if anything."""
        if not self._outputs:
            self._outputs.append(self._make_outputs())
        return self._outputs[0]

    def _make_outputs(self) -> tuple[SampleOutput, ...]:
        if self.layout == "dataset":
            self._writer()
        elif self.layout == "plate":
            self._create_plate()
        told = self._provenance()
        begun = Journal(self.url).read_fingerprint() is not None
        found = []
        for sample, normalizations in zip(self.plan.samples, self.plan.normalizations, strict=True):
            place = place_in(self.url, sample, self.layout)
            made = SampleOutput(self.plan, sample, normalizations, place, told, begun)
            if isinstance(sample, RescaledSample):
                made = replace(made, rescaled=sample)
            if self.plan.is_magnified(sample):
                published = replace(made, sample=sample.as_stored)
                made = replace(made, place=urls.join(place, MODEL_SIZE), published=published)
            found.append(made)
        return tuple(found)

    def provisional(self, like: PlaneArray) -> PlaneArray:
        """Create an empty array for the provisional ids of an image; one at a time."""
        self.discard_work()
        # Growing reads a few lines of what is around a block, for which whole chunks are decoded.
        parts = 2 if self.plan.chunk > LARGEST_WORK and self.plan.chunk % 2 == 0 else 1
        return create_image(
            urls.join(self.url, FOLDER, WORK),
            shape=like.shape,
            axes=like.axes,
            dtype=np.uint32,
            chunk=self.plan.chunk // parts,
        ).with_absolute_url()

    def discard_work(self) -> None:
        """Remove what only the work needs."""
        outputs.discard(urls.join(self.url, FOLDER, WORK))

    def add_pyramids(self, *, told: Told) -> None:
        """Add the smaller levels; `told` takes the share that is done."""
        outputs = self.outputs()
        for number, output in enumerate(outputs):
            part = span(told, number / len(outputs), (number + 1) / len(outputs))
            # Labels in their places have the levels of their image.
            made = output.published or output
            steps = steps_of(made.sample.image.url) if self.in_place else None
            # Unlike tiles they have no checksums that would tell what a power cut left of them.
            add_pyramid(made.place, rebuild=True, steps=steps, told=part)
            if self.plan.options.uncertainty:
                add_pyramid(urls.join(made.place, UNCERTAINTY), rebuild=True, steps=steps)
            part(1.0)

    def complete(self, **noted: dict[str, Any] | None) -> None:
        """Add the list of samples, and of chunks, which takes the place of the journal.

        What is `noted`, such as what an audit found, is added to the provenance of every image,
        and what was warned of late.
        """
        late: dict[str, Any] = {name: value for name, value in noted.items() if value is not None}
        for output in (one for each in self.outputs() for one in each.all):
            told, labels = told_of(output.place), urls.join(output.place, "labels")
            if warnings_of(self.progress) != _warnings_in(told):
                late["warnings"] = list(warnings_of(self.progress))
            if late:
                update_attributes(output.place, prediction={**told, **late})
            beside = [urls.join(labels, name) for name in label_names(read_node(labels))]
            if self.plan.options.uncertainty:
                beside.append(urls.join(output.place, UNCERTAINTY))
            for place in beside if self.in_place else ():
                update_attributes(place, prediction={**told, **late})
        if self.layout == "plate":
            update_attributes(self.url, prediction=self._provenance())
        if self.layout == "dataset":
            writer = self._writer()
            for sample in self.plan.samples:
                if sample.name not in writer.names:
                    writer.reserve(sample.name, source=sample.source, group=sample.group)
            writer.finish()
        write_list(self.url, urls.join(self.url, FOLDER, CHUNK_LIST))

    def _provenance(self) -> dict[str, Any]:
        return provenance(self.plan, origin=self.origin, warnings=warnings_of(self.progress))

    def _create_plate(self) -> None:
        origin = read_node(self.origin)
        if read_node(self.url) is None and isinstance(origin, GroupNode):
            create_plate(
                self.url,
                origin,
                [sample.field for sample in self.plan.samples if sample.field],
                attributes={"prediction": self._provenance()},
                ome_version=self.plan.options.ome_version,
            )

    def _writer(self) -> DatasetWriter:
        attributes = {"prediction": self._provenance()}
        version = self.plan.options.ome_version
        return DatasetWriter(self.url, attributes=attributes, ome_version=version)


def output_of(source: str, output: str | None, *, in_place: bool = False) -> str:
    """Say where the prediction goes, once it is known that there is something to predict."""
    detect(source)
    if in_place and output is not None:
        raise UsageError(f"--in-place must come without --output, got {output}; leave one out")
    return output or (source if in_place else outputs.output_name(source, ".prediction.zarr"))


def parts_in_place(
    dataset: Dataset, target: str, *, uncertainty: bool
) -> tuple[tuple[str, str, str], ...]:
    """List what is made to lie below images: path in the partial, image, path below the image."""
    names = ["labels/classes", *(["labels/instances"] if has_instances(target) else [])]
    names += [UNCERTAINTY] if uncertainty else []
    layout = layout_of(dataset)
    return tuple(
        (place_in("", sample, layout).lstrip("/") + f"/{name}", sample.image.url, name)
        for sample in dataset.samples
        for name in names
    )


def partial_in_place(
    partial: Partial, dataset: Dataset, target: str, *, uncertainty: bool = False
) -> PartialLabels:
    """Return the partial of labels that go beside their images."""
    allowed = {name: getattr(partial, name) for name in ALLOWED}
    output = partial.output
    place = outputs.partial_url(output if urls.is_remote(output) else str(urls.resolved(output)))
    parts = parts_in_place(dataset, target, uncertainty=uncertainty)
    return PartialLabels(output, at=place, parts=parts, **allowed)


def version_in_place(dataset: Dataset, progress: Progress, *, at: str) -> OmeVersion:
    """Return the version of images that are to get labels; what can't have any is refused."""
    if at != "slide":
        raise UsageError(
            f"labels in their places must have the size of their image, got --at {at}; leave out"
            " --in-place"
        )
    if dataset.kind in ("dataset", "stack", "array"):
        raise UsageError(
            f"labels can be put in their place in an OME-Zarr image, a plate or series, got the "
            f"{dataset.kind} {dataset.url}; leave out --in-place"
        )
    formats = {sample.data.zarr_format for sample in dataset.samples}
    if len(formats) > 1:
        raise InputError(
            f"images of {dataset.url} must be of one version to get labels in their places, got"
            " OME-Zarr 0.4 and 0.5; predict into another store"
        )
    if is_consolidated(dataset.url):
        warn(
            progress,
            f"{dataset.url} has consolidated metadata, which will not list the new labels until"
            " they are consolidated anew, in Python by zarr.consolidate_metadata",
        )
    return "0.4" if formats == {2} else "0.5"
