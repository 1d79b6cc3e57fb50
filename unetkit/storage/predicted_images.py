"""The images that a prediction was made of: its attributes know their name, and no folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unetkit.errors import InputError, MissingError
from unetkit.geometry.sizes import are_proportional
from unetkit.storage import urls
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import detect

if TYPE_CHECKING:
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray


def predicted_images(
    found: Dataset,
    told: str | None,
    *,
    axes: str | None = None,
    channels: str | None = None,
) -> list[Image]:
    """Find the image of each sample: in what is told, what it was made of, or itself.

    Parameters
    ----------
    found : Dataset
        A prediction, or images with labels, which are their own images.
    told : str, optional
        Where the images are.
    axes, channels : str, optional
        As `open_dataset` takes them, of the images.

    Returns
    -------
    list of Image
        One a sample, of as many planes and of the same size or a proportional one.

    Raises
    ------
    MissingError
        If what it was made of is no longer beside it.
    InputError
        If an image is of another size.
    """
    provenance = found.attributes.get("prediction")
    source = provenance.get("source") if isinstance(provenance, dict) else None
    url = told or (found.url if source is None else _beside(found.url, str(source)))
    axes = axes if detect(url) in ("stack", "array") else None
    pictures = open_dataset(url, axes=axes, channels=channels, mixed=True)
    alone = len(found.samples) == len(pictures.samples) == 1
    chosen = [pictures.samples[0] if alone else pictures[one.name] for one in found.samples]
    for sample, picture in zip(found.samples, chosen, strict=True):
        check_same_image(sample.data, picture.data, name=picture.name)
    return [picture.image for picture in chosen]


def check_same_image(made: PlaneArray, image: PlaneArray, *, name: str) -> None:
    """Refuse what can't be of the image, by the numbers of planes and the ratio of the sides."""
    sizes = [(array.height, array.width) for array in (made, image)]
    planes = [array.planes for array in (made, image)]
    if planes[0] != planes[1] or not are_proportional(*sizes):
        got = " and ".join(f"{n} x {h} x {w}" for n, (h, w) in zip(planes, sizes, strict=True))
        raise InputError(
            f"image {name!r} must be that of its objects, got {got} planes, rows and"
            " columns; name the image that was predicted with --image"
        )


def image_name(sample: Sample, image: Image) -> str:
    """Name the image of a sample as a correction of it does, apart from others of its plate."""
    return urls.base_name(image.url) if sample.field is None else sample.name


def _beside(prediction: str, source: str) -> str:
    clean = prediction.rstrip("/")
    places = [clean[: len(clean) - len(urls.base_name(clean))] + source, source]
    for place in places:
        if urls.exists(place):
            return place
    raise MissingError(
        f"the image of {prediction} must be beside it, got no {source!r} there; say where it is"
        " with --image"
    )
