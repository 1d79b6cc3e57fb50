"""Floor 1: ndarray in, ndarray out; no files, no torch, no dask."""
