"""Image files into Zarr."""
