"""HTTP client for large files: kept-alive connections, retries with exponential backoff.

Permanent failures (404, 410) are raised at once. Transient ones (429, 5xx, failed connections,
short bodies) are retried. Only http and https URLs are accepted.

``download`` writes a file, ``stream`` yields it in blocks. Both resume after an interruption
(``ranges`` decides how), and an interruption after some progress does not count against the
attempts. ``client_pool`` is for many small files at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from oiyolo.net.download import (
    BLOCK_BYTES,
    Download,
    FileSink,
    HttpFailureError,
    StoppedError,
    Stream,
    Transfer,
    as_unavailable,
)
from oiyolo.net.ranges import ACCEPTED_STATUSES, version_of
from oiyolo.net.retry import MAX_REDIRECTS, USER_AGENT, RetryPolicy, is_retryable, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.net.ranges import FileVersion

__all__ = [
    "USER_AGENT",
    "Download",
    "HttpClient",
    "HttpFailureError",
    "RetryPolicy",
    "StoppedError",
    "Stream",
]

_PROBE_STATUSES: Final = frozenset({200, 304})
_UNUSABLE_URL_ERRORS: Final = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
)
_READ_BYTES: Final = 1 << 16
_GATHER_S: Final = 0.1

T = TypeVar("T")


class HttpClient:
    """HTTP client that threads may share; each thread gets its own session.

    Args:
        retry_policy: Attempts, pauses and timeouts.
        stop: Event that ends all requests and pauses with ``StoppedError``.
    """

    def __init__(
        self, retry_policy: RetryPolicy | None = None, stop: threading.Event | None = None
    ) -> None:
        self.retry_policy = retry_policy or RetryPolicy()
        self.stop = stop or threading.Event()
        self._thread_local = threading.local()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            session.close()

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
            with self._open(url, headers) as response:
                if response.status_code == requests.codes.not_modified:
                    return None
                return version_of(response.status_code, response.headers)

        with as_unavailable(url):
            return self.with_retries(url, request)

    def download(
        self,
        url: str,
        part: Path,
        *,
        headers: Mapping[str, str],
        progress: Progress,
        partial_version: FileVersion | None = None,
        expected_bytes: int = 0,
        on_start: Callable[[FileVersion, int], None] = lambda _version, _done: None,
    ) -> Download:
        """Download a file to a temporary path; the caller gives it its final name.

        An interrupted download resumes, both within this call and, given ``partial_version``,
        after an earlier process was killed. If this fails, ``part`` keeps what was written.

        Args:
            url: An http or https URL.
            part: File to write.
            headers: Extra request headers; with ``If-None-Match`` the result may be "not modified".
            progress: Bar to advance by each block, and by a negative count when the download
                restarts. It should start at the size of ``part``.
            partial_version: Version of the file whose beginning ``part`` holds; ``None`` discards
                ``part``.
            expected_bytes: Size of the file if the caller knows it, else 0; used if the server
                does not send the size.
            on_start: Called with the version to be downloaded and the number of its bytes that
                ``part`` has, before the first further block is written. If the version is not
                ``partial_version``, ``part`` is empty by then. Its exceptions end the download.

        Raises:
            UnavailableError: No usable response after all attempts.
            StoppedError: The stop event was set.
        """
        if partial_version is None:
            part.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            sink = FileSink(part, progress, on_start, stack)
            transfer = Transfer(self, url, sink, headers, expected_bytes)
            stack.callback(transfer.close)
            if partial_version is not None and part.is_file():
                transfer.resume(partial_version, part)
            return transfer.run()

    def stream(self, url: str, *, expected_bytes: int = 0) -> Stream:
        """Return a stream of a file, which is stored nowhere.

        Args:
            url: An http or https URL.
            expected_bytes: Size of the file if the caller knows it, else 0; used if the server
                does not send the size.
        """
        return Stream(self, url, expected_bytes=expected_bytes)

    def clone(self) -> HttpClient:
        """Return a client with the same retry policy, but its own stop event and connections."""
        return HttpClient(self.retry_policy)

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[_Response]:
        """Send one request for a file or the rest of one; yield the unread response."""
        with self._open(url, headers, ACCEPTED_STATUSES) as response:
            yield _Response(response, self.stop)

    def with_retries(
        self,
        url: str,
        request: Callable[[int], T],
        made_progress: Callable[[], bool] = lambda: False,
    ) -> T:
        """Return what ``request`` returns, and retry it after transient failures.

        Args:
            url: URL of the request.
            request: Function for one attempt; its argument is the attempt's number, from 1.
            made_progress: Function called after a failure; if it returns true, the failure counts
                as the first one again.

        Raises:
            HttpFailureError: The last failure, or the first permanent one.
            StoppedError: The stop event was set.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return request(attempt)
            except HttpFailureError as failure:
                if made_progress():
                    attempt = 1
                failure.attempts = attempt
                if not failure.transient or attempt >= self.retry_policy.max_attempts:
                    raise
                if self.stop.wait(self.retry_policy.pause_s(attempt, failure.retry_after_s)):
                    raise StoppedError(url) from None

    @contextlib.contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str], statuses: Collection[int] = _PROBE_STATUSES
    ) -> Iterator[requests.Response]:
        try:
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise HttpFailureError("unusable URL", str(error), reached=False) from error
        if scheme not in {"http", "https"}:
            raise HttpFailureError("not http(s)", f"not an http(s) URL: {url}", reached=False)
        try:
            response = self._session().get(
                url,
                headers=dict(headers),
                stream=True,
                timeout=(self.retry_policy.connect_timeout_s, self.retry_policy.read_timeout_s),
            )
        except _UNUSABLE_URL_ERRORS as error:
            raise HttpFailureError("unusable URL", _root_cause(error)) from error
        except requests.RequestException as error:
            raise HttpFailureError(
                "connection failed", _root_cause(error), transient=True, reached=False
            ) from error
        with response:
            _check_status(response, statuses)
            yield response

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._thread_local, "session", None)
        if session is None:
            session = requests.Session()
            session.max_redirects = MAX_REDIRECTS
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            self._thread_local.session = session
            self._sessions.append(session)
        return session


