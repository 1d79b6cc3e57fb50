"""Predict arrays of NumPy, Dask and xarray as stored images are predicted, without a store."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.arrays.uncertainty import LEVELS
from unetkit.commands.tile_predict.blocks import (
    ImageTask,
    TileBatch,
    TileJob,
    batches,
    inference_config,
    predict_batch,
)
from unetkit.commands.tile_predict.ensemble import (
    find_models,
    load_ensemble,
    read_header,
    torch_threads,
)
from unetkit.commands.tile_predict.instances import Separation, number_objects
from unetkit.commands.tile_predict.plan import NO_INVENTORY, Plan, PredictOptions
from unetkit.commands.tile_predict.precision import choose_precision, fit_normalizations
from unetkit.commands.tile_predict.resources import (
    candidates,
    choose_batch,
    memory_for,
    plan_parallelism,
)
from unetkit.engine.array_planes import array_planes, lazy_tiles, planes_of
from unetkit.engine.input_shift import check_channel_names, check_input_shift
from unetkit.engine.jobs import run_jobs
from unetkit.engine.pools import in_cluster
from unetkit.engine.schedulers import open_scheduler
from unetkit.errors import InputError, UsageError
from unetkit.models import hardware
from unetkit.progress import SILENT, WarningCollector
from unetkit.storage.datasets import Dataset, Sample
from unetkit.storage.image_file import AXES, are_axes
from unetkit.storage.images import Image, choose_channels, find_channels
from unetkit.storage.ome import axis_letter, check_axes
from unetkit.storage.planes import PlaneArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.commands.tile_predict.averaging import Merge, Tta
    from unetkit.commands.tile_predict.ensemble import Ensemble
    from unetkit.commands.tile_predict.plan import Separate
    from unetkit.commands.tile_predict.resources import Parallelism
    from unetkit.engine.array_planes import ArrayPlanes
    from unetkit.engine.pools import Scheduler
    from unetkit.geometry.tiles import Tile
    from unetkit.models.model_header import ModelHeader
    from unetkit.progress import Progress

Output = Literal["probabilities", "classes", "instances", "uncertainty"]
OUTPUTS = get_args(Output)
# What an array is called in messages.
NAME = "the array"
# Larger tiles compute less context, and take memory that a program shares with others: our choice.
LARGEST_TILE = 1024


@dataclass(frozen=True, eq=False)
class PredictionModel:
    """A model, or several that are averaged, loaded once for many predictions.

    Parameters
    ----------
    paths : tuple of str
        The model files.
    header : ModelHeader
        What they have in common: classes, channels, pixel size, decision.
    device : str
        Where they compute.
    """

    paths: tuple[str, ...]
    header: ModelHeader
    device: str
    _loaded: dict[bool, Ensemble] = field(default_factory=dict, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.header.class_names

    def ensemble(self, *, fused: bool) -> Ensemble:
        """Return the networks; precision `exact` wants those that are not fused."""
        if fused not in self._loaded:
            self._loaded[fused] = load_ensemble(self.paths, device=self.device, fused=fused)
        return self._loaded[fused]


def load_model(
    model: str | Sequence[str] = "model.safetensors", *, device: str = "auto"
) -> PredictionModel:
    """Load a model file once, to `predict` many arrays with it.

    Parameters
    ----------
    model : str or sequence of str
        A model file, or several whose probabilities are averaged. Where a file is absent, its
        folds (``model.fold1.safetensors`` and so on) are taken.
    device : str
        Where it computes: auto, cpu, cuda, cuda:1 or mps.

    Returns
    -------
    PredictionModel

    Raises
    ------
    MissingError
        If there is no such file.
    InputError
        If a file is damaged, or files don't belong together.
    ResourceError
        If there is no such device.
    """
    hardware.tune_allocator()
    paths = find_models(model, progress=SILENT)
    found = PredictionModel(paths, read_header(paths), str(hardware.pick_device(device)))
    found.ensemble(fused=True)
    return found


def predict(
    array: Any,
    model: str | Sequence[str] | PredictionModel = "model.safetensors",
    *,
    output: Output = "classes",
    axes: str | None = None,
    channels: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tta: Tta = "none",
    merge: Merge = "crop",
    probabilities: Literal["uint8", "float32"] = "uint8",
    threshold: float | None = None,
    grow: int | None = None,
    min_size: int | None = None,
    separate: Separate | None = None,
    seed_level: float | None = None,
    seed_size: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    batch: int | None = None,
    max_memory: str | None = None,
    nonfinite: Literal["error", "fill"] = "error",
    strict: bool = False,
    progress: Progress = SILENT,
) -> Any:
    """Segment an array as `unetkit tile-predict` segments a stored image, without a store.

    The result has the bits of ``tile-predict --no-rescale`` with the same settings where the
    precision is ``exact``, however the array is cut into chunks; with another precision it is as
    close as tiles of another size are.

    Parameters
    ----------
    array : array_like
        A NumPy array, or what NumPy makes one of, such as an image of `open_image`; a Dask array;
        or an xarray.DataArray of either.
    model : str, sequence of str or PredictionModel
        The model file, several that are averaged, or what `load_model` returned.
    output : {"probabilities", "classes", "instances", "uncertainty"}
        Probabilities of all classes, the class of each pixel, or objects with ids from 1 on. Ids
        need the whole image, so that instances of a Dask array are refused. Or how unsure models or
        turns are together, as 255ths, as ``tile-predict --uncertainty`` stores it; for several
        models or with `tta`.
    axes : str, optional
        Letters of t, c, z, y, x, one for each axis; left out, those of xarray's dims, else ``yx``
        or ``cyx``. Images with the channels last are ``yxc``.
    channels : str, optional
        Channels to use, in this order, by number or xarray's names: ``0,2``; left out, those that
        the model was trained with.
    tile : int, optional
        Side of a tile, in pixels; a multiple of the model's step. Left out, what computes least
        of 512, 1024 and the image's size, and fits into memory. Chunks of a lazy result are tiles.
    overlap : int, optional
        Pixels of context that a tile sees on each side; left out, what the model needs.
    tta : {"none", "flips", "rotations"}
        Average over turned tiles.
    merge : {"crop", "gaussian"}
        Crop tiles, or blend their windows, for padded models whose tiles can't be exact.
    probabilities : {"uint8", "float32"}
        The type of probabilities: 0 to 255 as they are stored, or 0 to 1. Of two classes it is
        decided by these.
    threshold, grow, min_size, separate, seed_level, seed_size : optional
        As for `tile_predict`; left out, the model's own.
    device : str, optional
        Where the network runs; left out, on a GPU where there is one, or where `model` was loaded.
    precision : {"auto", "exact", "float32", "bfloat16", "float16"}
        Numbers to compute with; ``exact`` gives the same bits on every run, slower.
    batch : int, optional
        Tiles that the network sees at once, of arrays in memory.
    max_memory : str, optional
        The most memory to take, such as ``8G``.
    nonfinite : {"error", "fill"}
        What to do about NaN and infinite pixels: stop, or read them as 0.
    strict : bool
        Refuse an image that is far from what the model was trained on; else a warning says so.
    progress : Progress
        Told about the tiles of arrays in memory.

    Returns
    -------
    ndarray, dask.array.Array or xarray.DataArray
        As `array` is. Axes are those of t, c, z, y, x that `array` has, in this order; of
        probabilities c, which is always there, are the classes, of all else there is no c. An
        xarray.DataArray keeps its dims, and coordinates along them; classes lie along ``class``.

    Raises
    ------
    UsageError
        If an option can't be used.
    InputError
        If array or model are unsuitable, or don't fit each other.
    ResourceError
        If there is too little memory.
    NonFiniteError
        If the array or the network's output has NaN or Inf.

    Notes
    -----
    The normalization is that of the whole image. A Dask array is therefore read block by block when
    `predict` is called, twice if it is of floats: as a part of the lazy result Dask would keep all
    chunks in memory until it is known. Above 2^28 pixels it is an evenly spaced choice of blocks
    of whole chunks, as for a stored image. A network runs only when the result is computed. In one
    process one network computes at a time, with all of torch's threads, whatever the number of
    Dask's; a worker of a cluster runs as many as it has threads.
    """
    decisive: dict[str, Any] = {"threshold": threshold, "grow": grow, "min_size": min_size}
    decisive |= {"separate": separate, "seed_level": seed_level, "seed_size": seed_size}
    asked: dict[str, Any] = {name: one for name, one in decisive.items() if one is not None}
    options = PredictOptions(
        tile=tile,
        overlap=overlap,
        precision=precision,
        batch=batch,
        probabilities=probabilities,
        nonfinite=nonfinite,
        max_memory=max_memory,
        strict=strict,
        tta=tta,
        merge=merge,
        no_rescale=True,
        uncertainty=output == "uncertainty",
        **asked,
    )
    options.check()
    if output not in OUTPUTS:
        raise UsageError(
            f"output must be one of {', '.join(OUTPUTS)}, got {output!r}; leave it out for classes"
        )
    loaded = _loaded(model, device)
    options.check_looks(len(loaded.paths))
    header = loaded.header
    given = _Given.of(array, axes, lazy=output != "instances")
    dataset = given.dataset(header, channels)
    options.check_fit(header, dataset)
    options = options.decided(header, asked=asked)
    options.check_separation(header, asked=asked)
    if output == "instances" and not has_instances(header.target):
        raise UsageError(
            f"output must be classes or probabilities for a model of {header.target}, which finds"
            " no objects, got instances; leave it out"
        )
    collector = WarningCollector(progress)
    if channels is None:
        check_channel_names(header.channels, dataset.samples, strict=strict, progress=collector)
    place = hardware.pick_device(loaded.device)
    parallelism = plan_parallelism("threads", None, device=place)
    with torch_threads(parallelism.threads):
        plan = _plan(loaded, dataset, options, parallelism=parallelism)
        _check_shift(plan, collector)
        job = _ArrayJob(plan, output, loaded.device, parallelism)
        found = job.lazily() if given.is_lazy else job.at_once(collector)
    for text in collector.warnings:
        warnings.warn(text, stacklevel=2)
    return given.like(found, output=output, classes=header.class_names)


def _loaded(model: str | Sequence[str] | PredictionModel, device: str | None) -> PredictionModel:
    if not isinstance(model, PredictionModel):
        return load_model(model, device=device or "auto")
    if device is not None and str(hardware.pick_device(device)) != model.device:
        raise UsageError(
            f"device must be {model.device}, where the model was loaded, got {device!r}; leave it"
            " out, or load the model there"
        )
    return model


def _plan(
    model: PredictionModel,
    dataset: Dataset,
    options: PredictOptions,
    *,
    parallelism: Parallelism,
) -> Plan:
    """Settle all that decides about the pixels, as `make_plan` does, but for what takes time."""
    ensemble = model.ensemble(fused=options.precision != "exact")
    contract = ensemble.header.contract
    memory = memory_for(ensemble, dataset.samples, options, parallelism=parallelism)
    plan = Plan(
        *(ensemble, dataset.samples, options),
        tile=options.tile or contract.step,
        precision=options.precision,
        batch=options.batch or 1,
        inventories=(NO_INVENTORY,),
    )
    tiles = [options.tile] if options.tile else candidates(plan, memory)
    memory.check(tiles[0], plan.overlap, contract=contract)
    tiles = [each for each in tiles if each <= LARGEST_TILE] or tiles[:1]
    (sample,) = dataset.samples
    fitted = fit_normalizations(sample, ensemble, nonfinite=options.nonfinite)
    plan = replace(plan, normalizations=(fitted,))
    if options.precision == "auto":
        chosen = choose_precision(plan, max_size=memory.largest)
        plan = replace(plan, precision=chosen.name)
    plan = replace(plan, tile=min(tiles, key=lambda each: replace(plan, tile=each).wasted))
    return replace(plan, batch=options.batch or choose_batch(plan, memory))


def _check_shift(plan: Plan, progress: Progress) -> None:
    header = plan.model.header
    (sample,) = plan.samples
    if sample.image.pixel_size is None:
        # An array can't say it.
        header = replace(header, pixel_size=None)
    check_input_shift(
        header,
        plan.samples,
        [each[0] for each in plan.normalizations],
        replace_nonfinite=plan.options.replace_nonfinite,
        strict=plan.options.strict,
        progress=progress,
    )


@dataclass(frozen=True)
class _Given:
    """What a user gave: pixels, the names of their axes, and what the result is to be like."""

    planes: PlaneArray
    image: Image | None = None
    like_array: Any = None  # an xarray.DataArray

    @classmethod
    def of(cls, array: Any, axes: str | None, *, lazy: bool) -> _Given:
        """See an array as planes; Dask's only where the result may be `lazy`."""
        if isinstance(array, Image | PlaneArray):
            planes = array.data if isinstance(array, Image) else array
            if axes is not None and axes.lower() != planes.axes:
                raise UsageError(
                    f"axes must be {planes.axes!r} as {planes.url} says itself, got {axes!r};"
                    " leave them out"
                )
            return cls(planes, array if isinstance(array, Image) else None)
        named = array if _is_xarray(array) else None
        values = array if named is None else array.data
        if not hasattr(values, "dask"):
            values = _in_memory(values)
        elif not lazy:
            raise UsageError(
                "output must be probabilities, classes or uncertainty for a Dask array, got"
                " instances, whose ids need the whole image; store the array and run 'unetkit"
                " tile-predict', or compute it first"
            )
        letters = _letters(values.shape, axes, dims=None if named is None else named.dims)
        return cls(array_planes(values, letters, name=NAME), like_array=named)

    @property
    def is_lazy(self) -> bool:
        """Whether the result is Dask's."""
        return bool(getattr(self.planes, "is_lazy", False))

    def dataset(self, header: ModelHeader, channels: str | None) -> Dataset:
        """See it as a dataset of one image, with the channels that a model reads."""
        image = self.image or Image(NAME, NAME, self.planes, self._channel_names())
        try:
            if channels is None:
                image = find_channels(image, header.channels)
            else:
                image = choose_channels(image, channels)
        except InputError:
            self._check_channels(image, header, channels)
            raise
        self._check_channels(image, header, channels)
        return Dataset(image.url, "image", (Sample(image.name, image.name, image),))

    def _check_channels(self, image: Image, header: ModelHeader, channels: str | None) -> None:
        """Say of axes where a wrong number of channels may come from a wrong reading of them."""
        found, data = image.data.channel_count, image.data
        if found == header.in_channels or channels is not None or data.is_stored:
            return
        example = "yxc" if data.axes == "cyx" else data.axes
        raise InputError(
            f"{NAME} must have {header.in_channels} channels, as the model {header.model!r} takes,"
            f" got {found} along the axes {data.axes!r} of shape {data.shape}; say which axis is"
            f" which, such as axes={example!r}, or choose with channels"
        )

    def _channel_names(self) -> tuple[str, ...]:
        """Return what xarray calls the channels, or else their numbers."""
        numbers = tuple(map(str, range(self.planes.channel_count)))
        if self.like_array is None or "c" not in self.planes.axes:
            return numbers
        dim = self.like_array.dims[self.planes.axes.index("c")]
        named = [str(name) for name in self.like_array[dim].values]
        return tuple(named) if dim in self.like_array.coords else numbers

    def like(self, found: Any, *, output: str, classes: Sequence[str]) -> Any:
        """Return a result with the names that xarray gave, if it did."""
        if self.like_array is None:
            return found
        given = self.like_array
        names = dict(zip(self.planes.axes, given.dims, strict=True)) | {"c": "class"}
        letters = [a for a in AXES if a in self.planes.axes or a == "c"]
        dims = [names[a] for a in letters if a != "c" or output == "probabilities"]
        kept = {
            name: one for name, one in given.coords.items() if set(one.dims) <= {*dims} - {"class"}
        }
        if output == "probabilities":
            kept["class"] = ("class", list(classes))
        return type(given)(found, dims=dims, coords=kept, name=output)


