"""A small Open Images of drawn scenes, in the official formats, served on loopback."""
