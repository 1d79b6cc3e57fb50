"""What an evaluation found, for one prediction and for several, and the bounds it is held to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unetkit.commands.evaluate.object_errors import confusion, counts, largest_errors
from unetkit.commands.evaluate.sides import parse_bound
from unetkit.errors import CheckError
from unetkit.scores import bootstrap, isbi2012, table
from unetkit.storage.pyramids import block_mean, downscale_factor, downscaled, every_second
from unetkit.views.page import overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.confidence import Comparison, ConfidenceIntervals
    from unetkit.commands.evaluate.object_errors import ScoredObject
    from unetkit.commands.evaluate.samples import Pair
    from unetkit.scores.table import Scores

# Those that take whole planes.
_THIN = ("v_rand", "v_info", "warping_error", "warping_lines", "isbi_rand", "isbi_pixel")


@dataclass(frozen=True)
class UndefinedReasons:
    """What decides which scores there can be."""

    kind: str  # which labels
    borders: bool  # whether borders were asked for
    thin: bool  # whether 0 is a border between cells: of instances, and of maps of two classes
    largest: int  # pixels of the largest plane
    alike: bool  # whether all samples have probability maps, or none

    def of(self, scores: Scores) -> dict[str, str]:
        """Say why scores are None, by score of the table."""
        document = scores.to_dict()
        return {
            score.name: self._reason(score)
            for score in table.SCORES
            if table.value_of(score.name, document) is None
        }

    def _reason(self, score: table.Score) -> str:
        if self.kind == "classes" and score.of in (table.OBJECTS, table.SEGMENTS):
            return f"scores of {score.of} are for instances, and the truth has classes"
        if score.of == table.BORDERS and not self.borders:
            return "scores of borders are worked out with --borders"
        if self.kind == "classes" and score.name.startswith("foreground_"):
            return "outlines of the foreground are for instances; each class has its own"
        if score.name in _THIN:
            if not self.thin:
                return "thin borders are for instances and for maps of two classes"
            if self.largest > isbi2012.LARGEST:
                return "the image has more than 4096 x 4096 pixels, and this score needs all of it"
            if not self.alike:
                return "some samples have a probability map and some have none"
        return f"it does not apply {score.undefined}"


def undefined_reasons(
    pairs: Sequence[Pair], kind: str, *, borders: bool, thin: bool, maps: int
) -> UndefinedReasons:
    """Gather what decides which scores there can be; `maps` samples have a probability map."""
    labels = [true.image.labels[kind] for _, true in pairs]
    largest = max(array.height * array.width for array in labels)
    return UndefinedReasons(kind, borders, thin, largest, maps in (0, len(pairs)))


# The version of the report; `unetkit/data/eval.schema.json` describes it.
VERSION = 3


@dataclass(frozen=True)
class EvaluateReport:
    """How well a prediction meets the truth."""

    prediction: str
    truth: str
    kind: str  # `instances` or `classes`: which labels
    overall: Scores  # of all samples as one, each object and pixel counting once
    mean: Scores  # of the samples' scores, over those to which a score applies
    samples: dict[str, Scores]  # by the sample's name in the truth, in its order
    certainty: ConfidenceIntervals  # of the overall scores
    reasons: UndefinedReasons
    groups: dict[str, Scores] = field(default_factory=dict)  # where the truth's samples have some
    # Scores at each threshold of a probability map: of thin borders, where these were asked for,
    # and of pixels, label by label.
    sweep: tuple[dict[str, float | None], ...] = ()
    curve: tuple[dict[str, Any], ...] = ()
    # Samples that were left out: of the truth, because they have no labels, and of the
    # prediction, because the truth has no labels for them.
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    # Blocks and planes that were scored, and those of them that an earlier run had done.
    tiles_total: int = 0
    tiles_reused: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold; a score that is not there is None.

        `reasons` says why, by score; those of a sample or group only where they are not
        those overall.
        The mean says of each score how many samples have none and are `left_out` of it.
        """
        overall = self.reasons.of(self.overall)

        def own(named: dict[str, Scores]) -> list[dict[str, Any]]:
            return [
                {"name": name, **one.to_dict()}
                | {
                    "reasons": {
                        score: text
                        for score, text in self.reasons.of(one).items()
                        if overall.get(score) != text
                    }
                }
                for name, one in named.items()
            ]

        samples = own(self.samples)
        groups = {"groups": own(self.groups)} if self.groups else {}

        return {
            "version": VERSION,
            "prediction": self.prediction,
            "truth": self.truth,
            "kind": self.kind,
            "overall": {**self.overall.to_dict(), "reasons": overall},
            "mean": {
                **self.mean.to_dict(),
                "reasons": self.reasons.of(self.mean),
                "left_out": _left_out(samples),
            },
            "samples": samples,
            **groups,
            "certainty": self.certainty.to_dict(),
            "sweep": list(self.sweep),
            "curve": list(self.curve),
            "unlabelled": list(self.unlabelled),
            "unpaired": list(self.unpaired),
            "tiles_total": self.tiles_total,
            "tiles_reused": self.tiles_reused,
            "warnings": list(self.warnings),
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold the overall scores to bounds such as `dice=0.9`.

        A score of which 0 is best must not be above its bound, any other not below; one that does
        not apply does not hold.
        """
        overall = self.overall.to_dict()
        for name, bound in map(parse_bound, bounds):
            found = table.value_of(name, overall)
            score = table.SCORES_BY_NAME.get(name)
            if score is None or score.fails(found, bound):
                side = "at most" if score and score.lower_is_better else "at least"
                got = "none" if found is None else f"{found:.6g}"
                raise CheckError(
                    f"{name} of {self.prediction} must be {side} {bound:g}, got {got}; "
                    "see which samples are worst"
                )


def _left_out(samples: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count the samples that a mean leaves out, of each score that others have."""
    found = {
        score.name: sum(table.value_of(score.name, one) is None for one in samples)
        for score in table.SCORES
    }
    return {name: count for name, count in found.items() if 0 < count < len(samples)}


@dataclass(frozen=True)
class CompareReport:
    """Several predictions of one truth, side by side."""

    truth: str
    reports: tuple[EvaluateReport, ...]
    comparisons: tuple[Comparison, ...]  # of every two, in every score that has intervals
    reason: str | None  # why there are none
    warnings: tuple[str, ...] = ()  # of all predictions

    @property
    def smallest_p(self) -> float | None:
        """The least p that so few units can give.

        Of all 2^n exchanges, none and all leave as large a difference; of those at random, none.
        """
        if not self.comparisons:
            return None
        units = self.reports[0].certainty.units
        every = 2.0**units
        return 2 / every if every <= bootstrap.EXCHANGES else 1 / (bootstrap.EXCHANGES + 1)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold."""
        rows = [asdict(row) for row in self.comparisons]
        return {
            "version": VERSION,
            "truth": self.truth,
            "predictions": [report.to_dict() for report in self.reports],
            "comparisons": [
                row | {"interval": None if row["interval"] is None else list(row["interval"])}
                for row in rows
            ],
            "smallest_p": self.smallest_p,
            "reason": self.reason,
            "warnings": list(self.warnings),
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold each prediction to bounds; see `EvaluateReport.check`."""
        for report in self.reports:
            report.check(bounds)


# What keeps the page within some megabytes, whatever is compared; our own choice.
PICTURES = 24
PIXELS = 2**23
LONGEST = 2048
WORST = 48
# The sides, in pixels, of what is cut out around an object: at least, at most, and as drawn.
NEAR, FAR, DRAWN = 64, 4096, 256


def contents(
    report: EvaluateReport, pairs: Sequence[Pair], found: Sequence[ScoredObject]
) -> dict[str, Any]:
    """Gather the contents of the page, as `views.page.page` takes them.

    Pictures are of the first plane of the samples with the lowest scores, made smaller where they
    are large; objects that these do not show pixel by pixel come with a picture of their own.
    """
    document = report.to_dict()
    key = "average_precision" if report.kind == "instances" else "dice"
    order = sorted(document["samples"], key=lambda s: -1.0 if s[key] is None else s[key])
    shown = [s["name"] for s in order[:PICTURES]]
    by_name = {theirs.name: (ours, theirs) for ours, theirs in pairs}
    pictures = {
        name: picture
        for name in shown
        if (picture := _picture(by_name[name], report.kind, pixels=PIXELS // len(shown)))
    }
    whole = {name for name, picture in pictures.items() if picture["factor"] == 1}
    return document | {
        "scores": [score.to_dict() for score in table.SCORES],
        "objects": [
            asdict(one)
            | {
                "picture": None
                if one.sample in whole and one.plane == 0
                else _cut_out(by_name[one.sample], one, report.kind)
            }
            for one in largest_errors(found, WORST)
        ],
        "counts": counts(found),
        "confusion": confusion(found, [c.name for c in report.overall.object_classes]),
        "pictures": pictures,
    }


def _size(pair: Pair, kind: str) -> tuple[int, int] | None:
    """Give height and width of a sample, unless image and labels are of different sizes."""
    truth, data = pair[1].image.labels[kind], pair[1].image.data
    size = (truth.height, truth.width)
    return size if (data.height, data.width, data.planes) == (*size, truth.planes) else None


def _picture(pair: Pair, kind: str, *, pixels: int) -> dict[str, Any] | None:
    """Draw the first plane of a sample."""
    size = _size(pair, kind)
    if size is None:
        return None
    ours, theirs = pair
    factor = downscale_factor(*size, longest=LONGEST, pixels=pixels)
    image = downscaled(theirs.image.data, 0, factor=factor)
    truth, prediction = (
        downscaled(side.image.labels[kind], 0, factor=factor) for side in (theirs, ours)
    )
    place = {"factor": factor, "rows": size[0], "columns": size[1]}
    return overlay(image, truth, prediction) | place


def _cut_out(pair: Pair, one: ScoredObject, kind: str) -> dict[str, Any] | None:
    """Draw an object and what is around it."""
    size = _size(pair, kind)
    if size is None:
        return None
    side = round(min(max(NEAR, 2.5 * one.area**0.5), FAR))
    (y0, y1), (x0, x1) = (
        (max(round(at) - side // 2, 0), min(round(at) + -(-side // 2), end))
        for at, end in zip((one.y, one.x), size, strict=True)
    )
    factor = downscale_factor(y1 - y0, x1 - x0, longest=DRAWN, pixels=DRAWN**2)
    box = (one.plane, y0, y1, x0, x1)
    ours, theirs = pair
    image = block_mean(theirs.image.data.read(*box), factor, factor)
    truth, prediction = (
        every_second(part.image.labels[kind].read(*box), factor, factor) for part in (theirs, ours)
    )
    return overlay(image, truth, prediction) | {"factor": factor, "row": y0, "column": x0}
