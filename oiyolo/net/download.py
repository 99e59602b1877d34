"""Large files on their way: to a file on the disk, or through the caller's hands.

What asks the server is behind ``Source``, and what an answer means is in ``resuming``; here is what
lies between: how far a file has come, its digest, and threads that let none wait for another.
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
from oiyolo.net.ranges import Step, next_step, question, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.core.progress import Progress
    from oiyolo.net.ranges import Version

BLOCK_BYTES: Final = 1 << 18
"""Larger blocks leave the processor's cache between the socket, the digest and the file."""

_QUEUE_BYTES: Final = 4 << 20
"""How far the reading of a stream may run ahead of its consumer."""

_WORTH_A_NEW_COUNT_BYTES: Final = 1 << 20
"""A break after so much progress is the first break again."""

_GLANCE_S: Final = 0.2
"""How often who waits for a queue looks whether it should stop."""

_FAREWELL_S: Final = 2.0

T = TypeVar("T")


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


@dataclass(frozen=True)
class Download:
    """A file that came whole; or did not, where the server said "not changed".

    Attributes:
        changed: It came.
        etag: As sent.
        last_modified: As sent.
        md5: Of the whole, in hexadecimal.
        size_bytes: Of the whole.
        resumed: It was put together from more than one answer.
        came_bytes: What was sent for it by this call, in all answers.
        seconds: The time this took, without waiting for the consumer of a stream.
    """

    changed: bool
    etag: str = ""
    last_modified: str = ""
    md5: str = ""
    size_bytes: int = 0
    resumed: bool = False
    came_bytes: int = 0
    seconds: float = 0.0


class Answer(Protocol):
    """A server's answer, whose body has not been read yet."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def reason(self) -> str:
        """The status in words."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by names in any case."""

    def blocks(self) -> Iterator[bytes]:
        """Give the body as it comes.

        Raises:
            HttpFailureError: It broke off.
            StoppedError: The source's stop event was set.
        """

    def shut(self) -> None:
        """Let whoever waits for the body, in another thread, wait no longer."""


class Source(Protocol):
    """What asks servers.

    Attributes:
        stop: When this event is set, waiting ends and ``StoppedError`` is raised.
    """

    stop: threading.Event

    def opened(
        self, url: str, headers: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Answer]:
        """Ask once; answers of other than ``resuming.STATUSES`` raise ``HttpFailureError``."""

    def patiently(self, url: str, once: Callable[[int], T], came_on: Callable[[], bool] = ...) -> T:
        """Try until it goes well; a failure after which ``came_on`` is true is the first again."""

    def apart(self) -> Source:
        """Give another of the same kind that is stopped and closed alone."""

    def close(self) -> None:
        """Close all connections."""


class _Sink(Protocol):
    """Where a transfer's bytes go.

    Attributes:
        must_go_on: What it has been given cannot be taken back.
    """

    must_go_on: bool

    def begin(self, version: Version, done: int) -> None:
        """A version comes of which ``done`` bytes are here; without any, all is taken back."""

    def write(self, block: bytes) -> None:
        """Take a block."""


class FileSink:
    """A file on the disk; unbuffered, so that what was written outlives the process."""

    must_go_on = False

    def __init__(
        self,
        part: Path,
        told: Progress,
        begin: Callable[[Version, int], None],
        stack: contextlib.ExitStack,
    ) -> None:
        self._part, self._told, self._begin, self._stack = part, told, begin, stack
        self._file: BinaryIO | None = None
        self._size = part.stat().st_size if part.is_file() else 0

    def begin(self, version: Version, done: int) -> None:
        """See ``_Sink``."""
        if self._file is None:
            self._file = self._stack.enter_context(self._part.open("ab", buffering=0))
        if done != self._size:  # of another version
            self._file.truncate(done)
            self._told.advance(done - self._size)
            self._size = done
        self._begin(version, done)

    def write(self, block: bytes) -> None:
        """See ``_Sink``."""
        if self._file is None:
            raise AssertionError("a block before its version")
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self._size += len(block)
        self._told.advance(len(block))


class _QueueSink:
    """The way from a stream's reading thread to its consumer."""

    must_go_on = True

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.blocks: queue.Queue[bytes | BaseException | Download] = queue.Queue(
            _QUEUE_BYTES // BLOCK_BYTES
        )
        self.waited_s = 0.0

    def begin(self, version: Version, done: int) -> None:
        pass

    def write(self, block: bytes) -> None:
        try:
            self.blocks.put_nowait(block)
        except queue.Full:
            started_s = time.monotonic()
            self.put(block)
            self.waited_s += time.monotonic() - started_s

    def put(self, item: bytes | BaseException | Download) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self.blocks.put(item, timeout=_GLANCE_S)
                return
        raise StoppedError


