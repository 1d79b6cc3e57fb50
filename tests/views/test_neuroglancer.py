"""What neuroglancer draws, in a real browser, against the pixels of the store."""

import http.client
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from scipy import ndimage

from unetkit.errors import ResourceError
from unetkit.storage.image_writer import create_image, create_labels
from unetkit.storage.images import open_image
from unetkit.storage.marks import Mark
from unetkit.storage.pyramids import add_pyramid, block_mean
from unetkit.views.browser import find_browser, headless
from unetkit.views.layers import image_layers, label_layers, scene_of
from unetkit.views.neuroglancer import Shown, state_of

pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
RNG = np.random.default_rng(8)
SIZE = WIDTH, HEIGHT = 400, 300
SECONDS = 300


@pytest.fixture
def drawn():
    """Return what draws layers at a zoom, with a given pixel's upper left corner in the middle."""
    try:
        find_browser()
    except ResourceError as error:
        pytest.skip(str(error))
    shown = []

    def draw(image, *, at, zoom=1.0, hidden=(), marks=None, **place):
        layers = [*image_layers(image, over=image.data), *label_layers(image, over=image.data)]
        scene = scene_of("x", image, layers)
        if marks:
            scene = scene_of("x", image, layers).__class__(**{**vars(scene), "marks": marks})
        shown.append(Shown(scene))
        with shown[-1].viewer.txn() as state:
            where = {"y": at[0] - 0.5, "x": at[1] - 0.5, **scene.place(scene.plane), **place}
            state.position = [where[axis] for axis in "xyzt" if axis in scene.sizes]
            state.cross_section_scale = zoom
            for name in hidden:
                state.layers[name].visible = False
            state.show_scale_bar = state.show_default_annotations = False
            for layer in state.layers:
                if layer.type == "segmentation":
                    layer.layer.selected_alpha = 1.0
        with headless(shown[-1].url, size=SIZE):
            picture = shown[-1].picture(size=SIZE, seconds=SECONDS)
        assert picture is not None
        assert picture.shape == (HEIGHT, WIDTH, 3)
        return picture

    yield draw
    for one in shown:
        one.close()


def window(pixels, at, fill=0):
    """Cut what is to be seen out of pixels (..., Y, X), around the corner of one of them."""
    padded = np.pad(
        pixels,
        [(0, 0)] * (pixels.ndim - 2) + [(HEIGHT, HEIGHT), (WIDTH, WIDTH)],
        constant_values=fill,
    )
    y, x = at[0] + HEIGHT - HEIGHT // 2, at[1] + WIDTH - WIDTH // 2
    return padded[..., y : y + HEIGHT, x : x + WIDTH]


def noise(shape, *, dtype="u1"):
    """Return pixels whose 1st and 99.5th percentiles are 0 and 255, which then are drawn as is."""
    return np.round(RNG.random(shape) * 300 - 20).clip(0, 255).astype(dtype)


def store(path, pixels, *, axes="yx", labels=None, version="0.5", pixel_size=None):
    data = create_image(
        str(path),
        shape=pixels.shape,
        axes=axes,
        dtype=pixels.dtype,
        chunk=64,
        ome_version=version,
        pixel_size=pixel_size,
    )
    planes = pixels.reshape(data.planes, data.channel_count, *pixels.shape[-2:])
    for number, plane in enumerate(planes):
        data.write(number, 0, 0, plane)
    if labels is not None:
        kept = axes.replace("c", "")
        target = create_labels(
            str(path), "instances", shape=labels.shape, axes=kept, dtype=labels.dtype
        )
        for number, plane in enumerate(labels.reshape(-1, *labels.shape[-2:])):
            target.write(number, 0, 0, plane)
    add_pyramid(str(path))
    return open_image(str(path))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_pixels_are_drawn_as_they_are_stored(tmp_path, drawn, version):
    pixels = noise((211, 330))
    image = store(tmp_path / "a.zarr", pixels, version=version, pixel_size={"y": 0.5, "x": 0.5})
    at = (90, 170)
    found = drawn(image, at=at).astype(int)
    assert np.abs(found - window(pixels, at)[..., None]).max() <= 1


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_drawn_on_their_pixels_neither_turned_nor_shifted(tmp_path, drawn, version):
    labels = ndimage.label(ndimage.gaussian_filter(RNG.random((150, 230)), 3) > 0.52)[0]
    labels = labels.astype("u2")
    image = store(tmp_path / "a.zarr", noise(labels.shape), labels=labels, version=version)
    at = (70, 110)
    found = drawn(image, at=at, hidden=["a"])
    seen = window(labels, at)
    np.testing.assert_array_equal(found.any(axis=-1), seen > 0)
    # One object, one colour.
    for number in np.unique(seen[seen > 0]):
        assert len(np.unique(found[seen == number], axis=0)) == 1


