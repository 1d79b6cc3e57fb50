"""A dataset into a model file."""
