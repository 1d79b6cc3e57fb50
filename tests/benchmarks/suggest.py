"""Compare windows that `suggest` proposes with random ones on BBBC039; prints one JSON line.

Run ``UNETKIT_TEST_DATA=... python tests/benchmarks/suggest.py --seeds 5``. For each seed a small
network learns from five random windows of twelve images. Then it goes on with five windows more,
those of `suggest` on its uncertainty under flips, or random ones, and both are scored on six other
images. Fields without a nucleus are left out: whether noise is taken for objects would decide all.
There, too, it is measured how well the uncertainty of flips, and that of the three networks, tell
wrong pixels from right ones (area under the ROC curve), beside the entropy of one network. Last,
the time of `suggest` as a share of that of ``tile-predict --uncertainty``, and of this as a share
of ``tile-predict --tta flips``, in processor seconds of one process.
"""

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy import stats

from tests.benchmarks.measuring import took, whole
from unetkit.arrays.uncertainty import entropy
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.suggest import suggest
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.storage.datasets import DatasetWriter, open_dataset

# ruff: noqa: T201 - a benchmark prints

POOL, TESTED, SIDE, COUNT = 12, 6, 256, 5
NETWORK = {"options": ("width=8", "depth=3"), "workers": 0, "device": "cpu"}
HOW = {"device": "cpu", "precision": "float32", "scheduler": "sync"}


def images(data, names):
    for name in names:
        image = tifffile.imread(data / "images" / f"{name}.tif")
        yield name, image, np.asarray(Image.open(data / "masks" / f"{name}.png")).astype(np.uint16)


def lay(place, found):
    """Store whole images with their truth."""
    writer = DatasetWriter(str(place))
    for name, image, labels in found:
        writer.add(name, image, axes="yx", labels=labels)
    writer.finish()
    return str(place)


def lay_windows(place, pool, windows):
    """Store windows of images, which say where they are from as those of `correct` do."""
    writer = DatasetWriter(str(place))
    for number, (name, y, x) in enumerate(windows):
        image, labels = (array[y : y + SIDE, x : x + SIDE] for array in pool[name])
        told = {"corrected": name, "window": {"y": [y, y + SIDE], "x": [x, x + SIDE]}}
        writer.add(f"w{number}", image, axes="yx", labels=labels, attributes=told)
    writer.finish()
    return str(place)


def random_windows(rng, pool, *, taken):
    """Draw windows of which no two share a pixel, nor one that is taken."""
    found = []
    while len(found) < COUNT:
        name = str(rng.choice(sorted(pool)))
        y, x = (int(rng.integers(0, n - SIDE + 1)) for n in pool[name][0].shape)
        near = [o for o in [*taken, *found] if o[0] == name]
        if all(abs(y - o[1]) >= SIDE or abs(x - o[2]) >= SIDE for o in near):
            found.append((name, y, x))
    return found


def auroc(wrong, scores):
    """Return how probably a wrong pixel has a higher score than a right one."""
    ranks = stats.rankdata(scores)
    bad, good = int(wrong.sum()), int((~wrong).sum())
    return float((ranks[wrong].sum() - bad * (bad + 1) / 2) / (bad * good))


def looked(folder, model, tested, **told):
    """Predict the test images; return classes, probabilities and the layer of all together."""
    place = str(folder / f"{len(list(folder.iterdir()))}.zarr")
    tile_predict(tested, model=model, output=place, probabilities="float32", **HOW, **told)
    found = open_dataset(place).samples
    parts = [
        [whole(s.image.labels["classes"]).ravel() for s in found],
        [entropy(whole(s.data)).ravel() for s in found],
        [whole(s.image.uncertainty).ravel() for s in found if s.image.uncertainty is not None],
    ]
    return [np.concatenate(part) if part else None for part in parts]


