"""Download of one large file, into a file on disk or as a stream of blocks.

A ``DownloadClient`` sends the requests, and ``ranges`` interprets the responses. This module
connects the two: it tracks the progress of a file, hashes it, and runs reading, hashing and
consuming in separate threads so that none of them waits for another.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from oiyolo.core.errors import UnavailableError
from oiyolo.net.ranges import ResponseAction, choose_action, range_headers, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.core.progress import Progress
    from oiyolo.net.ranges import FileVersion

BLOCK_BYTES: Final = 1 << 18
"""Larger blocks would not stay in the CPU cache between the socket, the digest and the file."""

_QUEUE_BYTES: Final = 4 << 20
"""Maximum number of bytes that are read ahead of a stream's consumer."""

_MIN_PROGRESS_BYTES: Final = 1 << 20
"""A failure after this much progress counts as the first failure again."""

_POLL_S: Final = 0.2
"""How often a thread that waits for a queue checks the stop event."""

_JOIN_TIMEOUT_S: Final = 2.0

T = TypeVar("T")


class HttpFailureError(Exception):
    """A request that got no usable response.

    Attributes:
        reason: Short reason that can be counted: "HTTP 404", "connection failed".
        detail: Full reason.
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
        self.detail = detail or reason
        self.transient = transient
        self.reached = reached
        self.retry_after_s = retry_after_s
        self.attempts = 1

    def __str__(self) -> str:
        return self.detail


class StoppedError(Exception):
    """The caller's stop event was set during a request or a pause."""


@dataclass(frozen=True)
class Download:
    """Result of a download: a complete file, or none if the server said "not modified".

    Attributes:
        changed: Whether the file was downloaded; the other attributes are empty if not.
        etag: ``ETag``, as sent.
        last_modified: ``Last-Modified``, as sent.
        md5: MD5 of the whole file, in hexadecimal.
        size_bytes: Size of the whole file.
        resumed: Whether the file was assembled from more than one response.
        received_bytes: Bytes received by this call, over all responses.
        seconds: Duration of this call, without the time that a stream waited for its consumer.
    """

    changed: bool
    etag: str = ""
    last_modified: str = ""
    md5: str = ""
    size_bytes: int = 0
    resumed: bool = False
    received_bytes: int = 0
    seconds: float = 0.0


class Response(Protocol):
    """An HTTP response whose body has not been read yet."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def reason(self) -> str:
        """HTTP status in words."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, in a mapping that ignores case."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            HttpFailureError: The connection failed before the end of the body.
            StoppedError: The client's stop event was set.
        """

    def abort(self) -> None:
        """Wake up another thread that is waiting for the body."""


class DownloadClient(Protocol):
    """An HTTP client that ``Transfer`` and ``Stream`` can use.

    Attributes:
        stop: Event that ends all requests and pauses with ``StoppedError``.
    """

    stop: threading.Event

    def open(
        self, url: str, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Response]:
        """Send one request.

        Raises:
            HttpFailureError: The request failed, or its status is not one that ``ranges`` accepts.
        """

    def with_retries(
        self, url: str, request: Callable[[int], T], made_progress: Callable[[], bool] = ...
    ) -> T:
        """Return what ``request`` returns, and retry it after transient failures.

        A failure after which ``made_progress`` returns true counts as the first one again.
        """

    def clone(self) -> DownloadClient:
        """Return a client of the same kind with its own stop event and connections."""

    def close(self) -> None:
        """Close all connections."""


class _Sink(Protocol):
    """Destination of a transfer's bytes.

    Attributes:
        append_only: Whether bytes that were written cannot be taken back.
    """

    append_only: bool

    def start(self, version: FileVersion, done_bytes: int) -> None:
        """Prepare for the bytes of a version from ``done_bytes`` on; discard any later bytes."""

    def write(self, block: bytes) -> None:
        """Append a block."""


class FileSink:
    """A file on disk; unbuffered, so that written bytes survive a kill of the process.

    Args:
        part: Temporary file to write.
        progress: Bar to advance.
        on_start: Called with the version and the number of its bytes that ``part`` has, before the
            first further block is written.
        stack: Stack that closes the file.
    """

    append_only = False

    def __init__(
        self,
        part: Path,
        progress: Progress,
        on_start: Callable[[FileVersion, int], None],
        stack: contextlib.ExitStack,
    ) -> None:
        self._part, self._progress, self._on_start, self._stack = part, progress, on_start, stack
        self._file: BinaryIO | None = None
        self._size_bytes = part.stat().st_size if part.is_file() else 0

    def start(self, version: FileVersion, done_bytes: int) -> None:
        """Open the file, truncate it to ``done_bytes``, and call ``on_start``."""
        if self._file is None:
            self._file = self._stack.enter_context(self._part.open("ab", buffering=0))
        if done_bytes != self._size_bytes:  # the file holds another version
            self._file.truncate(done_bytes)
            self._progress.advance(done_bytes - self._size_bytes)
            self._size_bytes = done_bytes
        self._on_start(version, done_bytes)

    def write(self, block: bytes) -> None:
        """Append a block to the file and advance the bar."""
        if self._file is None:
            raise AssertionError("write() before start()")
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self._size_bytes += len(block)
        self._progress.advance(len(block))


class _QueueSink:
    """Queue from a stream's reading thread to its consumer."""

    append_only = True

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.items: queue.Queue[bytes | BaseException | Download] = queue.Queue(
            _QUEUE_BYTES // BLOCK_BYTES
        )
        self.waited_s = 0.0

    def start(self, version: FileVersion, done_bytes: int) -> None:
        pass

    def write(self, block: bytes) -> None:
        try:
            self.items.put_nowait(block)
        except queue.Full:
            started_s = time.monotonic()
            self.put(block)
            self.waited_s += time.monotonic() - started_s

    def put(self, item: bytes | BaseException | Download) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self.items.put(item, timeout=_POLL_S)
                return
        raise StoppedError


