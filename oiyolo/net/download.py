"""Download of one large file, into a file on disk or as a stream of blocks.

Both resume after an interruption (``ranges`` decides how), and an interruption after some progress
does not count against the attempts. Reading, hashing and consuming run in separate threads so that
none of them waits for another.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

from oiyolo.core import disks, files
from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.core.progress import progress
from oiyolo.core.units import format_bytes
from oiyolo.net.client import BLOCK_BYTES
from oiyolo.net.ranges import FileVersion, ResponseAction, choose_action, range_headers, version_of
from oiyolo.net.retry import HttpFailureError, StoppedError
from oiyolo.net.urls import display_url

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.core.progress import Progress
    from oiyolo.net.client import HttpClient, Response

PARTIAL_SUFFIX: Final = ".unfinished"
"""Ending of the names of partial downloads."""

_RESERVED_BYTES: Final = 256 << 20
"""Disk space to leave free, because a full disk affects other programs too."""

_RESERVE_CHECK_BYTES: Final = 64 << 20
"""How much of a file of unknown size is written between two checks of the free disk space."""

_QUEUE_BYTES: Final = 4 << 20
"""Maximum number of bytes that are read ahead of a stream's consumer."""

_MIN_PROGRESS_BYTES: Final = 1 << 20
"""A failure after this much progress counts as the first failure again."""

_POLL_S: Final = 0.2
"""How often a thread that waits for a queue checks the stop event."""

_JOIN_TIMEOUT_S: Final = 2.0

_log = logging.getLogger("oiyolo")


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


