"""How many requests a site is sent at once, and how quickly: pure, with the clock handed in.

The number adapts to what the site sustains, as TCP's does to a line: it rises while that brings
more answers a second, and is halved when the site says that it is too much (Chiu and Jain, 1989:
additive increase, multiplicative decrease).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EPOCH_S: Final = 0.5
"""So long is counted before it is decided again."""
_GREW: Final = 1.05
_HELD_EPOCHS: Final = 12
"""After so many without a rise another one is tried: the line may be free by now."""
_HALVED_EVERY_S: Final = 1.0
"""What was under way when a site complained may complain too; that is one complaint."""
_STEP_SHARE: Final = 8
_REMEMBERED: Final = 0.95
_TROUBLED_SHARE: Final = 0.25
"""A few complaints among the last twenty or so answers may be about those few images."""


@dataclass(frozen=True)
class Manners:
    """What a site is asked at most.

    Attributes:
        most: Requests at once, at most.
        first: Requests at once in the beginning.
        per_second: Requests begun in a second; 0 sets no limit.
        longest_wait_s: A pause that the site asks for and that is longer is not waited for: what
            needs the site fails for now.
    """

    most: int
    first: int
    per_second: float = 0.0
    longest_wait_s: float = 300.0


class Pace:
    """How one site is asked; times are of a clock that never goes back, in seconds.

    Attributes:
        window: So many requests may be under way.
    """

    def __init__(self, manners: Manners, now_s: float) -> None:
        self.manners = manners
        self.window = max(1, min(manners.first, manners.most))
        self._rises_quickly = True
        self._begun_s, self._done, self._was_full = now_s, 0, False
        self._best_rate = 0.0
        self._held = 0
        self._trouble = 0.0
        self._halved_s = float("-inf")
        self._closed_until_s = float("-inf")
        self._next_s = now_s

    def delay_s(self, now_s: float) -> float:
        """Give how long the next request has to wait, whatever is under way."""
        return max(0.0, self._closed_until_s - now_s, self._next_s - now_s)

    def closed_s(self, now_s: float) -> float:
        """Give how long the site wants to be left alone; 0 if it does not."""
        return max(0.0, self._closed_until_s - now_s)

    def began(self, now_s: float, under_way: int) -> None:
        """Note a request, and how many there are now."""
        self._was_full = self._was_full or under_way >= self.window
        if self.manners.per_second:
            self._next_s = max(self._next_s, now_s) + 1.0 / self.manners.per_second

    def answered(self, now_s: float) -> None:
        """Note an answer that is no complaint; decide when enough have come."""
        self._done += 1
        self._trouble *= _REMEMBERED
        passed_s = now_s - self._begun_s
        if passed_s < EPOCH_S or self._done < self.window:
            return
        self._decide(self._done / passed_s)
        self._begun_s, self._done, self._was_full = now_s, 0, False

    def complained(self, now_s: float) -> None:
        """Note a 429, a 503 or a time-out: half as many from now on, if there are several."""
        self._trouble = self._trouble * _REMEMBERED + 1.0 - _REMEMBERED
        if self._trouble < _TROUBLED_SHARE or now_s - self._halved_s < _HALVED_EVERY_S:
            return
        self._halved_s = now_s
        self.window = max(1, self.window // 2)
        self._rises_quickly = False
        self._best_rate, self._held = 0.0, 0
        self._begun_s, self._done, self._was_full = now_s, 0, False

    def close_for(self, now_s: float, pause_s: float) -> None:
        """Leave the site alone for as long as it asked."""
        self._closed_until_s = max(self._closed_until_s, now_s + pause_s)

    def _decide(self, rate: float) -> None:
        if not self._was_full:
            return  # there was not enough to ask, so this tells nothing
        if rate > self._best_rate * _GREW:
            self._best_rate, self._held = rate, 0
            step = self.window if self._rises_quickly else self.window // _STEP_SHARE
            self.window = min(self.manners.most, self.window + max(1, step))
            return
        self._rises_quickly = False
        self._held += 1
        if self._held >= _HELD_EPOCHS:
            self._best_rate, self._held = rate / _GREW / _GREW, 0