def one(seed, data, names, steps, folder):
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(names)[: POOL + TESTED]]
    pool = {name: (image, labels) for name, image, labels in images(data, names[:POOL])}
    whole_pool = lay(folder / "pool.zarr", images(data, names[:POOL]))
    tested = lay(folder / "tested.zarr", images(data, names[POOL:]))
    first = random_windows(rng, pool, taken=[])
    judged = lay_windows(folder / "first.zarr", pool, first)
    base = str(folder / "base.safetensors")
    train(judged, output=base, steps=steps, seed=seed, **NETWORK)
    unsure = str(folder / "pool.prediction.zarr")
    told = {"model": base, "tta": "flips", **HOW}
    seconds = {}
    _, seconds["flips"] = took(
        lambda: tile_predict(whole_pool, output=str(folder / "plain.zarr"), tile=512, **told)
    )
    _, seconds["uncertainty"] = took(
        lambda: tile_predict(whole_pool, output=unsure, uncertainty=True, tile=512, **told)
    )
    kept = []
    _, seconds["suggest"] = took(
        lambda: kept.append(
            suggest(unsure, count=COUNT, window=SIDE, judged=[judged], scheduler="sync")
        )
    )
    arms = {
        "suggest": [(w.sample, w.y0, w.x0) for w in kept[0].windows],
        "random": random_windows(rng, pool, taken=first),
    }
    scores, models = {"before": scored(folder, base, tested)}, [base]
    for arm, windows in arms.items():
        both = lay_windows(folder / f"{arm}.zarr", pool, [*first, *windows])
        model = str(folder / f"{arm}.safetensors")
        train(both, init=base, output=model, steps=steps, seed=seed, **NETWORK)
        scores[arm] = scored(folder, model, tested)
        models.append(model)
    truth = np.concatenate([whole(s.labels()).ravel() > 0 for s in open_dataset(tested).samples])
    found = {}
    for name, told in {
        "flips": {"model": base, "tta": "flips"},
        "networks": {"model": models},
    }.items():
        classes, _, layer = looked(folder, tested=tested, uncertainty=True, **told)
        _, single, _ = looked(folder, base, tested)
        wrong = classes != truth
        found[name] = {
            "uncertainty": round(auroc(wrong, layer), 4),
            "entropy of one": round(auroc(wrong, single), 4),
            "wrong": round(float(wrong.mean()), 4),
        }
    return {"seed": seed, "ap50": scores, "auroc": found, "seconds": seconds}


def cost(folder, *, side=2048, rounds=3):
    """Return how long each command takes on noise, as shares, in processor seconds."""
    from tests.commands.conftest import noise_image, tiny_model

    slide, _ = noise_image(folder / "slide.zarr", (side, side), dtype="u1", chunk=512)
    model = tiny_model(folder / "model.safetensors", depth=3, width=8)
    told = {"model": model, "tta": "flips", "tile": 512, "overwrite": True, **HOW}
    plain, unsure = (str(folder / f"{name}.zarr") for name in ("plain", "unsure"))
    steps = {
        "flips": lambda: tile_predict(slide, output=plain, **told),
        "uncertainty": lambda: tile_predict(slide, output=unsure, uncertainty=True, **told),
        "suggest": lambda: suggest(unsure, image=slide, overwrite=True, scheduler="sync"),
    }
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(took(step)[1])
    return shares({name: min(found) for name, found in times.items()})


def shares(seconds):
    return {
        "uncertainty / flips": round(seconds["uncertainty"] / seconds["flips"], 3),
        "suggest / uncertainty": round(seconds["suggest"] / seconds["uncertainty"], 3),
    }


def scored(folder, model, tested):
    place = str(folder / f"{Path(model).stem}.tested.zarr")
    tile_predict(tested, model=model, output=place, **HOW)
    found = evaluate(place, truth=tested, bootstrap=0).overall
    return round(found.average_precision_at["0.50"], 4)


def main():
    """Print each seed, and what the pairs say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=100, help="of each training")
    parser.add_argument("--cost", action="store_true", help="measure the time alone, on noise")
    given = parser.parse_args()
    if given.cost:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(cost(Path(place))))
        return
    data = Path(os.environ["UNETKIT_TEST_DATA"], "bbbc039_nuclei")
    names = sorted(path.stem for path in (data / "images").iterdir())
    names = [name for name, _, labels in images(data, names) if labels.any()]
    rows = []
    for seed in range(given.first, given.first + given.seeds):
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(None):
            rows.append(one(seed, data, names, given.steps, Path(place)))
        print(json.dumps(rows[-1]), flush=True)
    gains = np.array([row["ap50"]["suggest"] - row["ap50"]["random"] for row in rows])
    half = stats.t.ppf(0.975, max(1, len(gains) - 1)) * stats.sem(gains) if len(gains) > 1 else None
    total = {n: sum(row["seconds"][n] for row in rows) for n in rows[0]["seconds"]}
    print(
        json.dumps(
            {
                "suggest above random": round(float(gains.mean()), 4),
                "half of 95 %": None if half is None else round(float(half), 4),
                **shares(total),
            }
        )
    )


if __name__ == "__main__":
    main()
