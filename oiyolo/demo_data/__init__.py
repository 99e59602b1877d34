"""A small synthetic Open Images: drawn scenes in the official formats, served on loopback."""
