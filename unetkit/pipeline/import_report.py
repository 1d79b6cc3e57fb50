"""What an import made, and the sentences about it that a user should read."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.pipeline.import_masks import MaskRules
    from unetkit.storage.image_file import ImageFile


@dataclass(frozen=True)
class ImportReport:
    """What an import made.

    Parameters
    ----------
    output : str
        Where it lies.
    made : str
        `image` or `dataset`.
    samples, labelled, unlabelled : int
        How many images came in, with and without a mask.
    skipped_hidden, skipped_other : int
        How many files were passed over because they are hidden, or no images.
    alpha_dropped : int
        How many images had an alpha channel, which was dropped.
    kind : str, optional
        What the labels are; None without any.
    mapping : dict of str to int
        For classes: from the value in the masks to the class.
    class_names : tuple of str
        For classes: their names.
    axes : tuple of str
        The axes of the images; several where they differ.
    pixel_size : dict of str to float, optional
        Micrometres, where all images have the same.
    """

    output: str
    made: str = "dataset"
    samples: int = 0
    labelled: int = 0
    unlabelled: int = 0
    skipped_hidden: int = 0
    skipped_other: int = 0
    alpha_dropped: int = 0
    kind: str | None = None
    mapping: dict[str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    pixel_size: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def notes(
    report: ImportReport, files: Sequence[ImageFile], rules: MaskRules, *, asked: bool
) -> list[str]:
    """Say what a user should know.

    Parameters
    ----------
    report : ImportReport
        What came out.
    files : sequence of ImageFile
        The images, with what their readers remarked.
    rules : MaskRules
        What the masks turned out to mean.
    asked : bool
        Whether masks were asked for, so that images without one are worth a word.

    Returns
    -------
    list of str
    """
    said = []
    if report.skipped_hidden:
        said.append(f"skipped {_many(report.skipped_hidden, 'hidden file')}")
    if report.skipped_other:
        said.append(f"skipped {_many(report.skipped_other, 'file')} of other kinds")
    if report.alpha_dropped:
        said.append(f"dropped the alpha channel of {_many(report.alpha_dropped, 'image')}")
    for remark, count in Counter(r for file in files for r in file.remarks).items():
        said.append(f"{_many(count, 'image')}: {remark}")
    if asked and report.unlabelled:
        said.append(f"{_many(report.unlabelled, 'image')} without a mask came in unlabelled")
    if rules.kind == "classes" and report.mapping:
        pairs = zip(report.mapping.items(), report.class_names, strict=True)
        listed = ", ".join(
            f"{value} -> {number}" + (f" ({name})" if name != value else "")
            for (value, number), name in pairs
        )
        said.append(f"values in the masks became classes: {listed}")
    if rules.empty:
        what = "foreground" if rules.kind == "instances" else "second class"
        said.append(
            f"no {what} was found in any mask, so that there is nothing to learn from them; look at"
            " them, or annotate some more"
        )
    if rules.ignore is not None:
        said.append(f"{_many(rules.ignored, 'pixel')} of value {rules.ignore} will be ignored")
    return said


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
