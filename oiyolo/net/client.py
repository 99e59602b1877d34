"""The door to the web for large bodies: kept-alive connections, retries with growing pauses.

Permanent answers (404, 410) are told apart from transient ones (429, 5xx, broken connections, short
bodies), which are tried again. Only http and https pass.

A body goes to a file (``download``) or through the caller's hands (``stream``); after a break both
go on where they stand (``resuming`` decides how), and a break that comes after some progress does
not count against the attempts. Many small bodies at once: ``http_many``.
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
from oiyolo.net.ranges import STATUSES, version_of
from oiyolo.net.retry import MAX_REDIRECTS, USER_AGENT, Patience, may_pass, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.net.ranges import Version

__all__ = [
    "USER_AGENT",
    "Download",
    "HttpFailureError",
    "Patience",
    "StoppedError",
    "Stream",
    "Web",
]

_USUAL_STATUSES: Final = frozenset({200, 304})
_UNUSABLE: Final = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
)
_PIECE_BYTES: Final = 1 << 16
_GATHERED_FOR_S: Final = 0.1

T = TypeVar("T")


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

    def newer_version(self, url: str, headers: Mapping[str, str]) -> Version | None:
        """Ask, without reading any body, whether a file is still the one that is known.

        Args:
            url: An http or https address.
            headers: ``If-None-Match`` or ``If-Modified-Since``.

        Returns:
            The version that is there now; ``None`` where it is the known one.

        Raises:
            UnavailableError: No answer after all attempts.
            StoppedError: The stop event was set.
        """

        def once(_: int) -> Version | None:
            with self._open(url, headers) as answer:
                if answer.status_code == requests.codes.not_modified:
                    return None
                return version_of(answer.status_code, answer.headers)

        with as_unavailable(url):
            return self.patiently(url, once)

    def download(
        self,
        url: str,
        part: Path,
        *,
        headers: Mapping[str, str],
        told: Progress,
        held: Version | None = None,
        expected_bytes: int = 0,
        begin: Callable[[Version, int], None] = lambda _version, _done: None,
    ) -> Download:
        """Write a body to a temporary file; the caller gives it its final name.

        It goes on where it stands, within this call and, with ``held``, where another process was
        killed. What was written stays in ``part`` when this fails.

        Args:
            url: An http or https address.
            part: Where to write.
            headers: Extra headers; with ``If-None-Match`` the answer may be "not changed".
            told: Is told of every block; of a negative count where it begins anew. What ``held``
                stands for it is not told: the bar begins there.
            held: The version of which ``part`` holds the beginning.
            expected_bytes: Its size where it is known, for servers that do not say it.
            begin: Is told of the version that comes, and of how many bytes of it are here, before
                the first of the others. For another version than ``held``, ``part`` is empty by
                then. An error of it ends the download.

        Raises:
            UnavailableError: Nothing usable after all attempts.
            StoppedError: The stop event was set.
        """
        if held is None:
            part.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            sink = FileSink(part, told, begin, stack)
            transfer = Transfer(self, url, sink, headers, expected_bytes)
            stack.callback(transfer.close)
            if held is not None and part.is_file():
                transfer.take_up(held, part)
            return transfer.run()

    def stream(self, url: str, *, expected_bytes: int = 0) -> Stream:
        """Give a body that goes through the caller's hands and is kept nowhere.

        Args:
            url: An http or https address.
            expected_bytes: Its size where it is known, for servers that do not say it.
        """
        return Stream(self, url, expected_bytes=expected_bytes)

    def apart(self) -> Web:
        """Give another one, as patient, that is stopped and closed alone."""
        return Web(self.patience)

    @contextlib.contextmanager
    def opened(self, url: str, headers: Mapping[str, str]) -> Iterator[_Answer]:
        """Ask once, for a large body or the rest of one."""
        with self._open(url, headers, STATUSES) as answer:
            yield _Answer(answer, self.stop)

    def patiently(
        self, url: str, once: Callable[[int], T], came_on: Callable[[], bool] = lambda: False
    ) -> T:
        """Try until it goes well, or as often as ``patience`` has it.

        Args:
            url: What it is about.
            once: One attempt; is given its number, from 1.
            came_on: Tells after a failure whether there was progress, so that counting begins anew.

        Raises:
            HttpFailureError: The last failure, or the first that will not pass.
            StoppedError: The stop event was set.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return once(attempt)
            except HttpFailureError as failure:
                if came_on():
                    attempt = 1
                failure.attempts = attempt
                if not failure.transient or attempt >= self.patience.attempts:
                    raise
                if self.stop.wait(self.patience.pause_s(attempt, failure.retry_after_s)):
                    raise StoppedError(url) from None

    @contextlib.contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str], statuses: Collection[int] = _USUAL_STATUSES
    ) -> Iterator[requests.Response]:
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
            _check_status(answer, statuses)
            yield answer

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = requests.Session()
            session.max_redirects = MAX_REDIRECTS
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
            self._of_thread.session = session
            self._sessions.append(session)
        return session


class _Answer:
    """A large body that is still to be read."""

    def __init__(self, answer: requests.Response, stop: threading.Event) -> None:
        self._answer, self._stop = answer, stop
        self.status, self.reason = answer.status_code, answer.reason
        self.headers: Mapping[str, str] = answer.headers

    def blocks(self) -> Iterator[bytes]:
        """Give the body as it comes, and before a break all that came.

        It is read in half of the time that ``iter_content`` takes.
        TLS hands out 16 kB at a time, of which every one would wake threads and make system calls;
        on a slow line nothing waits longer than ``_GATHERED_FOR_S``.
        """
        pieces: list[bytes] = []
        gathered_bytes, due_s = 0, time.monotonic() + _GATHERED_FOR_S
        broken: HttpFailureError | None = None
        while True:
            try:
                with _as_broken_off():
                    piece = self._answer.raw.read1(_PIECE_BYTES, decode_content=True)
            except HttpFailureError as failure:
                piece, broken = b"", failure
            if self._stop.is_set():
                raise StoppedError(self._answer.url)
            if piece:
                pieces.append(piece)
                gathered_bytes += len(piece)
                if gathered_bytes < BLOCK_BYTES and time.monotonic() < due_s:
                    continue
            if pieces:
                yield b"".join(pieces)
                pieces.clear()
                gathered_bytes, due_s = 0, time.monotonic() + _GATHERED_FOR_S
            if broken is not None:
                raise broken
            if not piece:
                return

    def shut(self) -> None:
        """Let whoever waits for the body, in another thread, wait no longer."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # it has ended by now
            self._answer.raw.shutdown()


@contextlib.contextmanager
def _as_broken_off() -> Iterator[None]:
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise HttpFailureError("broken off", _plainly(error), transient=True) from error


def _check_status(answer: requests.Response, statuses: Collection[int]) -> None:
    status = answer.status_code
    if status in statuses:
        return
    raise HttpFailureError(
        f"HTTP {status}",
        f"HTTP {status} {answer.reason}",
        transient=may_pass(status),
        retry_after_s=retry_after_s(answer.headers.get("Retry-After", "")),
    )


def _plainly(error: BaseException) -> str:
    """Give the innermost cause, which is the sentence a person can use."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        if not isinstance(inner, BaseException):
            return str(seen).split(": ", 1)[-1] or type(seen).__name__
        seen = inner
