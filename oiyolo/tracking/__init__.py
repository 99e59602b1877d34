"""Experiment trackers: event files of a run for TensorBoard."""
