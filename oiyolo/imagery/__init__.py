"""Pixels: is a JPEG whole, which way is up, how large."""
