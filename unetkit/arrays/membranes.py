"""The scores of the ISBI 2012 challenge and of its successor, for cells parted by thin borders.

What this module does not know: files, thresholds' origin, and how an image was cut. Objects are the
4-connected pieces of what is not border; a border is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from unetkit.arrays import metrics

if TYPE_CHECKING:
    from unetkit.arrays.contingency import Contingency

Array = np.ndarray[Any, Any]

# The largest image, in pixels, for scores that need all of it at once.
LARGEST = 4096 * 4096
# How far lines are carried on outside the image before they are thinned; our own choice.
FARTHEST = 256


def thin(labels: Array) -> Array:
    """Thin the borders between objects to one pixel, and number what they part.

    Borders are what is 0 and what parts two touching objects; thinning keeps their topology.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)

    Returns
    -------
    ndarray of int32, shape (Y, X)
        Pieces numbered from 1; 0 on the borders.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142.
    """
    border = ~interior(labels)
    # Thinning shortens the ends of lines, so lines go on outside the image by their width.
    beyond = min(int(ndimage.distance_transform_edt(border).max(initial=0)), FARTHEST) + 2
    thinned = skeletonize(np.pad(border, beyond, mode="edge"))
    return pieces(~thinned[beyond:-beyond, beyond:-beyond])


def interior(labels: Array) -> Array:
    """Mark the pixels of objects that do not touch another object to the left or above.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)

    Returns
    -------
    ndarray of bool, shape (Y, X)
    """
    inside: Array = labels != 0
    inside[1:] &= (labels[1:] == labels[:-1]) | (labels[:-1] == 0)
    inside[:, 1:] &= (labels[:, 1:] == labels[:, :-1]) | (labels[:, :-1] == 0)
    return inside


def pieces(mask: Array) -> Array:
    """Give each 4-connected piece of a mask a number, from 1.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)

    Returns
    -------
    ndarray of int32, shape (Y, X)
    """
    return np.asarray(ndimage.label(mask)[0], np.int32)


def v_rand(table: Contingency) -> float | None:
    """Measure how the pixel pairs of truth and prediction agree, from 0 to 1 (best).

    2 sum p_ij^2 / (sum s_i^2 + sum t_j^2) over the pixels of true objects; a predicted border pixel
    is a segment of its own. Taken of `thin` labels it is the score of the ISBI 2012 board. None
    where no true object has a pixel.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142, equation 4 with alpha = 0.5.
    """
    sizes = _sizes(table)
    if sizes is None:
        return None
    both, true, pred, single = sizes
    shared = float((both**2).sum()) + single
    return 2 * shared / (float((true**2).sum()) + float((pred**2).sum()) + single)


def v_info(table: Contingency) -> float | None:
    """Measure the information that truth and prediction share, from 0 to 1 (best).

    2 I(S; T) / (H(S) + H(T)) over the pixels of true objects; a predicted border pixel is a segment
    of its own. 1 where both have a single segment. None where no true object has a pixel.

    References
    ----------
    Arganda-Carreras et al. (2015), Front. Neuroanat. 9:142, equation 7 with alpha = 0.5.
    """
    sizes = _sizes(table)
    if sizes is None:
        return None
    both, true, pred, single = sizes
    count = true.sum()
    h_both, h_true, h_pred = (
        _entropy(both, count, single),
        _entropy(true, count, 0),
        _entropy(pred, count, single),
    )
    whole = h_true + h_pred
    return float(2 * (whole - h_both) / whole) if whole > 0 else 1.0


def isbi_rand(table: Contingency) -> float | None:
    """Measure 1 - F of the pixel pairs that lie in one object, as ISBI 2012 did, 0 (best) to 1.

    Pixels whose true label is 0 don't count, and pairs with a predicted border pixel are never
    joined. The challenge took the minimum over thresholds. None where no true object has two
    pixels.

    References
    ----------
    ISBI 2012 segmentation challenge, foreground-restricted Rand error (Trainable Segmentation).
    """
    sizes = _sizes(table)
    if sizes is None:
        return None
    both, true, pred, _ = (np.sum(s * (s - 1)) / 2 for s in map(np.asarray, sizes))
    return float(1 - 2 * both / (true + pred)) if true + pred else None


def isbi_pixel(table: Contingency) -> float | None:
    """Measure 1 - F of the foreground's pixels, as ISBI 2012 did, from 0 (best) to 1.

    Foreground is what is not border. The challenge took the minimum over thresholds. None where
    neither side has foreground.

    References
    ----------
    ISBI 2012 segmentation challenge, pixel error (Trainable Segmentation).
    """
    overlap = metrics.dice(table.foreground())
    return None if overlap is None else 1 - overlap


def _sizes(table: Contingency) -> tuple[Array, Array, Array, float] | None:
    """Measure the segments on the pixels of true objects.

    Returns the shared parts without predicted border, the true and the predicted objects, and the
    number of predicted border pixels.
    """
    inside = table.true != 0
    if not inside.any():
        return None
    counts = table.counts[inside].astype(float)
    true = np.bincount(table.segments("true").row[inside], counts)
    border = table.pred[inside] == 0
    pred = np.bincount(table.segments("pred").row[inside][~border], counts[~border])
    return counts[~border], true[true > 0], pred[pred > 0], float(counts[border].sum())


def _entropy(sizes: Array, count: float, single: float) -> float:
    """Take the entropy in bits of segments, and of `single` segments of one pixel."""
    shares = sizes / count
    return float(-(shares * np.log2(shares)).sum() + single / count * np.log2(count))
