"""Time the classic network alone against OpenVINO's of it; the last line is JSON.

Run ``python tests/benchmarks/network.py`` with `openvino` installed as well. Both compute one
input of 572 and of 1212 pixels a side in the same precision, in turn, on the same threads; OpenVINO
is asked for the least latency of a fixed shape. A ratio is our time as a share of its time. With
``--precision int8`` ours, in bfloat16, stands beside OpenVINO's of weights and features of 8 bits,
as `nncf` finds them from eight images of noise like the one that is timed.
"""

import argparse
import json
from functools import partial
from statistics import geometric_mean

import torch
from measuring import apart, fastest

from unetkit.models import hardware, unet
from unetkit.models.fusion import fuse

# ruff: noqa: T201 - a benchmark prints


WIDTHS, INPUTS = (16, 32, 64), (572, 1212)
# What ours computes in, and what OpenVINO is asked for; what is quantized it computes in 8 bits.
PRECISIONS = {"bfloat16": ("bfloat16", "bf16"), "float32": ("float32", "f32")}
PRECISIONS["int8"] = PRECISIONS["bfloat16"]
CALIBRATED = 8


def compare(width, size, precision, rounds):
    """Return the best seconds of each, and how far their logits lie apart."""
    import openvino

    hardware.tune_allocator()
    torch.manual_seed(0)
    module = unet.build(in_channels=1, classes=2, width=width).eval()
    image = torch.rand(1, 1, size, size)
    example = torch.rand(1, 1, *2 * [module.contract.minimum])
    # With gradients a crop would be a function that torch can't trace.
    with torch.no_grad():
        converted = openvino.convert_model(module, example_input=example)
    converted.reshape([1, 1, size, size])
    own, asked = PRECISIONS[precision]
    if precision == "int8":
        import nncf

        some = [torch.rand(1, 1, size, size).numpy() for _ in range(CALIBRATED)]
        converted = nncf.quantize(converted, nncf.Dataset(some), subset_size=CALIBRATED)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": asked,
        "INFERENCE_NUM_THREADS": hardware.thread_count(),
    }
    request = openvino.Core().compile_model(converted, "CPU", hints).create_infer_request()
    fused, pixels = fuse(module), image.numpy()
    with torch.inference_mode():
        peer = partial(request.infer, {0: pixels})
        ours = partial(hardware.forward, fused, image, precision=own)
        seconds, openvinos = fastest(ours, peer, rounds=rounds, warm=2)
        apart = abs(ours().numpy() - next(iter(peer().values()))).max()
    return {"seconds": seconds, "openvino_seconds": openvinos, "apart": float(apart)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(compare(*given.one, given.precision, given.rounds)))
        return
    figures, common = {}, ("--rounds", str(given.rounds), "--precision", given.precision)
    for width in WIDTHS:
        for size in INPUTS:
            found = apart(__file__, "--one", str(width), str(size), *common)
            figures[f"ratio_{width}_{size}"] = found["seconds"] / found["openvino_seconds"]
    figures["geometric_mean"] = geometric_mean(figures.values())
    print(json.dumps({"precision": given.precision, **figures}))


if __name__ == "__main__":
    main()
