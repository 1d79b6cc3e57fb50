"""Floor 1: torch modules, each with a size contract."""
