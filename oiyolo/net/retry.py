"""Failed requests: what is known of a failure, whether to try again, and after which pause.

All clients share this: each turns the errors of its library into ``HttpFailureError`` and leaves
the decision to ``Attempts``.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, TypeVar

from oiyolo import __version__
from oiyolo.net.urls import without_secrets

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from typing_extensions import Self

USER_AGENT: Final = f"oiyolo/{__version__}"
MAX_REDIRECTS: Final = 5
_MAX_PAUSE_S: Final = 60.0
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
_FIRST_SERVER_ERROR: Final = 500
_PERMANENT_SERVER_ERRORS: Final = frozenset({501, 505})
"""Not Implemented and HTTP Version Not Supported: a retry would get the same response."""
_MAX_DETAIL_CHARACTERS: Final = 300

T = TypeVar("T")


class HttpFailureError(Exception):
    """A request that got no usable response.

    Attributes:
        reason: Short reason that can be counted: "HTTP 404", "connection failed".
        detail: Full reason on one line, without the secrets that a URL in it may hold.
        transient: Whether a later attempt may succeed.
        reached: Whether the host responded at all.
        attempts: Number of attempts made.
        retry_after_s: Pause that the server asked for; ``None`` if it asked for none.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        transient: bool = False,
        reached: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = without_secrets(" ".join(detail.split()))[:_MAX_DETAIL_CHARACTERS] or reason
        self.transient = transient
        self.reached = reached
        self.retry_after_s = retry_after_s
        self.attempts = 1

    def __str__(self) -> str:
        return self.detail

    @classmethod
    def of_status(cls, status: int, reason: str, retry_after: str = "") -> Self:
        """Return the failure that a response with an unusable status stands for.

        Args:
            status: HTTP status.
            reason: The status in words, or the server's error message.
            retry_after: ``Retry-After`` header; empty if the response has none.
        """
        return cls(
            f"HTTP {status}",
            f"HTTP {status} {reason}",
            transient=is_retryable(status),
            retry_after_s=retry_after_s(retry_after),
        )


class StoppedError(Exception):
    """The caller's stop event was set during a request or a pause."""


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


class Attempts:
    """The attempts at one request.

    Attributes:
        number: Number of the current attempt, from 1.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.number = 1

    def pause_after(
        self, failure: HttpFailureError, *, made_progress: bool = False, is_last: bool = False
    ) -> float:
        """Begin the next attempt; return the pause before it in seconds.

        Args:
            failure: Failure of the current attempt.
            made_progress: Whether the failure counts as the first one again.
            is_last: Whether there is no time for another attempt.

        Raises:
            HttpFailureError: The failure itself, if it is permanent or the last one.
        """
        if made_progress:
            self.number = 1
        failure.attempts = self.number
        if is_last or not failure.transient or self.number >= self._policy.max_attempts:
            raise failure
        self.number += 1
        return self._policy.pause_s(failure.attempts, failure.retry_after_s)


def with_retries(
    request: Callable[[int], T],
    *,
    policy: RetryPolicy,
    stop: threading.Event,
    made_progress: Callable[[], bool] = lambda: False,
) -> T:
    """Return what ``request`` returns, and retry it after transient failures.

    Args:
        request: Function for one attempt; its argument is the attempt's number, from 1.
        policy: Number of attempts, and the pauses between them.
        stop: Event that ends the attempts.
        made_progress: Function called after a failure; if it returns true, the failure counts as
            the first one again.

    Raises:
        HttpFailureError: The last failure, or the first permanent one.
        StoppedError: The stop event was set.
    """
    attempts = Attempts(policy)
    while not stop.is_set():
        try:
            return request(attempts.number)
        except HttpFailureError as failure:
            pause_s = attempts.pause_after(failure, made_progress=made_progress())
        stop.wait(pause_s)
    raise StoppedError


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
