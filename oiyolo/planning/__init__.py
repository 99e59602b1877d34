"""Estimate what a run will download, store, take and cost; compare it with what happened."""
