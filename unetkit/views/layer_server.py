"""Layers served to a browser on this machine: each as a Zarr store that is made as it is read.

Whatever the stored version, codec, type or place, a browser sees OME-Zarr 0.5 with raw chunks,
read by the same code as every other command reads. Nothing but loopback hears, and nothing is
answered without the token.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.errors import UnetkitError
from unetkit.storage.ome import TYPES, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.views.layers import Layer, Level, Scene

LOOPBACK = "127.0.0.1"
# Our choice, as wide as the chunks that this library writes.
CHUNK = 512
_PATH = re.compile(r"/([\w-]+)/(\d+)/(?:(zarr\.json|info)|(\d+)/(?:(zarr\.json)|c/([\d/]+)))")


def group_document(scene: Scene, layer: Layer) -> dict[str, Any]:
    """Describe a layer as an OME-Zarr 0.5 image."""
    axes = [
        {"name": axis, "type": TYPES[axis]}
        | ({"unit": "micrometer"} if axis in scene.pixel else {})
        for axis in scene.sizes
    ]
    pixel = {axis: scene.pixel.get(axis, 1.0) for axis in scene.sizes}
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": Steps(
                {axis: level.scale[axis] * pixel[axis] for axis in scene.sizes},
                {axis: level.shift[axis] * pixel[axis] for axis in scene.sizes},
            ).document("".join(scene.sizes)),
        }
        for number, level in enumerate(layer.levels)
    ]
    image = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": image}}


def array_document(scene: Scene, layer: Layer, level: Level) -> dict[str, Any]:
    """Describe one level, uncompressed: nothing travels farther than to the next process."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [level.data.size(axis) for axis in scene.sizes],
        "data_type": layer.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": _chunk_shape(scene, level)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": list(scene.sizes),
    }


def names_document(layer: Layer) -> dict[str, Any]:
    """Name the classes of a layer, as neuroglancer reads properties of segments."""
    properties = [{"id": "label", "type": "label", "values": list(layer.names.values())}]
    inline = {"ids": [str(number) for number in layer.names], "properties": properties}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def chunk_bytes(scene: Scene, layer: Layer, level: Level, place: dict[str, int]) -> bytes | None:
    """Read one chunk by its place along each axis; None where nothing is stored."""
    height, width = _chunk_shape(scene, level)[-2:]
    y0, x0 = place["y"] * height, place["x"] * width
    box = (y0, min(y0 + height, level.data.height), x0, min(x0 + width, level.data.width))
    plane = place.get("t", 0) * level.data.size("z") + place.get("z", 0)
    if level.data.is_blank(plane, *box):
        return None
    found = level.read(layer.channel, plane, box)
    whole = np.zeros((height, width), layer.dtype.newbyteorder("<"))
    whole[: found.shape[0], : found.shape[1]] = found
    return whole.tobytes()


def _chunk_shape(scene: Scene, level: Level) -> list[int]:
    sizes = {axis: min(CHUNK, level.data.size(axis)) for axis in "yx"}
    return [sizes.get(axis, 1) for axis in scene.sizes]


class LayerServer:
    """Serves the layers of a scene on a free port of loopback until it is closed.

    `told` takes, once each, what is wrong with chunks that can't be read; the browser shows them as
    missing.
    """

    def __init__(self, scene: Scene, *, told: Callable[[str], None] = lambda _: None) -> None:
        self.scene = scene
        self.token = secrets.token_urlsafe(32)
        self.origin = ""  # of the page that may read, once it is known
        self._told, self._said = told, set[str]()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def url(self, number: int) -> str:
        """Say where the layer of a number is."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{self.token}/{number}/"

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """Return the status, the body and its type for what was asked for."""
        asked = _PATH.fullmatch(path)
        if asked is None or not hmac.compare_digest(asked[1], self.token):
            return 404, b"", ""
        try:
            body = self._found(*asked.groups()[1:])
        except (IndexError, KeyError, ValueError) as error:
            if isinstance(error, UnetkitError):
                return self._failed(error)
            body = None
        except Exception as error:  # one chunk that can't be read must not end the others
            return self._failed(error)
        if body is None:
            return 404, b"", ""
        if isinstance(body, dict):
            return 200, json.dumps(body).encode(), "application/json"
        return 200, body, "application/octet-stream"

    def _failed(self, error: Exception) -> tuple[int, bytes, str]:
        if (sentence := str(error)) not in self._said:
            self._said.add(sentence)
            self._told(sentence)
        return 500, sentence.encode(), "text/plain"

    def _found(
        self, number: str, of_layer: str | None, at: str | None, of_level: str | None, key: str
    ) -> dict[str, Any] | bytes | None:
        layer = self.scene.layers[int(number)]
        if of_layer == "info":
            return names_document(layer) if layer.names else None
        if of_layer:
            return group_document(self.scene, layer)
        level = layer.levels[int(at or 0)]
        if of_level:
            return array_document(self.scene, layer, level)
        place = dict(zip(self.scene.sizes, map(int, key.split("/")), strict=True))
        return chunk_bytes(self.scene, layer, level, place)


def _handler(server: LayerServer) -> type[BaseHTTPRequestHandler]:
    """Make what answers one connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body go out as they come, not once the other side has confirmed the first.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, body, kind = server.answer(self.path.partition("?")[0])
            self.send_response(status)
            if server.origin:
                self.send_header("Access-Control-Allow-Origin", server.origin)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def do_OPTIONS(self) -> None:
            self.send_response(204)
            self.send_header("Access-Control-Allow-Origin", server.origin)
            self.send_header("Access-Control-Allow-Headers", "Range, Cache-Control")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing: what was asked for is nobody's business."""

    return Handler
