"""A dataset to look at: contact sheets and charts, and one page that shows them all."""

from __future__ import annotations

from oiyolo.dataset_look.facts import Facts, Pair
from oiyolo.dataset_look.make import look

__all__ = ["Facts", "Pair", "look"]
