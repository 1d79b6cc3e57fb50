"""Time one elastic warp against the peers, one thread each; prints one JSON line.

Needs the extra ``bench``; elasticdeform has to be built for the numpy that is installed, by
``pip install --no-build-isolation --no-binary elasticdeform elasticdeform``. Run
``python tests/benchmarks/augment.py``; peers that are not there are left out. All are timed in
turn, round after round, and the fastest round of each counts, so that other work on the machine
hits all alike.
"""

import json
import platform
import warnings
from contextlib import suppress

import numpy as np
import torch
from measuring import fastest, on_one_thread

from unetkit.arrays.deformation import affine, deform, draw_deformation, field
from unetkit.models.hardware import tune_allocator

# ruff: noqa: T201 - a benchmark prints


SIZE = 512
ROUNDS = 25
SIGMA = 10.0
# What is asked of the ratio to each: at least so many times faster, or for those below 1 at most
# as many times slower as their inverse.
WANTED = {
    "elasticdeform": 20.0,
    "monai": 20.0,
    "albumentations": 5.0,
    "torch_grid_sample": 2.0,
    "opencv_remap": 1 / 1.5,
}


def ours():
    """Return this library's warps: the image alone, drawn as well, and with all that belongs."""
    rng = np.random.default_rng(0)
    image = rng.random((1, SIZE, SIZE), dtype=np.float32)
    labels = rng.integers(0, 400, (SIZE, SIZE)).astype(np.uint16)
    weights = rng.random((SIZE, SIZE), dtype=np.float32)
    grey = (image * 255).astype(np.uint8)
    drawn = movement()
    return {
        "image": lambda: deform(image, drawn),
        "drawn_image": lambda: deform(image, movement()),
        "image_labels_weights": lambda: deform(image, drawn, labels=labels, weights=weights),
        "uint8_image": lambda: deform(grey, drawn),
    }


def movement():
    """Draw the field alone: peers have no shift or rotation in the same pass."""
    return draw_deformation(np.random.default_rng(0), sigma=SIGMA, rotation=0, shift=0, flips=False)


def peers():
    """Return what the peers do with the same image, each by its cubic."""
    found = {}
    for make in (elastic_peer, monai_peer, albumentations_peer, ready_map_peers):
        # A peer that is missing or does not load hides none of the others.
        with suppress(ImportError):
            found |= make()
    return found


def picture():
    return np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)


def elastic_peer():
    """Return the closest peer: the same coarse grid, splines of order 3."""
    import elasticdeform

    image, grid = picture(), movement().grid
    deform_grid = elasticdeform.deform_grid
    return {"elasticdeform": lambda: deform_grid(image, grid, order=3, mode="mirror")}


def monai_peer():
    from monai.transforms import Rand2DElastic

    transform = Rand2DElastic(
        spacing=(SIZE // 2, SIZE // 2),
        magnitude_range=(SIGMA, SIGMA),
        prob=1.0,
        mode="bicubic",
        padding_mode="reflection",
    )
    image = torch.from_numpy(picture())[None]
    return {"monai": lambda: transform(image)}


def albumentations_peer():
    """Return Albumentations' elastic transform, by OpenCV's cubic."""
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    image = picture()
    transform = albumentations.ElasticTransform(
        alpha=100, sigma=SIGMA, interpolation=cv2.INTER_CUBIC, p=1.0
    )
    return {"albumentations": lambda: transform(image=image)}


def ready_map_peers():
    """Return torch and OpenCV, which are handed the coordinates of every pixel."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    image = picture()
    drawn, shape = movement(), (SIZE, SIZE)
    matrix, offset = affine(drawn, shape)
    moved = np.einsum("ij,jyx->iyx", matrix, np.indices(shape)) + offset[:, None, None]
    y, x = (moved + field(drawn.grid, shape)).astype(np.float32)
    batch = torch.from_numpy(image)[None, None]
    grid = torch.from_numpy(np.stack([x, y], axis=-1))[None] / ((SIZE - 1) / 2) - 1
    sample = torch.nn.functional.grid_sample
    return {
        "torch_grid_sample": lambda: sample(
            batch, grid, mode="bicubic", padding_mode="reflection", align_corners=True
        ),
        "opencv_remap": lambda: cv2.remap(
            image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        ),
    }


def main():
    on_one_thread()
    warnings.simplefilter("ignore")
    # As training does it; the peers gain from it as well.
    tune_allocator()
    own, other = ours(), peers()
    every = own | other
    # The first two rounds compile and warm up.
    times = fastest(*every.values(), rounds=ROUNDS, warm=2, calls=3)
    took = {name: seconds * 1e3 for name, seconds in zip(every, times, strict=True)}
    drawing = {"monai", "albumentations"}
    ratios = {
        name: took[name] / took["drawn_image" if name in drawing else "image"] for name in other
    }
    along = took["image_labels_weights"] / took["image"]
    result = {
        "benchmark": "augment",
        "machine": platform.processor() or platform.machine(),
        "size": [SIZE, SIZE],
        "milliseconds": {name: round(value, 3) for name, value in took.items()},
        "times_faster_than": {name: round(value, 2) for name, value in ratios.items()},
        "labels_and_weights_along": round(along, 2),
        "met": {
            **{name: ratio >= WANTED[name] for name, ratio in ratios.items()},
            "labels_and_weights_along": along <= 1.6,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
