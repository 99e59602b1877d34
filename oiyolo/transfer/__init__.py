"""Whole folders to and from a bucket: what changed, in parallel, verified on both sides."""
