"""Stores of labels to compare."""

import numpy as np
import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.storage.datasets import DatasetWriter


@pytest.fixture
def place(tmp_path):
    """Return what names a store."""
    return lambda name: str(tmp_path / name)


@pytest.fixture
def write(place):
    """Return what writes a dataset: each sample is its labels, or all that it has, or None."""

    def write(name, samples, **common):
        writer = DatasetWriter(place(name))
        if isinstance(samples, list):
            samples = {f"s{n}": one for n, one in enumerate(samples)}
        for sample, parts in samples.items():
            parts = {"image": np.zeros((8, 8), np.uint8)} if parts is None else parts
            given = common | (parts if isinstance(parts, dict) else {"labels": parts})
            image = given.pop("image", given.get("labels"))
            labels = given.get("labels", image)
            axes = "zyx"[-labels.ndim :]
            writer.add(
                sample, image, axes="c" + axes if image.ndim > labels.ndim else axes, **given
            )
        writer.finish()
        return place(name)

    return write


@pytest.fixture
def compared(write):
    """Return what stores two sides, labels of a sample or datasets, and compares them."""

    def compare(found, truth, *, kind="instances", **options):
        sides = [one if isinstance(one, dict) else {"a": one} for one in (found, truth)]
        urls = [write(f"{n}.zarr", one, kind=kind) for n, one in zip("pt", sides, strict=True)]
        return evaluate(*urls, **options)

    return compare