class _Digest:
    """An MD5 computed in its own thread: hashing takes longer than reading or writing."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_QUEUE_BYTES // BLOCK_BYTES)
        self._thread: threading.Thread | None = None

    def update(self, block: bytes) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
            self._thread.start()
        self._blocks.put(block)

    def hexdigest(self) -> str:
        """Return the digest of all blocks so far."""
        self.close()
        return self._md5.hexdigest()

    def reset(self) -> None:
        self.close()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def close(self) -> None:
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._md5.update(block)


class Transfer:
    """Download of one file into a sink: its version, its progress, and its checks.

    Args:
        client: Client that sends the requests.
        url: URL of the file.
        sink: Destination of the bytes.
        headers: Extra request headers.
        expected_bytes: Size of the file if the caller knows it, else 0; used if the server does
            not send the size.

    Attributes:
        response: The latest response.
    """

    def __init__(
        self,
        client: DownloadClient,
        url: str,
        sink: _Sink,
        headers: Mapping[str, str],
        expected_bytes: int = 0,
    ) -> None:
        self._client, self._url, self._sink = client, url, sink
        self._headers, self._expected_bytes = headers, expected_bytes
        self._version: FileVersion | None = None
        self._done_bytes = 0
        self._use_ranges = True
        self._digest = _Digest()
        self._resumed = False
        self._received_bytes = 0
        self._furthest_bytes = self._credited_bytes = 0
        self.response: Response | None = None

    def close(self) -> None:
        """End the digest's thread."""
        self._digest.close()

    def resume(self, partial_version: FileVersion, part: Path) -> None:
        """Resume from a partial file that an earlier process left; call this before ``run``.

        Args:
            partial_version: Version of the file whose beginning ``part`` holds.
            part: The partial file, which is read for the digest.
        """
        with part.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if self._client.stop.is_set():
                    raise StoppedError(self._url)
                self._digest.update(block)
                self._done_bytes += len(block)
        self._version = partial_version
        self._furthest_bytes = self._credited_bytes = self._done_bytes

    def run(self) -> Download:
        """Download the whole file, with as many requests as that takes."""
        started_s = time.monotonic()
        with as_unavailable(self._url):
            changed = self._client.with_retries(
                self._url, lambda _: self._request(), self._made_progress
            )
        seconds = time.monotonic() - started_s
        if not changed or self._version is None:
            return Download(changed=False)
        return Download(
            changed=True,
            etag=self._version.etag,
            last_modified=self._version.last_modified,
            md5=self._digest.hexdigest(),
            size_bytes=self._done_bytes,
            resumed=self._resumed,
            received_bytes=self._received_bytes,
            seconds=seconds,
        )

    def _request(self) -> bool:
        """Request what is missing and write it; return whether the file has changed."""
        rest = range_headers(self._version, self._done_bytes, use_ranges=self._use_ranges)
        with self._client.open(self._url, {**self._headers, **rest}) as response:
            self.response = response
            action = choose_action(
                response.status,
                response.headers,
                self._version,
                self._done_bytes,
                append_only=self._sink.append_only,
            )
            if action is ResponseAction.NOT_MODIFIED:
                return False
            if action is ResponseAction.REQUEST_WHOLE:
                if not self._use_ranges or not rest:
                    raise HttpFailureError(
                        f"HTTP {response.status}",
                        f"HTTP {response.status} {response.reason} for a request without a range",
                    )
                self._use_ranges = False
                raise HttpFailureError(
                    "wrong range",
                    f"HTTP {response.status} with Content-Range "
                    f"{response.headers.get('Content-Range', 'missing')!r} "
                    f"for the requested range {rest['Range']!r}",
                    transient=True,
                    retry_after_s=0.0,
                )
            if action is not ResponseAction.COMPLETE:
                self._start(action, response)
                blocks = response.blocks()
                if action is ResponseAction.SKIP_PREFIX:
                    blocks = self._skip_prefix(blocks)
                self._write(blocks)
            else:
                self._resumed = True
        self._check_complete()
        return True

    def _start(self, action: ResponseAction, response: Response) -> None:
        if action is ResponseAction.RESTART:
            if self._done_bytes and self._sink.append_only:
                raise self._changed_error()
            self._reset()
            version = version_of(response.status, response.headers)
            if version.size_bytes is None and self._expected_bytes:
                version = replace(version, size_bytes=self._expected_bytes)
            self._version = version
        elif self._version is None:
            raise AssertionError("only a known version can be resumed")
        else:
            self._resumed = True
            if self._version.size_bytes is None:
                version = version_of(response.status, response.headers)
                self._version = replace(self._version, size_bytes=version.size_bytes)
        self._sink.start(self._version, self._done_bytes)

    def _reset(self) -> None:
        self._done_bytes = 0
        self._resumed = False
        self._digest.reset()

    def _skip_prefix(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what follows the bytes that were written before, if those are the same."""
        prefix = hashlib.md5(usedforsecurity=False)
        left_bytes = self._done_bytes
        for block in blocks:
            head = block[:left_bytes]
            left_bytes -= len(head)
            self._received_bytes += len(head)
            if head:
                prefix.update(head)
                if left_bytes:
                    continue
                if prefix.hexdigest() != self._digest.hexdigest():
                    raise self._changed_error()
            if tail := block[len(head) :] if head else block:
                yield tail
        if left_bytes:
            raise self._changed_error()

    def _changed_error(self) -> Exception:
        return self._discard("changed while read", "the file changed while it was being read")

    def _discard(self, reason: str, detail: str) -> Exception:
        """Discard the partial file; return the error that restarts the download.

        An append-only sink cannot restart, so the error for it ends the download.
        """
        if self._sink.append_only:
            return UnavailableError(
                detail,
                where=self._url,
                remedy="Run the same command again; it reads the file from the beginning",
            )
        self._version = None
        self._reset()
        return HttpFailureError(reason, detail, transient=True)

    def _write(self, blocks: Iterator[bytes]) -> None:
        size_bytes = self._version.size_bytes if self._version else None
        for block in blocks:
            self._received_bytes += len(block)
            if size_bytes is not None and self._done_bytes + len(block) > size_bytes:
                raise HttpFailureError("too long", f"more than the expected {size_bytes:,} bytes")
            # Count first: after an exception in write(), the block may be in the sink already.
            self._done_bytes += len(block)
            self._digest.update(block)
            self._sink.write(block)
            self._furthest_bytes = max(self._furthest_bytes, self._done_bytes)

    def _check_complete(self) -> None:
        version = self._version
        if version is None:
            return
        if version.size_bytes is not None and self._done_bytes < version.size_bytes:
            raise HttpFailureError(
                "interrupted",
                f"received {self._done_bytes:,} of {version.size_bytes:,} bytes",
                transient=True,
            )
        if version.md5 and (md5 := self._digest.hexdigest()) != version.md5:
            raise self._discard(
                "damaged",
                f"the download is damaged: its MD5 is {md5}, but the server reports {version.md5}",
            )

    def _made_progress(self) -> bool:
        """Return whether enough bytes have arrived since the last time this was true."""
        if self._furthest_bytes - self._credited_bytes < _MIN_PROGRESS_BYTES:
            return False
        self._credited_bytes = self._furthest_bytes
        return True


class Stream:
    """A file that is read once, from its first byte to its last, and stored nowhere.

    A thread reads ahead by at most 4 MB, so that the connection does not idle while the consumer
    works. An interrupted download resumes by itself. If the file has changed in the meantime,
    that is an error, because the consumer already has bytes of the old version.

    Args:
        client: Client whose clone sends the requests.
        url: URL of the file.
        expected_bytes: Size of the file if the caller knows it, else 0; used if the server does
            not send the size.

    Attributes:
        url: URL of the file.
        result: The complete download; ``None`` before the last block.
    """

    def __init__(self, client: DownloadClient, url: str, *, expected_bytes: int = 0) -> None:
        self.url = url
        self.result: Download | None = None
        self._outer_stop = client.stop
        self._client = client.clone()
        self._sink = _QueueSink(self._client.stop)
        self._transfer = Transfer(self._client, url, self._sink, {}, expected_bytes)
        self._was_read = False

    def blocks(self, size_bytes: int) -> Generator[bytes, None, None]:
        """Yield the file in blocks of at least ``size_bytes``; the last one may be smaller.

        Raises:
            UnavailableError: The download failed for good, or the file changed in the meantime.
            StoppedError: The stop event was set.
        """
        if self._was_read:
            raise AssertionError("a stream can be read only once")
        self._was_read = True
        thread = threading.Thread(target=self._read, name="stream", daemon=True)
        thread.start()
        try:
            gathered: list[bytes] = []
            gathered_bytes = 0
            for block in self._receive():
                gathered.append(block)
                gathered_bytes += len(block)
                if gathered_bytes >= size_bytes:
                    yield b"".join(gathered)
                    gathered.clear()
                    gathered_bytes = 0
            if gathered:
                yield b"".join(gathered)
        finally:
            self._end(thread)

    def _receive(self) -> Iterator[bytes]:
        while True:
            try:
                item = self._sink.items.get(timeout=_POLL_S)
            except queue.Empty:
                if self._outer_stop.is_set():
                    raise StoppedError(self.url) from None
                continue
            if isinstance(item, Download):
                self.result = item
                return
            if isinstance(item, BaseException):
                raise item
            if self._outer_stop.is_set():
                raise StoppedError(self.url)
            yield item

    def _read(self) -> None:
        """Read the file into the queue; the body of the thread."""
        end: BaseException | Download
        try:
            with contextlib.closing(self._transfer):
                download = self._transfer.run()
            end = replace(download, seconds=max(0.0, download.seconds - self._sink.waited_s))
        except BaseException as error:  # noqa: BLE001  (raised again where the blocks are consumed)
            end = error
        with contextlib.suppress(StoppedError):
            self._sink.put(end)

    def _end(self, thread: threading.Thread) -> None:
        """End the thread, even while it waits for a silent server."""
        self._client.stop.set()
        response = self._transfer.response
        if thread.is_alive() and response is not None:
            response.abort()
        thread.join(_JOIN_TIMEOUT_S)
        self._client.close()


@contextlib.contextmanager
def as_unavailable(url: str) -> Iterator[None]:
    """Turn an ``HttpFailureError`` into an ``UnavailableError`` that says what the user can do."""
    try:
        yield
    except HttpFailureError as failure:
        raise UnavailableError(
            f"cannot be fetched (attempts: {failure.attempts})",
            where=url,
            found=failure.detail,
            remedy="Check the network and the URL, then run the same command again",
        ) from failure
