"""Evaluate a detector: matching, three definitions of average precision, pictures of errors."""
