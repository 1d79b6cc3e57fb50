"""Score outlines and thin borders of samples, from the sums of their blocks and planes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.arrays import border_sums, surfaces
from unetkit.arrays.sums import Sums, best
from unetkit.engine.jobs import run_jobs
from unetkit.pipeline.evaluate_border_parts import parts_of, score_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unetkit.arrays.squares import Squares
    from unetkit.pipeline.evaluate_border_parts import Part, Proposal
    from unetkit.pipeline.evaluate_pairs import Pair
    from unetkit.progress import Progress

# Which end of each score of thin borders is best.
_HIGHEST = {
    "v_rand": True,
    "v_info": True,
    "warping_error": False,
    "isbi_rand": False,
    "isbi_pixel": False,
}


@dataclass
class Borders:
    """The sums of one sample.

    Attributes
    ----------
    squares : Squares or None
        Which of its parts are told apart.
    outlines : Surfaces
    proposals : dict of float or None to dict of int to Proposal
        By threshold and plane; None stands for the labels themselves.
    """

    squares: Squares | None = None
    outlines: surfaces.Surfaces = field(default_factory=surfaces.nothing)
    proposals: dict[float | None, dict[int, Proposal]] = field(default_factory=dict)

    def add(self, plane: int, result: surfaces.Surfaces | dict[float | None, Proposal]) -> None:
        """Count what a job found in a plane."""
        if isinstance(result, surfaces.Surfaces):
            self.outlines = self.outlines + result
            return
        for threshold, proposal in result.items():
            self.proposals.setdefault(threshold, {})[plane] = proposal

    def at(self, threshold: float | None) -> list[Proposal]:
        """Give the proposals of a threshold plane by plane, in whatever order they came."""
        return [proposal for _, proposal in sorted(self.proposals[threshold].items())]

    def sums(self, threshold: float | None, *, parted: bool) -> dict[str, np.ndarray[Any, Any]]:
        """Add up the planes of a threshold, by square if they are parted."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for proposal in self.at(threshold):
            tables = [proposal.plain, proposal.thinned]
            if not parted:
                tables = [table.joined() for table in tables]
            plane = border_sums.of_plane(
                tables[0], tables[1], proposal.topology, squares=self.squares if parted else None
            )
            found = {name: part + found.get(name, 0) for name, part in plane.items()}
        return found


def count_borders(
    pairs: Sequence[Pair],
    kind: str,
    *,
    thin: bool,
    scheduler: str,
    workers: int | None,
    progress: Progress,
    squares: Squares | None = None,
    run: Callable[..., None] = run_jobs,
) -> list[Borders]:
    """Sum the outlines and borders of each pair of samples.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
        Which labels.
    thin : bool
        Whether 0 is a border, so that thin borders are scored too.
    scheduler, workers, progress
        Who works, how many, and who hears of it.
    squares : Squares, optional
        Tell these apart.
    run : callable
        Runs the jobs, as `run_jobs` does.

    Returns
    -------
    list of Borders
        One a pair.
    """
    found = [Borders(squares) for _ in pairs]

    def add(part: Part, result: Any) -> None:
        found[part.sample].add(part.plane, result)
        progress.advance()

    def parts() -> Iterator[Part]:
        return parts_of(pairs, kind, thin=thin, squares=squares)

    progress.start("score borders", total=sum(1 for _ in parts()))
    run(score_part, parts(), scheduler=scheduler, workers=workers, on_done=add)
    return found


def sums_of(several: Sequence[Borders], *, tolerance: float, parted: bool) -> dict[str, Sums]:
    """Take the sums of every score of borders, by sample, or by square of a single one.

    Parameters
    ----------
    several : sequence of Borders
        One a sample.
    tolerance : float
        Of `boundary_f`, in pixels.
    parted : bool
        Whether the units are the squares of a single sample.

    Returns
    -------
    dict of str to Sums
        Scores of thin borders are the best over thresholds; they are not there for images that are
        too large, or where not every sample has the same thresholds.
    """
    outlines = [one.outlines for one in several]
    units = len(several)
    if parted and several[0].squares is not None:
        units = several[0].squares.count
    else:
        outlines = [part.in_unit(n) for n, part in enumerate(outlines)]
    found = surfaces.sums_of(surfaces.merge(outlines), units=units, tolerance=tolerance)
    by_threshold = [
        [one.sums(threshold, parted=parted) for one in several] for threshold in tried(several)
    ]
    for name, highest in _HIGHEST.items() if by_threshold else ():
        choices = [
            border_sums.sums_of(name, np.concatenate([sample[name] for sample in samples]))
            for samples in by_threshold
        ]
        found[name] = best(choices, highest=highest)
    return found


def scores_of(borders: Borders | Sequence[Borders], *, tolerance: float) -> dict[str, Any]:
    """Work out the scores of one sample, or of several as one.

    Parameters
    ----------
    borders : Borders or sequence of Borders
    tolerance : float
        Of `boundary_f`, in pixels.

    Returns
    -------
    dict of str to float or None
        Scores of borders are the best over thresholds, and None where an image is too large.
    """
    several = [borders] if isinstance(borders, Borders) else list(borders)
    found = sums_of(several, tolerance=tolerance, parted=False)
    return {name: part.overall() for name, part in found.items()}


def tried(several: Sequence[Borders]) -> list[float | None]:
    """List the thresholds of all samples; none where not every sample has the same.

    Parameters
    ----------
    several : sequence of Borders
    """
    sets = [set(one.proposals) for one in several]
    if not sets or any(thresholds != sets[0] for thresholds in sets):
        return []
    return sorted(sets[0], key=lambda t: -1.0 if t is None else t)


def sweep(several: Sequence[Borders]) -> list[dict[str, float | None]]:
    """Score every threshold that was tried on all samples.

    Parameters
    ----------
    several : sequence of Borders

    Returns
    -------
    list of dict
        `threshold` is None for labels. Empty where not every sample has the same thresholds.
    """
    rows: list[dict[str, float | None]] = []
    for threshold in tried(several):
        samples = [one.sums(threshold, parted=False) for one in several]
        scored = {
            name: border_sums.sums_of(name, np.concatenate([s[name] for s in samples])).overall()
            for name in _HIGHEST
        }
        rows.append({"threshold": threshold, **scored})
    return rows
