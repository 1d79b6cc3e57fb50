"""Scores of two sides in one go, as a dictionary."""

import numpy as np
import pytest

from unetkit.scores import boundaries, isbi2012, table


class Scored:
    """Works scores out for tests that know what they have to be."""

    def outlines(self, truth, found, *, tolerance=2.0, instances=False):
        """Score the outlines of whole images."""
        inside = tuple(slice(0, n) for n in truth.shape)
        found = boundaries.measure(truth, found, inside=inside, instances=instances)
        return self.surfaces(found, tolerance=tolerance, instances=instances)

    def surfaces(self, surfaces, *, units=1, tolerance=2.0, instances=False):
        """Score what was measured of outlines."""
        return overall(
            boundaries.outline_sums(surfaces, units=units, tolerance=tolerance, instances=instances)
        )

    def thin(self, plain, thinned=None):
        """Score thin borders by the tables of their pieces, thinned or not; nothing is split."""
        one = np.ones((1, 1), bool)
        errors = isbi2012.warping_errors(one, one)
        sums = isbi2012.plane_sums(plain, thinned or plain, errors)
        return overall({name: (np.arange(len(one)), one[None]) for name, one in sums.items()})


def overall(columns):
    return {name: one.overall() for name, one in table.score_sums(columns).items()}


@pytest.fixture(scope="session")
def scored():
    """Return what works scores out."""
    return Scored()
