"""Floor 1: what lies on disk or in a bucket; the only rooms that import zarr."""
