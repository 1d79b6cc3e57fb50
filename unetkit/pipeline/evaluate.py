"""Score a prediction against the truth, block by block, sample by sample and overall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unetkit.arrays import contingency, scores
from unetkit.engine.jobs import run_jobs
from unetkit.errors import InputError
from unetkit.geometry.tiles import cover
from unetkit.progress import SILENT, Progress
from unetkit.storage.datasets import open_dataset
from unetkit.storage.detection import detect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.arrays.contingency import Contingency
    from unetkit.arrays.scores import Scores
    from unetkit.geometry.tiles import Cover
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.planes import PlaneArray

# Pixels on a side of what a job compares: some 50 MB at work, and few enough jobs a slide.
BLOCK = 1024


@dataclass(frozen=True)
class EvaluateReport:
    """How well a prediction meets the truth.

    Attributes
    ----------
    prediction, truth : str
        What was compared.
    kind : str
        `instances` or `classes`: which labels.
    overall : Scores
        Of all samples as one: their tables pooled, each object and pixel counting once.
    mean : Scores
        The mean of the samples' scores, over those to which a score applies.
    samples : dict of str to Scores
        By the sample's name in the truth, in its order.
    unlabelled, unpaired : tuple of str
        Samples that were left out: of the truth, because they have no labels, and of the
        prediction, because the truth has no labels for them.
    """

    prediction: str
    truth: str
    kind: str
    overall: Scores
    mean: Scores
    samples: dict[str, Scores]
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold; a score that does not apply is None."""
        return {
            "prediction": self.prediction,
            "truth": self.truth,
            "kind": self.kind,
            "overall": self.overall.to_dict(),
            "mean": self.mean.to_dict(),
            "samples": [{"name": name, **s.to_dict()} for name, s in self.samples.items()],
            "unlabelled": list(self.unlabelled),
            "unpaired": list(self.unpaired),
        }


def evaluate(
    prediction: str,
    truth: str,
    *,
    axes: str | None = None,
    scheduler: str = "threads",
    workers: int | None = None,
    progress: Progress = SILENT,
) -> EvaluateReport:
    """Compare the labels of a prediction with those of the truth.

    The truth's labels say what is compared: instance ids where it has them, else classes. Samples
    are matched by name; two sides of one sample each match whatever their names. The scores are
    defined in `unetkit.arrays.metrics`.

    Parameters
    ----------
    prediction, truth : str
        Each a prediction, a labelled image or a labelled dataset.
    axes : str, optional
        Names of the axes of a stack or bare array that has none, such as `zyx`.
    scheduler : str
        Who does the work.
    workers : int, optional
        How many at a time.
    progress : Progress

    Returns
    -------
    EvaluateReport

    Raises
    ------
    InputError
        If there are no labels to compare, a labelled sample of the truth has no prediction, or
        sizes or kinds of labels do not match.
    """
    found, wanted = _open(prediction, axes), _open(truth, axes)
    labelled = [sample for sample in wanted.samples if sample.label_kind is not None]
    kind = _kind_of(wanted, labelled)
    pairs = _pair(found, wanted, labelled)
    class_names = _class_names(pairs, progress) if kind == "classes" else ()
    for ours, theirs in pairs:
        _check(ours, theirs, kind=kind, url=prediction)
    unlabelled = tuple(s.name for s in wanted.samples if s.label_kind is None)
    paired = {ours.name for ours, _ in pairs}
    unpaired = tuple(s.name for s in found.samples if s.name not in paired)
    _note_left_out(unlabelled, unpaired, progress)
    tables = _count(pairs, kind, scheduler=scheduler, workers=workers, progress=progress)
    each = [_score(table, kind, class_names) for table in tables]
    return EvaluateReport(
        prediction=prediction,
        truth=truth,
        kind=kind,
        overall=_score(contingency.pool(tables), kind, class_names),
        mean=scores.mean(each),
        samples={theirs.name: one for (_, theirs), one in zip(pairs, each, strict=True)},
        unlabelled=unlabelled,
        unpaired=unpaired,
    )


Pair = tuple["Sample", "Sample"]  # (of the prediction, of the truth)


def _open(url: str, axes: str | None) -> Dataset:
    """Open one side; an OME-Zarr image names its axes itself, whatever the other side needs."""
    return open_dataset(url, axes=axes if detect(url) in ("stack", "array") else None)


def _kind_of(truth: Dataset, labelled: Sequence[Sample]) -> str:
    """Find which labels the truth has, one kind for all samples."""
    if not labelled:
        name = f"sample {truth.samples[0].name!r} in " if truth.samples else ""
        raise InputError(f"{name}{truth.url} has no labels; run 'unetkit import' with --labels")
    first = labelled[0]
    for sample in labelled:
        if sample.label_kind != first.label_kind:
            raise InputError(
                f"labels of {truth.url} must be of one kind, got {first.label_kind} in "
                f"{first.name!r} and {sample.label_kind} in {sample.name!r}; import them apart"
            )
    return str(first.label_kind)


