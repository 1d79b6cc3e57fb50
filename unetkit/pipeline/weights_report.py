"""What `weights --report` says of each sample: its objects, and the borders between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.engine.jobs import run_jobs
from unetkit.pipeline.weights_tiles import Survey, TileJob, TileJobs, survey_tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.weightmap import Preset
    from unetkit.engine.pools import Scheduler
    from unetkit.progress import Progress
    from unetkit.storage.datasets import Sample


def survey(
    samples: Sequence[Sample],
    presets: Sequence[Preset],
    *,
    target: str,
    scheduler: Scheduler,
    progress: Progress,
) -> tuple[dict[str, Any], ...]:
    """Count the objects of each sample, the pairs that touch, and the pixels between them.

    Returns
    -------
    tuple of dict
        One a sample; without objects for class maps, which name none.
    """
    if target == "classes":
        return tuple({"sample": sample.name} for sample in samples)
    labels = [sample.labels() for sample in samples]
    jobs = TileJobs(samples, labels, preset=presets[0], target=target, presets=presets)
    progress.start("surveying", total=jobs.total)
    found = {sample.labels().url: _Sums() for sample in samples}

    def add(job: TileJob, survey: Survey) -> None:
        found[job.labels.url].add(job.plane, survey)
        progress.advance()

    run_jobs(survey_tile, jobs.tiles(), scheduler=scheduler, on_done=add)
    return tuple(
        {"sample": sample.name, **found[sample.labels().url].to_dict()} for sample in samples
    )


class _Sums:
    """What is known of a sample; ids of one plane are others than those of the next."""

    def __init__(self) -> None:
        self._ids: dict[int, NDArray[Any]] = {}
        self._pairs: dict[int, NDArray[Any]] = {}
        self._border = self._annotated = 0

    def add(self, plane: int, survey: Survey) -> None:
        """Add a tile."""
        for known, new in ((self._ids, survey.ids), (self._pairs, survey.pairs)):
            old = known.get(plane, new[:0])
            known[plane] = np.unique(np.concatenate([old, new]), axis=0)
        self._border += survey.border
        self._annotated += survey.annotated

    def to_dict(self) -> dict[str, Any]:
        """Return the sums."""
        share = self._border / self._annotated if self._annotated else 0.0
        return {
            "objects": sum(map(len, self._ids.values())),
            "touching_pairs": sum(map(len, self._pairs.values())),
            "border_share": share,
        }
