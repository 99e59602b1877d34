"""Decide whether a run overfits, from the scores of its checkpoints.

A run overfits if its scores on the valid images have fallen while those on train images have not.
A score has two kinds of noise. The bootstrap interval has that of the sample of images, which
changes slowly from one checkpoint to the next. The weights themselves also go up and down. Scores
are therefore compared by medians over windows of checkpoints: a sixth of them, at least 3.

There is an alarm if the *recent* median of valid (over the last window) has fallen from the
*highest* one (of all windows before it) by more than each of these:

- 2 points;
- 1.25 times the half width of the interval, so a small valid split, whose interval is wide, needs a
  large fall;
- 4 standard errors of the difference, from how much each score differs from its two neighbours;
- 3 times the largest fall that was noise: of train, or of valid before its highest median;

and if no score of the last window is as high as the highest median, and train has not fallen by
more than a tenth of the fall of valid. With fewer than 8 checkpoints there is no alarm.

Rates in simulated runs, each with 12, 30 or 60 checkpoints and assessed after every one, whose
scores wander by a standard deviation of 0.005 to 0.03 (autocorrelation up to 0.5), and whose
intervals have half widths of 0.01 to 0.15: of runs that rise and level off, 0.5 % ever raise an
alarm (3.3 % with the worst noise); of runs on a plateau from the first checkpoint on, 1.7 %
(5.3 %).
Of runs with 30 or more checkpoints in which valid falls steadily by 0.08, 94 % do with the least
noise and the narrowest interval, and hardly any with the widest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from oiyolo.trainlog.scores import CheckpointScore

    Values = npt.NDArray[np.float64]

MIN_SCORES: Final = 8
MIN_FALL: Final = 0.02
_WINDOW_SHARE: Final = 6
_WINDOW_MIN: Final = 3
_INTERVAL_RATIO: Final = 1.25
_ERRORS: Final = 4.0
_FALL_RATIO: Final = 3.0
_TRAIN_SHARE: Final = 0.1
_DEVIATION: Final = 1.4826  # standard deviation over median absolute deviation (normal)
_MEDIAN_ERROR: Final = 1.2533  # standard error of a median over that of a mean


class Overfitting(NamedTuple):
    """An alarm: the scores of valid have fallen, those of train have not.

    Attributes:
        since: Iteration of the last checkpoint that reached the highest median of valid.
        valid_before: The highest median of valid, 0 to 1.
        valid: The recent median of valid.
        train: The recent median of train.
    """

    since: int
    valid_before: float
    valid: float
    train: float

    def __str__(self) -> str:
        return (
            f"overfitting since iteration {self.since:,}: train {self.train:.2f}, "
            f"valid fell from {self.valid_before:.2f} to {self.valid:.2f}"
        )


def find_overfitting(scores: Sequence[CheckpointScore]) -> Overfitting | None:
    """Return the alarm that some scores raise; ``None`` if they raise none.

    Args:
        scores: Scores by iteration; those without an interval or without train are left out.
    """
    complete = [
        (s.iteration, s.valid_map50, s.train_map50, *s.valid_map50_interval) for s in scores
    ]
    table = np.array([row for row in complete if all(map(math.isfinite, row))], dtype=np.float64)
    if len(table) < MIN_SCORES:
        return None
    iteration, valid, train, low, high = table.T
    window = max(_WINDOW_MIN, len(table) // _WINDOW_SHARE)
    valid_medians, train_medians = _medians(valid, window), _medians(train, window)
    earlier = valid_medians[:-window]  # of windows that have no score in common with the last
    best = len(earlier) - 1 - int(np.argmax(earlier[::-1]))
    level, recent = float(earlier[best]), float(valid_medians[-1])
    fall = level - recent
    width = np.concatenate([(high - low)[best : best + window], (high - low)[-window:]])
    is_beyond_noise = fall > max(
        MIN_FALL,
        _INTERVAL_RATIO * float(np.median(width)) / 2,
        _ERRORS * _error(valid, window),
        _FALL_RATIO * max(_largest_fall(train_medians), _largest_fall(earlier[: best + 1])),
    )
    train_fall = float(train_medians[best] - train_medians[-1])
    if not is_beyond_noise or valid[-window:].max() >= level or train_fall > _TRAIN_SHARE * fall:
        return None
    since = int(iteration[np.flatnonzero(valid >= level)[-1]])
    return Overfitting(since, level, recent, float(train_medians[-1]))


def _medians(values: Values, window: int) -> Values:
    """Return the median over each window of consecutive values, shape (n - window + 1,)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    medians: Values = np.median(windows, axis=1)
    return medians


def _error(values: Values, window: int) -> float:
    """Return the standard error of the difference of two medians over windows."""
    residuals = values[1:-1] - (values[:-2] + values[2:]) / 2  # 1.5 times the variance of a value
    deviation = _DEVIATION * float(np.median(np.abs(residuals))) / math.sqrt(1.5)
    return _MEDIAN_ERROR * deviation * math.sqrt(2 / window)


def _largest_fall(values: Values) -> float:
    """Return the largest difference between a value and an earlier, higher one."""
    return float(np.max(np.maximum.accumulate(values) - values))
