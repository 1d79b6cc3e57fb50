"""The output of a prediction in the making: probabilities, class maps, instances, in a partial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.pipeline.tile_predict_ensemble import alike
from unetkit.pipeline.tile_predict_provenance import provenance
from unetkit.storage import files, urls
from unetkit.storage.chunks import write_list
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.images import add_pyramid, create_image, create_labels, open_image
from unetkit.storage.journal import CHUNK_LIST, FOLDER
from unetkit.storage.nodes import read_node
from unetkit.storage.writing import update_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.arrays.normalization import Normalization
    from unetkit.pipeline.tile_predict_plan import Plan
    from unetkit.storage.datasets import Sample
    from unetkit.storage.planes import PlaneArray

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
            return from_anywhere(open_image(self.place).data)
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
        return from_anywhere(array)

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
            return from_anywhere(earlier)
        # What was begun when an earlier run was killed is not listed yet.
        files.discard(urls.join(self.place, "labels", name))
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
        return from_anywhere(array)


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
        return from_anywhere(
            create_image(
                urls.join(self.url, FOLDER, WORK),
                shape=like.shape,
                axes=like.axes,
                dtype=np.uint32,
                chunk=self.plan.chunk,
            )
        )

    def discard_work(self) -> None:
        """Remove what only the work needs."""
        files.discard(urls.join(self.url, FOLDER, WORK))

    def add_pyramids(self, *, advance: Callable[[], None]) -> None:
        """Add the smaller levels.

        Parameters
        ----------
        advance : callable
            Called after each sample.
        """
        for output in self.outputs():
            # Unlike tiles they have no checksums that would tell what a power cut left of them.
            add_pyramid(output.place, anew=True)
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


def from_anywhere(data: PlaneArray) -> PlaneArray:
    """Name an array so that a worker with another working folder finds it too."""
    return replace(data, url=urls.anywhere(data.url))
