"""Arrays of NumPy, Dask and xarray are predicted as their store is, to the bit, however cut."""

import pickle
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client

from unetkit import load_model, open_image, predict, tile_predict
from unetkit.engine.array_planes import array_planes
from unetkit.errors import InputError, MissingError, NonFiniteError, UsageError
from unetkit.models.decision import Decision

EXACT = {"precision": "exact"}
PARTED = Decision(threshold=0.45, min_size=3, grow=1, seed_level=0.6, seed_size=2)
OUTPUTS = ("probabilities", "classes", "instances")


def stored(source, **options):
    """Predict a store, and return what was made of it by its name."""
    report = tile_predict(source, **EXACT, **options, no_rescale=True)
    made = open_image(report.output)
    found = {name: np.asarray(array) for name, array in made.labels.items()}
    return {"probabilities": np.asarray(made), **found}


CASES = {
    "plain": ((40, 60), "yx", {}, {}),
    "channels": ((3, 40, 44), "cyx", {"channels": 2, "chosen": "2,0"}, {}),
    "stack": ((2, 30, 37), "zyx", {"decision": PARTED}, {}),
    "times": ((2, 2, 2, 21, 17), "tczyx", {"channels": 2}, {"probabilities": "float32"}),
    "three": ((40, 44), "yx", {"classes": ("a", "b", "c"), "target": "classes"}, {"tta": "flips"}),
    "blended": ((50, 36), "yx", {"name": "keras-unet"}, {"merge": "gaussian"}),
    "floats": ((40, 44), "yx", {"method": "zscore"}, {"threshold": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_array_has_the_bits_of_its_store_in_any_chunks(kit, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape, axes, own, options = CASES[case]
    model = load_model(kit.model("model.safetensors", **own))
    dtype = "f4" if case == "floats" else "u2"
    source, _ = kit.image("slide.zarr", shape, axes=axes, dtype=dtype)
    options = {"tile": 16, **options}
    wanted = stored(source, **options)
    image = open_image(source)
    array = np.asarray(image)
    for name in wanted:
        found = predict(array, model, output=name, axes=axes, **options, **EXACT)
        assert found.dtype == wanted[name].dtype
        np.testing.assert_array_equal(found, wanted[name])
    other = {**options, "tile": None} if options.get("merge") != "gaussian" else options
    np.testing.assert_array_equal(predict(image, model, **other, **EXACT), wanted["classes"])
    odd = (*[1] * (len(shape) - 2), *[(7, size - 7) for size in shape[-2:]])
    for chunks, name in ((-1, "classes"), (16, "probabilities"), (odd, "probabilities")):
        lazy = da.from_array(array, chunks=chunks)
        found = predict(lazy, model, output=name, axes=axes, **options, **EXACT)
        assert (found.shape, found.dtype) == (wanted[name].shape, wanted[name].dtype)
        np.testing.assert_array_equal(found, wanted[name])
    np.testing.assert_array_equal(found[..., 5:18, 9:20], wanted[name][..., 5:18, 9:20])


@pytest.mark.parametrize("case", ["channels", "stack", "three"])
def test_the_uncertainty_of_looks_at_an_array_is_the_layer_of_its_store(
    kit, case, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shape, axes, own, options = CASES[case]
    paths = [kit.model(f"m{n}.safetensors", seed=n, **own) for n in (1, 2)]
    source, _ = kit.image("slide.zarr", shape, axes=axes, dtype="u2")
    asked = {"tile": 16, **options, **EXACT}
    report = tile_predict(source, model=paths, uncertainty=True, no_rescale=True, **asked)
    wanted = np.asarray(open_image(report.output).uncertainty)
    assert wanted.max() > 0
    array = np.asarray(open_image(source))
    for one in (array, da.from_array(array, chunks=-1)):
        found = predict(one, load_model(paths), output="uncertainty", axes=axes, **asked)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(UsageError, match=r"got one model that looks once; add --tta flips"):
        predict(array, paths[0], output="uncertainty", axes=axes)


def test_axes_may_have_any_order_and_results_have_that_of_stores(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors", channels=2)
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 21, 30), dtype="u1")
    wanted = predict(array, model, axes="czyx", output="probabilities", **EXACT)
    assert wanted.shape == (2, 3, 21, 30)
    turned = array.transpose(2, 1, 3, 0)
    for one in (turned, da.from_array(turned, chunks=(8, 2, 9, 1))):
        found = predict(one, model, axes="yzxc", output="probabilities", **EXACT)
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(
        predict(turned[:, 1], model, axes="YXC", output="probabilities", **EXACT).shape, (2, 21, 30)
    )


def test_other_precisions_are_as_close_as_other_tiles_are(kit, slide):
    array = np.asarray(open_image(slide))
    exact = predict(array, output="probabilities", probabilities="float32", **EXACT)
    same = {"output": "probabilities", "probabilities": "float32", "precision": "float32"}
    for one in (array, da.from_array(array, chunks=25)):
        np.testing.assert_allclose(predict(one, tile=32, **same), exact, atol=1e-5)


class Source:
    """Blocks of a lazy image of noise: how many were made, and how many are there at once."""

    def __init__(self, shape, chunk):
        self.made, self.there, self.most = 0, 0, 0
        self.lock = threading.Lock()
        self.array = da.map_blocks(
            self.block, chunks=((chunk,) * (shape[0] // chunk), (chunk,) * (shape[1] // chunk)),
            dtype="u1", meta=np.empty((0, 0), "u1"),
        )  # fmt: skip

    def block(self, block_info=None):
        place = block_info[None]
        rng = np.random.default_rng(place["chunk-location"])
        found = rng.integers(0, 255, place["chunk-shape"], dtype="u1")
        with self.lock:
            self.made += 1
            self.there += 1
            self.most = max(self.most, self.there)
        weakref.finalize(found, self.gone)
        return found

    def gone(self):
        with self.lock:
            self.there -= 1


def test_a_lazy_result_runs_no_network_before_and_only_for_what_is_asked(kit, slide):
    model = load_model("model.safetensors")
    runs = []
    (network,) = model.ensemble(fused=False).models
    network.module.register_forward_hook(lambda _, seen, __: runs.append(seen[0].shape[-1]))
    source = Source((256, 256), 32)
    lazy = predict(source.array, model, tile=32, **EXACT)
    assert (lazy.chunksize, lazy.shape) == ((32, 32), (256, 256))
    # What memory it takes is looked up with the smallest input there is.
    assert max(runs) == network.header.contract.minimum
    runs.clear()
    # Statistics of the whole image were needed, once.
    assert source.made == 64
    lazy[:32, :32].compute()
    assert len(runs) == 1
    assert source.made < 64 + 10
    same = predict(source.array, model, tile=32, **EXACT)
    assert same.name == lazy.name
    assert predict(source.array, model, tile=32, output="probabilities").name != lazy.name


def test_statistics_hold_few_chunks_at_once_however_large_they_are():
    source = Source((2**15, 2**13), 2**12)
    assert sum(block.size for block in array_planes(source.array, "yx").blocks()) == 2**28
    # Four of sixteen are 64 MiB; the last block is held while the next are computed.
    assert (source.made, source.most < 10) == (16, True)


def test_threads_of_dask_share_one_network_and_hold_little(kit, slide):
    model = load_model("model.safetensors")
    inside, most, lock = [0], [0], threading.Lock()
    (network,) = model.ensemble(fused=False).models

    def enter(*_):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])

    def leave(*_):
        with lock:
            inside[0] -= 1

    network.module.register_forward_pre_hook(enter)
    network.module.register_forward_hook(leave)
    source = Source((1024, 512), 32)
    lazy = predict(source.array, model, tile=64, **EXACT)
    source.most = source.there
    with dask.config.set(scheduler="threads", num_workers=4):
        found = lazy.sum().compute()
    # Of 512 chunks, those of a few rows of tiles.
    assert (most[0], source.most < 200) == (1, True), source.most
    assert found == predict(source.array.compute(), model, **EXACT).sum()


def test_networks_that_are_held_stay_loaded_and_others_are_found_by_their_files(kit, slide):
    array = np.asarray(open_image(slide))
    other = kit.model("other.safetensors", seed=5)
    wanted = [predict(array, m, **EXACT) for m in ("model.safetensors", other)]
    assert (wanted[0] != wanted[1]).any()
    lazy = [
        predict(da.from_array(array, chunks=16), m, tile=16, **EXACT)
        for m in ("model.safetensors", other)
    ]
    sent = pickle.loads(pickle.dumps(lazy[0]))
    np.testing.assert_array_equal(sent, wanted[0])
    for path in ("model.safetensors", other):
        Path(path).rename(f"{path}.away")
    # Tiles of two models are computed in turn, and none is loaded again.
    for found, one in zip(dask.compute(*lazy), wanted, strict=True):
        np.testing.assert_array_equal(found, one)


def test_workers_of_a_cluster_compute_it_too(kit, slide):
    array = np.asarray(open_image(slide))
    wanted = predict(array, **EXACT)
    quiet = {"dashboard_address": None, "processes": False}
    with Client(n_workers=1, threads_per_worker=2, **quiet):
        found = predict(da.from_array(array, chunks=30), tile=16, **EXACT)
        np.testing.assert_array_equal(found, wanted)


def test_xarray_keeps_its_names_and_places(kit, tmp_path):
    xarray = pytest.importorskip("xarray")
    model = kit.model(tmp_path / "model.safetensors", channels=2, chosen="GFP,DAPI")
    array = np.random.default_rng(0).integers(0, 255, (21, 40, 3), dtype="u1")
    given = xarray.DataArray(
        array,
        dims=("row", "x", "channel"),
        coords={"x": np.arange(40) / 2, "channel": ["DAPI", "far red", "GFP"], "well": "A1"},
    )
    with pytest.warns(UserWarning, match=r"have no names and are taken in their order"):
        wanted = predict(array[..., [2, 0]], model, axes="yxc", output="probabilities", **EXACT)
    for one in (given, given.chunk({"row": 8})):
        found = predict(one, model, output="probabilities", tile=16, **EXACT)
        assert (found.chunks is None) == (one.chunks is None)
        assert found.dims == ("class", "row", "x")
        assert list(found["class"].values) == ["background", "foreground"]
        assert (found.x == given.x).all()
        assert (found.well.item(), "channel" in found.coords) == ("A1", False)
        np.testing.assert_array_equal(found, wanted)
    found = predict(given, model, **EXACT)
    assert (found.dims, found.name) == (("row", "x"), "classes")
    assert predict(given, model, output="instances", **EXACT).dims == ("row", "x")
    with pytest.raises(InputError, match=r"dims such as y and x, got a, b.* axes='yx'"):
        predict(xarray.DataArray(array[..., 0], dims=("a", "b")), model)


ARRAY = np.random.default_rng(0).integers(0, 255, (40, 44), dtype="u1")
LAZY = da.from_array(ARRAY, chunks=20)
HOLE = np.where(ARRAY > 250, np.nan, ARRAY)
REFUSED = [
    (ARRAY, {"model": "absent.safetensors"}, MissingError, "model file must exist"),
    (ARRAY, {"output": "masks"}, UsageError, "output must be one of probabilities, classes"),
    (ARRAY, {"precision": "double"}, UsageError, "precision must be one of"),
    (ARRAY, {"tile": 15}, UsageError, "tile must be a multiple"),
    (ARRAY, {"axes": "zx"}, UsageError, "axes must be 2 different letters"),
    (ARRAY, {"nonfinite": "no"}, UsageError, "nonfinite must be error or fill"),
    ("slide.zarr", {}, UsageError, "got str; use tile_predict"),
    (ARRAY[0], {}, InputError, "must say what its 1 axes are"),
    (ARRAY[None, None], {}, InputError, r"got shape \(1, 1, 40, 44\); name them, .*'czyx'"),
    (np.stack([ARRAY] * 3, -1), {}, InputError, r"got 40 along the axes 'cyx'.* axes='yxc'"),
    (np.stack([ARRAY] * 3), {"channels": "0,2"}, InputError, "must have 1 channels"),
    (np.stack([ARRAY] * 3), {"channels": "7"}, UsageError, "channels must be among those"),
    (ARRAY.astype(complex), {}, InputError, "whole numbers or floats, got complex128"),
    (ARRAY[:0], {}, InputError, "must have pixels"),
    (np.ma.masked_greater(ARRAY, 253), {}, InputError, r"no masked pixels, got .* filled\(\)"),
    (LAZY[LAZY[:, 0] > 9], {}, InputError, "compute_chunk_sizes"),
    (LAZY, {"output": "instances"}, UsageError, "got instances, .* 'unetkit tile-predict'"),
    (HOLE, {}, NonFiniteError, "the array must hold finite numbers"),
    (da.from_array(HOLE), {}, NonFiniteError, "the array must hold finite numbers"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_can_not_be_predicted_gets_one_sentence(slide, number):
    array, options, error, words = REFUSED[number]
    with pytest.raises(error, match=words) as caught:
        predict(array, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_objects_of_a_model_without_any_are_refused_and_so_is_another_device(kit, slide):
    model = load_model(kit.model("c.safetensors", classes=("a", "b", "c"), target="classes"))
    with pytest.raises(UsageError, match="a model of classes, which finds no objects"):
        predict(ARRAY, model, output="instances")
    assert model.class_names == ("a", "b", "c")
    elsewhere = replace(load_model("model.safetensors", device="cpu"), device="cuda:7")
    with pytest.raises(UsageError, match="device must be cuda:7, where the model was loaded"):
        predict(ARRAY, elsewhere, device="cpu")


def test_non_finite_pixels_may_be_0_and_a_progress_is_told(kit, slide):
    array = ARRAY.astype("f4")
    array[3, 4] = 0
    wanted = predict(array, **EXACT)
    array[3, 4] = np.nan
    seen = kit.watching()
    found = predict(array, nonfinite="fill", tile=16, progress=seen, **EXACT)
    np.testing.assert_array_equal(found, wanted)
    assert seen.stages == [["predict", 9, 9]]
