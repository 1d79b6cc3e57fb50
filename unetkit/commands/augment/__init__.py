"""Deformed copies of annotated samples."""
