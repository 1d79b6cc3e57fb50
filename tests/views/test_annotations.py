"""What is drawn on a page of neuroglancer becomes a file that corrections are read from."""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from unetkit.commands.import_images.corrections import correct
from unetkit.commands.view import view
from unetkit.errors import OutputError, ResourceError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.views.browser import find_browser, headless

neuroglancer = pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
SIZE = HEIGHT, WIDTH = 60, 80
PAGE = (1280, 800)


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """Store an image with labels, and work beside it."""
    monkeypatch.chdir(tmp_path)
    return stored("slide", SIZE, "yx")


def stored(name, shape, axes):
    rng = np.random.default_rng(0)
    writer = DatasetWriter(f"{name}.zarr")
    image = rng.integers(0, 200, shape).astype(np.uint8)
    writer.add(name, image, axes=axes, labels=np.zeros(shape, np.uint8))
    writer.finish()
    return f"{name}.zarr/{name}"


@pytest.fixture
def opened():
    """Open views that are closed at the end of a test."""
    found = []

    def show(*stores, **options):
        found.append(view(*stores, **options))
        return found[-1]

    yield show
    for one in found:
        one.close()


def draw(report, name, *shapes):
    """Draw as the page does, which changes the state."""
    with report.shown.viewer.txn() as state:
        layer = next(one.layer for one in state.layers if one.name == name)
        layer.annotations = [*layer.annotations, *shapes]


def box(first, last, name="b"):
    return neuroglancer.AxisAlignedBoundingBoxAnnotation(id=name, point_a=first, point_b=last)


def features(path="drawn.geojson"):
    return json.loads(Path(path).read_text())["features"]


