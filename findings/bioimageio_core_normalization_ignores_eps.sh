#!/usr/bin/env bash
# bioimageio.core 0.11.0: normalization adds 1e-6 to what it divides by, whatever eps the model states.
#
# Input: a float32 image between 0 and 1e-6, such as phase in metres, and the steps scale_range and
# zero_mean_unit_variance of a model description, each with eps 1e-12.
# Seen: the specification says out = (tensor - lower) / (upper - lower + eps), which is 1 at the brightest
# pixel, and a standard deviation of 1 for the other. The library makes them 0.5 and 0.23, as with its own
# default of 1e-6: the description's eps is read, kept and not used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q bioimageio.core==0.11.0 "pydantic==2.13.5" numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import numpy as np
from bioimageio.core import Sample, Tensor
from bioimageio.core.proc_ops import ScaleRange, ZeroMeanUnitVariance
from bioimageio.core.stat_calculators import compute_measures
from bioimageio.spec.model import v0_5

ramp = np.linspace(0, 1e-6, 64, dtype=np.float32).reshape(1, 1, 8, 8)


def scaled(operator, description):
    image = Tensor(ramp.copy(), dims=("batch", "channel", "y", "x"))
    sample = Sample(members={"image": image}, stat={}, id="ramp")
    step = operator.from_proc_descr(description, "image")
    sample.stat = compute_measures(step.required_measures, [sample])
    step(sample)
    return sample.members["image"].data.to_numpy()


axes = ["y", "x"]
by_range = scaled(ScaleRange, v0_5.ScaleRangeDescr(
    kwargs=v0_5.ScaleRangeKwargs(axes=axes, min_percentile=0, max_percentile=100, eps=1e-12)))
by_spread = scaled(ZeroMeanUnitVariance, v0_5.ZeroMeanUnitVarianceDescr(
    kwargs=v0_5.ZeroMeanUnitVarianceKwargs(axes=axes, eps=1e-12)))
print(f"brightest pixel by scale_range: {by_range.max():.3f}, where 1.000 is asked for")
print(f"standard deviation by zero_mean_unit_variance: {by_spread.std():.3f}")
assert abs(by_range.max() - 0.5) < 1e-3, "this has changed"
assert by_spread.std() < 0.3, "this has changed"
P
