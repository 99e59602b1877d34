"""Score a detector: matching, average precision in three definitions, error panels."""
