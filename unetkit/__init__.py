"""unetkit: from annotated microscopy images to seamless segmentations of slides of any size.

Every command of the command line is a function of the same job here, with the same options:
`import_images`, `augment`, `weights`, `train`, `tile_predict`, `evaluate`, `measure`,
`export_prediction`, `info` and `demo`; `list_models`, `show_model`, `export_model`, `list_plugins`
and `new_plugin` are what
`unetkit models` and `unetkit plugins` run, and `unetkit.testing` checks a model. `open_dataset` and
`open_image` read what they write; `SizeContract` is what a model says of the sizes that it takes,
and `ImageFile` what a reader makes of an image file. Names load their module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetkit.errors import UnetkitError
    from unetkit.geometry.sizes import SizeContract
    from unetkit.pipeline.augment import augment
    from unetkit.pipeline.demo import demo
    from unetkit.pipeline.evaluate import evaluate
    from unetkit.pipeline.export import export_model
    from unetkit.pipeline.export_prediction import export_prediction
    from unetkit.pipeline.import_images import import_images
    from unetkit.pipeline.info import info
    from unetkit.pipeline.measure import measure
    from unetkit.pipeline.models import list_models, show_model
    from unetkit.pipeline.plugins import list_plugins, new_plugin
    from unetkit.pipeline.tile_predict import tile_predict
    from unetkit.pipeline.train import train
    from unetkit.pipeline.weights import weights
    from unetkit.storage.datasets import open_dataset
    from unetkit.storage.image_file import ImageFile
    from unetkit.storage.images import open_image

__all__ = [
    "ImageFile",
    "SizeContract",
    "UnetkitError",
    "augment",
    "demo",
    "evaluate",
    "export_model",
    "export_prediction",
    "import_images",
    "info",
    "list_models",
    "list_plugins",
    "measure",
    "new_plugin",
    "open_dataset",
    "open_image",
    "show_model",
    "tile_predict",
    "train",
    "weights",
]

_HOMES = {
    "ImageFile": "unetkit.storage.image_file",
    "SizeContract": "unetkit.geometry.sizes",
    "UnetkitError": "unetkit.errors",
    "augment": "unetkit.pipeline.augment",
    "demo": "unetkit.pipeline.demo",
    "evaluate": "unetkit.pipeline.evaluate",
    "export_model": "unetkit.pipeline.export",
    "export_prediction": "unetkit.pipeline.export_prediction",
    "import_images": "unetkit.pipeline.import_images",
    "info": "unetkit.pipeline.info",
    "list_models": "unetkit.pipeline.models",
    "list_plugins": "unetkit.pipeline.plugins",
    "measure": "unetkit.pipeline.measure",
    "new_plugin": "unetkit.pipeline.plugins",
    "open_dataset": "unetkit.storage.datasets",
    "open_image": "unetkit.storage.images",
    "show_model": "unetkit.pipeline.models",
    "tile_predict": "unetkit.pipeline.tile_predict",
    "train": "unetkit.pipeline.train",
    "weights": "unetkit.pipeline.weights",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562), so that `import unetkit` stays light."""
    if name == "__version__":
        from importlib.metadata import version

        return version("unetkit")
    if name not in _HOMES:
        raise AttributeError(f"module 'unetkit' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
