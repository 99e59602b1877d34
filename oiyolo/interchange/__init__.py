"""Labelled images in the formats of other tools: readers and writers."""
