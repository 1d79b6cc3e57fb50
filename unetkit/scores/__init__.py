"""Floor 1: ndarray in, ndarray out; no files, no torch, no dask."""

from unetkit.kernel_cache import keep_compiled

keep_compiled()
