"""One Zarr array or group: its metadata is judged before zarr sees it, it is opened once a process.

Stores come from anywhere, so a document is read with a size limit, and shapes, chunks, dtypes and
codecs are held against lists of what is safe and sensible. zarr always gets an explicit mode.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import threading
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from numcodecs import Blosc
from zarr.buffer import cpu
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, StorePath

from unetkit.errors import InputError, OutputError, UnetkitError
from unetkit.storage.atomic import DOCUMENTS, write_json
from unetkit.storage.chunk_files import put_file
from unetkit.storage.codecs import bounded, bounded_metadata
from unetkit.storage.urls import (
    base_name,
    check_parts,
    exists,
    files_below,
    inside,
    is_read_only,
    is_remote,
    join,
    read,
    read_small,
    storing,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A document above this is no metadata; the largest known are those of datasets with 10^5 samples.
DOCUMENT_LIMIT = 16 * 2**20
CHUNK_BYTES_LIMIT = 2**30
CHUNK_COUNT_LIMIT = 2**26
ELEMENTS_LIMIT = 2**62
DIMENSIONS_LIMIT = 8
# Levels of objects and lists in each other; those of the specifications are below ten.
NESTING_LIMIT = 100
# What Python says of a document in which something is missing, or of another kind than it should.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)

DTYPES = r"bool|u?int(8|16|32|64)|float(16|32|64)"
NUMBERS = "be a number type among bool, (u)int8 to 64 and float16 to 64"
DTYPES_V2 = r"[<>|](b1|[iu][1248]|f[248])"
# Codecs that turn bytes into numbers and can do nothing else. Any codec may come through an entry
# point, that is as foreign code, and numcodecs' pickle runs what it decodes.
CODECS = "bytes|endian|crc32c|zstd|gzip|blosc|transpose|sharding_indexed"
CODECS_V2 = (
    "zstd|gzip|zlib|bz2|lzma|lz4|blosc|delta|shuffle|crc32|crc32c|adler32|fletcher32|"
    "fixedscaleoffset|bitround|packbits"
)
# The document of an array, by format.
ARRAYS: dict[Literal[2, 3], str] = {2: ".zarray", 3: "zarr.json"}
# A chunk that is decoded whole; in a shard each chunk is read by itself, by way of an index.
SHARD_CHUNKS_LIMIT = 2**22


@dataclass(frozen=True)
class ArrayNode:
    """What the metadata of an array says, checked; `chunks` are stored whole, as shards are."""

    url: str
    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    read_chunks: tuple[int, ...]  # what is decoded whole: the chunks inside of a shard
    dimension_names: tuple[str, ...] | None
    attributes: dict[str, Any]
    version: int


@dataclass(frozen=True)
class GroupNode:
    """What the metadata of a group says."""

    url: str
    zarr_format: Literal[2, 3]
    attributes: dict[str, Any]


def read_node(url: str) -> ArrayNode | GroupNode | None:
    """Read and judge the metadata at a path or URL; None where there is no Zarr."""
    found = _document(join(url, "zarr.json"))
    if found is not None:
        document, version = found
        attributes = _object(document.get("attributes", {}), url, "attributes")
        if document.get("zarr_format") != 3:
            raise _refusal(url, "its zarr_format", "be 3 in zarr.json", document.get("zarr_format"))
        if document.get("node_type") == "group":
            return GroupNode(url, 3, attributes)
        return _array(url, document, attributes, version=version, v3=True)
    for name in (".zarray", ".zgroup"):
        found = _document(join(url, name))
        if found is not None:
            attributes = (_document(join(url, ".zattrs")) or ({}, 0))[0]
            if name == ".zgroup":
                return GroupNode(url, 2, attributes)
            return _array(url, found[0], attributes, version=found[1], v3=False)
    return None


@contextmanager
def judging(rule: str, remedy: str) -> Iterator[None]:
    """Refuse a document of someone else in one sentence, whatever does not fit in it."""
    try:
        yield
    except UnetkitError:
        raise
    except UNFIT as error:
        raise InputError(f"{rule}, got: {error!r:.100}; {remedy}") from error


def _document(url: str) -> tuple[dict[str, Any], int] | None:
    data = read_small(url, limit=DOCUMENT_LIMIT)
    if data is None:
        return None
    with judging(f"{url} must be a JSON document that can be read", "restore it from the original"):
        document = json.loads(data)
        if not _is_shallow(document):
            raise ValueError(f"values in more than {NESTING_LIMIT} levels")
    return _object(document, url, "the document"), zlib.crc32(data)


def _is_shallow(document: object) -> bool:
    """Tell whether nothing lies so deep in a document that what walks through it would fail."""
    layer = [document]
    for _ in range(NESTING_LIMIT):
        layer = [
            child
            for value in layer
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return not layer


def _object(value: object, url: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refusal(url, what, "be a JSON object", value)
    return value


def _refusal(
    url: str,
    what: str,
    rule: str,
    value: object,
    *,
    remedy: str = "write the store again from the original",
) -> InputError:
    return InputError(f"{what} of {url} must {rule}, got {value!r:.100}; {remedy}")


def _array(
    url: str, document: dict[str, Any], attributes: dict[str, Any], *, version: int, v3: bool
) -> ArrayNode:
    key, allowed = ("data_type", DTYPES) if v3 else ("dtype", DTYPES_V2)
    if not _among(document.get(key), allowed):
        raise _refusal(url, key, NUMBERS, document.get(key), remedy="store it again as one of them")
    dtype = np.dtype(document[key])
    if v3:
        _check_codecs_v3(url, document.get("codecs"))
        grid = _object(document.get("chunk_grid"), url, "chunk_grid")
        if grid.get("name") != "regular":
            raise _refusal(url, "chunk_grid", "be regular", grid.get("name"))
        chunks = _object(grid.get("configuration"), url, "chunk_grid").get("chunk_shape")
        inner = _inner_chunks(document["codecs"]) or chunks
        names = document.get("dimension_names")
    else:
        _check_codecs_v2(url, document)
        chunks, names = document.get("chunks"), attributes.get("_ARRAY_DIMENSIONS")
        inner = chunks
    shape, chunks, inner = _sizes(
        url, document.get("shape"), chunks, inner, itemsize=dtype.itemsize
    )
    named = None
    if isinstance(names, list) and len(names) == len(shape):
        named = tuple(map(str, names))
    return ArrayNode(url, 3 if v3 else 2, shape, dtype, chunks, inner, named, attributes, version)


def _inner_chunks(codecs: list[dict[str, Any]]) -> Any:
    """Return the shape of the chunks in a shard; behind another codec a shard is decoded whole."""
    if len(codecs) != 1 or codecs[0].get("name") != "sharding_indexed":
        return None
    return codecs[0]["configuration"].get("chunk_shape")


def _check_codecs_v3(url: str, codecs: object) -> None:
    if not isinstance(codecs, list) or not codecs:
        raise _refusal(url, "codecs", "be a list", codecs)
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not _among(name, rf"{CODECS}|numcodecs\.({CODECS_V2})"):
            rule = f"be among {CODECS.replace('|', ', ')} or those that Zarr 2 knows"
            raise _refusal(url, "codecs", rule, name, remedy="store it again with one of them")
        if name == "sharding_indexed":
            inner = _object(codec.get("configuration"), url, "sharding_indexed")
            _check_codecs_v3(url, inner.get("codecs"))
            _check_codecs_v3(url, inner.get("index_codecs"))


def _check_codecs_v2(url: str, document: dict[str, Any]) -> None:
    filters = document.get("filters") or []
    if not isinstance(filters, list):
        raise _refusal(url, "filters", "be a list", filters)
    for codec in [document.get("compressor"), *filters]:
        kind = codec.get("id") if isinstance(codec, dict) else codec
        if kind is not None and not _among(kind, CODECS_V2):
            rule = f"be among {CODECS_V2.replace('|', ', ')}"
            remedy = "store it again with one of them"
            raise _refusal(url, "compressor and filters", rule, kind, remedy=remedy)


def _among(name: object, allowed: str) -> bool:
    return isinstance(name, str) and re.fullmatch(allowed, name) is not None


def _sizes(
    url: str, shape: Any, chunks: Any, inner: Any, *, itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Judge shape and chunks, so that no loop over chunks and no chunk can exhaust the machine."""
    if not _is_ints(shape, least=0) or len(shape) > DIMENSIONS_LIMIT:
        raise _refusal(url, "shape", f"be at most {DIMENSIONS_LIMIT} whole numbers", shape)
    if 0 in shape:
        raise _refusal(url, "shape", "have no axis of size 0", shape)
    for part in (chunks, inner):
        if not _is_ints(part, least=1) or len(part) != len(shape):
            raise _refusal(url, "chunks", "be one whole number above 0 for each axis", part)
    if any(whole % part for whole, part in zip(chunks, inner, strict=True)):
        raise _refusal(url, "chunks", f"divide the shards of {chunks}", inner)
    if math.prod(chunks) // math.prod(inner) > SHARD_CHUNKS_LIMIT:
        raise _refusal(url, "shards", "hold at most 2^22 chunks", f"{chunks} of {inner}")
    if math.prod(shape) > ELEMENTS_LIMIT:
        raise _refusal(url, "shape", "hold at most 2^62 values", shape)
    if math.prod(inner) * itemsize > CHUNK_BYTES_LIMIT:
        raise _refusal(url, "chunks", "hold at most 1 GiB each", inner)
    if math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > CHUNK_COUNT_LIMIT:
        raise _refusal(url, "chunks", "be at most 2^26 in number", f"{chunks} for shape {shape}")
    return tuple(shape), tuple(chunks), tuple(inner)


