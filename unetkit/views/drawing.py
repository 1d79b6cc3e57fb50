"""Pixels made visible: stretched grey values, outlines, colour maps; no files and no text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]  # shape (Y, X, 3)

# Own choice: eight hues that stay apart on a grey image, bright enough for a dark one.
PALETTE: Rgb = np.array(
    [
        (255, 214, 10),
        (64, 196, 255),
        (255, 105, 97),
        (120, 230, 110),
        (214, 130, 255),
        (255, 159, 28),
        (60, 230, 200),
        (255, 128, 190),
    ],
    dtype=np.uint8,
)

# Along a row or a column, at most two pixels between two objects.
_NEAR = [step for k in (1, 2, 3) for step in ((k, 0), (0, k))]

# Own choice: what the first channels of a picture without colours of its own look like.
_CHANNEL_COLOURS = np.array(
    [(1, 0, 1), (0, 1, 0), (1, 0.75, 0), (0, 0.6, 1), (1, 1, 1), (1, 0.2, 0.2)], dtype=np.float32
)

# Own choice: dark to light in even steps of lightness, through blue, red and orange.
_HEAT = np.array(
    [(8, 8, 30), (50, 20, 110), (130, 30, 125), (205, 60, 85), (250, 135, 45), (252, 245, 165)],
    dtype=np.float64,
)


def to_grey8(image: npt.NDArray[np.generic]) -> Rgb:
    """Stretch the mean of the channels of an image (C, Y, X) so that it fills black to white.

    What is not finite counts as 0; a constant image is all 0.
    """
    mean = _finite(image).mean(axis=0)
    return _stretch(mean, contrast(mean))


def to_rgb8(image: npt.NDArray[np.generic], *, ends: npt.NDArray[np.number] | None = None) -> Rgb:
    """Show each channel of an image (C, Y, X), stretched like `to_grey8`.

    One is grey, three are red, green, blue, others have colours of their own; those after the
    sixth are left out. A part of an image looks as in the whole with the `ends` (2, C, 1, 1) that
    `contrast` found there.
    """
    planes = _finite(image[: len(_CHANNEL_COLOURS)])
    ends = contrast(planes) if ends is None else ends[:, : len(planes)]
    shown = _stretch(planes, ends)
    if len(image) == 1:
        return np.repeat(shown[0][..., None], 3, axis=2)
    if len(image) == 3:
        return np.moveaxis(shown, 0, 2)
    mixed = np.zeros((*planes.shape[1:], 3), dtype=np.float32)
    for plane, colour in zip(shown, _CHANNEL_COLOURS, strict=False):
        mixed += plane[..., None] * colour
    return np.minimum(mixed, 255).astype(np.uint8)


def edges(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of each object that have a pixel of something else beside them.

    The picture's border is no edge: an object that goes on beyond it stays open there.
    """
    rim = np.zeros(labels.shape, dtype=np.bool_)
    down = labels[1:] != labels[:-1]
    across = labels[:, 1:] != labels[:, :-1]
    rim[1:] |= down
    rim[:-1] |= down
    rim[:, 1:] |= across
    rim[:, :-1] |= across
    edge: npt.NDArray[np.bool_] = rim & (labels != 0)
    return edge


def colours(labels: npt.NDArray[np.integer]) -> Rgb:
    """Give each object a colour of `PALETTE`, neighbours different ones.

    Objects at most two pixels apart count as neighbours, so that two outlines side by side can be
    told apart. Going through the objects in the order of their ids, each takes the colour that
    none of its neighbours has and that was taken least.
    """
    # It loads compilers, for which whoever wants no more than a contrast should not wait.
    from unetkit.arrays.instances import neighbours

    ids, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape)
    background = ids == 0
    near: list[set[int]] = [set() for _ in ids]
    for a, b in np.searchsorted(ids, neighbours(labels, _NEAR)).tolist():
        near[a].add(b)
        near[b].add(a)
    chosen = np.full(len(ids), -1)
    taken = np.zeros(len(PALETTE), dtype=np.int64)
    for index in np.flatnonzero(~background):
        blocked = np.zeros(len(PALETTE), dtype=np.int64)
        for other in near[index]:
            if chosen[other] >= 0:
                blocked[chosen[other]] += 1
        chosen[index] = np.lexsort((taken, blocked))[0]
        taken[chosen[index]] += 1
    table: Rgb = PALETTE[chosen]
    table[background] = 0
    painted: Rgb = table[dense]
    return painted


def outlined(
    picture: Rgb, labels: npt.NDArray[np.integer], *, fill: float = 0.0, classes: bool = False
) -> Rgb:
    """Draw the outline of every object over a copy of a picture.

    `fill` is how strongly the inside is tinted, 0 to 1. Of `classes` each has one colour.
    """
    painted = PALETTE[(labels.astype(np.int64) - 1) % len(PALETTE)] if classes else colours(labels)
    result = picture.copy()
    if fill > 0:
        inside = labels != 0
        mixed = (1 - fill) * picture[inside] + fill * painted[inside]
        result[inside] = np.round(mixed).astype(np.uint8)
    rim = edges(labels)
    result[rim] = painted[rim]
    return result


def dimmed(picture: Rgb, where: npt.NDArray[np.bool_]) -> Rgb:
    """Darken a copy of a picture where nobody judged, and draw a bright rim around that."""
    result = picture.copy()
    result[where] = picture[where] // 3
    result[edges(where.astype(np.uint8))] = 255
    return result


def heat(values: npt.NDArray[np.floating], *, low: float, high: float) -> Rgb:
    """Show numbers (Y, X) as colours from dark at `low` to light at `high`.

    What is not finite counts as `low`.
    """
    span = high - low if high > low else 1.0
    part = np.nan_to_num((np.asarray(values, dtype=np.float64) - low) / span).clip(0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    bands = [np.interp(part, steps, _HEAT[:, band]) for band in range(3)]
    return np.round(np.stack(bands, axis=-1)).astype(np.uint8)


def contrast(
    planes: npt.NDArray[np.number], *, low: float = 1.0, high: float = 99.5
) -> npt.NDArray[np.number]:
    """Find what becomes black and what becomes white of each (Y, X) plane: two of its percentiles.

    Shape (2, ..., 1, 1); equal for a constant plane alone.
    """
    # The lower pixel value, not one in between: a constant plane keeps a span of exactly 0.
    ends = np.percentile(planes, (low, high), axis=(-2, -1), keepdims=True, method="lower")
    widest = np.percentile(planes, (0, 100), axis=(-2, -1), keepdims=True)
    # A few bright specks on an even ground lie beyond both percentiles: show them all the same.
    return np.asarray(np.where(ends[1] > ends[0], ends, widest))


def channel_colours(count: int) -> Rgb:
    """Choose colours (C, 3) to be added up: one channel is grey, three are red, green, blue.

    Of others the first six have colours of their own, and the rest are grey.
    """
    if count == 3:
        return np.eye(3, dtype=np.uint8) * 255
    chosen = np.full((count, 3), 255, np.uint8)
    if count > 1:
        own = _CHANNEL_COLOURS[:count]
        chosen[: len(own)] = np.round(own * 255)
    return chosen


def _finite(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _stretch(planes: npt.NDArray[np.float32], ends: npt.NDArray[np.number]) -> Rgb:
    """Stretch each (Y, X) plane between what is to be black and what is to be white."""
    bottom, top = ends
    span = np.where(top > bottom, top - bottom, np.inf)
    part = ((planes - bottom) / span).clip(0, 1)
    result: Rgb = np.round(part * 255).astype(np.uint8)
    return result