def inside(corners):
    """Tell of each pixel by its middle whether it lies in a polygon of (x, y), by crossings."""
    y, x = np.indices(SIZE)
    found = np.zeros(SIZE, bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if y0 != y1:
            crosses = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
            found ^= crosses
    return found


def test_corrections_are_what_was_drawn_in_the_windows_that_were_judged(slide, opened):
    report = opened(slide, annotations="drawn.geojson")
    assert not Path("drawn.geojson").exists()
    corners = [(12.3, 8.2), (30.1, 11.7), (24.4, 27.6), (13.2, 20.3)]
    draw(report, "judged", box([50.6, 39.7], [4.4, 3.2]))
    draw(
        report, "objects",
        neuroglancer.PolyLineAnnotation(id="p", points=[list(at) for at in corners]),
        neuroglancer.EllipsoidAnnotation(id="e", center=[40.2, 30.1], radii=[7.3, 4.6]),
    )  # fmt: skip
    correct(slide, edited="drawn.geojson", judged=["judged"], context=500)
    (sample,) = open_dataset("corrections.zarr").samples
    y, x = np.indices(SIZE)
    ellipse = ((x - 40.2) / 7.3) ** 2 + ((y - 30.1) / 4.6) ** 2 <= 1
    labels = np.asarray(sample.labels())
    wanted = inside(corners)
    assert np.array_equal(labels == labels[wanted][0], wanted)
    # 64 corners are a little less than the ellipse.
    assert (((labels > 0) & ~wanted) ^ ellipse).sum() <= 2
    judged = (x > 4.4) & (x < 50.6) & (y > 3.2) & (y < 39.7)
    assert np.array_equal(np.asarray(sample.ignore) == 0, judged)


def test_a_file_follows_what_is_drawn_and_is_gone_on_with(slide, opened):
    report = opened(slide, annotations="drawn.geojson")
    draw(report, "judged", box([1, 2], [20, 30], "one"))
    first = features()
    assert [f["properties"]["classification"]["name"] for f in first] == ["judged"]
    report.shown.viewer.set_state({**report.shown.viewer.state.to_json(), "title": "moved"})
    assert features() == first
    report.close()
    again = opened(slide, annotations="drawn.geojson")
    assert features() == first
    with again.shown.viewer.txn() as state:
        state.layers["tumour"] = neuroglancer.LocalAnnotationLayer(state.dimensions)
        state.layers["tumour"].annotations = [
            neuroglancer.PointAnnotation(id="two", point=[3, 4]),
            neuroglancer.LineAnnotation(id="three", point_a=[3, 4], point_b=[5, 4]),
        ]
    assert features()[0] == first[0]
    more = [(f["geometry"], f["properties"]["classification"]["name"]) for f in features()[1:]]
    assert more == [
        ({"type": "Point", "coordinates": [3.5, 4.5]}, "tumour"),
        ({"type": "LineString", "coordinates": [[3.5, 4.5], [5.5, 4.5]]}, "tumour"),
    ]
    with again.shown.viewer.txn() as state:
        state.layers["judged"].annotations = []
    assert len(features()) == 2


def test_shapes_lie_on_the_planes_that_they_were_drawn_on(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    report = opened(stored("deep", (2, 4, *SIZE), "tzyx"), annotations="drawn.geojson")
    draw(
        report, "judged",
        box([1, 1, 2, 1], [9, 9, 2, 1], "flat"), box([1, 1, 0.5, 0], [9, 9, 2.5, 0], "deep"),
    )  # fmt: skip
    draw(report, "objects", neuroglancer.PolyLineAnnotation(
        id="p", points=[[1, 1, 2.4, 0], [5, 1, 2.4, 0], [5, 5, 2.4, 0]]))  # fmt: skip
    planes = [(f["geometry"]["plane"]["t"], f["geometry"]["plane"]["z"]) for f in features()]
    assert planes == [(1, 2), (0, 1), (0, 2), (0, 2)]
    # A box that lies on several planes is one box when it is gone on with.
    assert sum("unetkit" in f["properties"] for f in features()) == 3


def test_files_of_others_stay(slide):
    Path("drawn.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(OutputError, match="must be an earlier output of unetkit"):
        view(slide, annotations="drawn.geojson")
    with pytest.raises(UsageError, match=r"must be a file named \.geojson, got 'drawn.txt'"):
        view(slide, annotations="drawn.txt")
    with pytest.raises(UsageError, match="must be drawn on a page that stays open"):
        view(slide, annotations="more.geojson", napari=True)


def test_a_disk_that_refuses_is_told_of_and_tried_again(slide, opened, kit_notes):
    Path("lab").mkdir()
    report = opened(slide, annotations="lab/drawn.geojson", progress=kit_notes)
    Path("lab").rename("away")
    draw(report, "judged", box([1, 2], [20, 30]))
    assert any("lab/drawn.geojson could not be written" in note for note in kit_notes.notes)
    Path("away").rename("lab")
    report.close()
    assert len(features("lab/drawn.geojson")) == 1


@pytest.fixture
def kit_notes():
    """Remember what is told."""
    from unetkit.progress import Silent

    class Heard(Silent):
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

    return Heard()


async def clicked(process, places):
    """Click with Ctrl at places of the page that a browser shows, once it shows one."""
    (profile,) = [a.partition("=")[2] for a in process.args if a.startswith("--user-data-dir=")]
    told = Path(profile) / "DevToolsActivePort"
    while not (told.exists() and told.read_text()):
        await asyncio.sleep(0.2)
    port = told.read_text().split()[0]
    pages = json.loads((await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")).body)
    (page,) = [one for one in pages if one["type"] == "page"]
    socket = await websocket_connect(page["webSocketDebuggerUrl"])
    for number, (x, y) in enumerate(places):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            told = {"type": kind, "x": x, "y": y, "modifiers": 2, **pressed}
            message = {"id": number, "method": "Input.dispatchMouseEvent", "params": told}
            await socket.write_message(json.dumps(message))
            await asyncio.sleep(0.4)
    socket.close()


def test_boxes_that_a_hand_draws_in_a_browser_are_kept(slide, opened):
    try:
        find_browser()
    except ResourceError as error:
        pytest.skip(str(error))
    report = opened(slide, annotations="drawn.geojson")
    with headless(report.url, size=PAGE) as process:
        until = time.monotonic() + 240
        while not Path("drawn.geojson").exists() and time.monotonic() < until:
            # The page may not be there yet, and the first of two clicks be lost.
            asyncio.run(clicked(process, [(300, 300), (500, 450)]))
        time.sleep(2)
    (first, *_) = features()
    (ring,) = first["geometry"]["coordinates"]
    assert first["properties"]["classification"] == {"name": "judged"}
    assert len({tuple(at) for at in ring}) == 4
    # So many pixels of the page are one of the image.
    zoom = 960 / WIDTH if 960 / WIDTH < 600 / HEIGHT else 600 / HEIGHT
    across, down = np.ptp(np.array(ring), axis=0)
    assert (across * zoom, down * zoom) == pytest.approx((200, 150), abs=2)
