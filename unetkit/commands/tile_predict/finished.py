"""A finished prediction that is replaced: where only the decision is another, its numbers stay.

Probabilities, or classes, are believed tile by tile, where their chunks are as they were published.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unetkit.arrays.meanings import has_threshold
from unetkit.arrays.normalization import Normalization
from unetkit.commands.tile_predict.blocks import TileDone, tile_checksum
from unetkit.commands.tile_predict.ensemble import common_value
from unetkit.commands.tile_predict.magnification import MODEL_SIZE
from unetkit.commands.tile_predict.output import place_in, told_of
from unetkit.commands.tile_predict.plan import (
    LEFT_OUT_LIST,
    NO_INVENTORY,
    Plan,
    count_missing_chunks,
)
from unetkit.commands.tile_predict.precision import fit_normalizations
from unetkit.engine.block_io import write_tile
from unetkit.errors import InputError
from unetkit.models.decision import Decision
from unetkit.models.inference import to_classes
from unetkit.models.model_file import with_decision
from unetkit.models.model_header import open_model
from unetkit.storage.chunks import PublishedChunks, check_documents, read_list, same_documents
from unetkit.storage.images import open_image
from unetkit.storage.journal import CHUNK_LIST, FOLDER, differences
from unetkit.storage.urls import base_name, exists, join, read

if TYPE_CHECKING:
    from unetkit.commands.tile_predict.blocks import ImageTask, TileJob
    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.output import Layout
    from unetkit.commands.tile_predict.plan import PredictOptions
    from unetkit.commands.tile_predict.skipping import Mask
    from unetkit.storage.chunks import ChunkInventory, ChunkList
    from unetkit.storage.datasets import Sample
    from unetkit.storage.images import Image
    from unetkit.storage.partial import PreviousRun
    from unetkit.storage.planes import PlaneArray

# What a fingerprint says of how pixels are decided about, and beside that of what is made of them
# or noted. All else is about probabilities, also what is not known here.
OF_CLASSES = frozenset({"threshold", "decided_by"})
DECIDED = OF_CLASSES | {"grow", "min_size", "pixel_size", "separate", "seed_level", "seed_size"}


@dataclass(frozen=True)
class FinishedPrediction:
    """A prediction that has the probabilities of a plan."""

    plan: Plan  # of what takes its place; no network was loaded for it
    url: str
    images: dict[str, Image]  # by the names of the samples
    changed: dict[str, str]  # what is decided otherwise, by its name, in words
    listed: ChunkList  # what was published
    checksum: int  # of that list
    left_out: frozenset[str]  # keys of the tiles about which no network was asked

    def __str__(self) -> str:
        tiles, changed = self.plan.tiles_total, self.changed
        # How a threshold is applied, and that the model file is another since its decision was
        # fitted anew, is told only where nothing else is.
        aside = changed.keys() & {"decided_by", "model"}
        told = [
            text for name, text in changed.items() if name not in aside or changed.keys() == aside
        ]
        return (
            f"the probabilities of {self.url} are used, {tiles} {'tile' if tiles == 1 else 'tiles'}"
            f", and only decided about again: {'; '.join(told)}"
        )

    @property
    def record(self) -> dict[str, Any]:
        """What is said in its place of where the probabilities are from.

        Of one that was decided again itself it is what that says.
        """
        made = next(iter(self.images.values())).attributes.get("prediction", {})
        own = {
            "prediction": base_name(self.url),
            "command": made.get("command"),
            "chunks_crc32": f"{self.checksum:08x}",
        }
        return dict(made.get("probabilities_from", own))

    def arrays(self, task: ImageTask) -> tuple[PlaneArray | None, ...]:
        """Open probabilities, classes and uncertainty of an image; None for what is of no use.

        Chunks of arrays with other documents would mean something else.
        """
        image = self.images[task.name]
        probabilities, classes = image.data, image.labels.get("classes")
        unsure = _same(image.uncertainty, task.uncertainty)
        if OF_CLASSES.intersection(self.changed):
            classes = None
        return _same(probabilities, task.probabilities), _same(classes, task.classes), unsure

    def chunks(self, data: PlaneArray | None, job: TileJob) -> PublishedChunks | None:
        """Say which chunks one of these arrays had of a tile when it was published."""
        if data is None:
            return None
        return PublishedChunks.of_box(
            data.with_absolute_url(),
            job.plane,
            rows=(job.tile.y0, job.tile.y1),
            columns=(job.tile.x0, job.tile.x1),
            listed=self.listed,
            name=data.url.removeprefix(f"{self.url.rstrip('/')}/"),
        )


def _same(there: PlaneArray | None, wanted: PlaneArray | None) -> PlaneArray | None:
    """Return an array that is there, if its chunks mean the same in what is wanted."""
    if there is None or wanted is None or not same_documents(there.url, wanted.url):
        return None
    return there


def find_finished(
    previous: PreviousRun, plan: Plan, *, layout: Layout
) -> tuple[FinishedPrediction | None, list[str]]:
    """Tell whether a finished prediction has the probabilities of a plan, and else why not.

    One that is the same all over is not made use of: who replaces it wants it computed anew.
    """
    found = differences(previous.fingerprint, plan.fingerprint())
    # Of other networks there would be no plan.
    decided = DECIDED | {"model"}
    changed = {name: text for text in found if (name := text.partition(":")[0]) in decided}
    others = [text for text in found if text not in changed.values()]
    if others or not changed:
        return None, others if changed else []
    try:
        return _believed(previous.place, plan, changed, layout=layout), []
    except (InputError, FileNotFoundError, ValueError) as error:
        return None, [str(error)]


def _has_networks_of(previous: PreviousRun, ensemble: Ensemble) -> bool:
    """Tell whether the model files of a prediction are the same but for their decision.

    A prediction keeps what tells networks; without that they have the hashes of then with the
    decision of then.
    """
    try:
        told = told_of(previous.place)
        if networks := told.get("networks"):
            return bool(networks == common_value([f.header.network_hash for f in ensemble.files]))
        known = told.get("decision")
        decision = None if known is None else Decision.from_dict(known)
        hashes = [_hash_with(decision, path) for path in ensemble.paths]
    except InputError:
        return False
    return bool(told.get("model_sha256") == common_value(hashes))


def _hash_with(decision: Decision | None, path: str) -> str:
    with open_model(path) as stream:
        content = stream.read()
    return hashlib.sha256(with_decision(content, decision, path=path)).hexdigest()


def _believed(
    url: str, plan: Plan, changed: dict[str, str], *, layout: Layout
) -> FinishedPrediction:
    """Read what a finished prediction says of itself, if its documents are as they were."""
    path, empty = join(url, FOLDER, CHUNK_LIST), join(url, FOLDER, LEFT_OUT_LIST)
    listed = read_list(path)
    check_documents(url, listed)
    images = {
        sample.name: open_image(_place(url, plan, sample, layout=layout)) for sample in plan.samples
    }
    lines = read(empty).splitlines() if exists(empty) else []
    return FinishedPrediction(
        *(plan, url, images, changed, listed),
        checksum=zlib.crc32(read(path)),
        left_out=frozenset(str(json.loads(line)) for line in lines),
    )


def _place(url: str, plan: Plan, sample: Sample, *, layout: Layout) -> str:
    """Say where tiles are written of a sample."""
    place = place_in(url, sample, layout)
    return join(place, MODEL_SIZE) if plan.is_magnified(sample) else place


def plan_like(
    previous: PreviousRun,
    ensemble: Ensemble,
    samples: tuple[Sample, ...],
    options: PredictOptions,
    *,
    mask: Mask | None,
) -> Plan | None:
    """Make a plan with the choices of an earlier one; None where it has none to take over.

    Of an image whose chunks are those of then, the normalization is that of then too.
    """
    sha256 = str(previous.fingerprint.get("model"))
    if sha256 != ensemble.sha256 and not _has_networks_of(previous, ensemble):
        return None
    known = options.settled_before(previous, header=ensemble.header, sha256=sha256)
    if known.tile is None or known.precision == "auto" or known.batch is None:
        return None
    inventories = count_missing_chunks(samples, complete=options.require_complete_input)
    plan = Plan(
        *(ensemble, samples, options),
        tile=known.tile,
        precision=known.precision,
        batch=known.batch,
        mask=mask,
        inventories=inventories,
        seconds=0.0,
    )
    told = previous.fingerprint.get("input", {})
    try:
        fitted = tuple(
            _normalizations(plan, sample, stored, known=told[sample.name])
            for sample, stored in zip(samples, inventories, strict=True)
        )
    except (KeyError, TypeError):
        return None
    return replace(plan, normalizations=fitted)


def _normalizations(
    plan: Plan, sample: Sample, stored: ChunkInventory, *, known: dict[str, Any]
) -> tuple[Normalization, ...]:
    if stored == NO_INVENTORY or stored.to_dict() != known["chunks"]:
        return fit_normalizations(sample, plan.model, nonfinite=plan.options.nonfinite)
    given = known["normalization"]
    each = given if isinstance(given, list) else [given] * len(plan.model.files)
    return tuple(Normalization.from_dict(one) for one in each)


@dataclass(frozen=True)
class TakeOverJob:
    """A tile that a finished prediction has."""

    job: TileJob
    # Of probabilities, of classes where the same are wanted, and of uncertainty.
    known: tuple[PublishedChunks | None, ...]
    left_out: bool  # whether the network was not asked about it

    def __str__(self) -> str:
        return str(self.job)


def _shared(known: PublishedChunks | None, wanted: PlaneArray) -> bool:
    return known is not None and known.share(wanted.url)


def take_over(one: TakeOverJob) -> TileDone | None:
    """Store the probabilities of a finished prediction, and decide; None if they are damaged."""
    job, task, tile = one.job, one.job.task, one.job.tile
    probabilities, decided, uncertainty = one.known
    if not _shared(probabilities, task.probabilities):
        return None
    if task.uncertainty is not None and not _shared(uncertainty, task.uncertainty):
        return None
    if not _shared(decided, task.classes):
        if not has_threshold(task.target, classes=task.probabilities.channel_count):
            return None  # what is stored does not tell which of several was the most probable
        kept = task.probabilities.read(job.plane, tile.y0, tile.y1, tile.x0, tile.x1)
        classes = to_classes(kept, threshold=task.threshold, target=task.target)
        write_tile(task.classes, job.plane, tile, classes)
    return TileDone(tile_checksum(job), 0, left_out=one.left_out)
