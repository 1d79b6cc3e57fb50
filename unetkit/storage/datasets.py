"""Open a dataset: many samples of differing sizes in one store; the way in to build one too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError
from unetkit.storage.dataset_writer import DatasetWriter, write_sample
from unetkit.storage.detection import kind_of, node_at, refuse_incomplete
from unetkit.storage.metadata import listed_samples, marks
from unetkit.storage.nodes import ArrayNode, GroupNode
from unetkit.storage.opening import Image, bare_image, choose_channels, ome_image
from unetkit.storage.stacks import stack_images
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from unetkit.storage.planes import PlaneArray

__all__ = ["Dataset", "DatasetWriter", "Sample", "open_dataset", "write_sample"]


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, with its labels and weights.

    Parameters
    ----------
    name : str
        Its name in the dataset.
    source : str
        What it was made from: samples with one source never stand on both sides of a split.
    image : Image
        The image.
    dataset : str
        Where the dataset lies, for errors.
    """

    name: str
    source: str
    image: Image
    dataset: str = ""

    @property
    def data(self) -> PlaneArray:
        """The pixels."""
        return self.image.data

    @property
    def label_kind(self) -> str | None:
        """`instances`, `classes`, or None where there are no labels."""
        return next((k for k in ("instances", "classes") if k in self.image.labels), None)

    def labels(self, kind: str | None = None) -> PlaneArray:
        """Return the labels of a kind, or of the kind there is.

        Raises
        ------
        InputError
            If there are none; the error says how to add them.
        """
        wanted = kind or self.label_kind
        if wanted in self.image.labels:
            return self.image.labels[wanted]
        if self.label_kind is not None:
            raise InputError(
                f"sample {self.name!r} in {base_name(self.dataset or self.image.url)} must have "
                f"labels of the kind {kind!r}, got {self.label_kind}; import masks of {kind}, or "
                f"predict with a model that was trained on {kind}"
            )
        what = "labels" if kind is None else f"labels of the kind {kind!r}"
        raise InputError(
            f"sample {self.name!r} in {base_name(self.dataset or self.image.url)} has no {what}; "
            "run 'unetkit import' with --labels"
        )

    @property
    def ignore(self) -> PlaneArray | None:
        """The mask of pixels that nothing may be learnt from or scored on, if there is one."""
        return self.image.labels.get("ignore")

    @property
    def weights(self) -> PlaneArray | None:
        """The stored weights, if there are any."""
        return self.image.weights

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if they were given."""
        names = self.image.label_attributes.get("classes", {}).get("class_names") or ()
        return tuple(str(name) for name in names)


@dataclass(frozen=True)
class Dataset:
    """What was opened as a dataset: `kind` says what it is on disk."""

    url: str
    kind: str
    samples: tuple[Sample, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples, in stored order."""
        return tuple(sample.name for sample in self.samples)

    def __getitem__(self, name: str) -> Sample:
        for sample in self.samples:
            if sample.name == name:
                return sample
        raise InputError(
            f"a sample of {self.url} must be one of {', '.join(self.names[:20])}, got {name!r}"
        )


def open_dataset(
    url: str, *, axes: str | None = None, channels: str | None = None, mixed: bool = False
) -> Dataset:
    """Open a dataset; an image, a stack or a bare array counts as one too.

    Parameters
    ----------
    url : str
        A path or URL.
    axes : str, optional
        The axes of a bare array or of a stack's images, where they are not named.
    channels : str, optional
        Which channels, in which order: `0,2` or `DAPI,GFP`.
    mixed : bool
        Whether samples may differ in their channel counts, or be none at all.

    Returns
    -------
    Dataset
        Everything in it was judged, and no pixel was read.

    Raises
    ------
    MissingError
        If there is nothing.
    InputError
        If it is something else or damaged, or if samples differ in their channel counts.
    UsageError
        If `axes` or `channels` do not fit.
    """
    refuse_incomplete(url)
    node = node_at(url)
    kind = kind_of(node)
    if isinstance(node, ArrayNode):
        images = [bare_image(node, axes=axes)]
    elif kind == "image":
        images = [ome_image(node, axes=axes)]
    elif kind == "stack":
        images = list(stack_images(node, axes=axes))
    else:
        samples = _listed(node)
        return _checked(Dataset(url, kind, samples, marks(node)), channels, mixed=mixed)
    alone = tuple(Sample(image.name, image.name, image, dataset=url) for image in images)
    return _checked(Dataset(url, kind, alone, marks(node)), channels, mixed=mixed)


def _listed(node: GroupNode) -> tuple[Sample, ...]:
    samples = []
    for name, source, place in listed_samples(node):
        group = node_at(place)
        if not isinstance(group, GroupNode) or kind_of(group) != "image":
            raise InputError(
                f"sample {name!r} of {node.url} must be an OME-Zarr image, got something else; "
                "import the data again"
            )
        samples.append(Sample(name, source, ome_image(group), dataset=node.url))
    return tuple(samples)


def _checked(dataset: Dataset, channels: str | None, *, mixed: bool) -> Dataset:
    """Choose channels in every sample, and make sure that they have equally many."""
    samples = tuple(
        replace(sample, image=choose_channels(sample.image, channels)) for sample in dataset.samples
    )
    if mixed:
        return replace(dataset, samples=samples)
    if not samples:
        raise InputError(f"{dataset.url} must hold at least one sample, got none; import images")
    first = samples[0]
    for sample in samples:
        if sample.data.channel_count != first.data.channel_count:
            raise InputError(
                f"samples of {dataset.url} must have equally many channels, got "
                f"{first.data.channel_count} in {first.name!r} and {sample.data.channel_count} in "
                f"{sample.name!r}; choose some with --channels, or import them apart"
            )
    return replace(dataset, samples=samples)
