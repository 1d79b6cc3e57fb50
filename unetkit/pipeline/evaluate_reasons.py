"""Say of each score that is not there why it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetkit.arrays import catalogue, membranes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.arrays.scores import Scores
    from unetkit.pipeline.evaluate_pairs import Pair

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
            for score in catalogue.scores()
            if catalogue.value_of(score.name, document) is None
        }

    def _reason(self, score: catalogue.Score) -> str:
        if self.kind == "classes" and score.of in (catalogue.OBJECTS, catalogue.SEGMENTS):
            return f"scores of {score.of} are for instances, and the truth has classes"
        if score.of == catalogue.BORDERS and not self.borders:
            return "scores of borders are worked out with --borders"
        if score.name in _THIN:
            if not self.thin:
                return "thin borders are for instances and for maps of two classes"
            if self.largest > membranes.LARGEST:
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
