"""How long networks took on this machine, remembered for later runs; it knows no image.

What is kept was measured on drawn numbers, and decides about tiles and expected times. What hangs
on an image's pixels, as the precision does, is found out anew for each.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unetkit.errors import UnetkitError
from unetkit.machine import processor_count, processor_name
from unetkit.models import hardware
from unetkit.models.build import models
from unetkit.storage.atomic import write_json
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unetkit.models.model_file import LoadedModel

# An absolute folder that the user names for what unetkit remembers; a device, such as /dev/null,
# for nothing.
VARIABLE = "UNETKIT_CACHE_DIR"
# Our choice: entries of 300 bytes, those of some hundred models; and for how many days they hold,
# since a machine that was busy when it was measured would be thought slow for ever.
MOST, DAYS = 1000, 30
# What these variables of the environment begin with sets how torch, its kernels, their threads and
# the allocator work.
SETTINGS = (
    *("ATEN_", "CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "GLIBC_TUNABLES", "GOMP_", "KMP_"),
    *("LD_PRELOAD", "MALLOC_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "PYTORCH_", "TORCH"),
)


class Speed(NamedTuple):
    """The seconds that an input takes, and whether an earlier run measured them."""

    seconds: float
    remembered: bool


def speed_of(
    model: LoadedModel, size: int, *, precision: str, measure: Callable[[], float]
) -> Speed:
    """Look up how long a network takes over one input of `size` pixels a side, else measure it.

    Runs may do so at the same time. An entry that is damaged, old or of something else counts as
    none, and where nothing can be written nothing is kept.
    """
    device = next(model.module.parameters()).device
    entry = models().entry(model.header.full_name)
    what = {
        "model": model.sha256,
        "builder": str(entry),
        "size": size,
        "precision": precision,
        **circumstances(device),
    }
    path = _path_of(what)
    if path is None:
        return Speed(measure(), remembered=False)
    if (known := _read(path, what)) is not None:
        return Speed(known, remembered=True)
    seconds = measure()
    with suppress(OSError, UnetkitError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(str(path), {"of": what, "seconds": seconds})
        _forget_oldest(path.parent)
    return Speed(seconds, remembered=False)


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return all beside the network and its input that says how fast it runs, as JSON holds it."""
    on_gpu = device.type == "cuda"
    return {
        "unetkit": __version__,
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": processor_name(),
        "instructions": [
            torch.backends.cpu.get_cpu_capability(),
            *sorted(hardware.processor_features()),
        ],
        "processors": processor_count(),
        "threads": torch.get_num_threads(),
        "allocator": list(platform.libc_ver()),
        "settings": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)
        },
    }


def folder() -> Path | None:
    """Return where speeds are kept: in a folder that the user named, else in the user's cache."""
    named = os.environ.get(VARIABLE, "")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # "~" stays as it is where there is no home.
    home = os.path.expanduser("~/.cache")  # noqa: PTH111
    places = (named, cache and f"{cache}/unetkit", f"{home}/unetkit")
    found = next((place for place in places if os.path.isabs(place)), None)  # noqa: PTH117
    return None if found is None else Path(found, "speeds")


def _path_of(what: Mapping[str, Any]) -> Path | None:
    place = folder()
    text = json.dumps(what, sort_keys=True)
    name = f"{hashlib.sha256(text.encode(errors='replace')).hexdigest()}.json"
    return None if place is None else place / name


def _read(path: Path, what: Mapping[str, Any]) -> float | None:
    try:
        if time.time() - path.stat().st_mtime > DAYS * 24 * 3600:
            return None
        entry = json.loads(path.read_bytes())
        seconds = entry["seconds"] if entry["of"] == what else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(seconds, float) or not math.isfinite(seconds) or seconds <= 0:
        return None
    return seconds


def _forget_oldest(place: Path) -> None:
    """Keep no more than `MOST`; what another run removes at the same time is gone already."""
    entries = list(place.glob("*.json"))
    if len(entries) > MOST:
        by_age = sorted(entries, key=lambda path: path.stat().st_mtime)
        for path in by_age[: len(entries) - MOST]:
            path.unlink(missing_ok=True)
