"""What a browser is served reads back as what is stored, whatever the store is made of."""

import http.client
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
import zarr

from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image
from unetkit.views.layer_server import LayerServer
from unetkit.views.layers import image_layers, label_layers, scene_of

RNG = np.random.default_rng(5)


def scene(image, **parts):
    found = [*image_layers(image, over=image.data), *label_layers(image, over=image.data)]
    return scene_of("x", image, found, **parts)


@pytest.fixture
def served():
    """Return what serves a scene for the length of a test."""
    started = []

    def serve(shown, told=lambda _: None):
        started.append(LayerServer(shown, told=told))
        return started[-1]

    yield serve
    for server in started:
        server.close()


def get(url, method="GET"):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request(method, parts.path)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


@pytest.mark.parametrize(
    ("dtype", "seen"),
    [
        ("u1", "u1"),
        ("i2", "i2"),
        ("u4", "u4"),
        ("f4", "f4"),
        ("f2", "f4"),
        ("f8", "f4"),
        ("i8", "f4"),
        (">u2", "u2"),
        ("?", "u1"),
    ],
)
def test_pixels_of_every_type_are_served_as_a_viewer_knows_them(tmp_path, served, dtype, seen):
    pixels = (RNG.random((70, 40)) * 90).astype(dtype)
    zarr.create_array(str(tmp_path / "a.zarr"), data=pixels, chunks=(32, 32))
    server = served(scene(open_image(str(tmp_path / "a.zarr"))))
    found = open_image(server.url(0))
    assert found.dtype == np.dtype(seen)
    np.testing.assert_array_equal(found, pixels.astype(seen))


def test_channels_planes_labels_and_levels_come_one_by_one(tmp_path, served):
    pixels = RNG.integers(0, 200, (2, 3, 2, 1030, 7)).astype("u2")
    labels = RNG.integers(0, 9, (2, 3, 1030, 7)).astype("u1")
    writer = DatasetWriter(str(tmp_path / "a.zarr"))
    writer.add("one", np.moveaxis(pixels, 2, 1), axes="tczyx", labels=labels)
    writer.finish()
    image = open_dataset(str(tmp_path / "a.zarr")).samples[0].image
    server = served(scene(image))
    for number in (0, 1):
        found = open_image(server.url(number))
        assert (found.axes, found.levels) == ("tzyx", 2)
        np.testing.assert_array_equal(found, pixels[:, :, number])
    np.testing.assert_array_equal(open_image(server.url(2)), labels)
    # The second level of an image are means, of labels the first pixels of each block.
    url = urlsplit(server.url(2) + "1/c/1/2/0/0")
    small = np.frombuffer(get(url.geturl())[1], "<u4").reshape(512, -1)
    np.testing.assert_array_equal(small, labels[1, 2, ::2, ::2][:512])


def test_the_place_of_a_level_is_that_of_the_store(tmp_path, served):
    pixels = RNG.integers(0, 200, (1100, 1300)).astype("u1")
    writer = DatasetWriter(str(tmp_path / "a.zarr"))
    size = {"y": 0.5, "x": 0.25}
    writer.add("one", pixels, axes="yx", labels=pixels, pixel_size=size)
    writer.finish()
    image = open_dataset(str(tmp_path / "a.zarr")).samples[0].image
    server = served(scene(image))
    stored = json.loads((tmp_path / "a.zarr" / "one" / "zarr.json").read_text())
    wanted = stored["attributes"]["ome"]["multiscales"][0]["datasets"]
    got = json.loads(get(server.url(0) + "zarr.json")[1])
    assert got["attributes"]["ome"]["multiscales"][0]["datasets"] == wanted
    assert open_image(server.url(0)).pixel_size == size


def test_nothing_is_served_without_the_token_or_beside_the_layers(tmp_path, served):
    data = create_image(str(tmp_path / "a.zarr"), shape=(8, 8), axes="yx", dtype="u1")
    data.write(0, 0, 0, np.ones((1, 8, 8), "u1"))
    server = served(scene(open_image(str(tmp_path / "a.zarr"))))
    url = server.url(0)
    assert urlsplit(url).hostname == "127.0.0.1"
    assert server._server.server_address[0] == "127.0.0.1"
    assert get(url + "0/c/0/0")[0] == 200
    assert get(url + "0/c/0/0", "HEAD")[:2] == (200, b"")
    other = server.token[:-1] + ("a" if server.token[-1] != "a" else "b")
    for wrong in (
        url.replace(server.token, other) + "zarr.json",
        url.replace(server.token, "") + "zarr.json",
        url + "../../../../etc/passwd",
        url + "0/c/1/0",
        url + "0/c/0",
        url + "3/c/0/0",
        url + "info",
        url.removesuffix("/0/") + "/7/zarr.json",
    ):
        assert get(wrong)[:2] == (404, b""), wrong


def test_only_the_page_may_read_from_elsewhere(tmp_path, served):
    data = create_image(str(tmp_path / "a.zarr"), shape=(8, 8), axes="yx", dtype="u1")
    data.write(0, 0, 0, np.ones((1, 8, 8), "u1"))
    server = served(scene(open_image(str(tmp_path / "a.zarr"))))
    server.origin = "http://127.0.0.1:1"
    headers = get(server.url(0) + "zarr.json")[2]
    assert headers["Access-Control-Allow-Origin"] == "http://127.0.0.1:1"


def test_a_damaged_chunk_is_told_of_once_and_the_others_come(tmp_path, served):
    data = create_image(str(tmp_path / "a.zarr"), shape=(600, 8), axes="yx", dtype="u1")
    data.write(0, 0, 0, np.ones((1, 512, 8), "u1"))
    data.write(0, 512, 0, np.full((1, 88, 8), 7, "u1"))
    image = open_image(str(tmp_path / "a.zarr"))
    shown = scene(image)
    chunk = tmp_path / "a.zarr" / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    told = []
    server = served(shown, told.append)
    for _ in range(2):
        assert get(server.url(0) + "0/c/0/0")[0] == 500
    assert len(told) == 1
    assert "a.zarr" in told[0]
    status, body, _ = get(server.url(0) + "0/c/1/0")
    assert (status, set(body[: 88 * 8])) == (200, {7})
