"""The one door to the web: kept-alive connections, retries with growing pauses, whole bodies.

Permanent answers (404, 410, a body that is too large) are told apart from transient ones (429, 5xx,
broken connections, short bodies), which are tried again. Only http and https pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from oiyolo import __version__
from oiyolo.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from oiyolo.progress import Progress

USER_AGENT: Final = f"oiyolo/{__version__}"
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNUSABLE: Final = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
)
_BLOCK_BYTES: Final = 1 << 16
_MAX_REDIRECTS: Final = 5
_LONGEST_PAUSE_S: Final = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long one address is given before it counts as failed."""

    attempts: int = 4
    first_pause_s: float = 0.5
    connect_s: float = 10.0
    read_s: float = 30.0

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


@dataclass(frozen=True)
class Body:
    """A whole answer with status 200."""

    content: bytes
    content_type: str
    etag: str
    final_url: str
    attempts: int = 1


@dataclass(frozen=True)
class Download:
    """What was written to a file; nothing was where the server said "not changed"."""

    changed: bool
    etag: str = ""
    last_modified: str = ""
    md5: str = ""
    size_bytes: int = 0


class HttpFailureError(Exception):
    """An address that gave nothing usable.

    Attributes:
        reason: A short reason that can be counted: "HTTP 404", "connection failed".
        detail: The same at length.
        transient: Another try later may go better.
        reached: The host answered at all.
        attempts: How often it was tried.
        retry_after_s: The pause that the server asked for.
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
        self.detail = detail or reason
        self.transient = transient
        self.reached = reached
        self.retry_after_s = retry_after_s
        self.attempts = 1

    def __str__(self) -> str:
        return self.detail


class StoppedError(Exception):
    """The caller's stop event was set while an answer was being waited for."""


class Web:
    """Connections of one job; threads may share it, each gets a session of its own.

    Args:
        patience: Attempts, pauses and deadlines.
        stop: When this event is set, waiting ends and ``StoppedError`` is raised.
    """

    def __init__(
        self, patience: Patience | None = None, stop: threading.Event | None = None
    ) -> None:
        self.patience = patience or Patience()
        self.stop = stop or threading.Event()
        self._of_thread = threading.local()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            session.close()

    def get(self, url: str, *, limit_bytes: int, deadline_s: float) -> Body:
        """Give a whole body, kept in memory.

        Args:
            url: An http or https address.
            limit_bytes: A longer body is cut off and refused.
            deadline_s: A body that takes longer is given up (and tried again).

        Raises:
            HttpFailureError: Nothing usable after all attempts.
            StoppedError: The stop event was set.
        """
        return self._patiently(
            url, lambda attempt: self._get_once(url, limit_bytes, deadline_s, attempt)
        )

    def download(
        self, url: str, part: Path, *, headers: Mapping[str, str], told: Progress
    ) -> Download:
        """Write a body to a temporary file; the caller gives it its final name.

        Args:
            url: An http or https address.
            part: Where to write.
            headers: Extra headers; with ``If-None-Match`` the answer may be "not changed".
            told: Is told of every block.

        Raises:
            UnavailableError: Nothing usable after all attempts.
            StoppedError: The stop event was set.
        """
        try:
            return self._patiently(url, lambda _: self._download_once(url, part, headers, told))
        except HttpFailureError as failure:
            raise UnavailableError(
                f"this cannot be fetched (attempts: {failure.attempts})",
                where=url,
                found=failure.detail,
                remedy="Check the network and the address, then give the same command again",
            ) from failure

    def _patiently(self, url: str, once: Callable[[int], T]) -> T:
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return once(attempt)
            except HttpFailureError as failure:  # noqa: PERF203  (a pause costs more)
                failure.attempts = attempt
                if not failure.transient or attempt == self.patience.attempts:
                    raise
                if self.stop.wait(self.patience.pause_s(attempt, failure.retry_after_s)):
                    raise StoppedError(url) from None
        raise AssertionError("a Patience has one attempt at least")

    def _get_once(self, url: str, limit_bytes: int, deadline_s: float, attempt: int) -> Body:
        end_s = time.monotonic() + deadline_s
        content = bytearray()
        with self._open(url, {}) as answer:
            for block in self._blocks(answer):
                content += block
                if len(content) > limit_bytes:
                    raise HttpFailureError("too large", f"more than {limit_bytes} bytes")
                if time.monotonic() > end_s:
                    raise HttpFailureError(
                        "too slow", f"not complete after {deadline_s:g} s", transient=True
                    )
            return Body(
                content=bytes(content),
                content_type=answer.headers.get("Content-Type", ""),
                etag=answer.headers.get("ETag", ""),
                final_url=answer.url,
                attempts=attempt,
            )

    def _download_once(
        self, url: str, part: Path, headers: Mapping[str, str], told: Progress
    ) -> Download:
        digest = hashlib.md5(usedforsecurity=False)
        size_bytes = 0
        with self._open(url, headers) as answer:
            if answer.status_code == requests.codes.not_modified:
                return Download(changed=False)
            with part.open("wb") as file:
                for block in self._blocks(answer):
                    file.write(block)
                    digest.update(block)
                    size_bytes += len(block)
                    told.advance(len(block))
            return Download(
                changed=True,
                etag=answer.headers.get("ETag", ""),
                last_modified=answer.headers.get("Last-Modified", ""),
                md5=digest.hexdigest(),
                size_bytes=size_bytes,
            )

    @contextlib.contextmanager
    def _open(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        try:
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise HttpFailureError("unusable address", str(error), reached=False) from error
        if scheme not in {"http", "https"}:
            raise HttpFailureError("not http(s)", f"not an http(s) address: {url}", reached=False)
        try:
            answer = self._session().get(
                url,
                headers=dict(headers),
                stream=True,
                timeout=(self.patience.connect_s, self.patience.read_s),
            )
        except _UNUSABLE as error:
            raise HttpFailureError("unusable address", _plainly(error)) from error
        except requests.RequestException as error:
            raise HttpFailureError(
                "connection failed", _plainly(error), transient=True, reached=False
            ) from error
        with answer:
            _check_status(answer)
            yield answer

    def _blocks(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            for block in answer.iter_content(_BLOCK_BYTES):
                if self.stop.is_set():
                    raise StoppedError(answer.url)
                yield block
        # urllib3 compares what came with Content-Length: a short body is an error here.
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise HttpFailureError("broken off", _plainly(error), transient=True) from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = requests.Session()
            session.max_redirects = _MAX_REDIRECTS
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            self._of_thread.session = session
            self._sessions.append(session)
        return session


def _check_status(answer: requests.Response) -> None:
    status = answer.status_code
    if status in {requests.codes.ok, requests.codes.not_modified}:
        return
    asked = answer.headers.get("Retry-After", "")
    raise HttpFailureError(
        f"HTTP {status}",
        f"HTTP {status} {answer.reason}",
        transient=status in _TRANSIENT_STATUSES,
        retry_after_s=float(asked) if asked.isdigit() else None,
    )


def _plainly(error: BaseException) -> str:
    """Give the innermost cause, which is the sentence a person can use."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        if not isinstance(inner, BaseException):
            return str(seen).split(": ", 1)[-1] or type(seen).__name__
        seen = inner
