"""A prediction against its truth."""
