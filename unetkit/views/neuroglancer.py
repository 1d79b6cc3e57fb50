"""Scenes in neuroglancer: the state that its page shows, and the server of the page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unetkit.errors import ResourceError
from unetkit.views.layer_server import LOOPBACK, LayerServer
from unetkit.views.layers import LABELS, class_colour

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.storage.marks import Mark
    from unetkit.views.annotations import Annotations
    from unetkit.views.drawing import Rgb
    from unetkit.views.layers import Layer, Scene

    Json = dict[str, Any]

# The size of a picture, and of what the page's controls leave of a window of that size.
SIZE, PANE = (1280, 800), (960, 600)
# Our choices: how far apart a mark's window and the picture's borders are, and the least that is
# shown around a mark, in pixels of the image.
AROUND, NEAR = 3.0, 200
# What a page keeps of what it has read, in bytes, on the graphics card and beside it: our choice,
# 40 % of what neuroglancer would, which grows to gigabytes as one goes over a large image.
KEPT_ON_CARD, KEPT_BESIDE = 400_000_000, 800_000_000
# What one layer of marks takes without making the page slow; more would be no list to go through.
MOST_MARKS = 10_000
KEYS = {"keyj": ("unetkit-next", 1), "keyk": ("unetkit-previous", -1)}


def state_of(
    scene: Scene,
    url_of: Callable[[int], str],
    *,
    window: tuple[int, int] = PANE,
    drawn: Annotations | None = None,
) -> Json:
    """Describe a scene as neuroglancer does, each layer read from where `url_of` its number says.

    Its image fills a `window` of a width and a height. What is `drawn` lies over it.

    References
    ----------
    neuroglancer 2.41, python/neuroglancer/viewer_state.py
    """
    axes = [axis for axis in "xyzt" if axis in scene.sizes]
    dimensions = {axis: _unit(scene, axis) for axis in axes}
    place = scene.place(scene.plane) | {axis: (scene.sizes[axis] - 1) / 2 for axis in "yx"}
    layers = [_layer(layer, url_of(number)) for number, layer in enumerate(scene.layers)]
    for number, (name, marks) in enumerate(scene.marks.items()):
        layers.append(
            _marks_layer(name, marks, scene, dimensions)
            | {"annotationColor": _hex(class_colour(number + 1))}
        )
    listed = [*scene.marks]
    for layer in () if drawn is None else drawn.layers(dimensions):
        colour = _hex(class_colour(len(listed) + 1))
        layers.append(layer | {"annotationColor": colour})
        listed.append(layer["name"])
    side = {"layer": listed[0], "visible": True} if listed else {}
    return {
        "title": scene.title,
        "dimensions": dimensions,
        "displayDimensions": [axis for axis in axes if axis in "xyz"],
        "position": [place[axis] for axis in axes],
        "crossSectionScale": _fitting(scene, scene.sizes["y"], scene.sizes["x"], window),
        "layers": layers,
        "layout": "xy",
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#000000",
        "gpuMemoryLimit": KEPT_ON_CARD,
        "systemMemoryLimit": KEPT_BESIDE,
        **({"selectedLayer": side} if side else {}),
    }


def _unit(scene: Scene, axis: str) -> list[Any]:
    """Return the size of a pixel along an axis in metres, 1 where it is not known."""
    return [scene.pixel[axis] * 1e-6, "m"] if axis in scene.pixel else [1, ""]


def _fitting(scene: Scene, height: float, width: float, window: tuple[int, int] = PANE) -> float:
    """Return the scale, in pixels of the image for one of the page, at which a box is seen."""
    least = min(scene.pixel.get(axis, 1.0) for axis in scene.sizes if axis in "zyx")
    across, down = (scene.pixel.get(axis, 1.0) / least for axis in "xy")
    return max(width * across / window[0], height * down / window[1])


def _layer(layer: Layer, url: str) -> Json:
    """Describe a layer of pixels."""
    told: Json = {"name": layer.name, "visible": layer.shown, "source": f"{url}|zarr3:"}
    if layer.kind in LABELS:
        told |= {"type": "segmentation", "selectedAlpha": 0.35, "hideSegmentZero": True}
        if layer.kind == "classes":
            colours = {n: class_colour(n) for n in range(1, max([*layer.names, 8]) + 1)}
            told["segmentColors"] = {str(n): _hex(c) for n, c in colours.items()}
        if layer.names:
            told["source"] = [told["source"], f"{url}|neuroglancer-precomputed:"]
        return told
    ends = list(layer.contrast)
    if layer.dtype.kind in "iu":
        ends = [round(end) for end in ends]
    emit = "emitRGB(colour * contrast());"
    if layer.kind != "image":
        emit = "emitRGBA(vec4(colour, contrast()));"
    code = ["#uicontrol invlerp contrast", '#uicontrol vec3 colour color(default="#ffffff")']
    return told | {
        "type": "image",
        "opacity": 1 if layer.kind == "image" else 0.6,
        "blend": "additive" if layer.kind == "image" else "default",
        "shader": "\n".join([*code, f"void main() {{ {emit} }}"]),
        "shaderControls": {
            "contrast": {"range": ends},
            "colour": _hex(layer.colour),
        },
    }


def _marks_layer(name: str, marks: tuple[Mark, ...], scene: Scene, dimensions: Json) -> Json:
    """Describe marks, each a point, or a box where it has one."""
    listed = []
    for number, mark in enumerate(marks[:MOST_MARKS]):
        told: Json = {"id": str(number), "description": mark.text}
        if mark.box is None:
            told |= {"type": "point", "point": _point(scene, mark, mark.y, mark.x)}
        else:
            y0, x0, y1, x1 = (end - 0.5 for end in mark.box)
            told["type"] = "axis_aligned_bounding_box"
            told["pointA"] = _point(scene, mark, y0, x0, beside=-0.5)
            told["pointB"] = _point(scene, mark, y1, x1, beside=0.5)
        listed.append(told)
    source = {"url": "local://annotations", "transform": {"outputDimensions": dimensions}}
    return {
        "name": name,
        "type": "annotation",
        "source": source,
        "annotations": listed,
        "tab": "annotations",
    }


def _point(scene: Scene, mark: Mark, y: float, x: float, *, beside: float = 0.0) -> list[float]:
    planes = {axis: at + beside for axis, at in scene.place(mark.plane).items()}
    place = planes | {"y": y, "x": x}
    return [place[axis] for axis in "xyzt" if axis in scene.sizes]


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


@dataclass
class Walk:
    """Goes through the marks of a scene one by one, as the keys j and k ask."""

    scene: Scene
    viewer: Any
    at: int = -1

    def __post_init__(self) -> None:
        self.marks = [m for marks in self.scene.marks.values() for m in marks[:MOST_MARKS]]
        if not self.marks:
            return
        for action, step in KEYS.values():  # which is told in the same state as the keys are
            self.viewer.actions.add(action, lambda _, step=step: self.go(step))
        with self.viewer.config_state.txn() as config:
            for key, (action, _) in KEYS.items():
                config.input_event_bindings.viewer[key] = action
                config.input_event_bindings.slice_view[key] = action
        self.say(f"{len(self.marks):,} marks: j goes to the next, k to the one before")

    def go(self, step: int) -> None:
        """Show another mark, and enough around it."""
        first = self.at < 0 < step
        self.at = 0 if first else (max(self.at, 0) + step) % len(self.marks)
        mark = self.marks[self.at]
        ends = mark.box or (mark.y, mark.x, mark.y, mark.x)
        high, wide = (max(NEAR, AROUND * (ends[axis + 2] - ends[axis])) for axis in (0, 1))
        whole = _fitting(self.scene, self.scene.sizes["y"], self.scene.sizes["x"])
        with self.viewer.txn() as state:
            state.position = _point(self.scene, mark, mark.y, mark.x)
            state.cross_section_scale = min(whole, _fitting(self.scene, high, wide))
        self.say(f"{self.at + 1:,} of {len(self.marks):,}: {mark.text or 'mark'}")

    def say(self, text: str) -> None:
        """Write a line on the page."""
        with self.viewer.config_state.txn() as config:
            config.status_messages["unetkit"] = text


class Shown:
    """A scene that is open in neuroglancer as long as this process runs, or until `close`."""

    def __init__(
        self,
        scene: Scene,
        *,
        window: tuple[int, int] = PANE,
        told: Callable[[str], None] = lambda _: None,
        drawn: Annotations | None = None,
    ) -> None:
        self.drawn = drawn
        module = _neuroglancer()
        module.set_server_bind_address(LOOPBACK, 0)
        self.layers = LayerServer(scene, told=told)
        try:
            self.viewer = module.Viewer()
            self.url: str = self.viewer.get_viewer_url()
            self.layers.origin = self.url.partition("/v/")[0]
            self.viewer.set_state(state_of(scene, self.layers.url, window=window, drawn=drawn))
            if drawn is not None:
                self.viewer.shared_state.add_changed_callback(self.keep)
            self.walk = Walk(scene, self.viewer)
            _OPEN.append(self)
        except BaseException:
            self.layers.close()
            raise

    def keep(self) -> None:
        """Write down what is drawn."""
        if self.drawn is not None:
            self.drawn.keep(self.viewer.shared_state.raw_state)

    def picture(self, *, size: tuple[int, int], seconds: float) -> Rgb | None:
        """Return what an open page shows once all of it is loaded, without its controls.

        None where no page answers in time.
        """
        found: list[Rgb] = []
        there = threading.Event()

        def take(reply: Any) -> None:
            found.append(reply.screenshot.image_pixels[..., :3])
            there.set()

        with self.viewer.txn() as state:
            state.selected_layer.visible = False  # the list of marks, which takes room
        with self.viewer.config_state.txn() as config:
            config.show_ui_controls = False
            config.show_panel_borders = False
            config.viewer_size = list(size)
        self.viewer.async_screenshot(take)
        there.wait(seconds)
        return found[0] if found else None

    def close(self) -> None:
        """Let go of the ports; that of the page once no other scene is open."""
        if self in _OPEN:
            self.keep()
            _OPEN.remove(self)
            self.layers.close()
            if not _OPEN:
                _neuroglancer().stop()


# Those of this process, which have one server of pages.
_OPEN: list[Shown] = []


def _neuroglancer() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise ResourceError(
            f"neuroglancer must be installed for a view in the browser, got: {error};"
            " pip install 'unetkit[view]'"
        ) from error
    return neuroglancer
