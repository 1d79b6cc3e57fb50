"""Fit the decision of a model, or of several that are averaged, to labelled images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from unetkit.arrays.instances import has_instances
from unetkit.arrays.normalization import fit
from unetkit.arrays.scaling import scale, taps, vote
from unetkit.engine.input_shift import known_by_method, limited
from unetkit.engine.rescaling import LARGEST, SMALLEST, at_ratios, ratios_to, with_labels_at
from unetkit.errors import InputError, UsageError
from unetkit.models import hardware
from unetkit.models.joint_header import common_header, usual_decision
from unetkit.models.model_file import load, with_decision
from unetkit.models.model_header import (
    SUFFIX,
    check_places,
    check_suffix,
    folds,
    is_package,
    open_model,
    read_header,
)
from unetkit.progress import SILENT, Progress
from unetkit.storage.atomic import check_parent, write_bytes
from unetkit.storage.datasets import open_dataset
from unetkit.storage.outputs import check_output
from unetkit.storage.urls import base_name, is_remote
from unetkit.training.held_out import choose_planes, thinned
from unetkit.training.held_out_scores import held_out_scores
from unetkit.training.split import Region
from unetkit.training.tuning import (
    TUNED,
    HeldOutMap,
    fit_decision,
    has_choice,
    middle_box,
    rounds,
    score_decision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from unetkit.arrays.boxes import Plane
    from unetkit.arrays.normalization import Normalization
    from unetkit.models.decision import Decision
    from unetkit.models.model_file import LoadedModel
    from unetkit.models.model_header import ModelHeader
    from unetkit.options import Channels, Device, LabelName, Opt, Overwrite
    from unetkit.storage.datasets import Sample
    from unetkit.training.held_out import HeldOutPlane


@dataclass(frozen=True)
class TuneReport:
    """What `tune` fitted."""

    output: str  # the first model file that has the decision now
    outputs: tuple[str, ...]
    decision: dict[str, Any]
    score_name: str
    # Of what was fitted, of the default, and of what the models brought.
    report: tuple[dict[str, Any], ...]
    curve: tuple[dict[str, float | None], ...] = field(repr=False)  # the score by threshold
    scales: tuple[dict[str, float], ...] = ()  # the score of `tile-predict --scale`, where asked

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        plain = asdict(self)
        return plain | {
            name: list(plain[name]) for name in ("outputs", "report", "curve", "scales")
        }


def tune(
    *places: Annotated[str, Opt(check="unetkit.models.model_header:check_places")],
    output: Annotated[
        str | None,
        Opt(
            flags=("--output", "-o"),
            default="the model files",
            panel="Output",
            check="unetkit.models.model_header:check_suffix",
        ),
    ] = None,
    channels: Channels = None,
    labels: LabelName = None,
    scales: Annotated[str | None, Opt(check="unetkit.commands.tune:parse_scales")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    progress: Progress = SILENT,
) -> TuneReport:
    """Fit threshold, least size, growth and separation of a model to labelled images.

    They are chosen by mean average precision for instances and mean Dice for class maps, and go
    into the model file, where ``tile-predict`` finds them; the weights stay as they are. Where
    nothing is better than the default by more than noise, the default is kept.

    Parameters
    ----------
    *places : str
        A model file, or several whose probabilities are averaged, and a dataset with labels.
        Images that a model has learned from are left out, where others are there.
    output : str, optional
        Write a new model file instead; of several models ``STEM.fold1.safetensors`` and so on.
    channels : str, optional
        Channels to use, in this order, by name or number: ``DAPI`` or ``0,2``; left out, those
        that the model was trained with.
    labels : str, optional
        Which labels to fit to, by name, or ``NAME=classes`` for class maps of other writers.
    scales : str, optional
        Say also what ``tile-predict --scale`` costs in score, for each of these: ``0.75,0.5``.
    device : str
        Where the network runs: auto, cpu, cuda, cuda:1 or mps.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told of every image.

    Returns
    -------
    TuneReport

    Raises
    ------
    UsageError
        If there is nothing to decide, as for class maps of three classes and more.
    InputError
        If models or images are missing, or don't fit each other.
    OutputError
        If the output exists.
    """
    check_places(places)
    factors = parse_scales(scales)
    *given, source = places
    paths = [path for one in given for path in (folds(one) or [one])]
    headers = [read_header(path) for path in paths]
    header = common_header(paths, headers)
    if not has_choice(header.target, classes=len(header.class_names)):
        raise UsageError(
            f"a model to tune must find objects or tell two classes, got the"
            f" {len(header.class_names)} classes {', '.join(header.class_names)}, of which the most"
            " probable is taken; there is nothing to decide"
        )
    outputs = _outputs(paths, output, source=source, overwrite=overwrite)
    dataset = open_dataset(source, channels=channels, labels=labels, trained=header.channels)
    samples = _unseen(_labelled(dataset.samples, header, url=source), headers, source, progress)
    models = [load(path) for path in paths]
    for model in models:
        model.module.to(hardware.pick_device(device))
    seen = _at_model_size(samples, header, progress)
    maps = _maps(seen, models, progress=progress)
    progress.start("fitting the decision", total=rounds(header.target) * len(maps))
    found = fit_decision(maps, target=header.target, advance=progress.advance)
    decision = replace(found.decision, models=tuple(one.header.checksum for one in models))
    rows = []
    if factors:
        scored = partial(_at_scale, samples=samples, models=models, decision=decision)
        own = {"scale": 1.0, "score": decision.score or 0.0, "pixels": 1.0}
        if any(one is not other for one, other in zip(seen, samples, strict=True)):
            # Scales are those of the images' own size, which is not the one that was judged.
            own = scored(1.0, progress=progress)
        rows = [own, *(scored(factor, progress=progress) for factor in factors)]
    score = "AP" if has_instances(header.target) else "Dice"
    progress.note(decision.sentence(score).replace("held-out image", "image"))
    held_out = held_out_scores(
        maps,
        decision,
        target=header.target,
        class_names=header.class_names,
        data=base_name(source),
    )
    for path, place in zip(paths, outputs, strict=True):
        with open_model(path) as stream:
            content = stream.read()
        changed = with_decision(content, decision, held_out=held_out, path=path)
        write_bytes(place, changed)
    return TuneReport(
        output=outputs[0],
        outputs=tuple(outputs),
        decision=decision.to_dict(),
        score_name=score,
        report=tuple(_rows(decision, header, maps=maps)),
        curve=found.curve,
        scales=tuple(rows),
    )


def parse_scales(scales: str | None) -> list[float]:
    """Read the scales to try.

    >>> parse_scales("0.75,0.5")
    [0.75, 0.5]
    """
    try:
        found = [float(word) for word in scales.split(",")] if scales else []
    except ValueError:
        found = [0.0]
    if not all(SMALLEST <= factor <= LARGEST for factor in found):
        raise UsageError(
            f"scales must lie between 1/64 and {LARGEST:g}, got {scales}; for example 0.75,0.5"
        )
    return found


def _at_scale(
    factor: float,
    *,
    samples: Sequence[Sample],
    models: Sequence[LoadedModel],
    decision: Decision,
    progress: Progress,
) -> dict[str, float]:
    """Score a decision where images are read at another size, as `tile-predict --scale` does."""
    target = models[0].header.target
    maps = _maps(samples, models, progress=progress, factor=factor)
    score = round(score_decision(maps, decision, target=target), 6)
    return {"scale": factor, "score": score, "pixels": round(factor**2, 4)}


def _outputs(
    paths: Sequence[str], output: str | None, *, source: str, overwrite: bool
) -> list[str]:
    """Say where the models go that have the decision, and make sure that they can."""
    if output is None:
        if packed := [path for path in paths if is_package(path)]:
            raise UsageError(
                "a package must stay as it was exported, its example and weights for other"
                f" programs with it, got {packed[0]} to be changed; name an output ending in"
                f" {SUFFIX}"
            )
        for path in paths:
            if not is_remote(path):
                check_parent(path)
        return list(paths)
    check_suffix(output)
    stem = output.removesuffix(SUFFIX)
    several = [f"{stem}.fold{number}{SUFFIX}" for number in range(1, len(paths) + 1)]
    found = [output] if len(paths) == 1 else several
    for place in found:
        check_output(place, inputs=(*paths, source), overwrite=overwrite)
    return found


def _labelled(samples: Sequence[Sample], header: ModelHeader, *, url: str) -> list[Sample]:
    """Return the samples with labels, if they are such as the model learned."""
    found = [sample for sample in samples if sample.label_kind is not None]
    if not found:
        # The error that any sample without labels gives.
        samples[0].labels()
    kind = "instances" if has_instances(header.target) else "classes"
    for sample in found:
        if sample.label_kind != kind:
            raise InputError(
                f"labels of {url} must be {kind}, as the model finds, got {sample.label_kind} in"
                f" {sample.name!r}; name others with --labels"
            )
        if sample.data.channel_count != header.in_channels:
            raise InputError(
                f"{url} must have {header.in_channels} channels, as the model {header.model!r}"
                f" takes, got {sample.data.channel_count}; choose with --channels"
            )
    return found


def _unseen(
    samples: list[Sample], headers: Sequence[ModelHeader], source: str, progress: Progress
) -> list[Sample]:
    """Leave out what a model has learned from, where others are there; of names we know alone."""
    seen = {name for header in headers for name in header.learned_from(base_name(source))}
    left = [sample for sample in samples if sample.name not in seen]
    if len(left) == len(samples):
        return samples
    if not left:
        progress.note(
            "The model has learned from all of these images, so that what suits them may not suit"
            " others: fit it to images that it has not seen, if there are any."
        )
        return samples
    progress.note(f"Left out {len(samples) - len(left)} images that the model has learned from.")
    return left


def _at_model_size(samples: list[Sample], header: ModelHeader, progress: Progress) -> list[Sample]:
    """See images at the pixel size that the model was trained at, as `tile-predict` reads them."""
    advice = "import it again with the size that they have"
    ratios = [ratios_to(sample, header.pixel_size, advice=advice) for sample in samples]
    others = sum(ratio is not None for ratio in ratios)
    if others:
        progress.note(
            f"{others} of {len(samples)} images have another pixel size than the model's: the"
            " decision is fitted to them at the model's, where tile-predict finds objects."
        )
    return [
        sample if ratio is None else with_labels_at(sample, ratio)
        for sample, ratio in zip(samples, ratios, strict=True)
    ]


def _maps(
    samples: Sequence[Sample],
    models: Sequence[LoadedModel],
    *,
    progress: Progress,
    factor: float = 1.0,
) -> list[HeldOutMap]:
    """Predict planes of all samples, an evenly spaced choice of what is too much."""
    named = {sample.name: sample for sample in samples}
    regions = [Region(s.name, 0, 0, s.data.height, s.data.width) for s in samples]
    planes = choose_planes(regions, {s.name: s.labels().planes for s in samples})
    chosen = thinned(planes, most=TUNED)
    what = "predict" if factor == 1 else f"predict at scale {factor:g}"
    progress.start(what, total=len(chosen) * len(models))
    known: dict[tuple[str, str], Normalization] = {}
    target, found = models[0].header.target, []
    for held_out in chosen:
        sample = named[held_out.region.sample]
        mean = partial(_mean, models=models, known=known, progress=progress)
        read = partial(_read, plane=held_out.plane)
        if factor != 1:
            other = _rescaled_map(held_out, sample, mean, factor=factor, target=target)
            found.append(other)
            continue
        ignore = None if sample.ignore is None else read(sample.ignore, held_out.region)
        truth = read(sample.labels(), held_out.region)
        one_map = HeldOutMap.of(mean(held_out, sample), truth, ignore, target=target)
        one_map = replace(one_map, image=sample.source, group=sample.group)
        found.append(one_map.middle(most=TUNED))
    return found


def _mean(
    held_out: HeldOutPlane,
    sample: Sample,
    *,
    models: Sequence[LoadedModel],
    known: dict[tuple[str, str], Normalization],
    progress: Progress,
) -> NDArray[np.float32]:
    """Average what models say of a plane; `known` keeps normalizations."""
    total: NDArray[Any] | None = None
    learned = known_by_method(model.header for model in models)
    for model in models:
        method = model.header.normalization
        if (sample.name, method) not in known:
            fitted = fit(
                sample.data.blocks,
                method=method,
                where=f"sample {sample.name!r}",
                boxes=sample.data.boxes,
            )
            known[sample.name, method] = limited(
                *(fitted, sample.data, learned[method]), replace_nonfinite=False
            )
        one = _predict(held_out, sample, model, known[sample.name, method])
        total = one if total is None else total + one
        progress.advance()
    return np.asarray(total, np.float32) / np.float32(len(models))


def _rescaled_map(
    held_out: HeldOutPlane,
    sample: Sample,
    mean: Callable[[HeldOutPlane, Sample], NDArray[np.float32]],
    *,
    factor: float,
    target: str,
) -> HeldOutMap:
    """Predict the middle of a plane at another size; objects are found there, and brought back."""
    whole = held_out.region
    rows, columns = middle_box((whole.height, whole.width), most=TUNED)
    corner = whole.y0 + rows.start, whole.x0 + columns.start
    stop = whole.y0 + rows.stop, whole.x0 + columns.stop
    own = Region(whole.sample, *corner, *stop)
    view = at_ratios(sample.image, (factor, factor))
    seen = replace(sample, image=view.image)
    objects = sample.label_kind == "instances"
    lengths = (seen.data.height, seen.data.width)
    high, wide = (
        taps(a, b, length=length, ratio=1 / ratio, kernel="vote" if objects else "linear")
        for a, b, length, ratio in zip(corner, stop, lengths, view.ratios, strict=True)
    )
    (y0, y1), (x0, x1) = high.reach, wide.reach
    found = mean(replace(held_out, region=Region(whole.sample, y0, x0, y1, x1)), seen)
    ends = high.moved(y0), wide.moved(x0)
    read = partial(_read, plane=held_out.plane)
    truth = read(sample.labels(), own)
    ignore = None if sample.ignore is None else read(sample.ignore, own)
    if not objects:
        return HeldOutMap.of(np.asarray(scale(found, *ends), np.float32), truth, ignore)
    one_map = HeldOutMap.of(found, truth, ignore, target=target)
    return replace(one_map, enlarge=lambda labels: vote(labels, *ends))


@dataclass(frozen=True)
class _Source:
    """An image as a network is to see it."""

    image: Plane
    normalization: Normalization
    replace_nonfinite: bool = False


def _predict(
    held_out: HeldOutPlane, sample: Sample, model: LoadedModel, normalization: Normalization
) -> NDArray[np.float32]:
    return held_out.predict(
        model.module,
        _Source(sample.data, normalization),
        contract=model.header.contract,
        precision="float32",
        read=partial(_read, plane=held_out.plane),
    )


def _read(array: Plane, region: Region, plane: int) -> NDArray[Any]:
    return array.read(plane, region.y0, region.y1, region.x0, region.x1)


def _rows(
    decision: Decision, header: ModelHeader, *, maps: Sequence[HeldOutMap]
) -> list[dict[str, Any]]:
    """List the fitted decision, the default, and what the models brought, with their scores."""
    usual = usual_decision(header)
    rows = {"fitted": (decision, decision.score), "default": (usual, decision.default_score)}
    before = header.decision
    if before is not None:
        rows["before"] = before, round(score_decision(maps, before, target=header.target), 6)
    return [
        {"decision": name, "score": score, **one.numbers} for name, (one, score) in rows.items()
    ]
