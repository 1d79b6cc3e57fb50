"""A network written for other programs, and run there once before anybody relies on it."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unetkit.errors import CheckError, ResourceError
from unetkit.models.inference import logits_of, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from unetkit.geometry.sizes import SizeContract

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

KEY = "unetkit"

# Our choice: other kernels round differently, but no further than this share of the largest logit.
LARGEST_SHARE = 1e-3

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Larger ones are refused by torch's own guards: no machine computes them at once.
_LONGEST, _LARGEST_BATCH = 2**20, 2**16


@dataclass(frozen=True)
class InputSizes:
    """Which images an export takes: one size, or ``minimum + k * step`` along each axis."""

    channels: int
    minimum: int
    step: int  # 0 where there is one size only, for one image at a time

    @classmethod
    def of(cls, contract: SizeContract, *, channels: int, size: int | None = None) -> InputSizes:
        """Return those of a model, or `size` alone.

        Two steps are the least: torch can't tell what one pixel of the coarsest level may become.
        """
        if size is not None:
            return cls(channels, size, 0)
        least = contract.minimum
        return cls(channels, least + contract.step * (least < 2 * contract.step), contract.step)

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Return shapes to try: the first is exported, and none has two equal axes."""
        if self.step == 0:
            return [(1, self.channels, self.minimum, self.minimum)]
        low, middle, high = (self.minimum + k * self.step for k in range(3))
        return [(2, self.channels, low, middle), (1, self.channels, high, low)]

    def dimensions(self) -> dict[int, Any] | None:
        """Return what varies, by its axis, as torch is told it."""
        if self.step == 0:
            return None
        few, rest = divmod(self.minimum, self.step)
        found: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)}
        for axis, name in ((2, "height"), (3, "width")):
            steps: Any = torch.export.Dim(name, min=few, max=_LONGEST // self.step)
            found[axis] = self.step * steps + rest if rest else self.step * steps
            if self.step == 1:
                found[axis] = steps
        return found


@dataclass(frozen=True)
class Export:
    """A network in another format."""

    content: bytes
    gap: float  # the largest difference of a logit, as a share of the largest logit
    sizes: InputSizes
    opset: int = 0  # of ONNX


def export(
    module: nn.Module,
    *,
    to: str,
    sizes: InputSizes,
    facts: Mapping[str, Any],
    output: str = "logits",
) -> Export:
    """Write a network in another format, run that, and compare.

    `facts` are kept in it, and with them the input and the largest difference of a logit on random
    numbers, as a share of the largest logit: as the extra file ``unetkit.json`` of a pt2, as the
    metadata entry ``unetkit`` of an ONNX file.
    """
    write = {"pt2": _pt2, "onnx": _onnx}[to]
    if to == "onnx":
        check_onnx()
    generator = torch.Generator().manual_seed(0)
    probes = [torch.randn(shape, generator=generator) for shape in sizes.shapes()]
    expected = [logits_of(module, probe, precision="float32") for probe in probes]
    try:
        with _quiet():
            program = _program(module, probes[0], sizes)
            finish, run, opset = write(program, output)
            found = [torch.from_numpy(run(probe.numpy())) for probe in probes]
    except Exception as error:
        remedy = "add --size 512 for one size alone, or " if sizes.step else ""
        why = " ".join(str(error).split())
        raise ResourceError(
            f"the network must be one that {to} can hold, got {type(error).__name__}:"
            f" {why:.200}; {remedy}try the other format"
        ) from error
    pairs = zip(found, expected, strict=True)
    gap = max(share(one - other, of=other) for one, other in pairs)
    if not gap <= LARGEST_SHARE:
        raise CheckError(
            f"the export must compute what the model does to {LARGEST_SHARE} of the largest logit,"
            f" got a difference of {gap:.2g}; nothing was written"
        )
    described = {**facts, "input": _input(sizes), "largest_difference": gap}
    with _quiet():
        content = finish(json.dumps(described, allow_nan=False, sort_keys=True))
    return Export(content, gap, sizes, opset)


def check_onnx() -> None:
    """Refuse to write an ONNX file without the packages that do so."""
    if absent := [name for name in _ONNX_PACKAGES if not _is_there(name)]:
        raise ResourceError(
            f"the export to onnx must have its packages, got no {', '.join(absent)};"
            " pip install 'unetkit[onnx]'"
        )


def run_onnx(content: bytes) -> Run:
    """Return what computes an ONNX file of one input and one output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = session.run(None, {given.name: batch})
        return np.asarray(found)

    return run


def _input(sizes: InputSizes) -> list[Any]:
    """Say in a list as long as an image's shape what an export takes."""
    if sizes.step == 0:
        return list(sizes.shapes()[0])
    side = f"{sizes.minimum} + {sizes.step} k"
    return ["any", sizes.channels, side, side]


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the writers say of their own parts what no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _program(module: nn.Module, probe: Tensor, sizes: InputSizes) -> ExportedProgram:
    varying = sizes.dimensions()
    return torch.export.export(
        module, (probe,), dynamic_shapes=None if varying is None else (varying,)
    )


def _pt2(program: ExportedProgram, _: str) -> tuple[Callable[[str], bytes], Run, int]:
    def finish(facts: str) -> bytes:
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files={f"{KEY}.json": facts})
        return stream.getvalue()

    again = torch.export.load(io.BytesIO(finish("{}"))).module()

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(again(torch.from_numpy(batch)).numpy())

    return finish, run, 0


def _onnx(program: ExportedProgram, output: str) -> tuple[Callable[[str], bytes], Run, int]:
    written: Any = torch.onnx.export(
        program,
        (),
        input_names=["image"],
        output_names=[output],
        dynamo=True,
        verbose=False,
    )
    proto = written.model_proto

    def finish(facts: str) -> bytes:
        proto.metadata_props.add(key=KEY, value=facts)
        content: bytes = proto.SerializeToString()
        return content

    opset = max(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    return finish, run_onnx(proto.SerializeToString()), opset


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # set to nothing in sys.modules
        return False
