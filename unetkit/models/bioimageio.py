"""A model as a package for bioimage.io: what lies in it, and how its blocks keep to the grid.

It does not know where the package is stored, nor where its example comes from.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from keyword import iskeyword
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unetkit.arrays.boxes import gather
from unetkit.arrays.normalization import HIGH, LOW, fit
from unetkit.errors import CheckError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.geometry.tiles import mirror
from unetkit.models.export import InputSizes, export, run_onnx
from unetkit.models.inference import logits_of, predict_array
from unetkit.models.model_header import PACKED
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.models.export import Run
    from unetkit.models.model_header import ModelHeader

# The version of the format that bioimageio.core 0.11 writes itself.
FORMAT_VERSION = "0.5.12"
# What is promised of every pixel: the difference of a probability from that of `tile-predict`.
LARGEST_GAP = 1e-3
# What a name may be there.
SHORTEST, LONGEST, NOT_IN_NAMES = 5, 128, re.compile(r"[^A-Za-z0-9_+\- ()]+")


@dataclass(frozen=True)
class BlockSizes:
    """Which blocks a package takes, for a program that cuts and puts them together by itself.

    It hands over blocks with `halo` pixels around what it keeps, mirrored at the image's edges,
    and moves the last block of each axis back to the border::

        |<---------------- block: least + k * step ---------------->|
        |<- halo ->|<---------------- kept ------------->|<- halo ->|
      lead                                                          tail
      |<->|<------------------ what the network reads ------------->|<->|

    Every block must lie on the network's pooling grid as `tile-predict` lays it, so the halo is a
    multiple of the step; `lead` zeros before the block make up for what the context exceeds one by,
    and `tail` zeros after it for a size that the network takes.
    """

    step: int
    least: int
    halo: int
    lead: int
    tail: int

    @classmethod
    def of(cls, contract: SizeContract) -> BlockSizes:
        """Return those of a model.

        >>> from unetkit.geometry.sizes import SizeContract
        >>> BlockSizes.of(SizeContract(step=16, minimum=188, margin=92))
        BlockSizes(step=16, least=208, halo=96, lead=12, tail=0)
        """
        step = contract.step
        halo = -(-contract.need // step) * step
        lead = contract.need % step
        tail = (contract.minimum - lead) % step
        fewest = max(2 * halo + step, contract.minimum - lead - tail)
        return cls(step, -(-fewest // step) * step, halo, lead, tail)


class Blockwise(nn.Module):
    """A network that gives probabilities of as many pixels as it takes, of blocks of `BlockSizes`.

    What lies in the margin is 0: whoever predicts by blocks throws it away with the halo.
    """

    def __init__(self, network: nn.Module, sizes: BlockSizes, *, margin: int) -> None:
        super().__init__()
        self.network = network
        self.before = (sizes.lead, sizes.tail) * 2
        self.after = (margin - sizes.lead, margin - sizes.tail) * 2

    def forward(self, image: Tensor) -> Tensor:
        """Return the probabilities (N, K, Y, X) of blocks (N, C, Y, X)."""
        logits = self.network(functional.pad(image, self.before))
        return functional.pad(torch.softmax(logits, dim=1), self.after)


@dataclass(frozen=True)
class Told:
    """What only people can say about a model that they share."""

    name: str
    authors: tuple[str, ...] = ()  # a name, or a name and an affiliation after a comma
    licence: str | None = None  # by its SPDX identifier


def check_packable(header: ModelHeader) -> None:
    """Refuse a model whose blocks are not the whole image, wherever they are cut."""
    if not header.contract.exact:
        raise UsageError(
            "a model for bioimageio must be one whose tiles equal the whole image, since other"
            f" programs cut their own, got {header.model!r}, which looks at a whole tile at once;"
            " use --to onnx, which promises nothing about tiles"
        )


@dataclass(frozen=True)
class Package:
    """The network of a package, ready to be written."""

    header: ModelHeader
    onnx: bytes
    opset: int
    sizes: BlockSizes
    gap: float  # the largest difference of a probability from that of `tile-predict`
    test_input: NDArray[np.float32]  # (1, C, Y, X), as an image is stored
    test_output: NDArray[np.float32]  # (1, K, Y, X)

    def to_bytes(
        self, told: Told, *, example: str, card: str, model: bytes, cover: bytes | None
    ) -> bytes:
        """Return the package, a zip file; `example` is what its pictures are called."""
        files = {
            "README.md": card.encode(),
            "weights.onnx": self.onnx,
            "test_input.npy": _npy(self.test_input),
            "test_output.npy": _npy(self.test_output),
            PACKED: model,
            **({} if cover is None else {"cover.png": cover}),
        }
        described = _description(self, told, example=example, files=files)
        text = "\n".join(["# bioimage.io, written by unetkit", *_yaml(described), ""])
        return _zipped({"rdf.yaml": text.encode(), **files})


def pack(module: nn.Module, header: ModelHeader, image: NDArray[np.float32]) -> Package:
    """Write a network so that others may cut an image as they like, and make sure of it.

    The image (C, Y, X), mirrored to the size of several blocks, is predicted block by block as
    bioimageio.core does it, and compared with what `tile-predict` makes of it.
    """
    check_packable(header)
    sizes = BlockSizes.of(header.contract)
    wrapped = Blockwise(module, sizes, margin=header.contract.margin).eval()
    takes = InputSizes.of(
        SizeContract(step=sizes.step, minimum=sizes.least), channels=header.in_channels
    )
    written = export(wrapped, to="onnx", sizes=takes, facts={}, output="probabilities")
    kept = max(2 * sizes.halo + sizes.step, sizes.least - 2 * sizes.halo)
    side = kept + max(2 * sizes.halo, sizes.step)
    probe = _normalized(_mirrored(image, side), header)
    found = blockwise(run_onnx(written.content), probe, halo=sizes.halo, kept=kept)
    gap = float(np.abs(found - predict_array(module, probe, contract=header.contract)).max())
    if not gap <= LARGEST_GAP:
        raise CheckError(
            f"the package must compute by blocks what tile-predict does to {LARGEST_GAP}, got a"
            f" difference of {gap:.2g}; nothing was written"
        )
    seen = _mirrored(image, sizes.least)
    batch = torch.from_numpy(_normalized(seen, header))[None]
    answer = logits_of(wrapped, batch, precision="float32").numpy()
    return Package(header, written.content, written.opset, sizes, gap, seen[None], answer)


def blockwise(run: Run, image: NDArray[np.float32], *, halo: int, kept: int) -> NDArray[np.float32]:
    """Predict an image (C, Y, X) by blocks, as bioimageio.core does: the last are moved back.

    Of each block `kept` pixels a side are kept, within `halo` pixels of context.
    """
    rows, columns = ([min(at, n - kept) for at in range(0, n, kept)] for n in image.shape[1:])
    result = np.empty((0, *image.shape[1:]), np.float32)
    for y, x in ((y, x) for y in rows for x in columns):
        around = [
            mirror(at - halo, at + kept + halo, n)
            for at, n in zip((y, x), image.shape[1:], strict=True)
        ]
        block = gather(lambda y0, y1, x0, x1: image[:, y0:y1, x0:x1], *around)
        made = run(np.ascontiguousarray(block)[None])[0]
        if not len(result):
            result = np.full((len(made), *image.shape[1:]), np.nan, np.float32)
        inner = slice(halo, halo + kept)
        result[:, y : y + kept, x : x + kept] = made[:, inner, inner]
    return result


def _normalized(image: NDArray[np.float32], header: ModelHeader) -> NDArray[np.float32]:
    return fit(lambda: [image], method=header.normalization).apply(image)


def _mirrored(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the middle of an image (C, Y, X), mirrored where it is smaller than `side`."""
    starts = [max(0, n - side) // 2 for n in image.shape[1:]]
    rows, columns = (
        mirror(start, start + side, n) for start, n in zip(starts, image.shape[1:], strict=True)
    )
    return np.ascontiguousarray(image[:, rows][:, :, columns])


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip file, the same for the same files, by whose comment we know our own."""
    stream = io.BytesIO()
    with ZipFile(stream, "w") as packed:
        for name, content in files.items():
            # Weights and pictures hardly become smaller.
            dense = name.endswith((".onnx", ".safetensors", ".png"))
            member = ZipInfo(name)
            member.external_attr = 0o644 << 16
            packed.writestr(member, content, ZIP_STORED if dense else ZIP_DEFLATED)
        packed.comment = json.dumps({"unetkit": {"version": __version__}}).encode()
    return stream.getvalue()


def _description(
    package: Package, told: Told, *, example: str, files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return what `rdf.yaml` says."""
    header, sizes = package.header, package.sizes

    def source(name: str) -> dict[str, Any]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    sides = f"multiples of {sizes.step} pixels, at least {sizes.least}"
    text = (
        f"Tells {', '.join(header.class_names)} apart in microscopy images, by probabilities."
        f" Trained with unetkit ({header.model}). Predicted by blocks it equals unetkit's"
        f" tile-predict for images whose height and width are {sides}."
    )
    covers = {"covers": [source("cover.png")]} if "cover.png" in files else {}
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": told.name,
        "description": text[:1024],
        "authors": [_author(author) for author in told.authors],
        **({} if told.licence is None else {"license": told.licence}),
        "cite": [_CITED],
        "tags": ["unetkit", header.model, "segmentation", "2d"],
        **covers,
        "documentation": source("README.md"),
        "inputs": [_input(header, sizes, source("test_input.npy"))],
        "outputs": [_output(header, sizes, source("test_output.npy"))],
        "weights": {"onnx": {**source("weights.onnx"), "opset_version": package.opset}},
        "attachments": [source(PACKED)],
        "config": {
            "bioimageio": {"model_parameter_count": header.parameters},
            "unetkit": {
                "version": __version__,
                "model_file": PACKED,
                "example": example,
                "sides": {"minimum": sizes.least, "step": sizes.step},
                "blocks": {"minimum": sizes.least, "step": sizes.step, "halo": sizes.halo},
            },
        },
    }


