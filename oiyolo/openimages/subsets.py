"""Open Images' official subsets, and the splits of a dataset that correspond to them."""

from __future__ import annotations

from typing import Final

SPLIT_OF_SUBSET: Final = {"train": "train", "validation": "valid", "test": "test"}
"""Split of each official subset's images in a dataset that keeps the official subsets."""
