"""The output of a prediction in the making: probabilities, class maps, instances, in a partial."""

from __future__ import annotations

import platform
import shlex
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.tile_predict.ensemble import alike
from unetkit.commands.tile_predict.plan import Wishes, totals
from unetkit.errors import CheckError, NonFiniteError, OutputError, StoppedError, UsageError
from unetkit.storage import outputs, urls
from unetkit.storage.atomic import recover, sweep
from unetkit.storage.chunks import write_list
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_labels, update_attributes
from unetkit.storage.images import detect, open_image
from unetkit.storage.journal import CHUNK_LIST, FOLDER, Journal
from unetkit.storage.lock import locked
from unetkit.storage.nodes import read_node
from unetkit.storage.partial import PreviousRun, find_previous_run
from unetkit.storage.pyramids import add_pyramid
from unetkit.storage.urls import base_name
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.plan import Plan
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

# What the numbers pass through.
PACKAGES = ("torch", "numpy", "zarr")
# These decide about no pixel.
UNSAID = ("max_memory", "require_complete_input", "strict")
# Settled by the plan, whether asked for or not.
SETTLED = ("tile", "precision", "batch")


def provenance(plan: Plan, *, origin: str) -> dict[str, Any]:
    """Say what a prediction is made with; files by their names only, since folders are private.

    Parameters
    ----------
    plan : Plan
        What is predicted, and how.
    origin : str
        What is read.

    Returns
    -------
    dict
        What JSON can hold. `command` makes the same pixels from the same files again, with the
        choices that were made automatically written out; `model_sha256` tells whether a model file
        is the same, and is a list where several were averaged.
    """
    header, wishes = plan.model.header, plan.wishes
    chunks, absent = totals(plan.censuses)
    return {
        "unetkit": __version__,
        "command": command_of(plan, origin=origin),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "source": base_name(origin),
        "model": alike([model.header.full_name for model in plan.model.models]),
        "model_sha256": alike([model.sha256 for model in plan.model.models]),
        "target": header.target,
        "tile": plan.tile,
        "overlap": plan.overlap,
        "tta": wishes.tta,
        "merge": wishes.merge,
        "precision": plan.precision,
        "batch": plan.batch,
        "threshold": wishes.threshold,
        "grow": wishes.grow,
        "min_size": wishes.min_size,
        "input_chunks": chunks,
        "input_chunks_absent": absent,
    }


def command_of(plan: Plan, *, origin: str) -> str:
    """Write the command line that settles all that a plan settles about the pixels."""
    words = ["unetkit", "tile-predict", base_name(origin)]
    for path in plan.model.paths:
        words += ["--model", base_name(path)]
    for field in fields(Wishes):
        value = getattr(plan if field.name in SETTLED else plan.wishes, field.name)
        if field.name in SETTLED or (field.name not in UNSAID and value != field.default):
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    picked = plan.samples[0].data.picked
    if picked is not None:
        words += ["--channels", ",".join(map(str, picked))]
    if plan.mask is not None:
        words += ["--mask", base_name(plan.mask.data.url.removesuffix("/0"))]
    return shlex.join(words)


WORK = "work"