_CITED = {
    "text": "Ronneberger, Fischer, Brox (2015), U-Net: Convolutional Networks for Biomedical Image"
    " Segmentation",
    "doi": "10.1007/978-3-319-24574-4_28",
}


def _author(text: str) -> dict[str, str]:
    name, _, affiliation = (part.strip() for part in text.partition(","))
    return {"name": name, **({"affiliation": affiliation} if affiliation else {})}


def _input(header: ModelHeader, sizes: BlockSizes, test: Mapping[str, Any]) -> dict[str, Any]:
    # What a user chose them by, where that names each.
    words = (header.channels or "").split(",")
    names = words if len(words) == header.in_channels else [""] * header.in_channels
    side = {"size": {"min": sizes.least, "step": sizes.step}}
    steps = _NORMALIZATIONS[header.normalization]
    return {
        "id": "image",
        "description": "Intensities as they were recorded.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _identifiers(names, "channel")},
            *({"type": "space", "id": axis, **_pixel(header, axis), **side} for axis in "yx"),
        ],
        "data": {"type": "float32"},
        "test_tensor": test,
        "pad": {"mode": "reflect"},
        "preprocessing": steps,
    }


def _output(header: ModelHeader, sizes: BlockSizes, test: Mapping[str, Any]) -> dict[str, Any]:
    halo = {"halo": sizes.halo} if sizes.halo else {}
    return {
        "id": "probabilities",
        "description": f"Of {', '.join(header.class_names)}; they add up to 1."[:128],
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _identifiers(header.class_names, "class")},
            *(
                {
                    "type": "space",
                    "id": axis,
                    **_pixel(header, axis),
                    "size": {"tensor_id": "image", "axis_id": axis},
                    **halo,
                }
                for axis in "yx"
            ),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": test,
    }


