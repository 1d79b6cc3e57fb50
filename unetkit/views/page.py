"""Self-contained pages, pictures and data inside: of an evaluation, a training, a review."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unetkit.views.drawing import edges, to_grey8, to_rgb8

if TYPE_CHECKING:
    import numpy.typing as npt

# How every such page begins; a file that begins so may be replaced.
BEGINS = "<!doctype html><!-- unetkit eval -->"
# What a template is made of.
_PARTS = re.compile(
    r"<title>unetkit (?P<name>\w+)</title>\n<style>\n(?P<style>.*?)</style>\n"
    r"(?P<body>.*)<script>\n(?P<script>.*)</script>",
    flags=re.DOTALL,
)
# Own choice: blue and orange stay apart for most colour-blind readers, and on grey.
COLOURS = {"truth": (64, 196, 255), "prediction": (255, 159, 28)}


def overlay(
    image: npt.NDArray[np.generic], truth: npt.NDArray[Any], prediction: npt.NDArray[Any]
) -> dict[str, Any]:
    """Draw an image (C, Y, X) and the outlines of two label planes as pictures to lay over it.

    Returns `width`, `height`, and PNG data URIs `image`, `truth`, `prediction`.
    """
    drawn: dict[str, Any] = {"width": image.shape[2], "height": image.shape[1]}
    drawn["image"] = image_uri(image)
    for name, labels in (("truth", truth), ("prediction", prediction)):
        line = np.zeros((*labels.shape, 4), np.uint8)
        line[edges(labels)] = (*COLOURS[name], 255)
        drawn[name] = _uri(Image.fromarray(line))
    return drawn


def image_uri(image: npt.NDArray[np.generic]) -> str:
    """Draw an image (C, Y, X) as a PNG data URI, a single channel as grey values."""
    return _uri(Image.fromarray(to_grey8(image) if len(image) == 1 else to_rgb8(image)))


def edge_path(labels: npt.NDArray[Any]) -> str:
    """Draw the lines between pixels of different labels (Y, X), as the path of an SVG.

    They run along the edges of pixels, and stay open where an object goes on beyond the picture.

    >>> edge_path(np.array([[0, 1], [0, 1]]))
    'M1 0v2'
    """
    parts = []
    for turned, line in ((labels, "M{0} {1}h{2}"), (labels.T, "M{1} {0}v{2}")):
        differs = np.pad(turned[1:] != turned[:-1], ((0, 0), (1, 1)))
        # Along a row, where a run of edges begins and where it ends, in turns.
        row, at = np.nonzero(differs[:, 1:] != differs[:, :-1])
        ends = zip((row[::2] + 1).tolist(), at[::2].tolist(), at[1::2].tolist(), strict=True)
        parts += [line.format(start, y, stop - start) for y, start, stop in ends]
    return "".join(parts)


def page(contents: dict[str, Any], *, template: str = "report.html") -> str:
    """Put plain values into a page of this package, HTML that asks nothing of any network.

    A template holds a title, a style, a body and a script of its own. All share a frame, a style
    sheet and the script beside it; charts, and the library that draws them, come along where the
    template has some. Names in `contents` may be anything, as they are only ever shown as text.
    """
    parts = _PARTS.fullmatch(_read(template))
    if parts is None:
        raise ValueError(f"{template} must be a title, a style, a body and a script")
    styles, scripts = ["page.css"], ["page.js"]
    if "chart(" in parts["script"]:
        styles.insert(0, "uplot/uPlot.min.css")
        scripts = ["uplot/uPlot.iife.min.js", *scripts, "chart.js"]
    data = json.dumps(contents, allow_nan=False)
    # Nothing in a name may end the element that holds the data.
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    filled = {
        "name": parts["name"],
        "style": "\n".join([*map(_read, styles), parts["style"]]),
        "body": parts["body"],
        "data": data,
        "script": "\n".join(
            [_licence() if len(scripts) > 1 else "", *map(_read, scripts), parts["script"]]
        ),
    }
    # In one pass, so that what was filled in is not searched for places to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _read("page.html"))


def _read(name: str) -> str:
    return files("unetkit").joinpath("data", *name.split("/")).read_text(encoding="utf-8").strip()


def _licence() -> str:
    """Return what every copy of the charts' library has to say, as a comment."""
    return f"/* uPlot:\n{_read('uplot/LICENSE')} */"


def png_uri(content: bytes) -> str:
    """Write the content of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _uri(picture: Image.Image) -> str:
    """Write a picture as a data URI."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return png_uri(stream.getvalue())
