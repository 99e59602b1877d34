"""What an earlier part of a training told, out of its log."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from oiyolo.training.monitors import Measured, Point
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.training.monitors import Fact


def facts_of(log_path: Path) -> Iterator[Fact]:
    """Give the iterations and mAPs of a log, in its order; none where there is no log yet."""
    if not log_path.is_file():
        return
    log = read_log(log_path, regions=False)
    columns = [log.column(name).tolist() for name in ("line", "iteration", "loss", "avg_loss")]
    points = ((row[0], Point(*row[1:])) for row in zip(*columns, strict=True))
    measured = ((point.line, Measured(point.map)) for point in log.map_points)
    in_order: Iterator[tuple[int, Fact]] = heapq.merge(points, measured, key=lambda row: row[0])
    for _, fact in in_order:
        yield fact


def measured_in(log_path: Path) -> dict[int, float]:
    """Give the mAP of each iteration after which a log has one; the later one of two."""
    if not log_path.is_file():
        return {}
    points = read_log(log_path, regions=False).map_points
    return {point.iteration: point.map for point in points}
