#!/usr/bin/env bash
# torch 2.13.0: the first operation on any tensor subclass loads DTensor and SymPy, 500 modules in all.
#
# Input: a wrapper subclass of the kind that the documentation of __torch_dispatch__ shows, which holds a
# tensor and computes with it; no process group, no compiler and no symbolic shape is asked for.
# Seen: `import torch` loads neither torch.distributed.tensor nor sympy. The first `lazy + 1` loads both,
# with some 500 modules, and takes about as long as importing torch did; the second takes a fraction of a
# millisecond. Whoever meets it in a short-lived program, such as a command, pays it each time. What is
# caught by __torch_function__ before it comes so far is not concerned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import sys
import time

began = time.perf_counter()
import torch

loading = time.perf_counter() - began


class Held(torch.Tensor):
    @staticmethod
    def __new__(cls, tensor):
        made = torch.Tensor._make_wrapper_subclass(cls, tensor.shape, dtype=tensor.dtype)
        made.tensor = tensor
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        given = [one.tensor if isinstance(one, cls) else one for one in args]
        return func(*given, **(kwargs or {}))


held, before, seconds = Held(torch.ones(3)), set(sys.modules), []
for _ in range(2):
    began = time.perf_counter()
    found = held + 1
    seconds.append(time.perf_counter() - began)
loaded = set(sys.modules) - before
print(f"import torch: {loading:.1f} s; first operation: {seconds[0]:.1f} s and {len(loaded)} modules;"
      f" second: {seconds[1] * 1000:.1f} ms")
assert found.tolist() == [2, 2, 2]
assert {"torch.distributed.tensor", "sympy"} <= loaded, "this has changed"
assert len(loaded) > 100
P
