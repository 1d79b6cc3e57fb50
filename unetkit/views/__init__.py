"""Floor 2: what people look at."""