def _is_xarray(array: Any) -> bool:
    module = sys.modules.get("xarray")
    return module is not None and isinstance(array, module.DataArray)


def _in_memory(values: Any) -> NDArray[Any]:
    if isinstance(values, str | bytes) or not hasattr(values, "__array__"):
        raise UsageError(
            f"array must be an array of NumPy, Dask or xarray, or an image of open_image, got"
            f" {type(values).__name__}; use tile_predict for what lies at a path"
        )
    return np.asanyarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)


def _letters(shape: tuple[int, ...], axes: str | None, *, dims: Sequence[Any] | None) -> str:
    """Return a letter for each axis: as told, as xarray's dims are called, or by their number."""
    if axes is not None:
        return check_axes(axes, len(shape), url=NAME)
    if dims is not None:
        named = "".join(axis_letter(str(dim)) for dim in dims)
        if are_axes(named, len(shape)):
            return named
        raise InputError(
            f"{NAME} must have dims such as y and x, got {', '.join(map(str, dims))}; say which is"
            f" which, such as axes={AXES[-len(shape) :]!r}"
        )
    if len(shape) not in (2, 3):
        example = AXES[-len(shape) :] if 1 < len(shape) < 6 else "yx"
        raise InputError(
            f"{NAME} must say what its {len(shape)} axes are, got shape {shape}; name them, such"
            f" as axes={example!r}"
        )
    return "yx" if len(shape) == 2 else "cyx"


