"""The iterations and mAP values of a run so far, before and after a resume."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from oiyolo.training.monitors import IterationStats, MapMeasured, WeightsScored
from oiyolo.trainlog.follow import LogFollower
from oiyolo.trainlog.scores import read_scores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.training.monitors import TrainingEvent
    from oiyolo.trainlog.tables import TrainLog


def scores_in(path: Path) -> list[WeightsScored]:
    """Return the scores in a run's ``checkpoint_scores.json``, by iteration; none if missing."""
    return [WeightsScored(score.iteration, score.valid_map50) for score in read_scores(path)]


class TrainingHistory:
    """What a run's log says about its attempts so far; each byte of the log is read once."""

    def __init__(self, log_path: Path) -> None:
        self._follower = LogFollower(log_path, regions=False)

    def events(self) -> Iterator[TrainingEvent]:
        """Yield the iterations and mAP values in their order; nothing if there is no log."""
        log = self._read()
        columns = [log.column(name).tolist() for name in ("line", "iteration", "loss", "avg_loss")]
        iterations = ((row[0], IterationStats(*row[1:])) for row in zip(*columns, strict=True))
        maps = ((point.line, MapMeasured(point.map)) for point in log.map_points)
        in_order: Iterator[tuple[int, TrainingEvent]] = heapq.merge(
            iterations, maps, key=lambda row: row[0]
        )
        return (event for _, event in in_order)

    def map_by_iteration(self) -> dict[int, float]:
        """Return the mAP values by iteration; of several at one iteration, the last."""
        return {point.iteration: point.map for point in self._read().map_points}

    def _read(self) -> TrainLog:
        self._follower.update()
        return self._follower.log
