"""What the border weights of the U-Net paper look like between two cells, in numbers.

The weight in a gap falls with its width: 9.23 where one pixel parts two cells, 1.35 at nine.
"""

import numpy as np

from unetkit.arrays.targets import cut_gaps
from unetkit.arrays.weight_map import border_weight

# /// script
# dependencies = ["unetkit"]
# ///


def main() -> None:
    print("gap  weight in its middle")
    for gap in (1, 3, 5, 9, 19, 29):
        row = np.zeros((1, 20 + gap), np.int32)
        row[0, :10], row[0, 10 + gap :] = 1, 2
        print(f"{gap:3d}  {border_weight(row)[0, 10 + gap // 2]:.4f}")

    touching = np.array([[1, 1, 1, 2, 2, 2]])
    print("touching cells   ", touching[0])
    print("with a gap cut   ", cut_gaps(touching)[0])
    print("their weights    ", border_weight(cut_gaps(touching)).round(2)[0])


if __name__ == "__main__":
    main()
