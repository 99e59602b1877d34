"""Stop a refresh that takes too long as Ctrl-C would, which every stage is made for."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

from oiyolo.core.errors import UnavailableError
from oiyolo.project.value_types import duration_s

if TYPE_CHECKING:
    from collections.abc import Iterator


class Deadline:
    """The time at which a refresh is stopped.

    Args:
        text: ``[refresh] deadline``; ``None`` for no deadline.
        started_s: Start of the refresh, on the monotonic clock.
    """

    def __init__(self, text: str | None, started_s: float) -> None:
        self._text = text
        self._end_s = started_s + duration_s(text) if text else None
        self._has_stopped = False
        self._step = "its start"

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Interrupt the block at the deadline.

        Only the main thread can be interrupted; elsewhere the refresh stops before its next step.

        Raises:
            UnavailableError: The deadline has passed.
        """
        if self._end_s is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, max(self._end_s - time.monotonic(), 1e-3))
        try:
            yield
        except KeyboardInterrupt:
            if self._has_stopped:
                raise self._error() from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def begin(self, step: str) -> None:
        """Note which step begins.

        Raises:
            UnavailableError: The deadline has passed.
        """
        self._step = step
        if self._end_s is not None and time.monotonic() >= self._end_s:
            raise self._error()

    def _interrupt(self, *_: object) -> None:
        self._has_stopped = True
        raise KeyboardInterrupt

    def _error(self) -> UnavailableError:
        return UnavailableError(
            f"the refresh was stopped at its deadline, during {self._step}",
            expected=f"the end within {self._text} ([refresh] deadline)",
            remedy="What was done is kept, and the next refresh continues; allow more time, or run "
            "`oiyolo refresh --deadline ''` once",
        )
