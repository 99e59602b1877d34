"""Draw boxes, labels and contact sheets with Pillow."""
