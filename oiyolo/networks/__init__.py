"""Darknet's .cfg and .weights files: read, checked, built and fitted to a dataset."""
