"""How long a server is given, and what its answers mean for a second try; pure.

What asks for one large file and what asks for many small ones go by the same.
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
_LONGEST_PAUSE_S: Final = 60.0
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
_FIRST_SERVER_ERROR: Final = 500
_LASTING_SERVER_ERRORS: Final = frozenset({501, 505})
"""Not implemented, and another version of HTTP: the next try would be told the same."""


@dataclass(frozen=True)
class Patience:
    """How long one address is given before it counts as failed.

    Attributes:
        attempts: It is asked so often at most.
        first_pause_s: The pause after the first failure.
        connect_s: To get a connection.
        read_s: For something to come.
        whole_s: For a small body, all attempts together, without waiting for a turn.
    """

    attempts: int = 4
    first_pause_s: float = 0.5
    connect_s: float = 10.0
    read_s: float = 30.0
    whole_s: float = 120.0

    def pause_s(self, attempt: int, asked_s: float | None) -> float:
        """Give the pause after a failed attempt (1-based): doubled each time, with jitter.

        Args:
            attempt: How many attempts have failed.
            asked_s: What the server asked for (Retry-After), if it did.
        """
        if asked_s is not None:
            return min(asked_s, _LONGEST_PAUSE_S)
        doubled = self.first_pause_s * 2.0 ** (attempt - 1)
        return min(doubled, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)


def may_pass(status: int) -> bool:
    """Tell whether an answer with this status may be another one later."""
    is_server_error = status >= _FIRST_SERVER_ERROR and status not in _LASTING_SERVER_ERRORS
    return status in _TRANSIENT_STATUSES or is_server_error


def retry_after_s(text: str, now: Callable[[], dt.datetime] | None = None) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, 10.2.3): seconds, or a date.

    Args:
        text: The header; empty if there was none.
        now: The clock, with a time zone.

    Returns:
        Seconds from now, 0 for a date that has passed; ``None`` if it is neither.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if at.tzinfo is None:  # "-0000", which says that the zone is not known
        at = at.replace(tzinfo=dt.timezone.utc)
    clock = now() if now else dt.datetime.now(dt.timezone.utc)
    return max(0.0, (at - clock).total_seconds())
