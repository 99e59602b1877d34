"""Suspected label errors: what a detector contradicts, and the decisions that people make."""
