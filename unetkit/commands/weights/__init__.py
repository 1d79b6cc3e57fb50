"""Weight maps of labels."""