class _Response:
    """A response whose body has not been read yet."""

    def __init__(self, response: requests.Response, stop: threading.Event) -> None:
        self._response, self._stop = response, stop
        self.status, self.reason = response.status_code, response.reason
        self.headers: Mapping[str, str] = response.headers

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives; before raising a failure, yield all received bytes.

        This takes half as long as ``iter_content``. TLS delivers 16 kB at a time, each of which
        would wake threads and cost system calls, so pieces are gathered into larger blocks. On a
        slow connection, a block ends with the first piece that arrives after ``_GATHER_S``.
        """
        pieces: list[bytes] = []
        gathered_bytes, due_s = 0, time.monotonic() + _GATHER_S
        interruption: HttpFailureError | None = None
        while True:
            try:
                with _as_interruption():
                    piece = self._response.raw.read1(_READ_BYTES, decode_content=True)
            except HttpFailureError as failure:
                piece, interruption = b"", failure
            if self._stop.is_set():
                raise StoppedError(self._response.url)
            if piece:
                pieces.append(piece)
                gathered_bytes += len(piece)
                if gathered_bytes < BLOCK_BYTES and time.monotonic() < due_s:
                    continue
            if pieces:
                yield b"".join(pieces)
                pieces.clear()
                gathered_bytes, due_s = 0, time.monotonic() + _GATHER_S
            if interruption is not None:
                raise interruption
            if not piece:
                return

    def abort(self) -> None:
        """Wake up another thread that is waiting for the body."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # it has ended already
            self._response.raw.shutdown()


@contextlib.contextmanager
def _as_interruption() -> Iterator[None]:
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise HttpFailureError("interrupted", _root_cause(error), transient=True) from error


def _check_status(response: requests.Response, statuses: Collection[int]) -> None:
    status = response.status_code
    if status in statuses:
        return
    raise HttpFailureError(
        f"HTTP {status}",
        f"HTTP {status} {response.reason}",
        transient=is_retryable(status),
        retry_after_s=retry_after_s(response.headers.get("Retry-After", "")),
    )


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost cause, which is the readable one."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if not isinstance(inner, BaseException):
            return str(cause).split(": ", 1)[-1] or type(cause).__name__
        cause = inner
