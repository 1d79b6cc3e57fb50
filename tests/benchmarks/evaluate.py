"""Time the scores against StarDist and scikit-image, one thread each; prints one JSON line.

Run ``python tests/benchmarks/evaluate.py``; StarDist is compared where it is installed. With
``--large SIDE`` stored labels of an eighth, a quarter, half of that many pixels a side and of as
many, with cells in one corner, are evaluated too, each in a process of its own: time, time of the
processor per pixel and peak memory of each, and the exponent of time by pixels (1 is linear).
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import cells, fastest, labelled_plane, on_one_thread, took
from skimage import metrics as skimage_metrics

from unetkit.scores.contingency import from_labels
from unetkit.scores.isbi2012 import warping_errors
from unetkit.scores.matching import THRESHOLDS, overlaps
from unetkit.scores.table import score_instances

# ruff: noqa: T201 - a benchmark prints


# Sizes of the large comparison, as shares of the largest.
SHARES = (8, 4, 2, 1)
CELLS = 2048


def one_by_one(truth, found):
    """Call what scikit-image has, each function on the images."""
    skimage_metrics.adapted_rand_error(truth, found)
    skimage_metrics.variation_of_information(truth, found)
    skimage_metrics.contingency_table(truth, found)


def against_others():
    """Compare scores of 2048 x 2048 pixels with 3,000 objects."""
    truth, found = (cells(2048, 3000, seed=seed).astype(np.int32) for seed in (0, 1))
    every, ours, peer = fastest(
        lambda: score_instances(from_labels(truth, found)),
        lambda: [*map(overlaps(from_labels(truth, found)).matches, THRESHOLDS)],
        lambda: one_by_one(truth, found),
    )
    result = {
        "all_scores_seconds": every,
        "average_precision_seconds": ours,
        "scikit_image_over_all_scores": peer / every,
    }
    try:
        from stardist.matching import matching
    except ImportError:
        return result
    thresholds = [n / 100 for n in range(50, 100, 5)]
    (theirs,) = fastest(lambda: matching(truth, found, thresh=thresholds))
    by_threshold = [matching(truth, found, thresh=t).accuracy for t in thresholds]
    own = score_instances(from_labels(truth, found)).average_precision_at or {}
    same = np.allclose(list(own.values()), by_threshold)
    return result | {
        "stardist_over_average_precision": theirs / ours,
        "stardist_over_all_scores": theirs / every,
        "same_average_precision_as_stardist": float(same),
    }


def warping():
    """Time the warping error of 512 x 512 pixels, compiled before."""
    truth, found = (cells(512, 200, seed=seed) > 0 for seed in (2, 3))
    return fastest(lambda: warping_errors(truth, found), warm=1)[0]


def peak_mib():
    """Read this process's own peak; what the system says of resources begins with its parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 2**10 if found else float("nan")


def stored(side):
    """Evaluate stored labels that hold cells in one corner alone."""
    from unetkit.commands.evaluate.command import evaluate

    with tempfile.TemporaryDirectory() as folder:
        places = [f"{folder}/{name}.zarr" for name in ("found", "truth")]
        for seed, place in enumerate(places):
            labelled_plane(place, side).write(0, 0, 0, cells(CELLS, 3000, seed=seed))
        seconds, worked = took(lambda: evaluate(*places, scheduler="sync", bootstrap=100))
    return {
        "side": side,
        "seconds": seconds,
        "cpu_seconds": worked,
        "cpu_seconds_a_gigapixel": worked / side**2 * 1e9,
        "peak_mib": peak_mib(),
    }


def large(side):
    """Evaluate labels of several sizes, each in a process of its own, so that peaks are apart."""
    rows = []
    for share in SHARES:
        length = max(side // share, CELLS)
        command = [sys.executable, __file__, "--stored", str(length)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(run.stdout))
    pixels, seconds = (np.log([row[name] for row in rows]) for name in ("side", "cpu_seconds"))
    peaks = [row["peak_mib"] for row in rows]
    return {
        "sizes": rows,
        # Of the two largest, where what every run does once weighs least.
        "exponent": float((seconds[-1] - seconds[-2]) / (2 * (pixels[-1] - pixels[-2]))),
        "peak_largest_over_smallest": peaks[-1] / peaks[0],
    }


def main():
    on_one_thread()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, metavar="SIDE")
    parser.add_argument("--stored", type=int, metavar="SIDE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stored:
        print(json.dumps(stored(arguments.stored)))
        return
    result = {"benchmark": "evaluate", "machine": platform.machine()}
    result |= against_others() | {"warping_512_seconds": warping()}
    if arguments.large:
        result["large"] = large(arguments.large)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
