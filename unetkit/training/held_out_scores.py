"""What the kept decision scores on what was held out, with intervals over its images or groups.

It does not know networks or files; a model file keeps what it returns in its provenance, where
earlier versions leave it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unetkit.arrays.instances import has_instances
from unetkit.models.decision import default_decision
from unetkit.models.inference import to_classes
from unetkit.scores import bootstrap
from unetkit.scores.contingency import apart, from_labels
from unetkit.scores.sums import pixel_sums
from unetkit.scores.table import class_sums, instance_sums, score_sums
from unetkit.training.tuning import decided

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unetkit.models.decision import Decision
    from unetkit.scores.contingency import Contingency
    from unetkit.scores.sums import Sums
    from unetkit.training.tuning import HeldOutMap

RESAMPLES = 1000
# Of objects: what people compare models by.
OF_OBJECTS = ("average_precision", "average_precision_50", "f1", "pq", "dice")


def held_out_scores(
    maps: Sequence[HeldOutMap],
    decision: Decision | None,
    *,
    target: str,
    class_names: Sequence[str],
    data: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Score maps as a prediction with a decision would be, and say how sure these scores are.

    Places of one image are alike, so that images are drawn anew, and groups where images have some;
    of fewer than five there are no intervals, and `reason` says so.

    Parameters
    ----------
    maps : sequence of HeldOutMap
        At least one.
    decision : Decision or None
        None where the most probable class is taken.
    target : str
        What the network has learned.
    class_names : sequence of str
        In the order of the probabilities.
    data : str
        What the dataset is called.
    seed : int
        Of the resamples.

    Returns
    -------
    dict
        What JSON can hold.
    """
    tables = [_table(one, decision, target=target) for one in maps]
    grouped = any(one.group is not None for one in maps)
    names = [(one.group if grouped else None) or one.image for one in maps]
    units, unit = len(set(names)), "group" if grouped else "image"
    found = {name: sums.grouped(names) for name, sums in _sums(tables, target, class_names)}
    scores = {name: sums.overall() for name, sums in found.items()}
    enough = units >= bootstrap.LEAST_UNITS
    intervals = {
        name: bootstrap.interval(sums, resamples=RESAMPLES, seed=seed)
        if enough and scores[name] is not None
        else None
        for name, sums in found.items()
    }
    return {
        "data": data,
        "images": len({one.image for one in maps}),
        **({"objects": sum(one.objects for one in maps)} if has_instances(target) else {}),
        "unit": unit,
        "units": units,
        "level": bootstrap.LEVEL,
        "resamples": RESAMPLES,
        "seed": seed,
        "scores": {name: None if s is None else round(s, 6) for name, s in scores.items()},
        "intervals": {
            name: None if one is None else [round(end, 6) for end in one]
            for name, one in intervals.items()
        },
        "reason": None if enough else bootstrap.too_few(unit, units),
    }


def _table(one: HeldOutMap, decision: Decision | None, *, target: str) -> Contingency:
    """Count what a prediction of a map has in common with its truth."""
    usual = default_decision(target, classes=len(one.probabilities))
    if has_instances(target):
        found = decided(one.probabilities, decision or usual, target=target)
    else:
        threshold = (decision or usual).threshold
        found = to_classes(one.probabilities, threshold=0.5 if threshold is None else threshold)
    return from_labels(one.truth, found, ignore=one.ignore)


def _sums(
    tables: Sequence[Contingency], target: str, class_names: Sequence[str]
) -> Iterator[tuple[str, Sums]]:
    """Give the sums of each score that is kept, table by table."""
    if has_instances(target):
        sums = instance_sums(apart(tables))
        yield from ((name, sums[name]) for name in OF_OBJECTS)
        return
    sums = class_sums(tables)
    yield from ((name, sums[name]) for name in ("dice", "iou"))
    for label, name in enumerate(class_names[1:] if len(class_names) > 2 else (), start=1):
        own = score_sums({"dice": pixel_sums(tables, [label])["dice"]})
        yield f"dice of {name}", own["dice"]
