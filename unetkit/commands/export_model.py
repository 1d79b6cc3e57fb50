"""Write a model file for other programs, with proof that it computes the same there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unetkit.models.export import export
from unetkit.models.model_file import load
from unetkit.models.model_header import export_path
from unetkit.progress import SILENT, collects_warnings, warn
from unetkit.storage.atomic import write_bytes
from unetkit.storage.outputs import check_output

if TYPE_CHECKING:
    from unetkit.options import Opt
    from unetkit.progress import Progress

# Our choice: a tile that any machine holds.
SIZE = 512


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` wrote."""

    output: str
    format: str  # pt2 or onnx
    size: int  # height and width of the images that the export takes, one at a time, in pixels
    largest_difference: float  # from the original, on a probe, as a share of the largest logit
    bytes: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {**asdict(self), "warnings": list(self.warnings)}


@collects_warnings
def export_model(
    source: Annotated[str, Opt(metavar="FILE")],
    *,
    to: Literal["pt2", "onnx"] = "pt2",
    output: Annotated[
        str | None,
        Opt(
            flags=("--output", "-o"),
            default="beside the file",
        ),
    ] = None,
    size: Annotated[
        int | None, Opt(metavar="PIXELS", min=1, default="512, or the next size that fits")
    ] = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.models.model_header:check_new_model_export")
    ] = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write a model for other programs, and compare what it computes there.

    Parameters
    ----------
    source : str
        A .safetensors model file.
    to : {"pt2", "onnx"}
        The format: ``pt2``, which torch.export.load reads, or ``onnx`` (extra 'onnx').
    output : str, optional
        Where the export is written.
    size : int, optional
        Height and width of what the export takes, in pixels; rounded up to a size that the model
        takes, which is said.
    overwrite : bool
        Replace an earlier result of unetkit.
    progress : Progress
        Told about the work.

    Returns
    -------
    ExportReport

    Raises
    ------
    InputError
        If the model file is missing or damaged.
    OutputError
        If the output exists.
    ResourceError
        If a package is missing.
    CheckError
        If the export computes something else.
    """
    output = output or export_path(source, to)
    check_output(output, inputs=[source], overwrite=overwrite)
    loaded = load(source)
    header = loaded.header
    side = header.contract.legal(size or SIZE)
    if size not in (None, side):
        warn(progress, f"size {size} becomes {side}, the next that the model takes")
    progress.start("export", total=1)
    facts = {"header": header.to_dict(), "sha256": loaded.sha256}
    content, gap = export(
        loaded.module, to=to, in_channels=header.in_channels, size=side, facts=facts
    )
    write_bytes(output, content)
    progress.advance()
    return ExportReport(output, to, side, gap, len(content))
