"""A fake clock for the pauses between attempts."""

from __future__ import annotations

import threading


class RecordedPauses(threading.Event):
    """A stop event whose waits take no time.

    Args:
        stops_in_pause: Whether the event is set during the first pause.

    Attributes:
        pauses_s: The length of each pause.
    """

    def __init__(self, *, stops_in_pause: bool = False) -> None:
        super().__init__()
        self.pauses_s: list[float] = []
        self._stops_in_pause = stops_in_pause

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses_s.append(timeout)
        if self._stops_in_pause:
            self.set()
        return self.is_set()