def test_smaller_levels_lie_where_their_pixels_come_from(tmp_path, drawn):
    pixels = noise((1301, 1500))
    labels = (ndimage.gaussian_filter(RNG.random(pixels.shape), 5) > 0.5).astype("u1")
    image = store(tmp_path / "a.zarr", pixels, labels=labels)
    at = (600, 640)
    half = [at[0] // 2, at[1] // 2]
    means = block_mean(pixels, 2, 2).astype(float)
    black, white = np.percentile(means, (1, 99.5), method="lower")
    shown = (means - black) / (white - black) * 255
    found = drawn(image, at=at, zoom=2.0, hidden=["instances"]).astype(int)
    assert np.abs(found - window(shown.clip(0, 255), half)[..., None]).max() <= 1
    found = drawn(image, at=at, zoom=2.0, hidden=["a"])
    np.testing.assert_array_equal(found.any(axis=-1), window(labels[::2, ::2], half) > 0)


def test_channels_add_up_in_their_colours(tmp_path, drawn):
    pixels = noise((3, 120, 130))
    at = (50, 60)
    found = drawn(store(tmp_path / "rgb.zarr", pixels, axes="cyx"), at=at).astype(int)
    assert np.abs(found - np.moveaxis(window(pixels, at), 0, -1)).max() <= 1
    found = drawn(store(tmp_path / "two.zarr", pixels[:2], axes="cyx"), at=at).astype(int)
    magenta, green = window(pixels[:2], at)
    assert np.abs(found - np.dstack([magenta, green, magenta])).max() <= 1


def test_the_plane_of_a_time_and_a_depth_is_drawn(tmp_path, drawn):
    pixels = noise((3, 4, 90, 100))
    labels = np.zeros(pixels.shape, "u1")
    image = store(tmp_path / "a.zarr", pixels, axes="tzyx", labels=labels)
    at = (40, 50)
    for place, plane in (({}, pixels[1, 2]), ({"t": 2, "z": 1}, pixels[2, 1])):
        found = drawn(image, at=at, **place).astype(int)
        assert np.abs(found - window(plane, at)[..., None]).max() <= 1


def test_the_whole_image_is_seen_at_first(tmp_path, drawn):
    image = store(tmp_path / "a.zarr", np.full((60, 500), 9, "u1") + noise((60, 500)) // 8)
    state = state_of(scene_of("x", image, image_layers(image, over=image.data)), "{}/".format)
    assert state["position"] == [249.5, 29.5]
    assert state["crossSectionScale"] * 960 == pytest.approx(500)


def test_marks_are_drawn_where_they_are(tmp_path, drawn):
    image = store(tmp_path / "a.zarr", np.zeros((200, 300), "u1"))
    marks = {"errors": (Mark(0, 40, 250, "miss"),)}
    found = drawn(image, at=(100, 150), marks=marks)
    coloured = (found[..., 0].astype(int) - found[..., 2]) > 100
    centre = ndimage.center_of_mass(coloured)
    # The corner of row 100, column 150 is in the middle, and the mark is on a pixel's centre.
    assert np.abs(np.subtract(centre, (HEIGHT / 2 - 60, WIDTH / 2 + 100))).max() < 1


def test_keys_go_from_mark_to_mark(tmp_path, browser):
    image = store(tmp_path / "a.zarr", noise((400, 500)))
    marks = {"miss": (Mark(0, 40, 250, "id 3"),), "false": (Mark(0, 9, 8, box=(0, 0, 19, 17)),)}
    scene = scene_of("x", image, image_layers(image, over=image.data))
    shown = Shown(type(scene)(**{**vars(scene), "marks": marks}))
    try:
        browser.get(shown.url)

        def press(key, wanted):
            for _ in range(SECONDS):
                browser.find_element("tag name", "body").send_keys(key)
                for _ in range(10):
                    time.sleep(0.1)
                    if list(shown.viewer.state.position) == wanted:
                        return
            raise AssertionError(list(shown.viewer.state.position))

        press("j", [250, 40])
        press("j", [8, 9])
        assert "2 of 2" in browser.find_element("tag name", "body").text
        press("k", [250, 40])
        assert "1 of 2: id 3" in browser.find_element("tag name", "body").text
    finally:
        shown.close()


def status(url):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request("GET", parts.path)
    found = connection.getresponse().status
    connection.close()
    return found


def test_the_page_is_there_for_its_token_alone_and_until_it_is_closed(tmp_path):
    image = store(tmp_path / "a.zarr", noise((40, 50)))
    scene = scene_of("x", image, image_layers(image, over=image.data))
    first, second = Shown(scene), Shown(scene)
    assert urlsplit(first.url).hostname == "127.0.0.1"
    wrong = first.url.replace(urlsplit(first.url).path, "/v/1234/")
    assert [status(url) for url in (first.url, wrong)] == [200, 404]
    first.close()
    assert status(second.url) == 200
    second.close()
    with pytest.raises(ConnectionRefusedError):
        status(second.url)
