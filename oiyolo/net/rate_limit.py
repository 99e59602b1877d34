"""Adaptive limit on concurrent requests to one site; pure: the caller passes the time in.

The limit adapts to what the site sustains, as a TCP congestion window does (Chiu and Jain, 1989:
additive increase, multiplicative decrease). It doubles every round trip at first (slow start), and
rises by an eighth later, while more concurrency brings more responses per second. It is halved when
the site is overloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROUND_S: Final = 0.1
"""During slow start, responses are counted for at least this long."""
EPOCH_S: Final = 0.5
"""After slow start, responses are counted for at least this long."""
_ROUND_GROWTH: Final = 1.25
"""Slow start lasts while a doubled window raises the response rate by this factor (as in BBR)."""
_EPOCH_GROWTH: Final = 1.05
"""A wider window is kept if it raises the response rate by this factor."""
_FLAT_ROUNDS: Final = 3
"""Slow start ends after this many rounds without growth; one may be slow for another reason."""
_FLAT_EPOCHS: Final = 6
"""After this many epochs without growth a wider window is tried: there may be free capacity."""
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
    """

    max_concurrency: int
    initial_concurrency: int
    per_second: float = 0.0


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
        self._settled_window, self._rate, self._flat_count = self.window, 0.0, 0
        self._count_start_s, self._responses, self._to_skip = now_s, 0, 0
        self._window_was_full = False
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
        """Record an outcome other than an overload; adjust the window when enough are counted."""
        self._overload_share *= _DECAY
        if self._to_skip:
            self._to_skip -= 1
            self._count_start_s = now_s
            return
        self._responses += 1
        elapsed_s = now_s - self._count_start_s
        min_s = ROUND_S if self._is_slow_start else EPOCH_S
        if elapsed_s < min_s or self._responses < self.window:
            return
        previous_window = self.window
        if self._window_was_full:  # otherwise the rate says nothing about the window
            self._adjust(self._responses / elapsed_s)
        self._start_count(now_s, to_skip=previous_window if self.window != previous_window else 0)

    def on_overload(self, now_s: float) -> None:
        """Record a 429, a 503 or a timeout; halve the window if they are frequent."""
        self._overload_share = self._overload_share * _DECAY + 1.0 - _DECAY
        if (
            self._overload_share < _OVERLOAD_SHARE
            or now_s - self._last_halved_s < _MIN_HALVING_INTERVAL_S
        ):
            return
        self._last_halved_s = now_s
        self._start_count(now_s, to_skip=self.window)
        self.window = max(1, self.window // 2)
        self._is_slow_start = False
        self._settle(0.0)

    def pause_for(self, now_s: float, pause_s: float) -> None:
        """Start no request for the pause that the site asked for."""
        self._paused_until_s = max(self._paused_until_s, now_s + pause_s)

    def _start_count(self, now_s: float, to_skip: int) -> None:
        """Start a round or epoch, after the responses to requests sent under another window."""
        self._count_start_s, self._responses, self._to_skip = now_s, 0, to_skip
        self._window_was_full = False

    def _adjust(self, rate: float) -> None:
        if rate > self._rate * (_ROUND_GROWTH if self._is_slow_start else _EPOCH_GROWTH):
            self._settle(rate)
            self._widen()
            return
        self._flat_count += 1
        if self._is_slow_start:
            # The last doubling stays: bursts after a stall may hide its growth.
            if self._flat_count >= _FLAT_ROUNDS:
                self._is_slow_start = False
                self._settle(rate)
        elif self.window > self._settled_window:
            self.window = self._settled_window
        else:
            self._rate = rate
            if self._flat_count >= _FLAT_EPOCHS:
                self._flat_count = 0
                self._widen()

    def _settle(self, rate: float) -> None:
        """Compare later rates with this one, at the present window."""
        self._settled_window, self._rate, self._flat_count = self.window, rate, 0

    def _widen(self) -> None:
        step = self.window if self._is_slow_start else max(1, self.window // _STEP_DIVISOR)
        self.window = min(self.limit.max_concurrency, self.window + step)