# Statistics of each channel of each image, as ours are; without a batch's axis they are not shared.
_NORMALIZATIONS: dict[str, list[dict[str, Any]]] = {
    "percentile": [
        {
            "id": "scale_range",
            "kwargs": {"axes": ["y", "x"], "min_percentile": LOW, "max_percentile": HIGH},
        }
    ],
    "range": [{"id": "scale_range", "kwargs": {"axes": ["y", "x"]}}],
    "zscore": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}],
    "none": [],
}


def _pixel(header: ModelHeader, axis: str) -> dict[str, Any]:
    size = (header.pixel_size or {}).get(axis)
    return {} if size is None else {"scale": float(size), "unit": "micrometer"}


def _identifiers(names: Sequence[str], word: str) -> list[str]:
    """Turn names into words that the format takes, each another; numbers where they would not be.

    >>> _identifiers(["nucleus", "cell wall"], "class"), _identifiers(["0", "1"], "channel")
    (['nucleus', 'cell_wall'], ['channel0', 'channel1'])
    """
    found = [re.sub(r"\W+", "_", name.strip(), flags=re.ASCII) for name in names]
    named = all(name.isidentifier() and not iskeyword(name) for name in found)
    fit_all = named and len(set(found)) == len(found)
    return found if fit_all else [f"{word}{number}" for number in range(len(names))]


def fitting_name(text: str) -> str:
    """Return a name that the format takes for a model.

    >>> fitting_name("nuclei.v2"), fitting_name("a")
    ('nuclei v2', 'a (unetkit)')
    """
    name = NOT_IN_NAMES.sub(" ", text).strip()[:LONGEST]
    return name if len(name) >= SHORTEST else f"{name} (unetkit)".strip()


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Write what JSON can hold as lines of YAML; what is short as JSON, which YAML understands."""
    pairs = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    for key, entry in pairs:
        lead = f"{indent}- " if key is None else f"{indent}{key}: "
        if not isinstance(entry, dict | list) or not entry or _is_flat(entry):
            yield lead + json.dumps(entry, ensure_ascii=False)
            continue
        lines = list(_yaml(entry, f"{indent}  "))
        if key is None:
            yield lead + lines.pop(0).lstrip()
        else:
            yield lead.rstrip()
        yield from lines


def _is_flat(entry: Any) -> bool:
    return isinstance(entry, list) and not any(isinstance(each, dict | list) for each in entry)