@dataclass(frozen=True)
class Output:
    """What is made of one sample; what an earlier run left is taken up again.

    Parameters
    ----------
    plan : Plan
        What is predicted, and how.
    sample : Sample
        The input.
    normalizations : tuple of Normalization
        Its own, one for each network.
    place : str
        Where the output is made.
    origin : str
        What is read, to be named in the output.
    """

    plan: Plan
    sample: Sample
    normalizations: tuple[Normalization, ...]
    place: str
    origin: str

    def probabilities(self) -> PlaneArray:
        """Open the array of probabilities, after creating it where it is not there."""
        if read_node(self.place) is not None:
            return open_image(self.place).data.with_absolute_url()
        data, names = self.sample.data, self.plan.model.header.class_names
        axes = "".join(axis for axis in "tczyx" if axis == "c" or axis in data.axes)
        kind = self.plan.wishes.probabilities
        array = create_image(
            self.place,
            shape=[len(names) if axis == "c" else data.size(axis) for axis in axes],
            axes=axes,
            dtype=kind,
            chunk=self.plan.chunk,
            channel_names=names,
            pixel_size=self.sample.image.pixel_size,
            attributes={
                # A stored value times this is the probability.
                "scale": 1 / 255 if kind == "uint8" else 1.0,
                "normalization": alike([each.to_dict() for each in self.normalizations]),
                "prediction": provenance(self.plan, origin=self.origin),
            },
            name=self.sample.name,
            ome_version=self.plan.wishes.ome_version,
        )
        return array.with_absolute_url()

    def classes(self) -> PlaneArray:
        """Open the class map, likewise."""
        names = self.plan.model.header.class_names
        dtype = np.min_scalar_type(len(names) - 1)
        return self._labels("classes", dtype, attributes={"class_names": list(names)})

    def instances(self, dtype: np.dtype[Any]) -> PlaneArray:
        """Open the instances, likewise."""
        return self._labels("instances", dtype, attributes={})

    def _labels(self, name: str, dtype: np.dtype[Any], *, attributes: dict[str, Any]) -> PlaneArray:
        earlier = open_image(self.place).labels.get(name)
        if earlier is not None:
            return earlier.with_absolute_url()
        # What was begun when an earlier run was killed is not listed yet.
        outputs.discard(urls.join(self.place, "labels", name))
        data = self.sample.data
        axes = "".join(axis for axis in "tzyx" if axis in data.axes)
        array = create_labels(
            self.place,
            name,
            shape=[data.size(axis) for axis in axes],
            axes=axes,
            dtype=dtype,
            chunk=self.plan.chunk,
            attributes=attributes,
            pixel_size=self.sample.image.pixel_size,
        )
        return array.with_absolute_url()


@dataclass(frozen=True)
class Partial:
    """The folder in which a prediction is made: one image, or a dataset of them.

    Parameters
    ----------
    url : str
        Where it lies.
    plan : Plan
        What is predicted.
    origin : str
        What is read.
    as_dataset : bool
        Whether the output is a dataset.
    """

    url: str
    plan: Plan
    origin: str
    as_dataset: bool

    def outputs(self) -> tuple[Output, ...]:
        """Say where the output of each sample is made; creates the dataset, if it is to be one."""
        if self.as_dataset:
            self._writer()
        return tuple(
            Output(
                self.plan,
                sample,
                normalizations,
                urls.join(self.url, sample.name) if self.as_dataset else self.url,
                self.origin,
            )
            for sample, normalizations in zip(
                self.plan.samples, self.plan.normalizations, strict=True
            )
        )

    def provisional(self, like: PlaneArray) -> PlaneArray:
        """Create an empty array for the provisional ids of an image; one at a time."""
        self.discard_work()
        return create_image(
            urls.join(self.url, FOLDER, WORK),
            shape=like.shape,
            axes=like.axes,
            dtype=np.uint32,
            chunk=self.plan.chunk,
        ).with_absolute_url()

    def discard_work(self) -> None:
        """Remove what only the work needs."""
        outputs.discard(urls.join(self.url, FOLDER, WORK))

    def add_pyramids(self, *, advance: Callable[[], None]) -> None:
        """Add the smaller levels.

        Parameters
        ----------
        advance : callable
            Called after each sample.
        """
        for output in self.outputs():
            # Unlike tiles they have no checksums that would tell what a power cut left of them.
            add_pyramid(output.place, rebuild=True)
            advance()

    def complete(self, *, audit: dict[str, Any] | None = None) -> None:
        """Add the list of samples, and of chunks, which takes the place of the journal.

        Parameters
        ----------
        audit : dict, optional
            What a second look at some windows found; noted in every image.
        """
        if audit is not None:
            found = {**provenance(self.plan, origin=self.origin), "audit": audit}
            for output in self.outputs():
                update_attributes(output.place, prediction=found)
        if self.as_dataset:
            writer = self._writer()
            for sample in self.plan.samples:
                if sample.name not in writer.names:
                    writer.reserve(sample.name, source=sample.source)
            writer.finish()
        write_list(self.url, urls.join(self.url, FOLDER, CHUNK_LIST))

    def _writer(self) -> DatasetWriter:
        attributes = {"prediction": provenance(self.plan, origin=self.origin)}
        version = self.plan.wishes.ome_version
        return DatasetWriter(self.url, attributes=attributes, ome_version=version)