def _is_ints(value: Any, *, least: int) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= least for n in value)


# What is done about warnings holds for all threads.
_OPENING = threading.Lock()


@lru_cache(maxsize=1024)
def opened(
    url: str, *, zarr_format: Literal[2, 3], version: int, mode: Literal["r", "r+"] = "r"
) -> zarr.Array[Any]:
    """Open an array, once a process for each state of its metadata.

    `version` is the checksum of the metadata that was judged, so that an array written anew at the
    same place is never mistaken for the one that was there before.
    """
    try:
        with _OPENING, warnings.catch_warnings():
            # It is the reader's right to take what Zarr 2 takes, and nothing that a user can mend.
            warnings.filterwarnings("ignore", "Numcodecs codecs")
            if zarr_format == 3 and not is_remote(url):
                content = read(join(url, "zarr.json"), stop=DOCUMENT_LIMIT)
                store = LocalStore(url, read_only=mode == "r")
                array = zarr.Array(zarr.AsyncArray(_described(content), StorePath(store)))
            else:
                array = bounded(zarr.open_array(url, mode=mode, zarr_format=zarr_format))
    except Exception as error:  # zarr and its codecs raise a zoo of types here
        raise InputError(f"{url} must be an array that zarr can open, got: {error}") from error
    if array.shards and is_read_only(url):
        check_parts(join(url, "zarr.json"))
    return array


