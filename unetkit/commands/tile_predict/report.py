"""What a prediction did, or is to do, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from unetkit.commands.tile_predict.magnification import rescaled_samples
from unetkit.commands.tile_predict.plan import missing_chunks
from unetkit.errors import InputError
from unetkit.models.decision import OF_WATERSHED, Decision
from unetkit.storage import outputs

if TYPE_CHECKING:
    from unetkit.commands.tile_predict.plan import Plan


@dataclass(frozen=True)
class PredictionReport:
    """What `tile_predict` did, or with `dry_run` would do."""

    output: str
    tiles_total: int
    tiles_reused: int  # by an earlier run
    # Whose probabilities the finished prediction has that is replaced, so that no network is asked.
    tiles_taken_over: int
    retries: int  # how often a disk or a network refused for a moment
    tiles_constant: int  # of one value, copied from another tile of that value
    # By `skip_below` or `mask`; `.unetkit/left-out.jsonl` in the output lists SAMPLE/PLANE/TILE.
    tiles_left_out: int
    # Of the input's grid; those that are not stored read as the fill value, and
    # `.unetkit/absent-input.jsonl` in the output lists them. None where a store lists nothing.
    input_chunks: int | None
    input_chunks_absent: int | None
    tile: int  # its size, its context on each side, and what the network reads, in pixels
    overlap: int
    read: int
    precision: str
    device: str
    batch: int  # tiles, or windows of a block that is blended, that the network was to see at once
    threshold: float  # how classes and objects are decided
    grow: int
    min_size: int
    separate: Literal["components", "watershed"]
    seed_level: float | None  # of a watershed
    seed_size: int | None
    decision: dict[str, Any] | None  # that of the model, which the six above may override
    classes: tuple[str, ...]  # in the order of the channels of the output
    objects: int | None  # in all samples; None where the target has none
    samples: int
    filled: int  # NaN and Inf values that were read as 0
    models: int
    tta: str
    merge: str
    uncertainty: int | None  # looks whose uncertainty is stored; None where it is not asked for
    cost_factor: float  # work, in that of one network that looks once at each tile
    context_share: float  # of the networks' work, that is context or overhangs the image
    output_bytes: int  # the most that the output can take on disk
    disk_free: int | None  # None where a store does not say
    # Bytes that all processes on this machine are expected to take, and may; None where no network
    # is asked.
    memory_peak: int | None
    memory_limit: int | None
    # Of the networks, reckoned from a small input and never longer for images with empty parts;
    # None where another machine computes.
    expected_seconds: float | None
    speed_remembered: bool  # by an earlier run with the same model here, not measured now
    audit: dict[str, Any] | None  # what a second look at some windows found, where asked for
    # How images are read whose pixels have another size than the model's: level, factor, sizes.
    rescaled: tuple[dict[str, Any], ...]
    seconds: float
    status: Literal["done", "nothing to do", "planned"]
    warnings: tuple[str, ...] = ()  # with those of the run that was resumed
    broken: tuple[str, ...] = ()  # images of a collection that could not be read, by their paths

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        names = ("classes", "rescaled", "warnings", "broken")
        lists = {name: list(getattr(self, name)) for name in names}
        return {**asdict(self), **lists}

    def check(self) -> None:
        """Refuse a collection of which something could not be read, once the rest is done."""
        if self.broken:
            raise InputError(
                f"every image must be readable, got {len(self.broken)} left out:"
                f" {', '.join(self.broken)}; the {self.samples} others are in {self.output}; mend"
                " what is broken and predict again"
            )


REMEMBERED = ", with the speed that an earlier run measured"


def summary(plan: Plan) -> str:
    """Say in one sentence what a plan is."""
    count = "1 tile" if plan.tiles_total == 1 else f"{plan.tiles_total} tiles"
    batch = f", {plan.batch} at once" if plan.batch > 1 else ""
    text = (
        f"{count} of {plan.tile} pixels, each read with {plan.overlap} pixels "
        f"of context as {plan.size}{batch}, in {plan.precision}"
        f"{f' since {plan.reason}' if plan.reason else ''}"
        f"{REMEMBERED if plan.remembered else ''}"
    )
    averaging = plan.averaging
    runs = {"models": len(averaging.members), "turns": len(averaging.symmetries)}
    parts = [f"{count} {what}" for what, count in runs.items() if count > 1]
    parts += ["windows"] if averaging.merge == "gaussian" else []
    if not parts:
        return text
    text = f"{text}, averaged over {' and '.join(parts)} at {plan.cost_factor:.1f} times the work"
    unsure = f"; how unsure the {plan.looks} looks are together is stored as uncertainty"
    return text + unsure if plan.options.uncertainty else text


def decided_by(plan: Plan) -> str | None:
    """Say in one sentence how classes and objects are decided, where the model has a say in it."""
    decision = plan.model.header.decision
    if decision is None:
        return None
    own, parts = decision.numbers, plan.options.separation
    asked = {name: plan.settled(name) for name in own.keys() - OF_WATERSHED}
    asked |= {name: parts[name] for name in OF_WATERSHED if parts}
    other = {name: value for name, value in asked.items() if value != own.get(name)}
    told = [str(Decision(**other))] if other else []
    told += ["separate components"] if "seed_level" in own and not parts else []
    text = f"the model decides with {decision}"
    if told:
        text += f"; asked for instead: {', '.join(told)}"
    # Where it was not fitted as a whole, this says what is taken.
    return text if decision.score is not None else f"{text}; {decision.reason}"


# What the report tells of a plan under the plan's own names.
OF_PLAN = (
    "tiles_total",
    "tile",
    "overlap",
    "precision",
    "batch",
    "threshold",
    "grow",
    "min_size",
    "separate",
    "tta",
    "merge",
    "cost_factor",
    "output_bytes",
    "memory_peak",
    "memory_limit",
)


def planned(plan: Plan, output: str, *, device: str, dry_run: bool) -> PredictionReport:
    """Tell what a plan would do."""
    chunks, absent = missing_chunks(plan.inventories)
    decision, parts = plan.model.header.decision, plan.options.separation
    return PredictionReport(
        **{name: plan.settled(name) for name in OF_PLAN},
        seed_level=parts.get("seed_level"),
        seed_size=parts.get("seed_size"),
        tiles_reused=0,
        tiles_taken_over=0,
        retries=0,
        tiles_constant=0,
        tiles_left_out=plan.outside_mask if dry_run else 0,
        output=output,
        device=device,
        input_chunks=chunks,
        input_chunks_absent=absent,
        read=plan.size,
        decision=None if decision is None else decision.to_dict(),
        classes=plan.model.header.class_names,
        objects=None,
        samples=len(plan.samples),
        filled=0,
        models=len(plan.model.files),
        uncertainty=plan.looks if plan.options.uncertainty else None,
        context_share=plan.wasted,
        disk_free=outputs.free_bytes(output),
        expected_seconds=plan.seconds,
        speed_remembered=plan.remembered,
        audit=None,
        rescaled=tuple(rescaled_samples(plan.rescaled)),
        seconds=0.0,
        status="planned",
    )
