"""Decode, orient, resize and hash images, and write YOLO labels."""
