"""Scores and their intervals, in JSON and in words; an undefined one is NaN, and null in JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Interval = tuple[float, float]
"""The lower and the upper bound of a 95 % interval; NaN if it is undefined."""
UNDEFINED: Interval = (math.nan, math.nan)

HEADLINES = (
    ("mAP@0.5", "map50"),
    ("mAP@0.5:0.95", "map50_95"),
    ("Open Images mAP", "openimages_map"),
)
"""Label and key of each headline score."""
SCORES = tuple(key for _, key in HEADLINES)
"""Keys of the headline scores, as in ``evaluation.json``."""


def to_json(value: float) -> float | None:
    """Return a number for JSON."""
    return None if math.isnan(value) else value


def from_json(value: float | None) -> float:
    """Return a number from JSON."""
    return math.nan if value is None else value


def interval_to_json(interval: Interval) -> list[float] | None:
    """Return an interval for JSON."""
    return None if math.isnan(interval[0]) else list(interval)


def interval_from_json(bounds: Sequence[float] | None) -> Interval:
    """Return an interval from JSON."""
    return UNDEFINED if bounds is None else (bounds[0], bounds[1])


def format_figure(value: float | str) -> str:
    """Format a cell: integers as they are, floats with three digits, NaN as a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def format_interval(interval: Interval) -> str:
    """Format an interval: "0.512 to 0.634", a dash if it is undefined."""
    low, high = interval
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
