"""Adaptive limit on concurrent requests to one site; pure: the caller passes the time in.

The limit adapts to what the site sustains, as a TCP congestion window does (Chiu and Jain, 1989:
additive increase, multiplicative decrease). It rises while more concurrency brings more responses
per second, and it is halved when the site is overloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EPOCH_S: Final = 0.5
"""Responses are counted for at least this long before the window is adjusted."""
_MIN_GROWTH: Final = 1.05
"""A response rate counts as higher if it exceeds the best one by this factor."""
_STEADY_EPOCHS: Final = 12
"""After this many epochs without growth the window may rise again: there may be free capacity."""
_MIN_HALVING_INTERVAL_S: Final = 1.0
"""Requests already in flight fail together; within this time they count as one overload."""
_STEP_DIVISOR: Final = 8
_DECAY: Final = 0.95
_OVERLOAD_SHARE: Final = 0.25
"""A few overload responses among the last twenty or so may concern just those images."""


@dataclass(frozen=True)
class RateLimit:
    """Upper limits on the requests to a site.

    Attributes:
        max_concurrency: Maximum number of concurrent requests.
        initial_concurrency: Number of concurrent requests at the start.
        per_second: Maximum number of requests started per second; 0 sets no limit.
        max_wait_s: Longest pause requested by the site (``Retry-After``) that is waited for;
            during a longer one, requests to the site fail at once and can be retried later.
    """

    max_concurrency: int
    initial_concurrency: int
    per_second: float = 0.0
    max_wait_s: float = 300.0


class AimdLimiter:
    """Additive-increase, multiplicative-decrease limiter of the requests to one site.

    All times are in seconds of a monotonic clock.

    Args:
        limit: Upper limits of the site.
        now_s: Current time.

    Attributes:
        limit: Upper limits of the site.
        window: Concurrent requests allowed now.
    """

    def __init__(self, limit: RateLimit, now_s: float) -> None:
        self.limit = limit
        self.window = max(1, min(limit.initial_concurrency, limit.max_concurrency))
        self._is_slow_start = True
        self._epoch_start_s, self._epoch_responses, self._window_was_full = now_s, 0, False
        self._best_rate = 0.0
        self._steady_epochs = 0
        self._overload_share = 0.0
        self._last_halved_s = float("-inf")
        self._paused_until_s = float("-inf")
        self._next_start_s = now_s

    def delay_s(self, now_s: float) -> float:
        """Return how long the next request must wait, regardless of the window."""
        return max(0.0, self._paused_until_s - now_s, self._next_start_s - now_s)

    def pause_left_s(self, now_s: float) -> float:
        """Return the rest of the pause that the site asked for; 0 if there is none."""
        return max(0.0, self._paused_until_s - now_s)

    def on_start(self, now_s: float, in_flight: int) -> None:
        """Record the start of a request; ``in_flight`` counts it and all others."""
        self._window_was_full = self._window_was_full or in_flight >= self.window
        if self.limit.per_second:
            self._next_start_s = max(self._next_start_s, now_s) + 1.0 / self.limit.per_second

    def on_response(self, now_s: float) -> None:
        """Record an outcome other than an overload; adjust the window at the end of an epoch."""
        self._epoch_responses += 1
        self._overload_share *= _DECAY
        elapsed_s = now_s - self._epoch_start_s
        if elapsed_s < EPOCH_S or self._epoch_responses < self.window:
            return
        self._adjust(self._epoch_responses / elapsed_s)
        self._epoch_start_s, self._epoch_responses, self._window_was_full = now_s, 0, False

    def on_overload(self, now_s: float) -> None:
        """Record a 429, a 503 or a timeout; halve the window if they are frequent."""
        self._overload_share = self._overload_share * _DECAY + 1.0 - _DECAY
        if (
            self._overload_share < _OVERLOAD_SHARE
            or now_s - self._last_halved_s < _MIN_HALVING_INTERVAL_S
        ):
            return
        self._last_halved_s = now_s
        self.window = max(1, self.window // 2)
        self._is_slow_start = False
        self._best_rate, self._steady_epochs = 0.0, 0
        self._epoch_start_s, self._epoch_responses, self._window_was_full = now_s, 0, False

    def pause_for(self, now_s: float, pause_s: float) -> None:
        """Start no request for the pause that the site asked for."""
        self._paused_until_s = max(self._paused_until_s, now_s + pause_s)

    def _adjust(self, rate: float) -> None:
        if not self._window_was_full:
            return  # too few requests to fill the window, so the rate says nothing about it
        if rate > self._best_rate * _MIN_GROWTH:
            self._best_rate, self._steady_epochs = rate, 0
            step = self.window if self._is_slow_start else self.window // _STEP_DIVISOR
            self.window = min(self.limit.max_concurrency, self.window + max(1, step))
            return
        self._is_slow_start = False
        self._steady_epochs += 1
        if self._steady_epochs >= _STEADY_EPOCHS:
            self._best_rate, self._steady_epochs = rate / _MIN_GROWTH / _MIN_GROWTH, 0
