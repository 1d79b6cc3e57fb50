"""Images whose pixels have another size than the model's: how they are read, and what is written.

Everything between sees images of the model's pixel size and knows of no other: tiles, what is
skipped, normalization, objects. What they make is brought to the image's own size at the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.engine.block_io import write_tile
from unetkit.engine.jobs import run_jobs
from unetkit.engine.rescaling import (
    LARGEST,
    SMALLEST,
    RescaledPlanes,
    at_ratios,
    ratios_to,
    rescaled,
)
from unetkit.errors import UsageError
from unetkit.models.inference import stored_and_classes
from unetkit.storage.datasets import Sample
from unetkit.storage.pixel_size import plane_pixel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from unetkit.engine.pools import Scheduler
    from unetkit.engine.rescaling import Ratios
    from unetkit.geometry.tiles import Cover, Tile
    from unetkit.models.model_header import ModelHeader
    from unetkit.storage.datasets import Dataset
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

# Where the prediction of the model's pixel size lies, below one of the image's own.
MODEL_SIZE = "model-size"


@dataclass(frozen=True, kw_only=True)
class RescaledSample(Sample):
    """A sample whose image is seen at another pixel size than it has."""

    original: Image
    level: int  # of its pyramid, that is read
    ratios: Ratios  # along y and x: its own pixels' size, divided by that of those that are seen

    @property
    def as_stored(self) -> Sample:
        """The sample as it is stored."""
        own = self.name, self.source, self.original, self.dataset, self.chosen, self.field
        return Sample(*own, group=self.group)

    @property
    def factor(self) -> list[float]:
        """How many times the image's height and width those are that are seen."""
        return [float(f"{float(ratio):.6g}") for ratio in self.ratios]

    def to_dict(self) -> dict[str, Any]:
        """Return what tells how it is seen, as JSON can hold it."""
        return {
            "level": self.level,
            "factor": self.factor,
            "resampled": isinstance(self.data, RescaledPlanes),
            "pixel_size": _plane_only(self.original),
            "read_pixel_size": _plane_only(self.image),
        }


def _plane_only(image: Image) -> dict[str, float] | None:
    size = plane_pixel(image.pixel_size)
    return None if size is None else {a: float(f"{n:.6g}") for a, n in zip("yx", size, strict=True)}


def rescaled_samples(samples: Sequence[RescaledSample]) -> list[dict[str, Any]]:
    """Tell how samples are seen, and how many of them are seen alike."""
    told = {repr(sample.to_dict()): sample.to_dict() for sample in samples}
    counts = Counter(repr(sample.to_dict()) for sample in samples)
    return [{**one, "samples": counts[key]} for key, one in told.items()]


def check_scale(scale: float | None, *, no_rescale: bool) -> None:
    """Refuse a scale that leaves nothing, or that is not to be used."""
    if scale is None:
        return
    if not SMALLEST <= scale <= LARGEST:
        raise UsageError(
            f"scale must lie between 1/64 and {LARGEST:g}, got {scale:g}; 0.5 reads images at half"
            " their size"
        )
    if no_rescale:
        raise UsageError(
            f"scale must be left out where images are read at their own size, got {scale:g}; leave"
            " --no-rescale out"
        )


def at_model_size(dataset: Dataset, header: ModelHeader, *, scale: float | None) -> Dataset:
    """See images at the pixel size that a model was trained at, where theirs is another.

    Sizes that differ by less than is warned of count as the same, and so do unknown ones; none
    counts where a user says the `scale`.
    """
    samples = (_at_model_size(sample, header, scale) for sample in dataset.samples)
    return replace(dataset, samples=tuple(samples))


def _at_model_size(sample: Sample, header: ModelHeader, scale: float | None) -> Sample:
    advice = "say how large they are with --pixel-size, or read them as they are with --no-rescale"
    wanted = None if scale else header.pixel_size
    ratios = (scale, scale) if scale else ratios_to(sample, wanted, advice=advice)
    if ratios is None or ratios == (1, 1):
        return sample
    view = at_ratios(sample.image, ratios)
    return RescaledSample(
        *(sample.name, sample.source, view.image, sample.dataset, sample.chosen, sample.field),
        group=sample.group,
        original=sample.image,
        level=view.level,
        ratios=view.ratios,
    )


