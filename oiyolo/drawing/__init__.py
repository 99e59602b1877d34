"""Boxes, labels and contact sheets on pictures, with Pillow: what every sheet is drawn by."""
