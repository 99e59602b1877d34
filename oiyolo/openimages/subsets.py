"""Open Images' own division of its images, and what its parts are to a detector."""

from __future__ import annotations

from typing import Final

SPLIT_OF_SUBSET: Final = {"train": "train", "validation": "valid", "test": "test"}
"""Which of our splits an official subset is, where the subsets are the splits."""
