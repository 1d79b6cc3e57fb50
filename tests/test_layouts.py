"""How labels and images lie on the disk or in memory changes no bit of what is made of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from unetkit.arrays.weight_map import border_weight
from unetkit.cli.app import main
from unetkit.storage.datasets import open_dataset

SHAPE = (40, 50)
LAYOUTS = {
    "zarr 2": {"zarr_format": 2},
    "big-endian": {"zarr_format": 2, "endian": ">"},
    "columns first": {"zarr_format": 2, "order": "F"},
    "dots in names": {"zarr_format": 2, "separator": "."},
    "dots in names of zarr 3": {"zarr_format": 3, "separator": "."},
    "all at once": {"zarr_format": 2, "endian": ">", "order": "F", "separator": "."},
}


def multiscales(axes, zarr_format):
    kinds = [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in axes]
    scale = [{"type": "scale", "scale": [1.0] * len(axes)}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    version = {"version": "0.4"} if zarr_format == 2 else {}
    return {"multiscales": [{**version, "axes": kinds, "datasets": levels}]}


def stored(folder, *, zarr_format=3, endian="<", order="C", separator="/"):
    """Write one image with instances, in any layout that other tools write."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (2, *SHAPE)).astype(np.uint16)
    labels = (rng.integers(0, 5, (8, 10)) * 70_000).repeat(5, axis=0).repeat(5, axis=1)

    def group(url, attributes):
        wrapped = attributes if zarr_format == 2 else {"ome": {"version": "0.5", **attributes}}
        zarr.create_group(url, zarr_format=zarr_format, attributes=wrapped)

    url = str(folder / "image.zarr")
    group(url, multiscales("cyx", zarr_format))
    group(f"{url}/labels", {"labels": ["instances"]})
    group(f"{url}/labels/instances", {**multiscales("yx", zarr_format), "image-label": {}})
    # Zarr 3 has the order of bytes in a codec; numbers in memory are always native.
    kind = endian if zarr_format == 2 else "="
    names = {"name": "v2" if zarr_format == 2 else "default", "separator": separator}
    for place, array in (("0", image), ("labels/instances/0", labels.astype(np.uint32))):
        written = zarr.create_array(
            f"{url}/{place}",
            shape=array.shape,
            dtype=array.dtype.newbyteorder(kind),
            chunks=(1, 16, 16)[-array.ndim :],
            zarr_format=zarr_format,
            chunk_key_encoding=names,
            order=order if zarr_format == 2 else None,
            compressors=None,
        )
        written[...] = array
    return url


def made(folder, url):
    """Return what `augment` and `weights` make of an image."""
    more = str(folder / "more.zarr")
    assert main(["augment", url, more, "--copies", "2", "--quiet", "--overwrite"]) == 0
    assert main(["weights", url, "--quiet", "--overwrite"]) == 0
    arrays = [open_dataset(url).samples[0].weights]
    for sample in open_dataset(more).samples:
        arrays += [sample.data, sample.labels()]
    return [array.read(0, 0, array.height, 0, array.width) for array in arrays]


def alike(one, other):
    return all(
        a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_store_of_any_layout_gives_what_the_usual_one_gives(tmp_path, name):
    for folder in ("usual", "other"):
        (tmp_path / folder).mkdir()
    usual = made(tmp_path / "usual", stored(tmp_path / "usual"))
    other = made(tmp_path / "other", stored(tmp_path / "other", **LAYOUTS[name]))
    assert alike(usual, other)


@pytest.mark.parametrize(("key", "wrong"), [("dtype", "<u2"), ("order", "C")])
def test_a_layout_other_than_the_one_that_is_written_down_gives_something_else(
    tmp_path, key, wrong
):
    # The negative control: reading chunks without looking at their layout would be noticed.
    url = stored(tmp_path, **LAYOUTS["all at once"])
    right = made(tmp_path, url)
    document = Path(url, "0", ".zarray")
    document.write_text(json.dumps({**json.loads(document.read_text()), key: wrong}))
    assert not alike(right, made(tmp_path, url))


@pytest.mark.parametrize("command", ["augment", "weights"])
def test_an_array_without_axes_ends_in_a_sentence(tmp_path, capsys, command):
    url = str(tmp_path / "number.zarr")
    zarr.create_array(url, shape=(), dtype=np.uint8)
    before = sorted(tmp_path.rglob("*"))
    output = [str(tmp_path / "more.zarr")] if command == "augment" else []
    assert main([command, url, *output, "--quiet"]) == 3
    assert "must name its 0 dimensions" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda a, folder: a.astype(a.dtype.newbyteorder(">")),
        lambda a, folder: np.asfortranarray(a),
        lambda a, folder: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        lambda a, folder: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a, folder: mapped(a, folder),
    ],
    ids=["big-endian", "columns first", "backwards", "every second", "mapped, read-only"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64])
def test_labels_in_memory_may_lie_as_they_like(tmp_path, laid_out, dtype):
    labels = np.random.default_rng(0).integers(0, 4, (6, 7)).repeat(5, axis=0).repeat(5, axis=1)
    labels[::5] = 0
    found = border_weight(laid_out(labels.astype(dtype), tmp_path))
    assert found.max() > 1
    assert (found == border_weight(labels)).all()
    assert (found != border_weight(labels[::-1, ::-1])).any()


def mapped(array, folder):
    np.save(folder / "labels.npy", array)
    return np.load(folder / "labels.npy", mmap_mode="r")
