"""Make an augmented sample again from what it has recorded about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetkit.arrays.appearance import Appearance
from unetkit.arrays.deformation import Deformation
from unetkit.errors import InputError
from unetkit.pipeline.augment_copies import Copy
from unetkit.storage.images import open_image
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from unetkit.storage.datasets import Dataset, DatasetWriter, Sample


def replayed(url: str, dataset: Dataset, writer: DatasetWriter) -> list[Copy]:
    """List the original and the copy that are to be made.

    Parameters
    ----------
    url : str
        The augmented sample.
    dataset : Dataset
        What it was made from, or what has the same samples.
    writer : DatasetWriter
        Where both are registered.

    Returns
    -------
    list of Copy
        The copy has the name that it had.

    Raises
    ------
    InputError
        If nothing is recorded, or the original is not in the dataset.
    """
    attributes = open_image(url).attributes
    try:
        deformation = Deformation.from_dict(attributes["deformation"])
        appearance = Appearance.from_dict(attributes["appearance"])
        original = str(attributes["original"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{url} must be a sample that 'unetkit augment' made to be made again, got one without "
            "its record; name a sample such as more.zarr/a-aug001"
        ) from error
    sample = _original(dataset, original)
    first = writer.reserve(sample.name, source=sample.source)
    name = base_name(url)
    second = writer.reserve(name, source=sample.source)
    return [
        Copy(sample, sample.name, first, sample.image.attributes),
        Copy(sample, name, second, dict(attributes), deformation, appearance),
    ]


def _original(dataset: Dataset, name: str) -> Sample:
    if name not in dataset.names:
        raise InputError(
            f"{dataset.url} must hold the sample {name!r} to make its copy again, got "
            f"{', '.join(dataset.names[:5])}; name the dataset that was augmented"
        )
    return dataset[name]
