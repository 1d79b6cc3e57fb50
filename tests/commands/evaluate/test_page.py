"""What the page holds: the worst first, pictures only where they are not too large."""

import numpy as np
import pytest

from unetkit.commands.evaluate import report as module
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.evaluate.object_errors import ScoredObject
from unetkit.commands.evaluate.samples import match_samples


@pytest.fixture
def store(write):
    return write(
        "t.zarr", [np.pad(np.ones((6, 6), np.uint8), ((2, 12), (2, 12 + n))) for n in range(3)]
    )


@pytest.fixture
def page():
    """Return what the page of a store compared with itself holds."""

    def contents(url, found=()):
        report = evaluate(url, url, scheduler="sync")
        return module.contents(report, match_samples(url, url).pairs, list(found))

    return contents


def test_large_images_are_made_smaller_and_say_so(store, page, monkeypatch):
    pictures = page(store)["pictures"]
    assert [picture["factor"] for picture in pictures.values()] == [1, 1, 1]
    monkeypatch.setattr(module, "LONGEST", 21)
    pictures = page(store)["pictures"]
    assert {name: (p["factor"], p["width"]) for name, p in pictures.items()} == {
        "s0": (1, 20),
        "s1": (1, 21),
        "s2": (2, 11),
    }
    monkeypatch.setattr(module, "PIXELS", 3 * 100)
    pictures = page(store)["pictures"]
    assert [p["width"] * p["height"] for p in pictures.values()] == [100, 30, 30]


def test_objects_that_no_picture_shows_have_their_own(store, page, monkeypatch):
    found = [ScoredObject("s2", "truth", 0, 1, 4.5, 4.5, 36, "miss", None, 0.0)]
    assert page(store, found)["objects"][0]["picture"] is None
    monkeypatch.setattr(module, "LONGEST", 16)
    monkeypatch.setattr(module, "NEAR", 8)
    picture = page(store, found)["objects"][0]["picture"]
    assert (picture["row"], picture["column"], picture["factor"]) == (0, 0, 1)
    assert (picture["height"], picture["width"]) == (12, 12)
    monkeypatch.setattr(module, "DRAWN", 6)
    picture = page(store, found)["objects"][0]["picture"]
    assert (picture["factor"], picture["width"]) == (2, 6)


def test_the_page_is_bounded_whatever_is_compared(write, page, monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 2**18)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, size=(3, 600, 300)).astype(np.uint8)
    labels = np.zeros((600, 300), np.uint8)
    labels[5:9, 5:9] = 1
    url = write("n.zarr", [{"image": noise, "labels": labels}] * 4)
    pictures = page(url)["pictures"]
    assert [p["factor"] for p in pictures.values()] == [2] * 4
    # Noise takes three bytes a pixel, and four thirds of that as text.
    assert sum(len(p["image"]) for p in pictures.values()) < 4.2 * module.PIXELS


def test_the_largest_that_went_wrong_come_first(store, page):
    found = [
        ScoredObject("s0", "truth", 0, n, 1.0, 1.0, area, kind, None, 0.0)
        for n, (area, kind) in enumerate([(5, "miss"), (50, "match"), (9, "split")], start=1)
    ]
    contents = page(store, found)
    assert [one["id"] for one in contents["objects"]] == [3, 1]
    assert contents["counts"] == {"truth match": 1, "truth miss": 1, "truth split": 1}
