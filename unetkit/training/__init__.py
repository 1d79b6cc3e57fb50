"""Floor 2: learning from samples."""