def described(samples: Sequence[RescaledSample], *, at: str) -> Iterator[str]:
    """Say in a sentence for each way of reading images what is done with them."""
    for told in rescaled_samples(samples):
        own, read = (told[name] for name in ("pixel_size", "read_pixel_size"))
        sizes = ""
        if own is not None and read is not None:
            instead = f"{_written(read.values())} instead of {_written(own.values())}"
            sizes = f", at {instead} micrometres a pixel"
        count = f"{told['samples']} images are" if told["samples"] > 1 else "the image is"
        how = f"from level {told['level']}" + (", resampled" if told["resampled"] else " as it is")
        end = "the image's own size" if at == "slide" else "that size"
        yield (
            f"{count} read at {_written(told['factor'])} times the size{sizes}, {how}; the result"
            f" has {end}"
        )


def _written(values: Iterable[float]) -> str:
    """Write the numbers of y and x, once where they are the same."""
    return " x ".join(dict.fromkeys(f"{value:.4g}" for value in values))


@dataclass(frozen=True)
class Magnified:
    """What all blocks of an image share that are brought to its own size."""

    probabilities: RescaledPlanes  # are read, at that size
    instances: RescaledPlanes | None
    to_probabilities: PlaneArray  # are written
    to_classes: PlaneArray
    to_instances: PlaneArray | None
    threshold: float
    target: str  # as for `to_classes`
    uncertainty: RescaledPlanes | None = None  # is read and written, where it was asked for
    to_uncertainty: PlaneArray | None = None


@dataclass(frozen=True)
class MagnifyJob:
    """A block of the image, at its own size."""

    shared: Magnified
    plane: int
    block: Tile

    def __str__(self) -> str:
        return f"the block at row {self.block.y0}, column {self.block.x0}"


def magnify_block(job: MagnifyJob) -> NDArray[Any] | None:
    """Write what a block of the image's own size is; return the ids of its objects.

    Classes are decided by the probabilities at that size. An object has the pixels of which it has
    the largest share: what is one object, and how large it has to be, was decided at the size that
    the network knows.
    """
    shared, block = job.shared, job.block
    box = (job.plane, block.y0, block.y1, block.x0, block.x1)
    found = shared.probabilities.read_floats(*box)
    kind = shared.to_probabilities.dtype
    if kind == np.uint8:
        found /= 255
    stored, classes = stored_and_classes(
        found, kind, threshold=shared.threshold, target=shared.target
    )
    write_tile(shared.to_probabilities, job.plane, block, stored)
    write_tile(shared.to_classes, job.plane, block, classes)
    if shared.uncertainty is not None and shared.to_uncertainty is not None:
        apart = np.rint(shared.uncertainty.read_floats(*box))
        write_tile(shared.to_uncertainty, job.plane, block, apart.astype(np.uint8))
    if shared.instances is None or shared.to_instances is None:
        return None
    instances = shared.instances.read(*box)
    write_tile(shared.to_instances, job.plane, block, instances)
    return np.unique(instances)


def at_own_size(
    data: PlaneArray, like: PlaneArray, ratios: Ratios, *, exact: bool
) -> RescaledPlanes:
    """See what was made of a rescaled image at the size that the image has."""
    return rescaled(
        data,
        (1 / ratios[0], 1 / ratios[1]),
        shape=(like.height, like.width),
        kernel="vote" if exact else "linear",
    )


def magnify(
    shared: Magnified, *, blocks: Cover, scheduler: Scheduler, advance: Callable[[], None]
) -> int:
    """Bring a prediction to the size of its image, block by block; return how many objects it has.

    Objects that are too small for a pixel of the image are lost; the others keep their ids.
    """
    ids: set[int] = set()

    def keep(_: MagnifyJob, found: NDArray[Any] | None) -> None:
        if found is not None:
            ids.update(found.tolist())
        advance()

    planes = range(shared.to_classes.planes)
    jobs = (MagnifyJob(shared, plane, block) for plane in planes for block in blocks)
    run_jobs(magnify_block, jobs, scheduler=scheduler, on_done=keep)
    return len(ids - {0})
