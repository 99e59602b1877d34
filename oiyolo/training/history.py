"""Read the events and mAP values of earlier attempts from a run's log."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from oiyolo.training.monitors import IterationStats, MapMeasured
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.training.monitors import TrainingEvent


def events_in(log_path: Path) -> Iterator[TrainingEvent]:
    """Yield the iterations and mAP values of a log in their order; nothing if there is no log."""
    if not log_path.is_file():
        return
    log = read_log(log_path, regions=False)
    columns = [log.column(name).tolist() for name in ("line", "iteration", "loss", "avg_loss")]
    iterations = ((row[0], IterationStats(*row[1:])) for row in zip(*columns, strict=True))
    maps = ((point.line, MapMeasured(point.map)) for point in log.map_points)
    in_order: Iterator[tuple[int, TrainingEvent]] = heapq.merge(
        iterations, maps, key=lambda row: row[0]
    )
    for _, event in in_order:
        yield event


def map_by_iteration(log_path: Path) -> dict[int, float]:
    """Return the mAP values in a log by iteration; of several at one iteration, the last."""
    if not log_path.is_file():
        return {}
    points = read_log(log_path, regions=False).map_points
    return {point.iteration: point.map for point in points}
