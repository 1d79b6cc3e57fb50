"""Why 384 pixels apart and not 388: tiles equal the whole image only on the network's pooling grid.

The paper's network turns 572 pixels into 388. Laying its outputs side by side, 388 pixels apart,
shifts the grid of the 2x2 pooling by 4 pixels from one tile to the next.
"""

import numpy as np
import torch

from unetkit.geometry.tiles import cover, mirror
from unetkit.models.hardware import forward
from unetkit.models.unet import build

# /// script
# dependencies = ["unetkit"]
# ///


def main() -> None:
    torch.manual_seed(0)
    network = build(in_channels=1, classes=2, depth=2, width=4, dropout=0.0).eval()
    contract = network.contract
    print(f"step {contract.step}, margin {contract.margin}, smallest input {contract.minimum}")

    height, width, overlap = 150, 130, contract.need
    image = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)

    def predict(tile: int) -> np.ndarray:
        """Write tiles of this size side by side, each from its own mirrored surroundings."""
        out = np.empty((2, height, width), np.float32)
        size = contract.legal(tile + 2 * overlap)
        for box in cover(height, width, tile=tile, overlap=overlap, size=size):
            rows = mirror(box.read_y0, box.read_y1, height)
            columns = mirror(box.read_x0, box.read_x1, width)
            batch = torch.from_numpy(image[np.ix_(rows, columns)])[None, None]
            with torch.inference_mode():
                logits = forward(network, batch, precision="exact")[0].numpy()
            here = np.s_[:, box.y0 : box.y1, box.x0 : box.x1]
            out[here] = logits[(slice(None), *box.crop(contract.margin))]
        return out

    whole = predict(160)
    for tile in (16, 32, 64, 66):
        worst = np.abs(predict(tile) - whole).max()
        aligned = "on the grid" if tile % contract.step == 0 else "off the grid"
        print(f"tiles of {tile:3d} pixels ({aligned}): largest difference of a logit {worst:.3g}")


if __name__ == "__main__":
    main()
