"""Assign images to the splits train, valid and test, in groups."""
