"""Assign images to train, valid and test: pure decisions about groups of images."""
