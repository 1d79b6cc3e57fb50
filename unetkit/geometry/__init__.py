"""Floor 0: plain integers, standard library only."""
