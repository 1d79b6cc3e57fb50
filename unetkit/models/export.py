"""A network written for other programs, and run there once before anybody relies on it."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from unetkit.errors import CheckError, ResourceError
from unetkit.models.inference import logits_of, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

KEY = "unetkit"

# Our choice: other kernels round differently, but no further than this share of the largest logit.
LARGEST_SHARE = 1e-3

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export(
    module: nn.Module, *, to: str, in_channels: int, size: int, facts: Mapping[str, Any]
) -> tuple[bytes, float]:
    """Write a network in another format, run that, and compare; return the file and the difference.

    The export takes images (1, `in_channels`, `size`, `size`). `facts` are kept in it, and with
    them the largest difference of a logit on random numbers, as a share of the largest logit: as
    the extra file ``unetkit.json`` of a pt2, as the metadata entry ``unetkit`` of an ONNX file.
    """
    write = {"pt2": _pt2, "onnx": _onnx}[to]
    if to == "onnx" and (absent := [name for name in _ONNX_PACKAGES if not _is_there(name)]):
        raise ResourceError(
            f"the export to onnx must have its packages, got no {', '.join(absent)};"
            " pip install 'unetkit[onnx]'"
        )
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, in_channels, size, size, generator=generator)
    expected = logits_of(module, probe, precision="float32")
    try:
        with _quiet():
            finish, found = write(module, probe)
    except Exception as error:
        raise ResourceError(
            f"the network must be one that {to} can hold, got {type(error).__name__}:"
            f" {error!s:.200}; try the other format"
        ) from error
    gap = share(found - expected, of=expected)
    if not gap <= LARGEST_SHARE:
        raise CheckError(
            f"the export must compute what the model does to {LARGEST_SHARE} of the largest logit,"
            f" got a difference of {gap:.2g}; nothing was written"
        )
    described = {**facts, "input": list(probe.shape), "largest_difference": gap}
    with _quiet():
        return finish(json.dumps(described, allow_nan=False, sort_keys=True)), gap


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the writers say of their own parts what no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pt2(module: nn.Module, probe: Tensor) -> tuple[Callable[[str], bytes], Tensor]:
    program = torch.export.export(module, (probe,))

    def finish(facts: str) -> bytes:
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files={f"{KEY}.json": facts})
        return stream.getvalue()

    again = torch.export.load(io.BytesIO(finish("{}")))
    with torch.inference_mode():
        return finish, again.module()(probe)


def _onnx(module: nn.Module, probe: Tensor) -> tuple[Callable[[str], bytes], Tensor]:
    import onnxruntime

    program: Any = torch.onnx.export(
        module,
        (probe,),
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def finish(facts: str) -> bytes:
        proto.metadata_props.add(key=KEY, value=facts)
        content: bytes = proto.SerializeToString()
        return content

    (found,) = session.run(["logits"], {"image": probe.numpy()})
    return finish, torch.from_numpy(found)


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # set to nothing in sys.modules
        return False
