"""What a prediction tells of itself, before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from unetkit.pipeline.tile_predict_input import totals
from unetkit.storage import files

if TYPE_CHECKING:
    from unetkit.pipeline.tile_predict_plan import Plan


@dataclass(frozen=True)
class PredictionReport:
    """What `tile_predict` did, or with `dry_run` would do.

    Parameters
    ----------
    output : str
        The prediction.
    tiles_total, tiles_reused : int
        Tiles of all planes, and how many of them an earlier run had done.
    retries : int
        How often a disk or a network refused for a moment while tiles were done.
    tiles_constant : int
        Tiles of one value that were copied from another tile of that value.
    tiles_left_out : int
        Tiles left out by `skip_below` or `mask`; `.unetkit/left-out.jsonl` in the output lists
        them as SAMPLE/PLANE/TILE.
    input_chunks, input_chunks_absent : int
        Chunks of the input's grid, and how many of them are not stored and read as the fill value;
        `.unetkit/absent-input.jsonl` in the output lists them. Both 0 where a store lists nothing.
    tile, overlap, read : int
        Size of a tile, its context on each side, and what the network reads for it, in pixels.
    precision, device : str
        How and where the network computed.
    batch : int
        How many tiles, or windows of a block that is blended, it was to see at once.
    classes : tuple of str
        In the order of the channels of the output.
    objects : int or None
        Instances in all samples; None where the target has none.
    samples, filled : int
        Images predicted; NaN and Inf values that were read as 0.
    models, tta, merge : int and str
        How many networks are averaged, in how many ways each tile is turned, and how windows
        become one image.
    cost_factor : float
        How many times the work is that of one network that looks once at each tile.
    context_share : float
        The share of the networks' work that is context or overhangs the image.
    output_bytes, disk_free : int
        The most that the output can take on disk, and what is free there; None where a store
        does not say.
    memory_peak, memory_limit : int
        Bytes that all its processes on this machine are expected to take at most, and may.
    expected_seconds : float or None
        How long the networks are expected to take, reckoned from a small input and never longer
        for images with empty parts; None where another machine computes.
    audit : dict or None
        What a second look at some windows found, where it was asked for.
    seconds : float
        How long it took.
    status : {"done", "nothing to do", "planned"}
        What came of it.
    """

    output: str
    tiles_total: int
    tiles_reused: int
    retries: int
    tiles_constant: int
    tiles_left_out: int
    input_chunks: int
    input_chunks_absent: int
    tile: int
    overlap: int
    read: int
    precision: str
    device: str
    batch: int
    classes: tuple[str, ...]
    objects: int | None
    samples: int
    filled: int
    models: int
    tta: str
    merge: str
    cost_factor: float
    context_share: float
    output_bytes: int
    disk_free: int | None
    memory_peak: int
    memory_limit: int
    expected_seconds: float | None
    audit: dict[str, Any] | None
    seconds: float
    status: Literal["done", "nothing to do", "planned"]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "classes": list(self.classes)}


def summary(plan: Plan) -> str:
    """Say in one sentence what a plan is."""
    count = "1 tile" if plan.tiles_total == 1 else f"{plan.tiles_total} tiles"
    together = f", {plan.batch} at once" if plan.batch > 1 else ""
    return (
        f"{count} of {plan.tile} pixels, each read with {plan.overlap} pixels "
        f"of context as {plan.size}{together}, in {plan.precision}"
        f"{f' since {plan.reason}' if plan.reason else ''}{_averaged(plan)}"
    )


def _averaged(plan: Plan) -> str:
    averaging = plan.averaging
    looks = {"models": len(averaging.members), "turns": len(averaging.turns)}
    parts = [f"{count} {what}" for what, count in looks.items() if count > 1]
    parts += ["windows"] if averaging.merge == "gaussian" else []
    if not parts:
        return ""
    return f", averaged over {' and '.join(parts)} at {plan.cost_factor:.1f} times the work"


def planned(plan: Plan, output: str, *, device: str) -> PredictionReport:
    """Tell what a plan would do."""
    chunks, absent = totals(plan.censuses)
    return PredictionReport(
        output=output,
        tiles_total=plan.tiles_total,
        tiles_reused=0,
        retries=0,
        tiles_constant=0,
        tiles_left_out=0,
        input_chunks=chunks,
        input_chunks_absent=absent,
        tile=plan.tile,
        overlap=plan.overlap,
        read=plan.size,
        precision=plan.precision,
        device=device,
        batch=plan.batch,
        classes=plan.model.header.class_names,
        objects=None,
        samples=len(plan.samples),
        filled=0,
        models=len(plan.model.models),
        tta=plan.wishes.tta,
        merge=plan.wishes.merge,
        cost_factor=plan.cost_factor,
        context_share=plan.wasted,
        output_bytes=plan.output_bytes,
        disk_free=files.free_bytes(output),
        memory_peak=plan.memory.peak(plan.size),
        memory_limit=plan.memory.limit,
        expected_seconds=plan.seconds,
        audit=None,
        seconds=0.0,
        status="planned",
    )
