"""Whether the input of a prediction is all there, and still what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from unetkit.errors import InputError
from unetkit.storage.census import Census, take_census
from unetkit.storage.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.storage.datasets import Sample

ABSENT_LIST = "absent-input.jsonl"
NO_CENSUS = Census(0, 0, (), 0, 0)


def take_stock(samples: Sequence[Sample], *, complete: bool) -> tuple[Census, ...]:
    """Count the stored chunks of every sample, from the listing of its store.

    Parameters
    ----------
    samples : sequence of Sample
        What is to be predicted.
    complete : bool
        Whether every chunk has to be there.

    Returns
    -------
    tuple of Census
        One for each sample; all zeros where the store lists nothing. Samples of one array, as in
        a stack, share one.

    Raises
    ------
    InputError
        If a chunk is absent and none may be, or a store can't tell.
    """
    found: dict[str, Census | None] = {}
    for sample in samples:
        url = sample.data.url
        if url in found:
            continue
        found[url] = census = take_census(sample.data)
        if complete and census is None:
            raise InputError(
                f"{url} must list its chunks to be known as complete, got a store that lists "
                "nothing; copy it to a disk first, or leave out --require-complete-input"
            )
        if complete and census is not None and census.missing:
            raise InputError(
                f"{url} must have all of its {census.total} chunks, got {census.missing} absent, "
                f"such as {census.absent[0]}; copy it again, or leave out "
                "--require-complete-input if they are empty"
            )
    return tuple(found[sample.data.url] or NO_CENSUS for sample in samples)


def totals(censuses: Sequence[Census]) -> tuple[int, int]:
    """Return the chunks of all samples, and how many of them are absent."""
    once = set(censuses)
    return sum(census.total for census in once), sum(census.missing for census in once)


def absence(censuses: Sequence[Census]) -> str | None:
    """Say in one sentence how much of the input is absent; None where nothing is."""
    total, missing = totals(censuses)
    if not missing:
        return None
    verb = "is" if missing == 1 else "are"
    return f"{missing} of {total} input chunks {verb} absent, read as the fill value"


def list_absent(path: str, samples: Sequence[Sample], censuses: Sequence[Census]) -> None:
    """Write down which chunks are absent, [sample, key] a line; no file where none is."""
    lines = [
        json.dumps([sample.name, key]) + "\n"
        for sample, census in zip(samples, censuses, strict=True)
        for key in census.absent
    ]
    if lines:
        write_text(path, "".join(lines))
