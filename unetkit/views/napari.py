"""Scenes in napari, where it is installed: the same layers at the same places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unetkit.errors import ResourceError
from unetkit.views.layers import LABELS

if TYPE_CHECKING:
    from unetkit.views.layers import Layer, Level, Scene


def show(scene: Scene) -> None:
    """Open a scene in napari, and come back when its window is closed."""
    try:
        import napari
    except ImportError as error:
        raise ResourceError(
            f"napari must be installed to show layers in it, got: {error}; pip install"
            " 'napari[all]', or leave --napari out"
        ) from error
    add_layers(napari.Viewer(title=scene.title), scene)
    napari.run()


def add_layers(viewer: Any, scene: Scene) -> None:
    """Add what a scene holds to a viewer of napari, to be read as it is shown."""
    from napari.utils import Colormap

    for layer in scene.layers:
        levels = [_lazy(scene, layer, level) for level in layer.levels]
        told: dict[str, Any] = {
            "name": layer.name,
            "visible": layer.shown,
            "multiscale": len(levels) > 1,
            "scale": [_micrometres(scene, axis, layer.levels[0].scale) for axis in scene.sizes],
            "translate": [_micrometres(scene, axis, layer.levels[0].shift) for axis in scene.sizes],
        }
        data = levels if len(levels) > 1 else levels[0]
        if layer.kind in LABELS:
            viewer.add_labels(data, **told, opacity=0.5)
        else:
            colour = [part / 255 for part in layer.colour]
            colours = Colormap([[0, 0, 0], colour], name=layer.name)
            told |= {"contrast_limits": layer.contrast, "colormap": colours}
            viewer.add_image(data, **told, blending="additive")
    _add_marks(viewer, scene)
    for axis, at in scene.place(scene.plane).items():
        if axis in scene.sizes:
            viewer.dims.set_current_step(list(scene.sizes).index(axis), at)


def _lazy(scene: Scene, layer: Layer, level: Level) -> Any:
    """Return one channel of a level as a lazy array with the axes of the scene."""
    data = level.data.pick([layer.channel]) if level.data.has_channels else level.data
    found = data.to_dask()
    kept = [axis for axis in data.axes if axis in scene.sizes]
    found = found[tuple(slice(None) if axis in kept else 0 for axis in data.axes)]
    found = found.transpose([kept.index(axis) for axis in scene.sizes])
    return found.astype(layer.dtype)


def _micrometres(scene: Scene, axis: str, pixels: Any) -> float:
    return float(pixels[axis] * scene.pixel.get(axis, 1.0))


def _add_marks(viewer: Any, scene: Scene) -> None:
    """Add points, and boxes as rectangles, with what is told of each."""
    scale = [scene.pixel.get(axis, 1.0) for axis in scene.sizes]
    for name, marks in scene.marks.items():
        planes = [scene.place(mark.plane) for mark in marks]
        leading = [[p[axis] for axis in scene.sizes if axis in "tz"] for p in planes]
        features = {"text": [mark.text for mark in marks]}
        if all(mark.box for mark in marks):
            boxes = []
            for lead, mark in zip(leading, marks, strict=True):
                y0, x0, y1, x1 = (end - 0.5 for end in mark.box or ())
                boxes.append([[*lead, y, x] for y, x in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))])
            told = {"features": features, "face_color": "transparent", "edge_color": "yellow"}
            viewer.add_shapes(boxes, name=name, scale=scale, shape_type="rectangle", **told)
        else:
            points = [[*lead, m.y, m.x] for lead, m in zip(leading, marks, strict=True)]
            viewer.add_points(points, name=name, scale=scale, features=features)
