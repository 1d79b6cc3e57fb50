"""Floor 4: one package or file a command, one function of the same name; none uses another."""
