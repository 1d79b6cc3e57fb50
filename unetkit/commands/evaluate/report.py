"""What an evaluation found, for one prediction and for several, and the bounds it is held to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unetkit.commands.evaluate.object_errors import counts, worst
from unetkit.errors import CheckError, UsageError
from unetkit.scores import isbi2012, table
from unetkit.storage.pyramids import block_mean, every_second, factor_for, read_smaller
from unetkit.views.page import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.commands.evaluate.confidence import Certainty, Comparison
    from unetkit.commands.evaluate.object_errors import Found
    from unetkit.commands.evaluate.samples import Pair
    from unetkit.scores.table import Scores

# Those that take whole planes.
_THIN = ("v_rand", "v_info", "warping_error", "isbi_rand", "isbi_pixel")


@dataclass(frozen=True)
class Facts:
    """What decides which scores there can be.

    Parameters
    ----------
    kind : str
        Which labels.
    borders : bool
        Whether borders were asked for.
    thin : bool
        Whether label 0 is a border between cells: of instances, and of class maps of two classes.
    largest : int
        Pixels of the largest plane.
    alike : bool
        Whether all samples have probability maps, or none.
    """

    kind: str
    borders: bool
    thin: bool
    largest: int
    alike: bool

    def reasons(self, scores: Scores) -> dict[str, str]:
        """Say why scores are None.

        Parameters
        ----------
        scores : Scores

        Returns
        -------
        dict of str to str
            By score of the catalogue.
        """
        document = scores.to_dict()
        return {
            score.name: self._reason(score)
            for score in table.scores()
            if table.value_of(score.name, document) is None
        }

    def _reason(self, score: table.Score) -> str:
        if self.kind == "classes" and score.of in (table.OBJECTS, table.SEGMENTS):
            return f"scores of {score.of} are for instances, and the truth has classes"
        if score.of == table.BORDERS and not self.borders:
            return "scores of borders are worked out with --borders"
        if score.name in _THIN:
            if not self.thin:
                return "thin borders are for instances and for maps of two classes"
            if self.largest > isbi2012.LARGEST:
                return "the image has more than 4096 x 4096 pixels, and this score needs all of it"
            if not self.alike:
                return "some samples have a probability map and some have none"
        return f"it does not apply {score.undefined}"


def facts_of(pairs: Sequence[Pair], kind: str, *, borders: bool, thin: bool, maps: int) -> Facts:
    """Gather what decides which scores there can be.

    Parameters
    ----------
    pairs : sequence of (Sample, Sample)
    kind : str
    borders, thin : bool
        As in `Facts`.
    maps : int
        How many samples have a probability map.

    Returns
    -------
    Facts
    """
    labels = [theirs.image.labels[kind] for _, theirs in pairs]
    largest = max(array.height * array.width for array in labels)
    return Facts(kind, borders, thin, largest, maps in (0, len(pairs)))


# The version of the report; `unetkit/data/eval.schema.json` describes it.
VERSION = 2


@dataclass(frozen=True)
class EvaluateReport:
    """How well a prediction meets the truth.

    Attributes
    ----------
    prediction, truth : str
        What was compared.
    kind : str
        `instances` or `classes`: which labels.
    overall : Scores
        Of all samples as one: their tables pooled, each object and pixel counting once.
    mean : Scores
        The mean of the samples' scores, over those to which a score applies.
    samples : dict of str to Scores
        By the sample's name in the truth, in its order.
    certainty : Certainty
        Intervals of the overall scores.
    facts : Facts
        What decides which scores there can be.
    sweep : tuple of dict
        Scores of thin borders at each threshold of a probability map, where these were asked for.
    curve : tuple of dict
        Scores of pixels at each threshold of a probability map, label by label, where there is one.
    unlabelled, unpaired : tuple of str
        Samples that were left out: of the truth, because they have no labels, and of the
        prediction, because the truth has no labels for them.
    tiles_total, tiles_reused : int
        Blocks and planes that were scored, and those of them that an earlier run had done.
    """

    prediction: str
    truth: str
    kind: str
    overall: Scores
    mean: Scores
    samples: dict[str, Scores]
    certainty: Certainty
    facts: Facts
    sweep: tuple[dict[str, float | None], ...] = ()
    curve: tuple[dict[str, Any], ...] = ()
    unlabelled: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    tiles_total: int = 0
    tiles_reused: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that strict JSON can hold; a score that is not there is None.

        `reasons` says why, by score; those of a sample only where they are not those overall.
        """
        overall = self.facts.reasons(self.overall)
        return {
            "version": VERSION,
            "prediction": self.prediction,
            "truth": self.truth,
            "kind": self.kind,
            "overall": {**self.overall.to_dict(), "reasons": overall},
            "mean": {**self.mean.to_dict(), "reasons": self.facts.reasons(self.mean)},
            "samples": [
                {
                    "name": name,
                    **one.to_dict(),
                    "reasons": _without(self.facts.reasons(one), overall),
                }
                for name, one in self.samples.items()
            ],
            "certainty": self.certainty.to_dict(),
            "sweep": list(self.sweep),
            "curve": list(self.curve),
            "unlabelled": list(self.unlabelled),
            "unpaired": list(self.unpaired),
            "tiles_total": self.tiles_total,
            "tiles_reused": self.tiles_reused,
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold the overall scores to bounds.

        Parameters
        ----------
        bounds : sequence of str
            Such as `dice=0.9`. A score of which 0 is best must not be above its bound, any other
            not below; one that does not apply does not hold.

        Raises
        ------
        UsageError
            If a bound names no score, or no number.
        CheckError
            If one does not hold.
        """
        overall = self.overall.to_dict()
        for name, bound in map(parse_bound, bounds):
            found = table.value_of(name, overall)
            score = table.score_named(name)
            if score is None or score.fails(found, bound):
                side = "at most" if score and score.best == 0 else "at least"
                got = "none" if found is None else f"{found:.6g}"
                raise CheckError(
                    f"{name} of {self.prediction} must be {side} {bound:g}, got {got}; "
                    "see which samples are worst"
                )


@dataclass(frozen=True)
class CompareReport:
    """Several predictions of one truth, side by side.

    Attributes
    ----------
    truth : str
    reports : tuple of EvaluateReport
        One a prediction.
    comparisons : tuple of Comparison
        Of every two, in every score that has intervals.
    reason : str or None
        Why there are none.
    """

    truth: str
    reports: tuple[EvaluateReport, ...]
    comparisons: tuple[Comparison, ...]
    reason: str | None

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
            "reason": self.reason,
        }

    def check(self, bounds: Sequence[str]) -> None:
        """Hold each prediction to bounds; see `EvaluateReport.check`."""
        for report in self.reports:
            report.check(bounds)


def _without(reasons: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in reasons.items() if known.get(name) != text}


def parse_bound(text: str) -> tuple[str, float]:
    """Read a bound such as `dice=0.9`.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of str and float

    Raises
    ------
    UsageError
        If it names no score, or no number.
    """
    name, _, number = text.partition("=")
    if table.score_named(name) is None:
        raise UsageError(
            f"--fail-under must name a score, got {name!r}; 'unetkit eval --list' shows them"
        )
    try:
        return name, float(number)
    except ValueError as error:
        raise UsageError(
            f"--fail-under must give a number after '=', got {text!r}; try {name}=0.9"
        ) from error


# What keeps the page within some megabytes, whatever is compared; our own choice.
PICTURES = 24
PIXELS = 2**23
LONGEST = 2048
WORST = 48
# The sides, in pixels, of what is cut out around an object: at least, at most, and as drawn.
NEAR, FAR, DRAWN = 64, 4096, 256


def contents(
    report: EvaluateReport, pairs: Sequence[Pair], found: Sequence[Found]
) -> dict[str, Any]:
    """Gather the contents of the page.

    Parameters
    ----------
    report : EvaluateReport
    pairs : sequence of (Sample, Sample)
    found : sequence of Found
        The objects of both sides; empty for class maps.

    Returns
    -------
    dict
        Plain values for `views.page.page`. Pictures are of the first plane of the samples with the
        lowest scores, made smaller where they are large; objects that these do not show pixel by
        pixel come with a picture of their own.
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
        "scores": [score.to_dict() for score in table.scores()],
        "objects": [
            asdict(one)
            | {
                "picture": None
                if one.sample in whole and one.plane == 0
                else _cut_out(by_name[one.sample], one, report.kind)
            }
            for one in worst(found, WORST)
        ],
        "counts": counts(found),
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
    factor = factor_for(*size, longest=LONGEST, pixels=pixels)
    image = read_smaller(theirs.image.data, 0, factor=factor, nearest=False)
    truth, prediction = (
        read_smaller(side.image.labels[kind], 0, factor=factor, nearest=True)
        for side in (theirs, ours)
    )
    place = {"factor": factor, "rows": size[0], "columns": size[1]}
    return layers(image, truth, prediction) | place


def _cut_out(pair: Pair, one: Found, kind: str) -> dict[str, Any] | None:
    """Draw an object and what is around it."""
    size = _size(pair, kind)
    if size is None:
        return None
    side = round(min(max(NEAR, 2.5 * one.area**0.5), FAR))
    (y0, y1), (x0, x1) = (
        (max(round(at) - side // 2, 0), min(round(at) + -(-side // 2), end))
        for at, end in zip((one.y, one.x), size, strict=True)
    )
    factor = factor_for(y1 - y0, x1 - x0, longest=DRAWN, pixels=DRAWN**2)
    box = (one.plane, y0, y1, x0, x1)
    ours, theirs = pair
    image = block_mean(theirs.image.data.read(*box), factor, factor)
    truth, prediction = (
        every_second(part.image.labels[kind].read(*box), factor, factor) for part in (theirs, ours)
    )
    return layers(image, truth, prediction) | {"factor": factor, "row": y0, "column": x0}
