"""unetkit: from annotated microscopy images to seamless segmentations of slides of any size.

Every command of the command line is a function of the same job here, with the same options:
`import_images`, `augment`, `weights`, `train`, `tile_predict`, `correct`, `evaluate`, `measure`,
`view`, `review`, `export_prediction`, `info` and `demo`; `remove_samples`, `list_models`,
`show_model`, `export_model`, `list_plugins` and `new_plugin` are what `unetkit remove`,
`unetkit models` and `unetkit plugins` run, and `unetkit.testing` checks a model or a reader.
`predict` segments arrays of NumPy, Dask and xarray, with what `load_model` loaded once.
`open_dataset` and `open_image` read what they write; `SizeContract` is what a model says of the
sizes that it takes, and `ImageFile` what a reader makes of an image file, with `choose_scene` and
`reading` to make one. Names load their module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetkit.commands.augment.command import augment
    from unetkit.commands.demo.command import demo
    from unetkit.commands.evaluate.command import evaluate
    from unetkit.commands.export_model import export_model
    from unetkit.commands.export_prediction import export_prediction
    from unetkit.commands.import_images.command import import_images, remove_samples
    from unetkit.commands.import_images.corrections import correct
    from unetkit.commands.info import info
    from unetkit.commands.measure import measure
    from unetkit.commands.models import list_models, show_model
    from unetkit.commands.plugins import list_plugins, new_plugin
    from unetkit.commands.review import review
    from unetkit.commands.tile_predict.arrays import load_model, predict
    from unetkit.commands.tile_predict.command import tile_predict
    from unetkit.commands.train.command import train
    from unetkit.commands.view import view
    from unetkit.commands.weights.command import weights
    from unetkit.errors import UnetkitError
    from unetkit.geometry.sizes import SizeContract
    from unetkit.storage.datasets import open_dataset
    from unetkit.storage.image_file import ImageFile, choose_scene, reading
    from unetkit.storage.images import open_image
    from unetkit.version import __version__ as __version__

__all__ = [
    "ImageFile",
    "SizeContract",
    "UnetkitError",
    "augment",
    "choose_scene",
    "correct",
    "curve",
    "demo",
    "evaluate",
    "export_model",
    "export_prediction",
    "import_images",
    "info",
    "list_models",
    "list_plugins",
    "load_model",
    "measure",
    "new_plugin",
    "open_dataset",
    "open_image",
    "predict",
    "reading",
    "remove_samples",
    "review",
    "show_model",
    "suggest",
    "tile_predict",
    "train",
    "view",
    "weights",
]

_HOMES = {
    "__version__": "unetkit.version",
    "ImageFile": "unetkit.storage.image_file",
    "SizeContract": "unetkit.geometry.sizes",
    "UnetkitError": "unetkit.errors",
    "augment": "unetkit.commands.augment.command",
    "choose_scene": "unetkit.storage.image_file",
    "correct": "unetkit.commands.import_images.corrections",
    "curve": "unetkit.commands.train.curve",
    "demo": "unetkit.commands.demo.command",
    "evaluate": "unetkit.commands.evaluate.command",
    "export_model": "unetkit.commands.export_model",
    "export_prediction": "unetkit.commands.export_prediction",
    "import_images": "unetkit.commands.import_images.command",
    "info": "unetkit.commands.info",
    "list_models": "unetkit.commands.models",
    "list_plugins": "unetkit.commands.plugins",
    "load_model": "unetkit.commands.tile_predict.arrays",
    "measure": "unetkit.commands.measure",
    "new_plugin": "unetkit.commands.plugins",
    "open_dataset": "unetkit.storage.datasets",
    "open_image": "unetkit.storage.images",
    "predict": "unetkit.commands.tile_predict.arrays",
    "reading": "unetkit.storage.image_file",
    "remove_samples": "unetkit.commands.import_images.command",
    "review": "unetkit.commands.review",
    "show_model": "unetkit.commands.models",
    "suggest": "unetkit.commands.suggest",
    "tile_predict": "unetkit.commands.tile_predict.command",
    "train": "unetkit.commands.train.command",
    "view": "unetkit.commands.view",
    "weights": "unetkit.commands.weights.command",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562), so that `import unetkit` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unetkit' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
