"""Floor 3: one file a command, one function of the same name."""
