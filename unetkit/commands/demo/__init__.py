"""The whole path on a shipped image."""