class _Digest:
    """An MD5 in a thread of its own: it takes longer than to read or write the same bytes."""

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
        """Give the digest of all that came so far."""
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
    """One file on its way to a sink: what is known of it, and how far it has come."""

    def __init__(
        self,
        source: Source,
        url: str,
        sink: _Sink,
        headers: Mapping[str, str],
        expected_bytes: int = 0,
    ) -> None:
        self._source, self._url, self._sink = source, url, sink
        self._headers, self._expected_bytes = headers, expected_bytes
        self._version: Version | None = None
        self._done = 0
        self._ranges = True
        self._digest = _Digest()
        self._resumed = False
        self._came_bytes = 0
        self._furthest = self._counted = 0
        self.answer: Answer | None = None

    def close(self) -> None:
        """End the digest's thread."""
        self._digest.close()

    def take_up(self, held: Version, part: Path) -> None:
        """Go on with what another process left."""
        with part.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if self._source.stop.is_set():
                    raise StoppedError(self._url)
                self._digest.update(block)
                self._done += len(block)
        self._version = held
        self._furthest = self._counted = self._done

    def run(self) -> Download:
        """Bring it all, in as many answers as it takes."""
        started_s = time.monotonic()
        with as_unavailable(self._url):
            changed = self._source.patiently(self._url, lambda _: self._once(), self._came_on)
        seconds = time.monotonic() - started_s
        if not changed or self._version is None:
            return Download(changed=False)
        return Download(
            changed=True,
            etag=self._version.etag,
            last_modified=self._version.last_modified,
            md5=self._digest.hexdigest(),
            size_bytes=self._done,
            resumed=self._resumed,
            came_bytes=self._came_bytes,
            seconds=seconds,
        )

    def _once(self) -> bool:
        asked = question(self._version, self._done, ranges=self._ranges)
        with self._source.opened(self._url, {**self._headers, **asked}) as answer:
            self.answer = answer
            step = next_step(
                answer.status,
                answer.headers,
                self._version,
                self._done,
                must_go_on=self._sink.must_go_on,
            )
            if step is Step.NOT_CHANGED:
                return False
            if step is Step.ASK_FOR_ALL:
                if not self._ranges or not asked:
                    raise HttpFailureError(
                        f"HTTP {answer.status}",
                        f"HTTP {answer.status} {answer.reason}, which was not asked for",
                    )
                self._ranges = False
                raise HttpFailureError(
                    "another range",
                    f"HTTP {answer.status} with Content-Range "
                    f"{answer.headers.get('Content-Range', 'missing')!r} "
                    f"for {asked['Range']!r}",
                    transient=True,
                    retry_after_s=0.0,
                )
            if step is not Step.COMPLETE:
                self._begin(step, answer)
                blocks = answer.blocks()
                if step is Step.SKIP:
                    blocks = self._without_beginning(blocks)
                self._take(blocks)
            else:
                self._resumed = True
        self._check_whole()
        return True

    def _begin(self, step: Step, answer: Answer) -> None:
        if step is Step.START_OVER:
            if self._done and self._sink.must_go_on:
                raise self._is_another()
            self._restart()
            version = version_of(answer.status, answer.headers)
            if version.size_bytes is None and self._expected_bytes:
                version = replace(version, size_bytes=self._expected_bytes)
            self._version = version
        elif self._version is None:
            raise AssertionError("only a version that is known can be gone on with")
        else:
            self._resumed = True
            if self._version.size_bytes is None:
                now = version_of(answer.status, answer.headers)
                self._version = replace(self._version, size_bytes=now.size_bytes)
        self._sink.begin(self._version, self._done)

    def _restart(self) -> None:
        self._done = 0
        self._resumed = False
        self._digest.reset()

    def _without_beginning(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass over what is here already, if it is the same."""
        beginning = hashlib.md5(usedforsecurity=False)
        left = self._done
        for block in blocks:
            mine = block[:left]
            left -= len(mine)
            self._came_bytes += len(mine)
            if mine:
                beginning.update(mine)
                if left:
                    continue
                if beginning.hexdigest() != self._digest.hexdigest():
                    raise self._is_another()
            if rest := block[len(mine) :] if mine else block:
                yield rest
        if left:
            raise self._is_another()

    def _is_another(self) -> Exception:
        return self._of_no_use("changed meanwhile", "the file changed while it was being read")

    def _of_no_use(self, reason: str, detail: str) -> Exception:
        """Forget what came; give the error that has it asked for anew, where that can be."""
        if self._sink.must_go_on:
            return UnavailableError(
                detail,
                where=self._url,
                remedy="Give the same command again; it reads from the beginning",
            )
        self._version = None
        self._restart()
        return HttpFailureError(reason, detail, transient=True)

    def _take(self, blocks: Iterator[bytes]) -> None:
        size_bytes = self._version.size_bytes if self._version else None
        for block in blocks:
            self._came_bytes += len(block)
            if size_bytes is not None and self._done + len(block) > size_bytes:
                raise HttpFailureError(
                    "too long", f"more bytes than the {size_bytes:,} that it should have"
                )
            # Counted first: a sink that is interrupted has had the block, or is not asked again.
            self._done += len(block)
            self._digest.update(block)
            self._sink.write(block)
            self._furthest = max(self._furthest, self._done)

    def _check_whole(self) -> None:
        version = self._version
        if version is None:
            return
        if version.size_bytes is not None and self._done < version.size_bytes:
            raise HttpFailureError(
                "broken off", f"{self._done:,} of {version.size_bytes:,} bytes came", transient=True
            )
        if version.md5 and (md5 := self._digest.hexdigest()) != version.md5:
            raise self._of_no_use(
                "damaged", f"it came damaged: MD5 {md5}, where the server says {version.md5}"
            )

    def _came_on(self) -> bool:
        """Tell whether there was progress worth the name since the last failure."""
        if self._furthest - self._counted < _WORTH_A_NEW_COUNT_BYTES:
            return False
        self._counted = self._furthest
        return True


class Stream:
    """A body that goes through the caller's hands once, from its first byte on, in order.

    A thread reads ahead, by 4 MB at most, so that the consumer's work costs no time of the line.
    After a break it goes on by itself; where that cannot be because the file changed meanwhile,
    that is an error.

    Attributes:
        where: The address.
        got: What came, once it came whole.
    """

    def __init__(self, source: Source, url: str, *, expected_bytes: int = 0) -> None:
        self.where = url
        self.got: Download | None = None
        self._outer_stop = source.stop
        self._source = source.apart()
        self._sink = _QueueSink(self._source.stop)
        self._transfer = Transfer(self._source, url, self._sink, {}, expected_bytes)
        self._begun = False

    def blocks(self, size_bytes: int) -> Generator[bytes, None, None]:
        """Give all bytes, in blocks of about ``size_bytes``; the last may be small.

        Raises:
            UnavailableError: It broke off for good, or changed meanwhile.
            StoppedError: The stop event was set.
        """
        if self._begun:
            raise AssertionError("a stream can be read once")
        self._begun = True
        thread = threading.Thread(target=self._read, name="stream", daemon=True)
        thread.start()
        try:
            gathered: list[bytes] = []
            count = 0
            for block in self._come():
                gathered.append(block)
                count += len(block)
                if count >= size_bytes:
                    yield b"".join(gathered)
                    gathered.clear()
                    count = 0
            if gathered:
                yield b"".join(gathered)
        finally:
            self._end(thread)

    def _come(self) -> Iterator[bytes]:
        while True:
            try:
                item = self._sink.blocks.get(timeout=_GLANCE_S)
            except queue.Empty:
                if self._outer_stop.is_set():
                    raise StoppedError(self.where) from None
                continue
            if isinstance(item, Download):
                self.got = item
                return
            if isinstance(item, BaseException):
                raise item
            if self._outer_stop.is_set():
                raise StoppedError(self.where)
            yield item

    def _read(self) -> None:
        """Bring the file into the queue: the thread's whole life."""
        end: BaseException | Download
        try:
            with contextlib.closing(self._transfer):
                got = self._transfer.run()
            end = replace(got, seconds=max(0.0, got.seconds - self._sink.waited_s))
        except BaseException as error:  # noqa: BLE001  (it is raised where the bytes are awaited)
            end = error
        with contextlib.suppress(StoppedError):
            self._sink.put(end)

    def _end(self, thread: threading.Thread) -> None:
        """End the thread, also while it waits for a server that says nothing."""
        self._source.stop.set()
        answer = self._transfer.answer
        if thread.is_alive() and answer is not None:
            answer.shut()
        thread.join(_FAREWELL_S)
        self._source.close()


@contextlib.contextmanager
def as_unavailable(url: str) -> Iterator[None]:
    """Say what failed in a user's words."""
    try:
        yield
    except HttpFailureError as failure:
        raise UnavailableError(
            f"this cannot be fetched (attempts: {failure.attempts})",
            where=url,
            found=failure.detail,
            remedy="Check the network and the address, then give the same command again",
        ) from failure