@lru_cache(maxsize=64)
def _described(document: bytes) -> Any:
    """Return what the document of an array of format 3 says, with bounded codecs.

    It is kept, since a dataset has thousands of arrays that differ in their place alone, and zarr
    takes longer to read and to judge a document than it takes to decode a chunk.
    """
    stored = {"zarr.json": cpu.Buffer.from_bytes(document)}
    found: Any = zarr.open_array(stored, mode="r", zarr_format=3)
    return bounded_metadata(found.metadata)


def refuse_links(array: zarr.Array[Any], selection: tuple[Any, ...], *, url: str) -> None:
    """Refuse chunks under a selection that are links out of their array: a store is one's own."""
    if is_remote(url):
        return
    for place in _touched(array, selection):
        folder, _, name = array.metadata.encode_chunk_key(place).rpartition("/")
        whole = join(url, *folder.split("/"), name) if folder else join(url, name)
        if (_is_linked(url, folder) or Path(whole).is_symlink()) and not Path(
            os.path.realpath(whole)
        ).is_relative_to(os.path.realpath(url)):
            raise InputError(
                f"{whole} must lie inside its array, got a link out of it; "
                "copy the store with what its links lead to (cp -rL)"
            )


@lru_cache(maxsize=4096)
def _is_linked(url: str, folder: str) -> bool:
    """Tell whether a folder inside an array, or one around it there, is a link."""
    return bool(folder) and (
        Path(url, folder).is_symlink() or _is_linked(url, folder.rpartition("/")[0])
    )


def is_absent(array: zarr.Array[Any], selection: tuple[Any, ...], *, url: str) -> bool:
    """Tell whether no chunk under a selection is stored; False where it takes a store to tell."""
    if is_remote(url):
        return False
    for place in _touched(array, selection):
        key = array.metadata.encode_chunk_key(place)
        try:
            Path(url, key).lstat()
        except FileNotFoundError:
            if not _is_linked(url, key.rpartition("/")[0]):
                continue
        except OSError:
            return False  # reading it says what is wrong
        return False
    return True