@dataclass(frozen=True)
class Target:
    """The output of a prediction, and the partial in which it is made.

    Parameters
    ----------
    output : str
        Where the prediction goes.
    inputs : tuple of str
        What it is made from, which it must not replace.
    resume, overwrite, break_lock, dry_run : bool
        As for `tile_predict`.
    """

    output: str
    inputs: tuple[str, ...]
    resume: bool
    overwrite: bool
    break_lock: bool
    dry_run: bool

    @classmethod
    def among(cls, options: Mapping[str, Any], *, output: str, inputs: tuple[str, ...]) -> Target:
        """Pick what may happen to an output out of all options, which bear the same names."""
        names = ("resume", "overwrite", "break_lock", "dry_run")
        return cls(output, inputs, **{name: options[name] for name in names})

    @property
    def partial(self) -> str:
        """The folder in which the prediction is made."""
        return outputs.partial_url(self.output)

    def look(self) -> PreviousRun | None:
        """Make sure that the output may be written; return what there is to be resumed.

        Raises
        ------
        UsageError
            If it is to be gone on with and replaced at once.
        OutputError
            If something is in its place that is to stay.
        """
        if self.resume and self.overwrite:
            raise UsageError("resume must be given without overwrite, got both; choose one of them")
        if self.resume:
            return find_previous_run(self.output, inputs=self.inputs)
        # A dry run says what would be done once there is room for it.
        if not self.dry_run:
            outputs.check_output(self.output, inputs=self.inputs, overwrite=self.overwrite)
        return None

    def look_alone(self) -> PreviousRun | None:
        """Look once more: another job may have ended before this one was alone.

        Raises
        ------
        OutputError
            If a stopped run's tiles would be lost without having been asked for.
        """
        earlier = self.look()
        if earlier is not None and earlier.finished:
            Journal(self.output).discard()  # in case that was all that was left to do
        asked = self.resume or self.overwrite or self.dry_run
        if not asked and Journal(self.partial).read_fingerprint() is not None:
            raise OutputError(
                f"output {self.output} must not have been begun, got the tiles of a run that was "
                "stopped; --resume goes on with them, --overwrite starts afresh"
            )
        return earlier

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other jobs away from the partial inside a `with` block."""
        if self.dry_run:
            yield
            return
        with locked(self.partial, break_lock=self.break_lock):
            recover(self.output, self.partial)
            yield

    @contextmanager
    def making(self, progress: Progress, *, fresh: bool) -> Iterator[None]:
        """Keep what is done when the work ends early, unless going on could not mend it."""
        folder = self.partial
        if fresh and urls.exists(folder):
            progress.note("an unfinished prediction is started afresh")
            outputs.discard(folder)
        elif not fresh:
            sweep(folder)
        try:
            yield
        except (UsageError, NonFiniteError):
            outputs.discard(folder)
            raise
        except (StoppedError, CheckError):
            raise  # they say themselves how to go on
        except Exception:
            progress.note("the tiles that are done are kept; --resume goes on with them")
            raise

    def publish(self) -> None:
        """Give the finished partial the output's name."""
        outputs.publish(self.partial, self.output, overwrite=self.overwrite)
        # Last, so that no moment is without a record of what is done.
        Journal(self.output).discard()


def output_of(source: str, output: str | None) -> str:
    """Say where the prediction goes, once it is known that there is something to predict.

    Raises
    ------
    MissingError
        If there is no source.
    UsageError
        If there is no name to give it.
    """
    detect(source)
    return output or outputs.output_name(source, ".prediction.zarr")
