"""What the user asked of a prediction, and whether that can be."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import InputError, UsageError
from unetkit.models import hardware
from unetkit.pipeline.tile_predict_average import TURNS, Merge, Turning
from unetkit.pipeline.tile_predict_memory import parse_size
from unetkit.storage.metadata import FORMATS, OmeVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unetkit.models.modelheader import ModelHeader
    from unetkit.storage.datasets import Dataset


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; None and "auto" leave the choice to `Plan`."""

    tile: int | None = None
    overlap: int | None = None
    precision: str = "auto"
    batch: int | None = None
    probabilities: Literal["uint8", "float32"] = "uint8"
    threshold: float = 0.5
    grow: int = 1
    min_size: int = 0
    nonfinite: Literal["error", "fill"] = "error"
    max_memory: str | None = None
    skip_below: float | None = None
    require_complete_input: bool = False
    strict: bool = False
    tta: Turning = "none"
    merge: Merge = "crop"
    audit: int = 0
    ome_version: OmeVersion = "0.5"

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> Wishes:
        """Pick the wishes out of all options, which bear the same names."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

    def check(self) -> None:
        """Refuse what no model can do.

        Raises
        ------
        UsageError
            If a value is out of its range.
        """
        if self.probabilities not in ("uint8", "float32"):
            raise UsageError(
                f"probabilities must be uint8 or float32, got {self.probabilities!r}; "
                "leave it out to use uint8"
            )
        if self.nonfinite not in ("error", "fill"):
            raise UsageError(
                f"nonfinite must be error or fill, got {self.nonfinite!r}; leave it out to stop"
            )
        if self.precision not in ("auto", *hardware.PRECISIONS):
            words = ", ".join(("auto", *hardware.PRECISIONS))
            raise UsageError(
                f"precision must be one of {words}, got {self.precision!r}; leave it out for auto"
            )
        if self.tta not in TURNS:
            raise UsageError(
                f"tta must be one of {', '.join(TURNS)}, got {self.tta!r}; leave it out for none"
            )
        if self.merge not in ("crop", "gaussian"):
            raise UsageError(
                f"merge must be crop or gaussian, got {self.merge!r}; leave it out to crop"
            )
        if self.ome_version not in FORMATS:
            raise UsageError(
                f"ome-version must be one of {', '.join(FORMATS)}, got {self.ome_version!r}; "
                "leave it out for 0.5"
            )
        if not 0 < self.threshold < 1:
            raise UsageError(
                f"threshold must lie between 0 and 1, got {self.threshold}; leave it out to use 0.5"
            )
        if self.max_memory is not None:
            parse_size(self.max_memory)
        if self.batch is not None and self.batch < 1:
            raise UsageError(
                f"batch must be at least 1 tile, got {self.batch}; leave it out to choose by device"
            )
        if self.audit < 0:
            raise UsageError(f"audit must be at least 0 windows, got {self.audit}; use 0 for none")
        for name in ("grow", "min_size"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"{name} must be at least 0 pixels, got {getattr(self, name)}; use 0 for none"
                )


def check_fit(header: ModelHeader, dataset: Dataset, wishes: Wishes) -> None:
    """Make sure that a model can predict a dataset as it is wished.

    Raises
    ------
    InputError
        If the images have another number of channels than the model takes.
    UsageError
        If tile, overlap, merge or threshold don't suit the model.
    """
    found = dataset.samples[0].data.channel_count
    if found != header.in_channels:
        raise InputError(
            f"{dataset.url} must have {header.in_channels} channels, as the model "
            f"{header.model!r} takes, got {found}; choose with --channels, or name another --model"
        )
    if wishes.tile is not None:
        header.contract.check_tile(wishes.tile, model=header.model)
    header.contract.overlap(wishes.overlap, model=header.model)
    if wishes.merge == "gaussian" and header.contract.halo == 0:
        raise UsageError(
            "merge must be crop for models without a halo, whose windows meet without overlap, "
            "got gaussian; leave it out"
        )
    if wishes.threshold != 0.5 and len(header.class_names) != 2:
        raise UsageError(
            f"threshold must be left out for a model of {len(header.class_names)} classes, got "
            f"{wishes.threshold}; the most probable class is taken"
        )