def fill_of(array: zarr.Array[Any], selection: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Return what a selection reads as where none of its chunks is stored."""
    lengths = [
        len(range(size)[where]) if isinstance(where, slice) else len(where)
        for where, size in zip(selection, array.shape, strict=True)
        if not isinstance(where, int)
    ]
    # Format 2 may leave the value open, which reads as 0.
    value: Any = 0 if array.fill_value is None else array.fill_value
    return np.full(lengths, value, array.dtype)


def first_damaged(
    array: zarr.Array[Any], selection: tuple[Any, ...]
) -> tuple[tuple[int, ...], Exception] | None:
    """Find the first stored chunk under a selection that does not decode, and why."""
    units = array.shards or array.chunks
    for place in _touched(array, selection):
        try:
            array[tuple(slice(p * u, (p + 1) * u) for p, u in zip(place, units, strict=True))]
        except Exception as cause:  # codecs raise a zoo of types
            return place, cause
    return None


def _touched(array: zarr.Array[Any], selection: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """List the places of the stored chunks under a selection."""
    units = array.shards or array.chunks
    touched = []
    for where, unit, size in zip(selection, units, array.shape, strict=True):
        indices = range(size)[where] if isinstance(where, slice) else where
        wanted = [indices] if isinstance(indices, int) else indices
        touched.append(sorted({index // unit for index in wanted}))
    return itertools.product(*touched)


def create_array(
    url: str,
    *,
    shape: Sequence[int],
    axes: str,
    dtype: np.dtype[Any],
    chunks: Sequence[int],
    fill_value: float = 0,
    zarr_format: Literal[2, 3] = 3,
) -> ArrayNode:
    """Create an array where nothing is yet: format v3, zstd with a checksum, named dimensions.

    The checksum of four bytes a chunk turns a flipped bit from a wrong pixel into an error. What
    reads format v2 only often knows neither zstd nor checksums: it gets Blosc with LZ4.
    """
    if len(shape) != len(axes) or min(shape, default=0) < 1:
        raise InputError(
            f"an image must have at least one pixel along each of its axes {axes!r}, "
            f"got shape {tuple(shape)}"
        )
    if exists(url):
        raise OutputError(f"{url} must not exist yet, got something there; remove it first")
    sizes = tuple(int(n) for n in shape)
    documents = _array_documents(
        sizes,
        tuple(min(int(c), n) for c, n in zip(chunks, sizes, strict=True)),
        dtype,
        fill_value=fill_value,
        zarr_format=zarr_format,
        axes=axes,
    )
    with storing(url):
        for name, content in documents.items():
            _put(join(url, name), content)
    first, *others = documents.values()
    attributes = json.loads(others[0]) if others else {}
    document = json.loads(first)
    attributes = attributes or document.get("attributes", {})
    return _array(url, document, attributes, version=zlib.crc32(first), v3=zarr_format == 3)


@lru_cache(maxsize=256)
def _array_documents(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    fill_value: float,
    zarr_format: Literal[2, 3],
    axes: str,
) -> dict[str, bytes]:
    """Return the documents of an array as zarr writes them, the one of its shape first.

    A dataset has thousands of arrays that differ in their place alone.
    """
    written: dict[str, Any] = {}
    zarr.create_array(
        store=written,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill_value,
        zarr_format=zarr_format,
        **_storage(zarr_format, axes),
    )
    own = ARRAYS[zarr_format]
    return {name: written[name].to_bytes() for name in sorted(written, key=own.__ne__)}


def _storage(zarr_format: Literal[2, 3], axes: str) -> dict[str, Any]:
    if zarr_format == 3:
        return {
            "compressors": ZstdCodec(level=3, checksum=True),
            "dimension_names": tuple(axes),
        }
    return {
        "compressors": Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
        "attributes": {"_ARRAY_DIMENSIONS": list(axes)},
    }


def create_group(
    url: str, attributes: Mapping[str, Any], *, zarr_format: Literal[2, 3] = 3
) -> None:
    """Create a group where none is yet."""
    documents: dict[str, dict[str, Any]] = {".zgroup": {"zarr_format": 2}}
    if zarr_format == 3:
        documents = {"zarr.json": {"zarr_format": 3, "node_type": "group"}}
    if any(exists(join(url, name)) for name in documents):
        raise OutputError(f"{url} must not exist yet, got a group there; remove it first")
    if zarr_format == 3:
        documents["zarr.json"] = {"attributes": plain(attributes), **documents["zarr.json"]}
    elif attributes:
        documents[".zattrs"] = plain(attributes)
    with storing(url):
        for name, document in documents.items():
            content = json.dumps(document, indent=2, allow_nan=False)
            _put(join(url, name), content.encode())


def _put(url: str, content: bytes) -> None:
    if is_remote(url):
        write(url, content)
    else:
        put_file(Path(url), content)


def mark_as_array(folder: str, *, zarr_format: Literal[2, 3]) -> None:
    """Write the documents of an array of no values into a folder, whatever is in it.

    Its one axis has a name, without which xarray opens no store that holds it.
    """
    document: dict[str, Any] = {"zarr_format": zarr_format, "shape": [0], "fill_value": 0}
    if zarr_format == 2:
        document |= {"chunks": [1], "dtype": "|u1", "order": "C"}
        document |= {"compressor": None, "filters": None}
        write_json(join(folder, ".zattrs"), {"_ARRAY_DIMENSIONS": ["unetkit"]})
    else:
        chunks = {"name": "regular", "configuration": {"chunk_shape": [1]}}
        keys = {"name": "default", "configuration": {"separator": "/"}}
        document |= {"node_type": "array", "data_type": "uint8", "codecs": [{"name": "bytes"}]}
        document |= {"chunk_grid": chunks, "chunk_key_encoding": keys, "attributes": {}}
        document["dimension_names"] = ["unetkit"]
    write_json(join(folder, ARRAYS[zarr_format]), document)


def replace_attributes(url: str, attributes: Mapping[str, Any]) -> None:
    """Replace the named top-level attributes of a group, and keep the others.

    At no time, a power cut included, is the document of the group half there.
    """
    write_json(*with_attributes(url, attributes))


def with_attributes(url: str, attributes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what `replace_attributes` writes: the path of a document, and what it says."""
    node = read_node(url)
    if not isinstance(node, GroupNode):
        raise InputError(f"{url} must be a Zarr group, got none there; check the path")
    merged = {**node.attributes, **plain(attributes)}
    if node.zarr_format == 2:
        return join(url, ".zattrs"), merged
    document = json.loads(read(join(url, "zarr.json")))
    return join(url, "zarr.json"), {**document, "attributes": merged}


def is_consolidated(url: str) -> bool:
    """Tell whether a group holds a copy of all documents below it, which readers may go by."""
    if exists(join(url, ".zmetadata")):
        return True
    found = _document(join(url, "zarr.json"))
    return found is not None and found[0].get("consolidated_metadata") is not None


def plain(value: Any) -> Any:
    """Turn numpy numbers, tuples and the like into what strict JSON can hold; NaN becomes null.

    zarr keeps a value that it could not write in memory and fails on every later write.
    """
    if isinstance(value, dict) or hasattr(value, "items"):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    # The name of a file need not be text.
    return str(value).encode(errors="replace").decode()


def digest_documents(folder: str) -> dict[str, str]:
    """Return a checksum of each metadata document below a folder, by its path there.

    It is of what stays while an output is made: smaller levels, labels and samples come later.
    """
    names = (name for name in files_below(folder) if base_name(name) in DOCUMENTS)
    return {name: _digest(read(join(folder, name))) for name in names}


def changed_documents(folder: str, known: Any) -> list[str]:
    """Name those of the `known` documents that are no longer what `digest_documents` found."""
    if not isinstance(known, dict):
        return ["list of documents"]
    found = []
    for name, digest in known.items():
        try:
            content = read_small(inside(folder, name, what="a document"), limit=DOCUMENT_LIMIT)
        except InputError:
            content = None
        if content is None or _digest(content) != digest:
            found.append(name)
    return found


def _digest(content: bytes) -> str:
    try:
        document = json.loads(content)
        stays = json.dumps(_lasting(document), sort_keys=True)
    except (ValueError, RecursionError, TypeError, AttributeError, LookupError):
        stays = repr(content)
    return f"{zlib.crc32(stays.encode()):08x}"


def _lasting(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is written into a document after it was created."""
    if document.get("node_type") != "group" and "zarr_format" in document:
        return document
    attributes = dict(document.get("attributes", document))
    own = {**attributes.pop("unetkit", {})}
    own.pop("samples", None)
    prediction = {**own.get("prediction", {})}
    for late in ("audit", "warnings", "probabilities_from"):
        prediction.pop(late, None)
    ome = {**attributes.get("ome", attributes)}
    ome.pop("labels", None)
    images = [
        {"axes": image["axes"], "datasets": image["datasets"][:1]}
        for image in ome.pop("multiscales", [])
    ]
    return {"unetkit": {**own, "prediction": prediction}, "images": images, "ome": ome}
