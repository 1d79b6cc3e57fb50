"""Whether images look like those that a network was trained on; it reads a few parts of each."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from unetkit.arrays.intensities import (
    Typical,
    contrast_share,
    describe,
    deviations,
    middles,
    typical,
)
from unetkit.errors import InputError
from unetkit.progress import warn
from unetkit.storage.datasets import are_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from unetkit.arrays.intensities import Intensities
    from unetkit.arrays.normalization import Normalization
    from unetkit.models.model_header import ModelHeader
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

# Parts that are read, those of them that are looked at, and their largest side in pixels: of a
# slide that is mostly empty, the parts with something on them say more.
READ, VARIED, SIDE = 64, 16, 512
# A pixel that is larger or smaller by more than this shows another world to the network.
PIXEL_TOLERANCE = 0.1
# Samples that are named, so that a note stays one.
NAMED = 3


def describe_image(
    data: PlaneArray, normalization: Normalization, *, replace_nonfinite: bool
) -> Intensities:
    """Look at the most varied of evenly spaced parts of an image, as a network would see them."""
    boxes = data.boxes
    count = min(READ, len(boxes))
    parts = []
    for number in range(count):
        plane, y0, y1, x0, x1 = boxes[number * len(boxes) // count]
        raw = data.read(plane, y0, min(y1, y0 + SIDE), x0, min(x1, x0 + SIDE))
        parts.append(normalization.apply(raw, replace_nonfinite=replace_nonfinite))
    parts.sort(key=lambda part: float(part.std()), reverse=True)
    return describe(parts[:VARIED])


def typical_of(
    images: Iterable[tuple[PlaneArray, Normalization]], *, replace_nonfinite: bool
) -> Typical:
    """Say what the images of a training look like together."""
    return typical(
        [
            describe_image(data, normalization, replace_nonfinite=replace_nonfinite)
            for data, normalization in images
        ]
    )


def known_by_method(
    headers: Iterable[ModelHeader],
) -> dict[str, list[dict[str, Any] | None]]:
    """Return what networks that share a normalization learned from, by its method."""
    found: dict[str, list[dict[str, Any] | None]] = {}
    for header in headers:
        found.setdefault(header.normalization, []).append(header.intensities)
    return found


def limited(
    normalization: Normalization,
    data: PlaneArray,
    known: Sequence[dict[str, Any] | None],
    *,
    replace_nonfinite: bool,
) -> Normalization:
    """Take contrast back where an image's noise would stand out as in no image of a training.

    Parameters
    ----------
    normalization : Normalization
        As fitted on the image.
    data : PlaneArray
        The image.
    known : sequence of dict or None
        What the model files of the networks that share the normalization say of the images that
        they learned from; what one of them knows is left as it is for all.
    replace_nonfinite : bool
        Count NaN and Inf as 0.
    """
    usual = [Typical.from_dict(one) for one in known if one is not None]
    # Networks of an earlier version see what they saw.
    are_told = all(math.isfinite(most) for one in usual for most in one.roughest)
    if len(usual) < len(known) or not are_told or normalization.method == "none":
        return normalization
    one = describe_image(data, normalization, replace_nonfinite=replace_nonfinite)
    shares = [max(each) for each in zip(*(contrast_share(u, one) for u in usual), strict=True)]
    toward = [fmean(each) for each in zip(*map(middles, usual), strict=True)]
    return normalization.damped(shares, toward)


def pixel_deviation(trained: Mapping[str, float] | None, image: Image) -> str | None:
    """Say how the pixels of an image differ from those of the training, where those are known."""
    for axis in ("y", "x"):
        wanted, size = ((sizes or {}).get(axis) for sizes in (trained, image.pixel_size))
        if wanted and not size:
            scale = {} if image.placement is None else image.placement.scale
            got = f"{scale[axis]:.4g} without a unit" if scale.get(axis, 1) != 1 else "unknown"
            return (
                f"the size of its pixels is {got}, where {wanted:.4g} micrometres were usual; "
                "say it with --pixel-size"
            )
        if wanted and size and not 1 - PIXEL_TOLERANCE <= size / wanted <= 1 + PIXEL_TOLERANCE:
            return (
                f"pixels measure {size:.4g} micrometres along {axis} instead of {wanted:.4g}, "
                "so that everything has another size in pixels"
            )
    return None


def check_channel_names(
    trained: str | None, samples: Sequence[Sample], *, strict: bool, progress: Progress
) -> None:
    """Warn where channels that a model knows by name have none, and so go by their order.

    If `strict`, such images are refused.
    """
    names = [] if trained is None else trained.split(",")
    if len(names) < 2 or all(name.strip().isdecimal() for name in names):
        return
    bare = [sample.name for sample in samples if not are_named(sample.image.channel_names)]
    if not bare:
        return
    more = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
    if strict:
        raise InputError(
            f"channels must be known by the names {trained}, got none in {bare[0]!r}{more}; say"
            " which are which with --channels"
        )
    warn(
        progress,
        f"The channels of {bare[0]!r}{more} have no names and are taken in their order for"
        f" {trained}; say which are which with --channels.",
    )


def check_input_shift(
    header: ModelHeader,
    samples: Sequence[Sample],
    normalizations: Sequence[Normalization],
    *,
    replace_nonfinite: bool,
    strict: bool,
    progress: Progress,
) -> list[str]:
    """Warn where images lie far outside of what a network was trained on.

    Each such image gets a sentence, which are returned; if `strict`, it is refused.
    """
    known = None if header.intensities is None else Typical.from_dict(header.intensities)
    messages = []
    for sample, normalization in zip(samples, normalizations, strict=True):
        size = pixel_deviation(header.pixel_size, sample.image)
        found = [] if size is None else [size]
        if known is not None:
            found += deviations(
                known,
                describe_image(sample.data, normalization, replace_nonfinite=replace_nonfinite),
            )
        if found:
            messages.append(f"{sample.name!r}: {'; '.join(found)}")
    if not messages:
        return messages
    more = f" (and {len(messages) - NAMED} more)" if len(messages) > NAMED else ""
    listed = f"{' | '.join(messages[:NAMED])}{more}"
    if strict:
        raise InputError(
            f"images must look like those that the model was trained on, got {listed}; bring them"
            " to the same pixel size and staining, or leave --strict out"
        )
    rule = "Unlike what the model was trained on, so look at the result"
    warn(progress, *(f"{rule}: {message}" for message in messages), note=f"{rule}: {listed}")
    return messages
