"""What a prediction will do, settled before it begins: tile, context, precision, normalization."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.arrays.meanings import has_threshold
from unetkit.arrays.watershed import SEED_LEVEL, SEED_SIZE, check_seed_level
from unetkit.commands.tile_predict.averaging import SYMMETRIES, Merge, Tta
from unetkit.commands.tile_predict.ensemble import common_value
from unetkit.commands.tile_predict.magnification import RescaledSample, check_scale
from unetkit.errors import InputError, UsageError
from unetkit.geometry.tiles import Cover, cover
from unetkit.models import hardware
from unetkit.models.decision import OF_WATERSHED, check_seeds, check_threshold
from unetkit.models.joint_header import usual_decision
from unetkit.progress import Together, parse_size, warn
from unetkit.storage.atomic import write_text
from unetkit.storage.chunks import ChunkInventory, inventory
from unetkit.storage.collections import COLLECTIONS, each_at_once
from unetkit.storage.ome import FORMATS, OmeVersion
from unetkit.storage.pixel_size import parse_pixel_size, plane_pixel
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from unetkit.arrays.normalization import Normalization
    from unetkit.commands.tile_predict.averaging import Averaging
    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.models.model_header import ModelHeader
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.partial import PreviousRun
    from unetkit.storage.planes import PlaneArray

Separate = Literal["components", "watershed"]
PRECISIONS = ("auto", *hardware.PRECISIONS)
# What each of these options may be, how that is said, and what leaving it out means.
CHOICES: tuple[tuple[str, Sequence[str], str, str], ...] = (
    ("probabilities", ("uint8", "float32"), "uint8 or float32", "to use uint8"),
    ("nonfinite", ("error", "fill"), "error or fill", "to stop"),
    ("precision", PRECISIONS, f"one of {', '.join(PRECISIONS)}", "for auto"),
    ("tta", tuple(SYMMETRIES), f"one of {', '.join(SYMMETRIES)}", "for none"),
    ("merge", ("crop", "gaussian"), "crop or gaussian", "to crop"),
    ("separate", ("components", "watershed"), "components or watershed", "for components"),
    ("ome_version", tuple(FORMATS), f"one of {', '.join(FORMATS)}", "for 0.5"),
    ("at", ("slide", "model"), "slide or model", "for the slide's own size"),
)


# The side of the blocks in which a collection is looked through.
LOOKED_AT = 2048


@dataclass(frozen=True)
class PredictOptions:
    """What the user asked for; None and "auto" leave the choice to `Plan`."""

    tile: int | None = None
    overlap: int | None = None
    precision: str = "auto"
    batch: int | None = None
    probabilities: Literal["uint8", "float32"] = "uint8"
    threshold: float = 0.5
    grow: int = 1
    min_size: int = 0
    separate: Separate = "components"
    seed_level: float = SEED_LEVEL
    seed_size: int = SEED_SIZE
    nonfinite: Literal["error", "fill"] = "error"
    max_memory: str | None = None
    skip_below: float | None = None
    require_complete_input: bool = False
    strict: bool = False
    tta: Tta = "none"
    merge: Merge = "crop"
    uncertainty: bool = False
    audit: int = 0
    ome_version: OmeVersion = "0.5"
    pixel_size: str | None = None
    no_rescale: bool = False
    scale: float | None = None
    at: Literal["slide", "model"] = "slide"

    @property
    def replace_nonfinite(self) -> bool:
        """Whether NaN and Inf in an image count as 0."""
        return self.nonfinite == "fill"

    def check(self) -> None:
        """Refuse what no model can do."""
        for name, allowed, words, otherwise in CHOICES:
            if (value := getattr(self, name)) not in allowed:
                raise UsageError(
                    f"{name.replace('_', '-')} must be {words}, got {value!r}; "
                    f"leave it out {otherwise}"
                )
        check_threshold(self.threshold)
        if self.max_memory is not None:
            parse_size(self.max_memory)
        if self.pixel_size is not None:
            parse_pixel_size(self.pixel_size)
        check_scale(self.scale, no_rescale=self.no_rescale)
        if self.batch is not None and self.batch < 1:
            raise UsageError(
                f"batch must be at least 1 tile, got {self.batch}; leave it out to choose by device"
            )
        check_seed_level(self.seed_level)
        pixels = dict.fromkeys(("grow", "min_size", "seed_size"), "pixels")
        for name, unit in {"audit": "windows", **pixels}.items():
            if (value := getattr(self, name)) < 0:
                raise UsageError(f"{name} must be at least 0 {unit}, got {value}; use 0 for none")

    def check_looks(self, models: int) -> None:
        """Refuse the uncertainty of a single look, which its probabilities show."""
        if self.uncertainty and models * len(SYMMETRIES[self.tta]) == 1:
            raise UsageError(
                "uncertainty must be that of several models or turns, got one model that looks"
                " once; add --tta flips, or name more models"
            )

    def check_fit(self, header: ModelHeader, dataset: Dataset) -> None:
        """Make sure that a model can predict a dataset so."""
        found = dataset.samples[0].data.channel_count
        if found != header.in_channels:
            raise InputError(
                f"{dataset.url} must have {header.in_channels} channels, as the model "
                f"{header.model!r} takes, got {found}; choose with --channels, or name another "
                "--model"
            )
        if self.tile is not None:
            header.contract.check_tile(self.tile, model=header.model)
        header.contract.overlap(self.overlap, model=header.model)
        if self.merge == "gaussian" and header.contract.halo == 0:
            raise UsageError(
                "merge must be crop for models without a halo, whose windows meet without overlap, "
                "got gaussian; leave it out"
            )
        decides = has_threshold(header.target, classes=len(header.class_names))
        if self.threshold != 0.5 and not decides:
            raise UsageError(
                f"threshold must be left out for a model of {len(header.class_names)} classes, got "
                f"{self.threshold}; the most probable class is taken"
            )

    def check_separation(self, header: ModelHeader, *, asked: Collection[str]) -> None:
        """Refuse a watershed that has nothing to part, or numbers of one that is not asked for."""
        if self.separate == "components":
            for name in sorted({"seed_level", "seed_size"} & set(asked)):
                check_seeds(getattr(self, name), separate="components", name=name.replace("_", "-"))
            return
        if not has_instances(header.target):
            raise UsageError(
                f"separate must be components for a model of {header.target}, which finds no "
                "objects, got watershed; leave it out"
            )
        if len(header.class_names) == 2 and self.seed_level <= self.threshold:
            raise UsageError(
                f"seed-level must be above the threshold of {self.threshold:g}, got "
                f"{self.seed_level:g}; name a higher --seed-level or a lower --threshold"
            )

    @property
    def separation(self) -> dict[str, Any]:
        """How a watershed parts objects; empty where none does, as in earlier versions."""
        if self.separate == "components":
            return {}
        return {name: getattr(self, name) for name in ("separate", *OF_WATERSHED)}

    def decided(self, header: ModelHeader, *, asked: Mapping[str, Any]) -> PredictOptions:
        """Take of the model how it decides where that was not asked for."""
        usual = usual_decision(header)
        own: dict[str, Any] = (header.decision or usual).numbers
        # A number that the target has no choice of decides nothing.
        choices = {*usual.numbers}
        if has_instances(header.target):
            own = {**own, "separate": "watershed" if "seed_level" in own else "components"}
            choices.add("separate")
            if asked.get("separate", own["separate"]) == "watershed":
                choices.update(OF_WATERSHED)
        return replace(self, **{name: own[name] for name in (own.keys() & choices) - asked.keys()})

    def settled_before(
        self, earlier: PreviousRun | None, *, header: ModelHeader, sha256: str
    ) -> PredictOptions:
        """Take over what a run that is to be resumed chose where nothing is asked for now.

        What no run can have chosen is left, and is then found to differ from what is chosen now.
        """
        if earlier is None:
            return self
        tile = self.tile or earlier.choice("tile", int, sha256=sha256)
        precision = None if self.precision == "auto" else self.precision
        precision = precision or earlier.choice("precision", str, sha256=sha256) or "auto"
        batch = self.batch or earlier.choice("batch", int, sha256=sha256)
        found = replace(self, tile=tile, precision=precision, batch=batch)
        try:
            found.check()
            if tile is not None:
                header.contract.check_tile(tile, model=header.model)
        except UsageError:
            return self
        return found


def leave_out_unreadable(
    dataset: Dataset,
    broken: dict[str, str],
    *,
    nonfinite: Literal["error", "fill"],
    progress: Progress,
) -> Dataset:
    """Read every pixel of a collection once, so that a damaged image costs none of the others.

    What can't be read goes to `broken`, by its path and with why, beside what is there already.
    """
    if dataset.kind not in COLLECTIONS:
        return dataset

    def look(sample: Sample) -> str | None:
        try:
            for box in sample.data.chunk_boxes(LOOKED_AT):
                block = sample.data.read(box[0], *box[1:])
                if nonfinite == "error" and not np.isfinite(block).all():
                    return f"{sample.data.url} must hold finite numbers, got NaN or Inf"
        except InputError as error:
            return str(error)
        return None

    together = Together(progress, "look at the images", total=len(dataset.samples))
    kept = []
    for sample, problem in zip(dataset.samples, each_at_once(look, dataset.samples), strict=True):
        if problem is None:
            kept.append(sample)
        else:
            broken[sample.path] = problem
        together.advance()
    if not kept:
        raise InputError(
            f"{dataset.url} must hold an image that can be read, got {len(broken)} that can't:"
            f" {next(iter(broken.values()))}"
        )
    if broken:
        texts = [f"{path} is left out: {problem}" for path, problem in broken.items()]
        more = f" (and {len(texts) - 3} more)" if len(texts) > 3 else ""
        warn(progress, *texts, note=f"{' | '.join(texts[:3])}{more}")
    return replace(dataset, samples=tuple(kept))


ABSENT_LIST = "absent-input.jsonl"
LEFT_OUT_LIST = "left-out.jsonl"
NO_INVENTORY = ChunkInventory(0, 0, (), 0, 0)


def count_missing_chunks(
    samples: Sequence[Sample], *, complete: bool
) -> tuple[ChunkInventory, ...]:
    """Count the stored chunks of every sample; where they have to be `complete`, refuse others.

    All counts are 0 where a store lists nothing. Samples of one array, as in a stack, share one.
    """
    found: dict[str, ChunkInventory | None] = {}
    for sample in samples:
        url = sample.data.url
        if url in found:
            continue
        found[url] = stored = inventory(sample.data)
        if complete and stored is None:
            raise InputError(
                f"{url} must list its chunks to be known as complete, got a store that lists "
                "nothing; copy it to a disk first, or leave out --require-complete-input"
            )
        if complete and stored is not None and stored.missing:
            raise InputError(
                f"{url} must have all of its {stored.total} chunks, got {stored.missing} absent, "
                f"such as {stored.absent[0]}; copy it again, or leave out "
                "--require-complete-input if they are empty"
            )
    return tuple(found[sample.data.url] or NO_INVENTORY for sample in samples)


def missing_chunks(inventories: Sequence[ChunkInventory]) -> tuple[int | None, int | None]:
    """Return the chunks of all samples, and how many are missing; None where nothing tells it."""
    once = set(inventories)
    if NO_INVENTORY in once:
        return None, None
    return sum(stored.total for stored in once), sum(stored.missing for stored in once)


def list_absent(
    path: str, samples: Sequence[Sample], inventories: Sequence[ChunkInventory]
) -> None:
    """Write down which chunks are absent, [sample, key] a line; no file where none is."""
    lines = [
        json.dumps([sample.name, key]) + "\n"
        for sample, stored in zip(samples, inventories, strict=True)
        for key in stored.absent
    ]
    if lines:
        write_text(path, "".join(lines))


LARGEST_CHUNK = 1024
# Labelling and growing are quick, so that blocks much smaller would cost more than their work.
BLOCK = 1024
# The options that decide about what is stored, beside the model and the image.
OF_PIXELS = (
    *("tta", "merge", "precision", "batch", "probabilities", "threshold", "grow", "min_size"),
    *("ome_version", "nonfinite", "skip_below", "pixel_size"),
)


def _pixels(arrays: Sequence[PlaneArray]) -> int:
    return sum(data.planes * data.height * data.width for data in arrays)


@dataclass(frozen=True)
class Plan:
    """Everything that decides about the pixels of a prediction; with another tile, another plan."""

    model: Ensemble
    samples: tuple[Sample, ...]
    options: PredictOptions  # as they were given
    tile: int  # side of the tiles that networks write, in pixels
    precision: str  # as for `hardware.forward`
    batch: int  # tiles, or windows of a block that is blended, that a network sees at once
    normalizations: tuple[tuple[Normalization, ...], ...] = ()  # a sample's: one for each network
    mask: Mask | None = None  # where to look; left out, everywhere
    inventories: tuple[ChunkInventory, ...] = ()  # what is stored of each sample
    # Bytes that it takes at most, and may; they decide about no pixel. None where no network is
    # asked.
    memory_peak: int | None = None
    memory_limit: int | None = None
    seconds: float | None = None  # expected of the networks; None where others compute
    remembered: bool = False  # whether it was an earlier run that found out how fast they are
    reason: str | None = None  # what speaks against a lower precision that is there

    @cached_property
    def averaging(self) -> Averaging:
        """Where the networks look, and how what they say is averaged."""
        options = self.options
        return self.model.averaging(
            self.tile, overlap=options.overlap, tta=options.tta, merge=options.merge
        )

    @property
    def overlap(self) -> int:
        """Context on each side in pixels; the most that a network gets."""
        return self.averaging.overlap

    @property
    def size(self) -> int:
        """The most that a network reads for a tile, in pixels."""
        return self.averaging.size

    @property
    def chunk(self) -> int:
        """Size of the output's chunks: the tile up to 1024, else the largest part of it."""
        parts = -(-self.tile // LARGEST_CHUNK)
        while self.tile % parts:
            parts += 1
        return self.tile // parts

    def tiles(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with what one task writes."""
        return self.averaging.tiles(sample.data.height, sample.data.width)

    def blocks(self, sample: Sample) -> Cover:
        """Cover one plane of a sample with blocks of whole chunks for what follows."""
        side = self.chunk * max(1, BLOCK // self.chunk)
        return cover(sample.data.height, sample.data.width, tile=side)

    @property
    def tiles_total(self) -> int:
        """How many tiles all planes of all samples have together."""
        return sum(sample.data.planes * len(self.tiles(sample)) for sample in self.samples)

    @property
    def outside_mask(self) -> int:
        """How many of them have nothing within reach of the mask."""
        mask = self.mask
        if mask is None:
            return 0
        return sum(
            not mask.covers(plane, tile)
            for sample in self.samples
            for plane in range(sample.data.planes)
            for tile in self.tiles(sample)
        )

    @cached_property
    def judged(self) -> dict[str, Any]:
        """Say how much of the published image lies in the mask; nothing where there is none."""
        if self.mask is None:
            return {}
        (sample,) = self.samples
        image = sample.original if self.is_magnified(sample) else sample.image
        data, size = image.data, plane_pixel(image.pixel_size)
        planes = replace(self.mask, height=data.height, width=data.width).areas()
        planes = planes * (data.planes // len(planes))
        pixels = sum(planes)
        told = {"pixels": pixels, "share": pixels / _pixels([data])}
        area = {} if size is None else {"area_um2": pixels * size[0] * size[1]}
        # Objects are followed beyond the mask, for which its pixels are still what was judged.
        return {"judged": told | area | {"planes": planes, "reach": self.mask.reach}}

    @property
    def looks(self) -> int:
        """How many looks are averaged where their uncertainty is asked for."""
        return len(self.averaging.members) * len(self.averaging.symmetries)

    @property
    def passes(self) -> int:
        """How often networks are run, over all tiles, symmetries, models and windows."""
        passes = self.averaging.passes
        return sum(s.data.planes * passes(s.data.height, s.data.width) for s in self.samples)

    @property
    def pixels(self) -> int:
        """The pixels of all planes of all samples."""
        return _pixels([sample.data for sample in self.samples])

    @property
    def wasted(self) -> float:
        """The share of the networks' work that is context or overhang."""
        averaging = self.averaging
        computed = averaging.computed
        total = sum(s.data.planes * computed(s.data.height, s.data.width) for s in self.samples)
        return 1 - self.looks * self.pixels / total

    @property
    def cost_factor(self) -> float:
        """How many times the work is that of one model that looks once at each tile."""
        plain = sum(
            s.data.planes * len(cover(s.data.height, s.data.width, tile=self.tile))
            for s in self.samples
        )
        return self.passes / plain

    @property
    def output_bytes(self) -> int:
        """The most that the output can take, before compression, with its pyramid."""
        value = np.dtype(self.options.probabilities).itemsize
        # A class map of one byte and instances of four; smaller levels add a third.
        pixel = len(self.model.header.class_names) * value + 1 + 4 + self.options.uncertainty
        at_model_size = [s.data for s in self.samples if self.is_magnified(s)]
        published = [(s.original if self.is_magnified(s) else s.image).data for s in self.samples]
        return _pixels(published) * pixel * 4 // 3 + _pixels(at_model_size) * pixel

    @property
    def rescaled(self) -> list[RescaledSample]:
        """The samples that are read at another pixel size than they have."""
        return [sample for sample in self.samples if isinstance(sample, RescaledSample)]

    def is_magnified(self, sample: Sample) -> TypeGuard[RescaledSample]:
        """Tell whether what is made of a sample is brought to the sample's own size at the end."""
        return isinstance(sample, RescaledSample) and self.options.at == "slide"

    def settled(self, name: str) -> Any:
        """Return what an option is in this plan, whether it was asked for or chosen."""
        return getattr(self if hasattr(self, name) else self.options, name)

    @property
    def _decided_by_stored(self) -> bool:
        """Whether earlier commits would have decided otherwise, by what was not rounded yet."""
        rounded = self.options.probabilities == "uint8" and self.options.threshold != 0.5
        return rounded and len(self.model.header.class_names) == 2

    def _magnification(self, sample: Sample) -> dict[str, Any]:
        """Return what decides how a sample is read and written; nothing for most."""
        if not isinstance(sample, RescaledSample):
            return {}
        ratios = [str(ratio) for ratio in sample.ratios]
        return {"rescaled": {"level": sample.level, "factor": ratios, "at": self.options.at}}

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides about the pixels, as JSON can hold it."""
        return {
            "unetkit": __version__,
            "model": self.model.sha256,
            "tile": self.tile,
            "overlap": common_value([member.overlap for member in self.averaging.members]),
            **{name: self.settled(name) for name in OF_PIXELS},
            **({"decided_by": "stored"} if self._decided_by_stored else {}),
            **self.options.separation,
            **({"uncertainty": "entropy of the mean"} if self.options.uncertainty else {}),
            "mask": None if self.mask is None else [self.mask.checksum, self.mask.reach],
            "input": {
                sample.name: {
                    "axes": sample.data.axes,
                    "shape": list(sample.data.shape),
                    "dtype": sample.data.dtype.name,
                    "channels": list(sample.data.picked or ()),
                    "normalization": common_value([one.to_dict() for one in normalizations]),
                    "chunks": stored.to_dict(),
                    **self._magnification(sample),
                }
                for sample, normalizations, stored in zip(
                    self.samples, self.normalizations, self.inventories, strict=True
                )
            },
        }
