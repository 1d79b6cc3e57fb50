"""What cannot be compared is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from unetkit.commands.evaluate.samples import match_samples
from unetkit.errors import InputError
from unetkit.storage.datasets import DatasetWriter


def write(url: str, names: str, **options: object) -> str:
    writer = DatasetWriter(url)
    for name in names:
        labels = np.ones((4, 5), np.uint8)
        writer.add(name, labels, axes="yx", labels=labels, **options)
    writer.finish()
    return url


@pytest.fixture
def place(tmp_path):
    return lambda name: str(tmp_path / name)


def test_samples_are_paired_by_name(place):
    matched = match_samples(write(place("p.zarr"), "abc"), write(place("t.zarr"), "ca"))
    assert [(a.name, b.name) for a, b in matched.pairs] == [("c", "c"), ("a", "a")]
    assert matched.unpaired == ("b",)
    assert matched.kind == "instances"


def test_pixels_of_another_size_are_refused(place):
    found = write(place("p.zarr"), "a", pixel_size={"y": 0.5, "x": 0.5})
    wanted = write(place("t.zarr"), "a", pixel_size={"y": 0.25, "x": 0.5})
    with pytest.raises(InputError, match=r"one size, got 0\.5 and 0\.25 micrometres in y"):
        match_samples(found, wanted)
    assert match_samples(found, found).pairs
    assert match_samples(found, write(place("u.zarr"), "a")).pairs
