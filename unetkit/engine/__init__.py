"""Floor 2: runs tile jobs; the only rooms that import dask."""
