"""Floor 1: ndarray in, ndarray out; no files, no torch, no dask."""

from __future__ import annotations

from unetkit.kernel_cache import keep_compiled

keep_compiled()
