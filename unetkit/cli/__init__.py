"""Floor 4: Typer and rich live here only."""
