"""Errors, results, files, locks, child processes, progress and staleness."""
