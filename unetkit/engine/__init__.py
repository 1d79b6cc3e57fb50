"""Floor 3: runs tile jobs; the only rooms that import dask."""
