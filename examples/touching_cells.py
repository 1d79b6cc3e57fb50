"""Two cells with a bridge of one pixel: one object by contact, two by a seeded watershed.

Writes touching_cells.png: the probability of cells, what touches, and what a watershed parts.
"""

import numpy as np
from PIL import Image

from unetkit.arrays.instances import components, separate
from unetkit.views.drawing import contrast, outlined, to_rgb8

# /// script
# dependencies = ["unetkit"]
# ///


def main() -> None:
    y, x = np.mgrid[:60, :100]
    away = np.minimum(np.hypot(y - 30, x - 26), np.hypot(y - 30, x - 74))
    probability = np.clip(255 * (1 - (away / 25) ** 6), 8, 250).astype(np.uint8)
    probability[30, 46:55] = 150  # the bridge

    mask = probability >= 128
    touching = components(mask)
    parted = separate(probability, mask, seed_level=0.9, seed_size=20)
    print("by contact", touching[1], "object, by a watershed", parted[1])

    ends = contrast(probability[None], low=0, high=100)
    grey = to_rgb8(probability[None], ends=ends).repeat(3, axis=0).repeat(3, axis=1)
    panels = [grey]
    for labels, _ in (touching, parted):
        panels += [np.full((180, 6, 3), 255, np.uint8)]
        panels += [outlined(grey, labels.repeat(3, axis=0).repeat(3, axis=1), fill=0.4)]
    Image.fromarray(np.concatenate(panels, axis=1)).save("touching_cells.png")


if __name__ == "__main__":
    main()
