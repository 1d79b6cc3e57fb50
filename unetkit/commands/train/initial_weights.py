"""Begin a training with the weights of an earlier model, for other channels or classes too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from unetkit.arrays.meanings import default_target
from unetkit.errors import UsageError
from unetkit.models.build import build_model, build_shapes
from unetkit.models.model_file import load
from unetkit.storage.object_classes import object_class_names
from unetkit.storage.urls import base_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from unetkit.models.model_header import ModelHeader
    from unetkit.storage.datasets import Dataset


@dataclass(frozen=True, eq=False)
class Start:
    """The model that a training begins with."""

    path: str
    header: ModelHeader
    state: Mapping[str, Tensor]
    sha256: str  # of the file

    def to_dict(self) -> dict[str, str]:
        """Return what JSON can hold: which file it was."""
        return {"file": base_name(self.path), "sha256": self.sha256}


def open_start(path: str) -> Start:
    """Read the model that a training begins with."""
    loaded = load(path)
    return Start(path, loaded.header, loaded.module.state_dict(), loaded.sha256)


def target_of(start: Start, dataset: Dataset) -> str | None:
    """Return what the earlier model learned, where a dataset's labels teach it, and no more."""
    labelled = [sample for sample in dataset.samples if sample.label_kind is not None]
    kind = "classes" if any(s.label_kind == "classes" for s in labelled) else "instances"
    classed = bool(labelled) and all(object_class_names(s.image) for s in labelled)
    usual, target = default_target(kind, classed=classed), start.header.target
    alone = target not in ("classes", "classes+boundary")
    return target if usual == ("foreground" if alone else target) else None


def adapt(
    network: nn.Module,
    start: Start,
    *,
    options: Mapping[str, Any],
    in_channels: int,
    class_names: Sequence[str],
) -> list[str]:
    """Give a network the weights of an earlier model, as far as they mean the same.

    Where the images have another number of channels, each takes the mean of the first layer's
    weights, scaled so that equal channels lead to what they led to. Of the last layer the weights
    of classes with the same names are kept; those of other classes stay as they were drawn.
    """
    header = start.header
    old_names = list(header.class_names)
    shape = _Shapes(header.full_name, options, in_channels=in_channels, classes=len(class_names))
    by_channel = shape.growing("in_channels") if in_channels != header.in_channels else {}
    by_class = shape.growing("classes") if list(class_names) != old_names else {}
    shared = [name for name in class_names if name in old_names]
    state = {}
    for key, fresh in network.state_dict().items():
        value = start.state.get(key)
        if value is not None and key in by_channel:
            value = _spread(value, by_channel[key], old=header.in_channels, new=in_channels)
        if value is not None and key in by_class:
            rows = [(list(class_names).index(n), old_names.index(n)) for n in shared]
            value = _chosen(value, fresh.clone(), dim=by_class[key], rows=rows)
        if value is None or value.shape != fresh.shape:
            raise _unfit(start, key)
        state[key] = value
    if len(state) < len(start.state):
        raise _unfit(start, next(key for key in start.state if key not in state))
    network.load_state_dict(state)
    said = [f"Begun with the weights of {start.path}."]
    if by_channel:
        said.append(
            f"It took {header.in_channels} channels and now takes {in_channels}: its first layer"
            " begins with the mean over its channels."
        )
    if by_class:
        new = [name for name in class_names if name not in old_names]
        how = f"by chance for {', '.join(new)}" if new else "as it was for these"
        said.append(
            f"It told {', '.join(old_names)} apart and is to tell {', '.join(class_names)}: its"
            f" last layer begins {how}."
        )
    return said


@dataclass(frozen=True)
class _Shapes:
    """Builds a network's shapes to find out which depend on the channels or the classes."""

    model: str
    options: Mapping[str, Any]
    in_channels: int
    classes: int

    def growing(self, what: str) -> dict[str, int]:
        """Return, for each tensor that grows with a number, the dimension that is that number."""
        given = {"in_channels": self.in_channels, "classes": self.classes}
        now, more = (self._built({**given, what: given[what] + k}) for k in (0, 1))
        found = {}
        for key, shape in now.items():
            for dim, (size, larger) in enumerate(zip(shape, more[key], strict=True)):
                if (size, larger) == (given[what], given[what] + 1):
                    found[key] = dim
        return found

    def _built(self, given: Mapping[str, int]) -> dict[str, torch.Size]:
        options = dict(self.options)
        network = build_shapes(self.model, options=options, **given)
        if network is None:
            # Built in full, with random numbers that nobody else gets.
            with torch.random.fork_rng(devices=[]):
                network = build_model(self.model, options=options, **given)
        return {key: value.shape for key, value in network.state_dict().items()}


def _spread(value: Tensor, dim: int, *, old: int, new: int) -> Tensor:
    """Give each of the new channels the mean of the old ones, and all of them the same sum."""
    mean = value.mean(dim=dim, keepdim=True) * (old / new)
    return mean.expand([new if d == dim else -1 for d in range(value.dim())]).contiguous()


def _chosen(
    value: Tensor, fresh: Tensor, *, dim: int, rows: Sequence[tuple[int, int]]
) -> Tensor | None:
    """Put the rows of classes that are known into a fresh layer; None where it does not fit."""
    if value.dim() != fresh.dim():
        return None
    moved, known = fresh.movedim(dim, 0), value.movedim(dim, 0)
    if moved.shape[1:] != known.shape[1:]:
        return None
    for new, old in rows:
        moved[new] = known[old]
    return fresh


def _unfit(start: Start, key: str) -> UsageError:
    return UsageError(
        f"the network must be built as that of init {start.path!r}, got another one ({key!r:.80});"
        " leave --model and --set out, and it is"
    )