@dataclass(frozen=True)
class _ArrayJob:
    """One array that is predicted, as a plan says."""

    plan: Plan
    output: Output
    device: str
    parallelism: Parallelism

    @property
    def sample(self) -> Sample:
        """The array, as an image."""
        return self.plan.samples[0]

    def lazily(self) -> Any:
        """Return what Dask computes tile by tile."""
        data: Any = self.sample.data
        plan = self.plan
        classes = len(plan.model.header.class_names)
        probable = self.output == "probabilities"
        kind = plan.options.probabilities if probable else self._kind
        task = self._task(planes_of(None, "yx", (1, 1), data.dtype), {})
        return lazy_tiles(
            data,
            plan.tiles(self.sample),
            partial(_predict_tile, task, plan.model, self.output),
            channels=classes if probable else None,
            dtype=np.dtype(kind),
            told=(self.output, plan.fingerprint()),
        )

    @property
    def _kind(self) -> np.dtype[Any]:
        """Of what is said of each pixel: its class, or how uncertain it is."""
        levels = len(self.plan.model.header.class_names) - 1
        return np.min_scalar_type(LEVELS if self.output == "uncertainty" else levels)

    def at_once(self, progress: Progress) -> NDArray[Any]:
        """Predict an array in memory, or one that is stored."""
        axes = [axis for axis in AXES if axis in self.sample.data.axes and axis != "c"]
        shape = tuple(self.sample.data.size(axis) for axis in axes)
        classes = len(self.plan.model.header.class_names)
        watershed = self.output == "instances" and self.plan.options.separate == "watershed"
        found: dict[str, NDArray[Any]] = {}
        if self.output == "probabilities" or watershed:
            letters = [axis for axis in AXES if axis in axes or axis == "c"]
            along = dict(zip(axes, shape, strict=True)) | {"c": classes}
            sizes = [along[axis] for axis in letters]
            found["probabilities"] = np.zeros(sizes, self.plan.options.probabilities)
        if self.output != "probabilities":
            found["uncertainty" if self.output == "uncertainty" else "classes"] = np.zeros(
                shape, self._kind
            )
        task = self._task(self.sample.data, found)
        jobs = (
            TileJob(task, plane, tile)
            for plane in range(self.sample.data.planes)
            for tile in self.plan.tiles(self.sample)
        )
        some = (TileBatch(each) for each in batches(jobs, task.inference.max_batch))
        progress.start("predict", total=self.plan.tiles_total)
        with open_scheduler("threads", self.parallelism.jobs) as scheduler:
            run_jobs(
                predict_batch,
                some,
                scheduler=scheduler,
                on_done=lambda batch, _: progress.advance(len(batch.jobs)),
            )
            if self.output == "instances":
                found["instances"] = self._instances(task, axes, shape, scheduler)
        return found[self.output]

    def _instances(
        self, task: ImageTask, axes: Sequence[str], shape: Sequence[int], scheduler: Scheduler
    ) -> NDArray[Any]:
        options = self.plan.options
        made: list[NDArray[Any]] = []

        def create(dtype: np.dtype[Any]) -> PlaneArray:
            made.append(np.zeros(shape, dtype))
            return replace(_of_labels("".join(axes), made[0]), has_channels=False)

        separation = None
        if options.separate == "watershed":
            separation = Separation(
                task.probabilities,
                seed_level=options.seed_level,
                seed_size=options.seed_size,
            )
        number_objects(
            task.classes,
            _of_labels("".join(axes), np.zeros(shape, np.uint32)),
            create=create,
            blocks=self.plan.blocks(self.sample),
            target=self.plan.model.header.target,
            grow=options.grow,
            min_size=options.min_size,
            scheduler=scheduler,
            advance=lambda *_: None,
            separation=separation,
        )
        return made[0]

    def _task(
        self,
        data: PlaneArray,
        found: Mapping[str, NDArray[Any]],
    ) -> ImageTask:
        """Say how tiles are predicted, and in what is `found` goes what is said of them."""
        plan, axes, sizes = self.plan, self.sample.data.axes, self.sample.data
        count = len(plan.model.header.class_names)
        letters = "".join(axis for axis in AXES if axis in axes and axis != "c")
        with_classes = "".join(axis for axis in AXES if axis in axes or axis == "c")
        probabilities, classes, uncertainty = (
            planes_of(
                found.get(output),
                names,
                [count if axis == "c" else sizes.size(axis) for axis in names],
                kind,
            )
            for output, names, kind in (
                ("probabilities", with_classes, plan.options.probabilities),
                ("classes", letters, np.min_scalar_type(count - 1)),
                ("uncertainty", letters, np.uint8),
            )
        )
        unsure = replace(uncertainty, has_channels=False) if plan.options.uncertainty else None
        return ImageTask(
            name=self.sample.name,
            inference=inference_config(plan, device=self.device, parallelism=self.parallelism),
            data=data,
            probabilities=probabilities,
            classes=replace(classes, has_channels=False),
            uncertainty=unsure,
            normalizations=plan.normalizations[0],
            threshold=plan.options.threshold,
            target=plan.model.header.target,
            nonfinite=plan.options.nonfinite,
        )


