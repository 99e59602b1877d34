"""Retry policy: timeouts, pauses between attempts, and which HTTP statuses to retry; pure.

The client for large files and the client pool for many small ones share it.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from oiyolo import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

USER_AGENT: Final = f"oiyolo/{__version__}"
MAX_REDIRECTS: Final = 5
_MAX_PAUSE_S: Final = 60.0
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
_FIRST_SERVER_ERROR: Final = 500
_PERMANENT_SERVER_ERRORS: Final = frozenset({501, 505})
"""Not Implemented and HTTP Version Not Supported: a retry would get the same response."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is sent, and how long it may take, before it counts as failed.

    Attributes:
        max_attempts: Maximum number of attempts, including the first.
        first_pause_s: Pause after the first failure.
        connect_timeout_s: Time to establish a connection.
        read_timeout_s: Time without any data from the server.
        total_timeout_s: Time for a small body: all attempts together, without the time that they
            wait in a site's queue.
    """

    max_attempts: int = 4
    first_pause_s: float = 0.5
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    total_timeout_s: float = 120.0

    def pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Return the pause after a failed attempt: exponential backoff with jitter.

        Args:
            attempt: Number of the failed attempt, from 1.
            retry_after_s: Pause that the server asks for (``Retry-After``), used instead; ``None``
                if it asks for none.
        """
        if retry_after_s is not None:
            return min(retry_after_s, _MAX_PAUSE_S)
        doubled = self.first_pause_s * 2.0 ** (attempt - 1)
        return min(doubled, _MAX_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)


def is_retryable(status: int) -> bool:
    """Return whether a request that got this status may succeed later."""
    is_server_error = status >= _FIRST_SERVER_ERROR and status not in _PERMANENT_SERVER_ERRORS
    return status in _TRANSIENT_STATUSES or is_server_error


def retry_after_s(text: str, now: Callable[[], dt.datetime] | None = None) -> float | None:
    """Parse a ``Retry-After`` header (RFC 9110, 10.2.3): seconds, or a date.

    Args:
        text: The header's value; empty if the header is missing.
        now: Clock that returns the current time with a time zone.

    Returns:
        Seconds from now, 0 for a date in the past; ``None`` if the value is neither.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if at.tzinfo is None:  # "-0000" marks an unknown zone; HTTP dates are in GMT
        at = at.replace(tzinfo=dt.timezone.utc)
    clock = now() if now else dt.datetime.now(dt.timezone.utc)
    return max(0.0, (at - clock).total_seconds())
