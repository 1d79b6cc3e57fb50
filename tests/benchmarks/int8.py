"""What weights and features of 8 bits cost in objects and gain in time; a JSON line a model.

Run ``python tests/benchmarks/int8.py TRAIN TEST MODEL...`` with two datasets of labelled instances,
all images of one size, models that learned from the first, and `openvino` and `nncf` installed.
Each image of TEST is predicted whole, mirrored at its edges: by ours in float32 and bfloat16, and
by OpenVINO's network that `nncf` quantized by images of TRAIN, on the same threads. All decide as
the model does.
"""

import argparse
import json
import time

import nncf
import numpy as np
import openvino
import torch
from measuring import whole

from unetkit.engine.block_io import fit_image
from unetkit.engine.input_shift import known_by_method, limited
from unetkit.geometry.tiles import mirror
from unetkit.models import hardware, model_file
from unetkit.models.fusion import fuse
from unetkit.models.inference import to_probabilities
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import score_instances
from unetkit.storage.datasets import open_dataset
from unetkit.training.tuning import HeldOutMap, decided

# ruff: noqa: T201 - a benchmark prints

CALIBRATED, ROUNDS = 24, 3


class Padded:
    """Images of one size, mirrored to what a network reads, and cut again."""

    def __init__(self, loaded, height, width):
        contract = loaded.module.contract
        self.shape, self.contract, self.header = (height, width), contract, loaded.header
        need = contract.need
        self.rows, self.columns = (
            mirror(-need, contract.legal(size + 2 * need) - need, size) for size in self.shape
        )

    def read(self, sample):
        normalized = self.normalization(sample).apply(whole(sample.data))
        return np.ascontiguousarray(normalized[:, self.rows][:, :, self.columns][None])

    def normalization(self, sample):
        method = self.header.normalization
        seen = known_by_method([self.header])[method]
        fitted = fit_image(sample.data, method)
        return limited(fitted, sample.data, seen, replace_nonfinite=False)

    def cut(self, logits):
        top = self.contract.need - self.contract.margin
        height, width = self.shape
        return torch.from_numpy(logits[0, :, top : top + height, top : top + width])


def quantized(network, padded, samples):
    """Compile OpenVINO's network of 8 bits for one size."""
    given = padded.read(samples[0])
    with torch.no_grad():
        converted = openvino.convert_model(network, example_input=torch.from_numpy(given))
    converted.reshape(given.shape)
    seen = nncf.Dataset([padded.read(sample) for sample in samples])
    small = nncf.quantize(converted, seen, subset_size=len(samples))
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16"
        if hardware.low_precision(torch.device("cpu"))
        else "f32",
        "INFERENCE_NUM_THREADS": hardware.thread_count(),
    }
    request = openvino.Core().compile_model(small, "CPU", hints).create_infer_request()
    return lambda batch: next(iter(request.infer({0: batch}).values()))


def compare(model, train, test):
    hardware.tune_allocator()
    loaded = model_file.load(model)
    samples = open_dataset(test).samples
    padded = Padded(loaded, samples[0].data.height, samples[0].data.width)
    int8 = quantized(loaded.module, padded, open_dataset(train).samples[:CALIBRATED])
    fused = fuse(loaded.module)

    def ours(precision):
        return lambda batch: hardware.forward(
            fused, torch.from_numpy(batch), precision=precision
        ).numpy()

    ways = {"float32": ours("float32"), "bfloat16": ours("bfloat16"), "int8": int8}
    batches, target = [padded.read(sample) for sample in samples], loaded.header.target
    figures = {"model": model, "decision": str(loaded.header.decision)}
    for name, way in ways.items():
        tables = []
        for sample, batch in zip(samples, batches, strict=True):
            with torch.inference_mode():
                chances = to_probabilities(padded.cut(way(batch)))
            truth = whole(sample.labels())
            kept = HeldOutMap.of(chances, truth, target=target).probabilities
            objects = decided(kept, loaded.header.decision, target=target)
            tables.append(from_labels(truth, objects.astype(np.uint32)))
        scores = score_instances(pool(tables))
        figures[f"seg_{name}"] = scores.seg
        figures[f"average_precision_50_{name}"] = (scores.average_precision_at or {})["0.50"]
    seconds = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, way in ways.items():
                for batch in batches:
                    began = time.perf_counter()
                    way(batch)
                    seconds[name].append(time.perf_counter() - began)
    return figures | {f"seconds_{name}": min(found) for name, found in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("test", metavar="TEST")
    parser.add_argument("models", metavar="MODEL", nargs="+")
    given = parser.parse_args()
    for model in given.models:
        print(json.dumps(compare(model, given.train, given.test)), flush=True)


if __name__ == "__main__":
    main()