def _pair(prediction: Dataset, truth: Dataset, labelled: Sequence[Sample]) -> list[Pair]:
    """Find the predicted sample of each labelled one."""
    if len(prediction.samples) == len(truth.samples) == 1:
        return [(prediction.samples[0], labelled[0])]
    by_name = {sample.name: sample for sample in prediction.samples}
    missing = [sample.name for sample in labelled if sample.name not in by_name]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{prediction.url} must have every labelled sample of {truth.url}, got none named "
            f"{', '.join(map(repr, missing[:3]))}{more}; predict the whole dataset"
        )
    return [(by_name[sample.name], sample) for sample in labelled]


def _check(ours: Sample, theirs: Sample, *, kind: str, url: str) -> None:
    """Make sure that two samples can be compared pixel by pixel."""
    labels = ours.image.labels
    if kind not in labels:
        there = ", ".join(name for name in labels if name != "ignore") or "none"
        raise InputError(
            f"sample {ours.name!r} in {url} must have labels of the truth's kind '{kind}', "
            f"got {there}; predict with a model trained on {kind}"
        )
    found, wanted = labels[kind], theirs.image.labels[kind]
    if _size(found) != _size(wanted):
        raise InputError(
            f"labels of prediction {ours.name!r} and truth {theirs.name!r} must be of one size, "
            f"got {_words(found)} in {found.url} and {_words(wanted)} in {wanted.url}; "
            "predict the image that was annotated"
        )


def _size(labels: PlaneArray) -> tuple[int, int, int]:
    return labels.planes, labels.height, labels.width


def _words(labels: PlaneArray) -> str:
    """Say a size: 512 x 640, or 5 planes of 512 x 640."""
    plane = f"{labels.height} x {labels.width}"
    return plane if labels.planes == 1 else f"{labels.planes} planes of {plane}"


def _class_names(pairs: Sequence[Pair], progress: Progress) -> tuple[str, ...]:
    """Find what the classes are called, and notice when the two sides number them differently."""
    ours = next((a.class_names for a, _ in pairs if a.class_names), ())
    theirs = next((b.class_names for _, b in pairs if b.class_names), ())
    if ours and theirs and ours != theirs:
        if sorted(ours) == sorted(theirs):
            raise InputError(
                f"classes of prediction and truth must be in one order, got {', '.join(ours)} and "
                f"{', '.join(theirs)}; import the truth with --classes {','.join(ours)}"
            )
        progress.note(
            f"Classes are compared by number: the prediction calls them {', '.join(ours)}, "
            f"the truth {', '.join(theirs)}."
        )
    return theirs or ours


def _note_left_out(unlabelled: Sequence[str], unpaired: Sequence[str], progress: Progress) -> None:
    if unlabelled:
        progress.note(f"Left out {len(unlabelled)} samples of the truth that have no labels.")
    if unpaired:
        count = len(unpaired)
        progress.note(f"Left out {count} predicted samples for which the truth has no labels.")


@dataclass(frozen=True)
class Block:
    """A box of one plane of one sample to compare; small, so that it travels to any worker."""

    sample: int
    plane: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    prediction: PlaneArray
    truth: PlaneArray
    ignore: PlaneArray | None


def count_block(block: Block) -> Contingency:
    """Read one block of both sides and count its label pairs.

    Parameters
    ----------
    block : Block

    Returns
    -------
    Contingency
    """
    box = (block.plane, *block.rows, *block.columns)
    ignore = None if block.ignore is None else block.ignore.read(*box)
    return contingency.from_labels(
        block.truth.read(*box), block.prediction.read(*box), ignore=ignore
    )


def _count(
    pairs: Sequence[Pair],
    kind: str,
    *,
    scheduler: str,
    workers: int | None,
    progress: Progress,
) -> list[Contingency]:
    """Sum the blocks of each sample, in bounded memory."""
    tallies = [contingency.Tally() for _ in pairs]

    def add(block: Block, table: Contingency) -> None:
        tallies[block.sample].add(table)
        progress.advance()

    found = [ours.image.labels[kind] for ours, _ in pairs]
    progress.start("score", total=sum(part.planes * len(_cover(part)) for part in found))
    run_jobs(count_block, _blocks(pairs, kind), scheduler=scheduler, workers=workers, on_done=add)
    return [tally.total() for tally in tallies]


def _blocks(pairs: Sequence[Pair], kind: str) -> Iterator[Block]:
    """Cut every pair of samples into blocks."""
    for number, (ours, theirs) in enumerate(pairs):
        found, wanted = ours.image.labels[kind], theirs.image.labels[kind]
        ignore = theirs.image.labels.get("ignore")
        for plane in range(found.planes):
            for tile in _cover(found):
                rows, columns = (tile.y0, tile.y1), (tile.x0, tile.x1)
                yield Block(number, plane, rows, columns, found, wanted, ignore)


def _cover(labels: PlaneArray) -> Cover:
    """Cut a plane into blocks of whole chunks, so that few chunks are decoded twice."""
    chunk = max(labels.chunk)
    side = chunk * (BLOCK // chunk) if chunk <= BLOCK else min(chunk, 2 * BLOCK)
    return cover(labels.height, labels.width, tile=side)


def _score(table: Contingency, kind: str, class_names: Sequence[str]) -> Scores:
    if kind == "classes":
        return scores.score_classes(table, class_names)
    return scores.score_instances(table)