class PartialDownload:
    """A file that is being downloaded, or whose download was interrupted.

    A record next to the file (``.json``) holds its URL, without credentials, and the version of
    which it is the beginning, so that a later process can resume the download.

    Args:
        path: Path of the partial file.
        url: URL of the whole file.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self._record_path = path.with_name(path.name + ".json")

    def find(self) -> tuple[FileVersion | None, int]:
        """Return the version and the size in bytes of an interrupted download; else (None, 0)."""
        record = files.read_json(self._record_path)
        if not isinstance(record, dict) or not self.path.is_file():
            return None, 0
        version = FileVersion.from_dict(record.get("version"))
        size_bytes = self.path.stat().st_size
        is_same_url = record.get("url") == display_url(self.url)
        if version is None or not is_same_url or not size_bytes:
            return None, 0
        if version.size_bytes is not None and size_bytes > version.size_bytes:
            return None, 0
        return version, size_bytes

    def delete(self) -> None:
        """Delete the partial file and its record."""
        self._record_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Move the file, which is complete and verified, to its final path."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self._record_path.unlink(missing_ok=True)

    def download(
        self,
        client: HttpClient,
        *,
        label: str,
        headers: Mapping[str, str] | None = None,
        current_version: FileVersion | None = None,
        expected_bytes: int = 0,
        check_size: Callable[[int], None] = lambda _: None,
        check_file: Callable[[Download], None] = lambda _: None,
        disk_remedy: str = "or set [openimages] cache to a folder on a larger disk",
    ) -> Download:
        """Download the file, or the rest of it; ``finish`` then gives it its final name.

        After an interruption, what was written is kept. A file that fails its check is deleted. If
        it was resumed, it is first downloaded again from scratch: its parts may be of different
        versions, even if the server said otherwise.

        Args:
            client: Client that sends the requests.
            label: Name of the file, for the progress bar and for errors.
            headers: Extra request headers; with ``If-None-Match`` the result may be "not modified".
            current_version: Version that the caller has; the result is "not modified" too if the
                server ignores the condition, but sends the same version.
            expected_bytes: Size of the file if the caller knows it, else 0; used if the server
                does not send the size.
            check_size: Function called with the size of the file before any of it is written; it
                raises InputFormError if this cannot be the right file.
            check_file: Function called when the file is complete; it raises InputFormError if this
                is not the right file.
            disk_remedy: What the user can do if the disk is too small, besides freeing some space.

        Raises:
            InputFormError: The file failed a check.
            UnavailableError: No usable response after all attempts, or the file does not fit on
                the disk.
            StoppedError: The client's stop event was set.
        """
        folder = self.path.parent

        def on_start(version: FileVersion, done_bytes: int) -> None:
            if version.size_bytes is not None:
                check_size(version.size_bytes)
                rest_bytes = version.size_bytes - done_bytes
                needed_bytes = rest_bytes + min(rest_bytes, _RESERVED_BYTES)
                disks.check_free_space(folder, needed_bytes, what=label, remedy=disk_remedy)
            if not done_bytes:
                record = {"url": display_url(self.url), "version": asdict(version)}
                files.write_json(self._record_path, record)

        def check_reserve() -> None:
            try:
                disks.check_free_space(folder, _RESERVED_BYTES, what=label, remedy=disk_remedy)
            except UnavailableError:  # the file may have no end, so its beginning is useless
                self.delete()
                raise

        def transfer() -> Download:
            with disks.convert_disk_full_error(folder, what=label, remedy=disk_remedy):
                return self._transfer(
                    client,
                    label,
                    headers or {},
                    current_version,
                    expected_bytes,
                    on_start=on_start,
                    check_reserve=check_reserve,
                )

        try:
            return self._checked(transfer, check_file)
        except InputFormError:
            self.delete()
            raise

    def _checked(
        self, transfer: Callable[[], Download], check_file: Callable[[Download], None]
    ) -> Download:
        download = transfer()
        if not download.changed:
            self.delete()
            return download
        try:
            check_file(download)
        except InputFormError:
            if not download.resumed:
                raise
        else:
            return download
        _log.warning(
            "the resumed download of %s is damaged; downloading it again from scratch",
            display_url(self.url),
        )
        self.delete()
        download = transfer()
        check_file(download)
        return download

    def _transfer(
        self,
        client: HttpClient,
        label: str,
        headers: Mapping[str, str],
        current_version: FileVersion | None,
        expected_bytes: int,
        *,
        on_start: Callable[[FileVersion, int], None],
        check_reserve: Callable[[], None],
    ) -> Download:
        version, done_bytes = self.find()
        if version is None:
            self.delete()
        else:
            shown_url = display_url(self.url)
            _log.info("resuming the download of %s after %s", shown_url, format_bytes(done_bytes))
        with (
            progress(label, total=expected_bytes or None, unit="B", initial=done_bytes) as bar,
            contextlib.closing(
                FileTransfer(
                    client,
                    self,
                    headers,
                    expected_bytes,
                    bar=bar,
                    on_start=on_start,
                    check_reserve=check_reserve,
                )
            ) as transfer,
        ):
            transfer.current_version = current_version
            if version is not None:
                transfer.resume(version)
            return transfer.run()


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


class Transfer(abc.ABC):
    """Download of one file: its version, its progress, and its checks.

    Args:
        client: Client that sends the requests.
        url: URL of the file.
        headers: Extra request headers.
        expected_bytes: Size of the file if the caller knows it, else 0; used if the server does
            not send the size.

    Attributes:
        append_only: Whether bytes that were delivered cannot be taken back.
        current_version: Version that the caller has and that is not to be downloaded again.
    """

    append_only: ClassVar[bool]

    def __init__(
        self, client: HttpClient, url: str, headers: Mapping[str, str], expected_bytes: int
    ) -> None:
        self.url = url
        self.current_version: FileVersion | None = None
        self._client, self._headers, self._expected_bytes = client, headers, expected_bytes
        self._version: FileVersion | None = None
        self._done_bytes = 0
        self._use_ranges = True
        self._digest = _Digest()
        self._resumed = False
        self._received_bytes = 0
        self._furthest_bytes = self._credited_bytes = 0
        self._response: Response | None = None

    def close(self) -> None:
        """End the digest's thread."""
        self._digest.close()

    @abc.abstractmethod
    def _begin(self, version: FileVersion) -> None:
        """Prepare for the bytes of a version from ``_done_bytes`` on; discard any later bytes."""

    @abc.abstractmethod
    def _deliver(self, block: bytes) -> None:
        """Append a block."""

    def run(self) -> Download:
        """Download the whole file, with as many requests as that takes."""
        started_s = time.monotonic()
        changed = self._client.with_retries(
            self.url, lambda _: self._request(), self._made_progress
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
        with self._client.open(self.url, {**self._headers, **rest}) as response:
            self._response = response
            action = self._choose_action(response)
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

    def _choose_action(self, response: Response) -> ResponseAction:
        if (
            self.current_version is not None
            and response.status == HTTPStatus.OK
            and version_of(response.status, response.headers).same_as(self.current_version)
        ):
            return ResponseAction.NOT_MODIFIED
        return choose_action(
            response.status,
            response.headers,
            self._version,
            self._done_bytes,
            append_only=self.append_only,
        )

    def _start(self, action: ResponseAction, response: Response) -> None:
        if action is ResponseAction.RESTART:
            if self._done_bytes and self.append_only:
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
        self._begin(self._version)

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
        if self.append_only:
            return UnavailableError(
                detail,
                where=display_url(self.url),
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
            # Count first: after an exception, the block may have been delivered already.
            self._done_bytes += len(block)
            self._digest.update(block)
            self._deliver(block)
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


class FileTransfer(Transfer):
    """Download into a partial file; unbuffered, so that written bytes survive a kill.

    Args:
        client: Client that sends the requests.
        partial: The file.
        headers: Extra request headers.
        expected_bytes: As for ``Transfer``.
        bar: Progress bar, advanced by a negative count when the download restarts.
        on_start: Function called with the version and the number of its bytes that the file has,
            before the first further block is written.
        check_reserve: Function called at intervals if the size is unknown; raises if the disk is
            nearly full.
    """

    append_only = False

    def __init__(
        self,
        client: HttpClient,
        partial: PartialDownload,
        headers: Mapping[str, str],
        expected_bytes: int,
        *,
        bar: Progress,
        on_start: Callable[[FileVersion, int], None],
        check_reserve: Callable[[], None],
    ) -> None:
        super().__init__(client, partial.url, headers, expected_bytes)
        self._path, self._bar, self._on_start = partial.path, bar, on_start
        self._check_reserve, self._unchecked_bytes = check_reserve, 0
        self._file: BinaryIO | None = None
        self._size_bytes = 0

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._file is not None:
            self._file.close()

    def resume(self, version: FileVersion) -> None:
        """Resume from the beginning of this version, which the file holds."""
        with self._path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                if self._client.stop.is_set():
                    raise StoppedError
                self._digest.update(block)
                self._done_bytes += len(block)
        self._version = version
        self._furthest_bytes = self._credited_bytes = self._size_bytes = self._done_bytes

    def _begin(self, version: FileVersion) -> None:
        if self._file is None:
            self._file = files.open_append(self._path)
        if self._done_bytes != self._size_bytes:  # the file holds another version
            self._file.truncate(self._done_bytes)
            self._bar.advance(self._done_bytes - self._size_bytes)
            self._size_bytes = self._done_bytes
        self._on_start(version, self._done_bytes)

    def _deliver(self, block: bytes) -> None:
        if self._file is None:
            raise AssertionError("_deliver() before _begin()")
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self._size_bytes += len(block)
        self._bar.advance(len(block))
        self._unchecked_bytes += len(block)
        if self._unchecked_bytes >= _RESERVE_CHECK_BYTES:
            self._unchecked_bytes = 0
            if self._version is None or self._version.size_bytes is None:
                self._check_reserve()


class Stream(Transfer):
    """Download of a file that is read once, from its first byte to its last, and stored nowhere.

    A thread reads ahead by at most 4 MB, so that the connection does not idle while the consumer
    works. An interrupted download resumes by itself. If the file has changed in the meantime,
    that is an error, because the consumer already has bytes of the old version.

    Args:
        client: Client whose clone sends the requests.
        url: URL of the file.
        expected_bytes: As for ``Transfer``.

    Attributes:
        result: The complete download; ``None`` before the last block.
    """

    append_only = True

    def __init__(self, client: HttpClient, url: str, *, expected_bytes: int = 0) -> None:
        super().__init__(client.clone(), url, {}, expected_bytes)
        self.result: Download | None = None
        self._outer_stop = client.stop
        self._items: queue.Queue[bytes | BaseException | Download] = queue.Queue(
            _QUEUE_BYTES // BLOCK_BYTES
        )
        self._waited_s = 0.0
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
                item = self._items.get(timeout=_POLL_S)
            except queue.Empty:
                if self._outer_stop.is_set():
                    raise StoppedError from None
                continue
            if isinstance(item, Download):
                self.result = item
                return
            if isinstance(item, BaseException):
                raise item
            if self._outer_stop.is_set():
                raise StoppedError
            yield item

    def _read(self) -> None:
        """Read the file into the queue; the body of the thread."""
        end: BaseException | Download
        try:
            with contextlib.closing(self):
                download = self.run()
            end = replace(download, seconds=max(0.0, download.seconds - self._waited_s))
        except BaseException as error:  # noqa: BLE001  (raised again where the blocks are consumed)
            end = error
        with contextlib.suppress(StoppedError):
            self._put(end)

    def _begin(self, version: FileVersion) -> None:
        pass

    def _deliver(self, block: bytes) -> None:
        try:
            self._items.put_nowait(block)
        except queue.Full:
            started_s = time.monotonic()
            self._put(block)
            self._waited_s += time.monotonic() - started_s

    def _put(self, item: bytes | BaseException | Download) -> None:
        while not self._client.stop.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=_POLL_S)
                return
        raise StoppedError

    def _end(self, thread: threading.Thread) -> None:
        """End the thread, even while it waits for a silent server."""
        self._client.stop.set()
        if thread.is_alive() and self._response is not None:
            self._response.abort()
        thread.join(_JOIN_TIMEOUT_S)
        self._client.close()
