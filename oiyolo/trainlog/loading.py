"""Determine from a log whether loading images holds training back.

Darknet loads the images of an iteration while it trains the previous one. pjreddie's and AlexeyAB's
forks print how long they then waited for the images (``Loaded: 0.35 seconds``), which the time of
an iteration does not include. hank-ai's prints how long loading took; training waits only as long
as that exceeds its own time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from oiyolo.trainlog.tables import TrainLog

MIN_SHARE: Final = 0.2
"""Share of the time above which loading images holds training back."""

_MIN_ITERATIONS: Final = 10
_MAX_ITERATIONS: Final = 1000
_REMEDY: Final = (
    "Give darknet more CPU cores and keep the images on a local disk; AlexeyAB's darknet also "
    "augments images faster if it is built with OpenCV"
)


@dataclass(frozen=True)
class Loading:
    """How long the latest iterations waited for their images.

    Attributes:
        iterations: Number of iterations.
        wait_s: Mean time that an iteration waited, in seconds.
        train_s: Mean time that it then took, in seconds.
    """

    iterations: int
    wait_s: float
    train_s: float

    @property
    def share(self) -> float:
        """Share of the time that was spent waiting, 0 to 1."""
        return self.wait_s / (self.wait_s + self.train_s)

    @property
    def is_slow(self) -> bool:
        """Whether loading images holds training back."""
        return self.share >= MIN_SHARE

    def as_dict(self) -> dict[str, Any]:
        """Return the figures and the message as JSON-compatible values."""
        return {
            "iterations": self.iterations,
            "wait_s": self.wait_s,
            "train_s": self.train_s,
            "share": self.share,
            "message": str(self),
        }

    def __str__(self) -> str:
        """Return what holds training back and what to do; empty if loading is fast enough."""
        if not self.is_slow:
            return ""
        return (
            f"loading images holds training back: {self.wait_s:.2g} of the "
            f"{self.wait_s + self.train_s:.2g} s of an iteration ({self.share:.0%}) are spent "
            f"waiting for them. {_REMEDY}"
        )


def measure_loading(log: TrainLog) -> Loading | None:
    """Return how long the latest iterations of a log waited; ``None`` if it does not say so.

    Only the latest run counts, without its first iteration, before which nothing could be loaded.
    """
    run, seconds, wait = log.column("run"), log.column("seconds"), log.load_waits()
    if not len(run):
        return None
    rows = np.flatnonzero(run == run[-1])[1:][-_MAX_ITERATIONS:]
    seconds, wait = seconds[rows], np.maximum(wait[rows], 0)
    is_known = np.isfinite(wait) & np.isfinite(seconds) & (seconds > 0)
    if np.count_nonzero(is_known) < _MIN_ITERATIONS:
        return None
    return Loading(
        iterations=int(np.count_nonzero(is_known)),
        wait_s=float(wait[is_known].mean()),
        train_s=float(seconds[is_known].mean()),
    )