def _of_labels(axes: str, values: NDArray[Any]) -> ArrayPlanes:
    return planes_of(values, axes, values.shape, values.dtype)


def _predict_tile(
    task: ImageTask, model: Ensemble, output: Output, data: ArrayPlanes, tile: Tile
) -> NDArray[Any]:
    """Predict a tile of what Dask has computed around it.

    `model` is held, so that its networks stay loaded; another process loads them by their files.
    """
    size = (data.height, data.width)
    shape = (tile.y1 - tile.y0, tile.x1 - tile.x0)
    origin = (tile.y0, tile.x0)
    if output == "probabilities":
        count = task.probabilities.channel_count
        values = np.empty((count, *shape), task.probabilities.dtype)
        kept = planes_of(values, "cyx", (count, *size), values.dtype, origin=origin)
    else:
        labels = task.classes if task.uncertainty is None else task.uncertainty
        values = np.empty(shape, labels.dtype)
        whole = planes_of(values, "yx", size, values.dtype, origin=origin)
        kept = replace(whole, has_channels=False)
    inference = task.inference
    if in_cluster():
        # Whoever starts a worker says how many threads it has.
        inference = replace(inference, threads=None, concurrency=None)
    changed: dict[str, Any] = {output: kept}
    task = replace(task, data=data, inference=inference, **changed)
    predict_batch(TileBatch((TileJob(task, 0, tile),)))
    return values
