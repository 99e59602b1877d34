"""Estimate the downloads, disk space, time and cost of a run, and compare them with the outcome."""
