"""Time imports beside reading by tifffile and writing by zarr alone; prints one JSON line each.

Run ``python tests/benchmarks/import_images.py outlines``: 100,000 polygons as QuPath's GeoJSON on a
tiled slide of 50,000 x 50,000 pixels; ``tiff``: one tiled slide of 20,000 x 20,000; ``pairs``: a
thousand images and masks of 512 x 512 as PNG, with ``--before FOLDER`` also by an earlier checkout
that has a ``.venv`` of its own. Each run is a process, whose peak memory is stated. ``--in FOLDER``
keeps the files for the next time.
"""

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from measuring import apart, cells

# ruff: noqa: T201 - a benchmark prints

SIDES = {"outlines": 50_000, "tiff": 20_000}
TILE, PAIRS, SHAPES, CORNERS = 512, 1000, 100_000, 24
# What a plain program does with a slide: the compression is that of our stores.
CHUNK, LEVEL = 512, 3


def lay_slide(path, side, channels):
    """Write a tiled TIFF of blocks of cells with noise, compressed by deflate."""
    import tifffile

    rng = np.random.default_rng(0)
    drawn = [cells(TILE, 36, seed=n, radii=(0.3, 0.45)) > 0 for n in range(16)]
    noise = [rng.poisson(8, (TILE, TILE, channels)) for _ in drawn]
    blocks = [
        (40 + 90 * mask[..., None] + n).astype(np.uint8)
        for mask, n in zip(drawn, noise, strict=True)
    ]
    packed = [zlib.compress(block.tobytes()) for block in blocks]
    count = -(-side // TILE)
    tiles = (packed[n] for n in rng.integers(len(packed), size=count * count))
    tifffile.imwrite(
        path,
        tiles,
        shape=(side, side, channels)[: 3 if channels > 1 else 2],
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="rgb" if channels > 1 else "minisblack",
        bigtiff=True,
    )


def lay_outlines(path, side, count):
    """Write cells of 24 corners, some of which touch, with decimals as people draw them."""
    rng = np.random.default_rng(1)
    across = math.ceil(count**0.5)
    pitch = side / across
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    with Path(path).open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number in range(count):
            y, x = (np.array(divmod(number, across)) + 0.5) * pitch
            radii = pitch * rng.uniform(0.1, 0.5) * rng.uniform(0.85, 1, CORNERS)
            ring = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
            ring = np.round(ring, 2).tolist()
            feature = {
                "type": "Feature",
                "id": f"{number:08x}-0000-4000-8000-000000000000",
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                },
            }
            file.write(("," if number else "") + "\n" + json.dumps(feature))
        file.write("\n]}\n")


def lay_pairs(folder, count):
    """Write images and masks of 512 x 512 as PNG."""
    from PIL import Image

    rng = np.random.default_rng(2)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        labels = cells(512, 60 + number % 40, seed=number, radii=(0.25, 0.45))
        image = (40 + 90 * (labels > 0) + rng.poisson(8, labels.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number:04d}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / "masks" / f"{number:04d}.png")


def make(what, folder, channels):
    """Lay the files that a benchmark needs, where they are not there."""
    if what == "pairs":
        if not (folder / "pairs").exists():
            lay_pairs(folder / "pairs", PAIRS)
        return
    side = SIDES[what]
    if not (slide := folder / f"{side}-{channels}.tif").exists():
        lay_slide(slide, side, channels)
    if what == "outlines" and not (drawn := folder / f"{side}.geojson").exists():
        lay_outlines(drawn, side, SHAPES)


def plain_copy(source, output):
    """Read a slide by tifffile, a row of tiles at a time, and write it by zarr."""
    import tifffile
    import zarr
    from zarr.codecs import ZstdCodec

    with tifffile.TiffFile(source) as tif:
        page = tif.pages.first
        read = zarr.open_array(tif.aszarr(), mode="r")
        axes = [CHUNK, CHUNK, *page.shape[2:]]
        made = zarr.create_array(
            output,
            shape=page.shape,
            chunks=axes,
            dtype=page.dtype,
            compressors=ZstdCodec(level=LEVEL, checksum=True),
        )
        for y in range(0, page.shape[0], CHUNK):
            made[y : y + CHUNK] = read[y : y + CHUNK]


def whole_copy(source, output):
    """Read a slide by tifffile at once, and write it by zarr."""
    import tifffile
    import zarr
    from zarr.codecs import ZstdCodec

    pixels = tifffile.imread(source)
    made = zarr.create_array(
        output,
        shape=pixels.shape,
        chunks=[CHUNK, CHUNK, *pixels.shape[2:]],
        dtype=pixels.dtype,
        compressors=ZstdCodec(level=LEVEL, checksum=True),
    )
    made[:] = pixels


def ours(source, output, *options):
    """Import as from the shell, by whatever version is in place."""
    # Without -P the package in the current folder would go before that of `root`.
    command = [sys.executable, "-P", "-m", "unetkit", "import", source, output, *options, "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def timed(job, folder, side, channels):
    """Run one job in this process, and print what it took."""
    slide, drawn = str(folder / f"{side}-{channels}.tif"), str(folder / f"{side}.geojson")
    output = str(folder / f"{job}.zarr")
    shutil.rmtree(output, ignore_errors=True)
    pairs = [str(folder / "pairs" / "images"), output, "--labels", str(folder / "pairs" / "masks")]
    jobs = {
        "tifffile_zarr": lambda: plain_copy(slide, output),
        "tifffile_zarr_at_once": lambda: whole_copy(slide, output),
        "import": lambda: ours(slide, output),
        "import_with_outlines": lambda: ours(slide, output, "--labels", drawn),
        "import_pairs": lambda: ours(*pairs),
        "import_pairs_before": lambda: ours(*pairs),
    }
    began = time.perf_counter()
    jobs[job]()
    seconds = time.perf_counter() - began
    whose = resource.RUSAGE_CHILDREN if job.startswith("import") else resource.RUSAGE_SELF
    used = resource.getrusage(whose)
    found = {
        "seconds": round(seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024),
    }
    shutil.rmtree(output)
    print(json.dumps(found))


JOBS = {
    "outlines": ("tifffile_zarr", "import", "import_with_outlines"),
    "tiff": ("tifffile_zarr", "tifffile_zarr_at_once", "import"),
    "pairs": ("import_pairs",),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*SIDES, "pairs"])
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", type=Path, help="where files are laid and kept")
    parser.add_argument("--before", type=Path, help="an earlier checkout, with a .venv")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    if asked.job:
        timed(asked.job, asked.folder, SIDES.get(asked.what, 0), asked.channels)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = (asked.folder or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make(asked.what, folder, asked.channels)
        told = (asked.what, "--in", str(folder), "--channels", str(asked.channels))
        found = {}
        for _ in range(asked.rounds):
            for job in JOBS[asked.what]:
                took = apart(__file__, *told, "--job", job, shown=[job])
                found.setdefault(job, []).append(took)
            if asked.before:
                python = str(asked.before / ".venv" / "bin" / "python")
                job = f"{JOBS[asked.what][-1]}_before"
                more = {"python": python, "root": asked.before}
                took = apart(__file__, *told, "--job", job, shown=[job], **more)
                found.setdefault(job, []).append(took)
    best = {
        job: {name: min(one[name] for one in taken) for name in taken[0]}
        for job, taken in found.items()
    }
    print(json.dumps({"benchmark": f"import {asked.what}", "best": best}))


if __name__ == "__main__":
    sys.exit(main())
