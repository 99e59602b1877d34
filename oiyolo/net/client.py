"""HTTP client for a few large files: kept-alive connections, retries, a stop event.

Permanent failures (404, 410) are raised at once. Transient ones (429, 5xx, failed connections,
short bodies) are retried. Only http and https URLs are accepted. ``download`` writes and streams
whole files with this client; ``client_pool`` is for many small files at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from oiyolo.core.errors import UnavailableError
from oiyolo.core.units import format_bytes
from oiyolo.net.ranges import ACCEPTED_STATUSES, version_of
from oiyolo.net.retry import (
    MAX_REDIRECTS,
    USER_AGENT,
    HttpFailureError,
    RetryPolicy,
    StoppedError,
    with_retries,
)
from oiyolo.net.urls import display_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from oiyolo.net.ranges import FileVersion

BLOCK_BYTES: Final = 1 << 18
"""Larger blocks would not stay in the CPU cache between the socket, the digest and the file."""

_PROBE_STATUSES: Final = frozenset({200, 304})
_READ_BYTES: Final = 1 << 16
_GATHER_S: Final = 0.1

T = TypeVar("T")


class HttpClient:
    """HTTP client that threads may share; each thread gets its own session.

    Args:
        retry_policy: Attempts, pauses and timeouts.

    Attributes:
        stop: Event that ends all requests and pauses with ``StoppedError``.
    """

    def __init__(self, retry_policy: RetryPolicy | None = None) -> None:
        self.retry_policy = retry_policy or RetryPolicy()
        self.stop = threading.Event()
        self._thread_local = threading.local()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            session.close()

    def clone(self) -> HttpClient:
        """Return a client with the same retry policy, but its own stop event and connections."""
        return HttpClient(self.retry_policy)

    def newer_version(self, url: str, headers: Mapping[str, str]) -> FileVersion | None:
        """Return the server's version of a file if it has changed, without reading its body.

        Args:
            url: An http or https URL.
            headers: ``If-None-Match`` or ``If-Modified-Since`` with the known version.

        Returns:
            The server's version; ``None`` if it is still the known one.

        Raises:
            UnavailableError: No usable response after all attempts.
            StoppedError: The stop event was set.
        """

        def request(_: int) -> FileVersion | None:
            with self.open(url, headers, _PROBE_STATUSES) as response:
                if response.status == requests.codes.not_modified:
                    return None
                return version_of(response.status, response.headers)

        return self.with_retries(url, request)

    def with_retries(
        self,
        url: str,
        request: Callable[[int], T],
        made_progress: Callable[[], bool] = lambda: False,
    ) -> T:
        """Return what ``request`` returns, and retry it after transient failures.

        Args:
            url: URL of the request, for the error.
            request: Function for one attempt; its argument is the attempt's number, from 1.
            made_progress: Function called after a failure; if it returns true, the failure counts
                as the first one again.

        Raises:
            UnavailableError: No usable response after all attempts.
            StoppedError: The stop event was set.
        """
        try:
            return with_retries(
                request, policy=self.retry_policy, stop=self.stop, made_progress=made_progress
            )
        except HttpFailureError as failure:
            raise UnavailableError(
                f"cannot be fetched (attempts: {failure.attempts})",
                where=display_url(url),
                found=failure.detail,
                remedy="Check the network and the URL, then run the same command again",
            ) from failure

    def get(self, url: str, *, limit_bytes: int) -> tuple[bytes, str]:
        """Return a complete small body, in memory, and its ``Content-Type``.

        All attempts together take at most the retry policy's ``total_timeout_s``, but for the time
        until a server that sends nothing is given up.

        Args:
            url: An http or https URL.
            limit_bytes: Maximum size of the body; a larger one is an error.

        Raises:
            HttpFailureError: No usable response after all attempts.
            StoppedError: The stop event was set.
        """
        policy = self.retry_policy
        end_s = time.monotonic() + policy.total_timeout_s

        def request(_: int) -> tuple[bytes, str]:
            with self.open(url, {}, frozenset({requests.codes.ok})) as response:
                content = _read_small(response, limit_bytes, end_s)
                return content, response.headers.get("Content-Type", "")

        return with_retries(request, policy=policy, stop=self.stop)

    def post(self, url: str, content: bytes, content_type: str) -> None:
        """Send a small body with POST; a redirect is a failure, as few servers mean one.

        Args:
            url: An http or https URL.
            content: The body.
            content_type: Its ``Content-Type``.

        Raises:
            UnavailableError: No success (status 200 to 299) after all attempts.
            StoppedError: The stop event was set.
        """
        policy = self.retry_policy

        def request(_: int) -> None:
            _check_url(url)
            try:
                response = self._session().post(
                    url,
                    data=content,
                    headers={"Content-Type": content_type},
                    timeout=(policy.connect_timeout_s, policy.read_timeout_s),
                    allow_redirects=False,
                )
            except (requests.RequestException, urllib3.exceptions.LocationValueError) as error:
                raise _failure(error) from error
            if not requests.codes.ok <= response.status_code < requests.codes.multiple_choices:
                retry_after = response.headers.get("Retry-After", "")
                raise HttpFailureError.of_status(response.status_code, response.reason, retry_after)

        self.with_retries(url, request)

    @contextlib.contextmanager
    def open(
        self, url: str, headers: Mapping[str, str], statuses: Collection[int] = ACCEPTED_STATUSES
    ) -> Iterator[Response]:
        """Send one request, and yield the unread response.

        Args:
            url: An http or https URL.
            headers: Extra request headers.
            statuses: Statuses of a usable response.

        Raises:
            HttpFailureError: The request failed, or the response has another status.
        """
        _check_url(url)
        try:
            response = self._session().get(
                url,
                headers=dict(headers),
                stream=True,
                timeout=(self.retry_policy.connect_timeout_s, self.retry_policy.read_timeout_s),
            )
        except (requests.RequestException, urllib3.exceptions.LocationValueError) as error:
            raise _failure(error) from error
        with response:
            if response.status_code not in statuses:
                retry_after = response.headers.get("Retry-After", "")
                raise HttpFailureError.of_status(response.status_code, response.reason, retry_after)
            yield Response(response, self.stop)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._thread_local, "session", None)
        if session is None:
            session = requests.Session()
            session.max_redirects = MAX_REDIRECTS
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            self._thread_local.session = session
            self._sessions.append(session)
        return session


class Response:
    """A response whose body has not been read yet.

    Attributes:
        status: HTTP status.
        reason: HTTP status in words.
        headers: Headers, in a mapping that ignores case.
    """

    def __init__(self, response: requests.Response, stop: threading.Event) -> None:
        self._response, self._stop = response, stop
        self.status, self.reason = response.status_code, response.reason
        self.headers: Mapping[str, str] = response.headers

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives; before raising a failure, yield all received bytes.

        This takes half as long as ``iter_content``. TLS delivers 16 kB at a time, each of which
        would wake threads and cost system calls, so pieces are gathered into larger blocks. On a
        slow connection, a block ends with the first piece that arrives after ``_GATHER_S``.

        Raises:
            HttpFailureError: The connection failed before the end of the body.
            StoppedError: The client's stop event was set.
        """
        pieces: list[bytes] = []
        gathered_bytes, due_s = 0, time.monotonic() + _GATHER_S
        try:
            while piece := self._read():
                pieces.append(piece)
                gathered_bytes += len(piece)
                if gathered_bytes >= BLOCK_BYTES or time.monotonic() >= due_s:
                    yield b"".join(pieces)
                    pieces.clear()
                    gathered_bytes, due_s = 0, time.monotonic() + _GATHER_S
        except HttpFailureError:
            if pieces:
                yield b"".join(pieces)
            raise
        if pieces:
            yield b"".join(pieces)

    def abort(self) -> None:
        """Wake up another thread that is waiting for the body."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # it has ended already
            self._response.raw.shutdown()

    def _read(self) -> bytes:
        """Return what has arrived, but at least one byte; empty at the end of the body."""
        failure: HttpFailureError | None = None
        piece = b""
        try:
            piece = self._response.raw.read1(_READ_BYTES, decode_content=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failure = HttpFailureError("interrupted", _root_cause(error), transient=True)
            failure.__cause__ = error
        if self._stop.is_set():
            raise StoppedError
        if failure is not None:
            raise failure
        return piece


def _read_small(response: Response, limit_bytes: int, end_s: float) -> bytes:
    """Return a whole body; raise if it is too large, is too slow, or ends too early."""
    too_large = HttpFailureError("too large", f"more than {format_bytes(limit_bytes)}")
    expected_bytes = version_of(response.status, response.headers).size_bytes
    if (expected_bytes or 0) > limit_bytes:
        raise too_large
    pieces, size_bytes = [], 0
    for block in response.blocks():
        pieces.append(block)
        size_bytes += len(block)
        if size_bytes > limit_bytes:
            raise too_large
        if time.monotonic() > end_s:
            raise HttpFailureError("too slow", "no end of the body within the time limit")
    if expected_bytes not in {None, size_bytes}:
        detail = "the body ended before its declared length"
        raise HttpFailureError("interrupted", detail, transient=True)
    return b"".join(pieces)


def _check_url(url: str) -> None:
    """Raise if a URL is not an http or https URL."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise HttpFailureError("unusable URL", str(error), reached=False) from error
    if scheme not in {"http", "https"}:
        raise HttpFailureError("not http(s)", f"not an http(s) URL: {url}", reached=False)


def _failure(error: Exception) -> HttpFailureError:
    """Return the failure that an error of requests stands for."""
    if isinstance(error, requests.TooManyRedirects):
        return HttpFailureError("too many redirects", f"more than {MAX_REDIRECTS} redirects")
    if isinstance(error, requests.exceptions.InvalidSchema):  # a redirect led there
        return HttpFailureError("not http(s)", str(error))
    if isinstance(error, (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError)):
        return HttpFailureError("unusable URL", _root_cause(error))
    return HttpFailureError("connection failed", _root_cause(error), transient=True, reached=False)


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost cause, which is the readable one."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if not isinstance(inner, BaseException):
            return str(cause).split(": ", 1)[-1] or type(cause).__name__
        cause = inner
