"""The scores of a run's checkpoints, from ``checkpoint_scores.json``."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from oiyolo.core import records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger("oiyolo")


class CheckpointScore(NamedTuple):
    """The mean average precision of a checkpoint at IOU 0.5, from 0 to 1; NaN if there is none.

    Attributes:
        iteration: Iteration of the checkpoint.
        valid_map50: mAP on the valid images.
        train_map50: mAP on a fixed sample of the train images.
        valid_map50_interval: Lower and upper end of the 95 % interval of ``valid_map50``.
    """

    iteration: int
    valid_map50: float
    train_map50: float
    valid_map50_interval: tuple[float, float]


class ScoreFacts(NamedTuple):
    """The last and the best scores of a run.

    Attributes:
        last: The scores of the last checkpoint.
        best: The scores of the checkpoint with the highest ``valid_map50``; of equals, the latest.
        scored: Number of checkpoints.
    """

    last: CheckpointScore
    best: CheckpointScore
    scored: int

    def __str__(self) -> str:
        text = f"valid mAP {self.last.valid_map50:.3f}"
        is_best = self.last == self.best
        if is_best and self.scored > 1:
            text += " (the best so far)"
        if math.isfinite(self.last.train_map50):
            text += f", train {self.last.train_map50:.3f}"
        return text if is_best else f"{text} ({self.best_text})"

    @property
    def best_text(self) -> str:
        """The checkpoint with the best weights, and its score."""
        best = self.best
        return f"best weights: iteration {best.iteration:,} with valid mAP {best.valid_map50:.3f}"


def score_facts(scores: Sequence[CheckpointScore]) -> ScoreFacts | None:
    """Return the last and the best of some scores by iteration; ``None`` if there are none."""
    scored = [score for score in scores if math.isfinite(score.valid_map50)]
    if not scored:
        return None
    best = max(scored, key=lambda score: (score.valid_map50, score.iteration))
    return ScoreFacts(scored[-1], best, len(scored))


class _ScoreForm(TypedDict):
    iteration: int
    valid_map50: float
    valid_map50_interval: list[float] | None
    train_map50: float | None


class _ScoresForm(TypedDict):
    checkpoints: list[_ScoreForm]


def read_scores(path: Path) -> tuple[CheckpointScore, ...]:
    """Return the scores in a ``checkpoint_scores.json``, by iteration.

    Returns:
        No scores if the file does not exist or, with a warning, if it is damaged: the next scores
        replace it.

    Raises:
        OSError: The file cannot be read.
    """
    content = records.find_intact(path, _ScoresForm)
    try:
        entries = [] if content is None else [_score(entry) for entry in content["checkpoints"]]
    except ValueError:  # an interval of other than two numbers
        content, entries = None, []
    if content is None and path.exists():
        _log.warning("%s is damaged; its scores are left out", path)
    return tuple(sorted(entries, key=lambda score: score.iteration))


def _score(entry: Mapping[str, Any]) -> CheckpointScore:
    low, high = entry["valid_map50_interval"] or (math.nan, math.nan)
    train = entry["train_map50"]
    return CheckpointScore(
        entry["iteration"],
        entry["valid_map50"],
        math.nan if train is None else train,
        (low, high),
    )
