"""Google Cloud Storage client: reads, lists and writes the objects of a bucket.

It uses the user's own credentials (Application Default Credentials) or, if there are none,
anonymous access, which public buckets allow. ``STORAGE_EMULATOR_HOST`` selects an emulator, as in
Google's own tools. The CRC32C of every object is checked on download and on upload.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from oiyolo.core import files
from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net import google_api
from oiyolo.net.buckets import FileFacts
from oiyolo.net.google_api import NOT_FOUND, WRONG_CHECKSUM
from oiyolo.net.retry import HttpFailureError, RetryPolicy, StoppedError

import google.cloud.storage  # isort: skip  (google_api suppresses warnings of Google's libraries)
import google_crc32c  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.core.errors import OiyoloError
    from oiyolo.core.progress import Progress
    from oiyolo.net.buckets import BucketFolder

_CHECKSUM: Final = "crc32c"
"""Every object has one; an object composed of parts has no MD5."""
_RETRY_POLICY: Final = RetryPolicy(connect_timeout_s=5.0, read_timeout_s=15.0)
_CHUNK_BYTES: Final = 16 << 20
"""Larger files are uploaded in chunks of this size; each chunk is retried on its own."""
_READ_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 64
_UPLOAD_TIMEOUT_FACTOR: Final = 4
"""Uploading a chunk takes longer than receiving a response."""
_READ: Final = "read"
_CHANGED: Final = "It was deleted meanwhile: run the same command again"
_ROLES: Final = "roles/storage.objectViewer to read, roles/storage.objectUser to write"

_storage: Any = google.cloud.storage
_crc32c: Any = google_crc32c
"""These are only partly typed, and differently in each version."""

T = TypeVar("T")


class BucketClient:
    """Client for a folder in a bucket; threads may share it.

    It connects at the first call that sends a request.

    Args:
        folder: The folder.
        connections: Connections to keep alive; at least the number of threads that share the
            client.
        retry_policy: Attempts, pauses and timeouts.
        stop: Event that ends all requests and pauses with ``StoppedError``.
    """

    def __init__(
        self,
        folder: BucketFolder,
        *,
        connections: int = _CONNECTIONS,
        retry_policy: RetryPolicy | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.folder = folder
        self.retry_policy = retry_policy or _RETRY_POLICY
        self.stop = stop or threading.Event()
        self._timeout_s = (self.retry_policy.connect_timeout_s, self.retry_policy.read_timeout_s)
        self._connections = connections
        self._open_lock = threading.Lock()
        self._client: Any = None
        self._bucket: Any = None
        self._is_anonymous = False

    def close(self) -> None:
        """Close all connections."""
        with self._open_lock:
            if self._client is not None:
                self._client.close()

    def read(self, name: str, *, limit_bytes: int, deadline_s: float) -> tuple[bytes, int]:
        """Return a complete object with a verified checksum, and the number of attempts made.

        Args:
            name: Name of the object in the folder.
            limit_bytes: Maximum size of the object; a larger one is an error.
            deadline_s: Maximum duration of an attempt; a slower one fails and is retried.

        Raises:
            HttpFailureError: No usable response after all attempts.
            OiyoloError: The credentials cannot be used at all.
            StoppedError: The stop event was set.
        """
        blob = self._blob(name)

        def request(attempt: int) -> tuple[bytes, int]:
            sink = _Sink(limit_bytes, time.monotonic() + deadline_s, self.stop)
            blob.download_to_file(sink, checksum=_CHECKSUM, timeout=self._timeout_s, retry=None)
            return sink.getvalue(), attempt

        return self._call(request)

    def list_names(
        self, *, limit: int | None = None, between: tuple[str, str] = ("", "")
    ) -> Iterator[str]:
        """Yield the names of the folder's objects, relative to the folder.

        Args:
            limit: Maximum number of names; ``None`` for all.
            between: First name, and the name before which to end; empty for no bound.

        Raises:
            UnavailableError: The bucket does not respond, or refuses this user.
            UsageError: There is no such bucket.
        """
        prefix = self.folder.name_prefix
        first, end = (prefix + name if name else None for name in between)
        token, left = None, limit
        while True:
            with self._user_errors("listed"):
                page, token = self._page(token, left, start_offset=first, end_offset=end)
            for blob in page[:left]:
                yield blob.name[len(prefix) :]
            left = None if left is None else left - len(page)
            if token is None or (left is not None and left <= 0):
                return

    def list_objects(self) -> Iterator[tuple[str, FileFacts]]:
        """Yield each object's name, relative to the folder, with its size and checksum.

        Raises:
            UnavailableError: The bucket does not respond, or refuses this user.
            UsageError: There is no such bucket.
        """
        token = None
        while True:
            with self._user_errors("listed"):
                page, token = self._page(token, None, fields="name,size,crc32c")
            for blob in page:
                name = blob.name[len(self.folder.name_prefix) :]
                yield name, FileFacts(blob.size, blob.crc32c)
            if token is None:
                return

    def has_objects(self) -> bool | None:
        """Return whether the folder has any object; ``None`` if it cannot be listed.

        A user who may read objects need not have the permission to list them.

        Raises:
            UsageError: There is no such bucket.
        """
        try:
            page, _ = self._page(None, 1)
        except HttpFailureError as failure:
            if failure.reason == NOT_FOUND:
                raise self.user_error(failure, "listed") from failure
            return None
        return bool(page)

    def send_file(self, path: Path, name: str, facts: FileFacts, progress: Progress) -> None:
        """Upload a file, without asking whether the bucket has it already.

        Args:
            path: The file.
            name: Name of the object in the folder.
            facts: Size and checksum of the file; what the bucket has received must match.
            progress: Bar to advance by each block.

        Raises:
            UnavailableError: The upload failed, the bucket refuses this user, or the file was
                changed meanwhile.
            UsageError: There is no such bucket.
            OSError: The file cannot be read.
        """
        with files.open_binary(path) as file, self._user_errors("written to"):
            size_bytes = os.fstat(file.fileno()).st_size
            blob = self._blob(name, chunk_size=_CHUNK_BYTES)
            if size_bytes == facts.size_bytes:
                self._send(blob, _Source(file, progress, self.stop), size_bytes)
        if size_bytes != facts.size_bytes or blob.crc32c != facts.crc32c:
            raise UnavailableError(
                "the file was changed while it was uploaded",
                where=str(path),
                remedy="Run the same command again when nothing writes to it",
            )

    def receive_file(self, name: str, path: Path, facts: FileFacts, progress: Progress) -> None:
        """Download an object into a file, which is complete when this returns.

        A failed attempt is continued where it ended, unless the content is wrong.

        Args:
            name: Name of the object in the folder.
            path: The file to write; the caller gives it its final name.
            facts: Size and checksum that the object must have.
            progress: Bar to advance by each block.

        Raises:
            UnavailableError: The download failed, the bucket refuses this user, or the object is
                another one.
            UsageError: There is no such bucket.
            OSError: The file cannot be written.
        """
        blob = self._blob(name)
        with path.open("wb") as file, self._user_errors(_READ):
            sink = _FileSink(file, facts, progress, self.stop)

            def request(_: int) -> None:
                blob.download_to_file(
                    sink,
                    start=sink.tell() or None,
                    raw_download=True,  # as stored, which is what the checksum covers
                    checksum=None,
                    timeout=self._timeout_s,
                    retry=None,
                )
                sink.check()

            if facts.size_bytes:
                self._call(request)

    def delete(self, name: str) -> None:
        """Delete an object; a missing one is no error.

        Raises:
            UnavailableError: The bucket does not respond, or refuses this user.
        """
        blob = self._blob(name)
        with self._user_errors("written to"):
            try:
                self._call(lambda _: blob.delete(timeout=self._timeout_s, retry=None))
            except HttpFailureError as failure:
                if failure.reason != NOT_FOUND:
                    raise

    def put(self, content: bytes, name: str, *, content_type: str) -> None:
        """Write an object, completely or not at all; an existing one is replaced.

        Args:
            content: The object's bytes.
            name: Name of the object in the folder.
            content_type: Media type, sent to clients that read the object over HTTP.

        Raises:
            UnavailableError: The upload failed, or the bucket refuses this user.
            UsageError: There is no such bucket.
        """
        source = _Source(io.BytesIO(content), NO_PROGRESS, self.stop)
        with self._user_errors("written to"):
            self._send(self._blob(name), source, len(content), content_type)

    @contextlib.contextmanager
    def _user_errors(self, action: str) -> Iterator[None]:
        """Turn a failure into the error that says what the user can do."""
        try:
            yield
        except HttpFailureError as failure:
            raise self.user_error(failure, action) from failure

    def user_error(self, failure: HttpFailureError, action: str) -> OiyoloError:
        """Return the error that says what the user can do.

        Args:
            failure: Failure of a request.
            action: What could not be done to the bucket: ``read``, ``listed`` or ``written to``.
        """
        what = f"the bucket cannot be {action}"
        create = f"Create it: `gcloud storage buckets create gs://{self.folder.bucket}`"
        access = f"Ask for a role on the bucket: {_ROLES}"
        if self._is_anonymous:
            access = "Log in: `gcloud auth application-default login`"
        known: dict[str, google_api.ErrorText] = {
            NOT_FOUND: (UsageError, "there is no such bucket", create),
            "HTTP 401": (UnavailableError, what, access),
            "HTTP 403": (UnavailableError, what, access),
        }
        if action == _READ:
            known[NOT_FOUND] = (UnavailableError, "an object is missing", _CHANGED)
        return google_api.user_error(failure, what, where=str(self.folder), known=known)

    def _blob(self, name: str, **options: int) -> Any:  # noqa: ANN401  (the library has no types)
        return self._opened_bucket().blob(self.folder.object_name(name), **options)

    def _opened_bucket(self) -> Any:  # noqa: ANN401
        with self._open_lock:
            if self._bucket is None:
                self._open()
            return self._bucket

    def _open(self) -> None:
        account = google_api.identity()
        self._is_anonymous = account.is_anonymous
        session: Any = google_api.auth.transport.requests.AuthorizedSession(
            account.credentials,
            # Anonymous credentials cannot be refreshed; the attempt would hide the response.
            **({"refresh_status_codes": ()} if account.is_anonymous else {}),
        )
        # The default pool holds ten connections and discards all others after use.
        adapter = type(session.get_adapter("https://"))
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter(pool_maxsize=self._connections))
        self._client = _storage.Client(project=None, credentials=account.credentials, _http=session)
        # The cache would also request the bucket's metadata, in its own threads and with retries
        # that cannot be stopped.
        self._client._bucket_metadata_cache = None  # noqa: SLF001  (there is no other switch)
        self._bucket = self._client.bucket(self.folder.bucket)

    def _page(
        self, token: str | None, limit: int | None, *, fields: str = "name", **offsets: str | None
    ) -> tuple[list[Any], str | None]:
        """Return the objects on a page of the list, and the token of the next page."""
        bucket = self._opened_bucket()

        def request(_: int) -> tuple[list[Any], str | None]:
            blobs = self._client.list_blobs(
                bucket,
                prefix=self.folder.name_prefix,
                page_token=token,
                max_results=limit,
                fields=f"items({fields}),nextPageToken",
                timeout=self._timeout_s,
                retry=None,
                **offsets,
            )
            page = next(blobs.pages, ())
            return list(page), blobs.next_page_token

        return self._call(request)

    def _send(
        self,
        blob: Any,  # noqa: ANN401  (the library has no types)
        source: _Source,
        size_bytes: int,
        content_type: str | None = None,
    ) -> None:
        def retried(send: Callable[[], T]) -> Callable[[], T]:
            """Wrap each request that the library sends: for a whole small file, or a chunk."""
            return functools.partial(self._call, lambda _: send())

        try:
            blob.upload_from_file(
                source,
                size=size_bytes,
                content_type=content_type,
                checksum=_CHECKSUM,
                timeout=(
                    self.retry_policy.connect_timeout_s,
                    _UPLOAD_TIMEOUT_FACTOR * self.retry_policy.read_timeout_s,
                ),
                retry=retried,
            )
        except HttpFailureError as failure:
            if failure.reason == WRONG_CHECKSUM:  # found after the last chunk
                self._call(lambda _: blob.delete(timeout=self._timeout_s, retry=None))
            raise

    def _call(self, request: Callable[[int], T]) -> T:
        return google_api.call(request, policy=self.retry_policy, stop=self.stop)


class _Sink(io.BytesIO):
    """Receives an object up to a size limit and a deadline (a time of ``time.monotonic``)."""

    def __init__(self, limit_bytes: int, end_s: float, stop: threading.Event) -> None:
        super().__init__()
        self._limit_bytes, self._end_s, self._stop = limit_bytes, end_s, stop

    def write(self, block: Any, /) -> int:  # noqa: ANN401  (whatever holds bytes)
        """Append a block; raise if it exceeds a limit or the download was stopped."""
        if self._stop.is_set():
            raise StoppedError
        if self.tell() + len(block) > self._limit_bytes:
            raise HttpFailureError("too large", f"more than {self._limit_bytes} bytes")
        if time.monotonic() > self._end_s:
            raise HttpFailureError("too slow", "not complete before its deadline", transient=True)
        return super().write(block)


class _Source:
    """A file to upload that advances a progress bar and can be stopped."""

    def __init__(self, file: BinaryIO, progress: Progress, stop: threading.Event) -> None:
        self._file, self._progress, self._stop = file, progress, stop
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes; all that are left if it is negative."""
        if self._stop.is_set():
            raise StoppedError
        block = self._file.read(size)
        self._progress.advance(len(block))
        return block


class _FileSink:
    """Receives an object into a file, counts it and computes its checksum."""

    def __init__(
        self, file: BinaryIO, facts: FileFacts, progress: Progress, stop: threading.Event
    ) -> None:
        self._file, self._facts, self._progress, self._stop = file, facts, progress, stop
        self._checksum = _crc32c.Checksum()
        self.tell = file.tell

    def write(self, block: bytes) -> int:
        """Append a block; raise if there are more bytes than expected or it was stopped."""
        if self._stop.is_set():
            raise StoppedError
        if self.tell() + len(block) > self._facts.size_bytes:
            self._restart()
            detail = "the object is larger than it should be"
            raise HttpFailureError(WRONG_CHECKSUM, detail, transient=True)
        self._checksum.update(block)
        self._progress.advance(len(block))
        return self._file.write(block)

    def check(self) -> None:
        """Raise unless the content is complete and correct."""
        if self.tell() < self._facts.size_bytes:
            raise HttpFailureError("incomplete", "the object ended early", transient=True)
        if _encode(self._checksum) != self._facts.crc32c:
            self._restart()
            detail = "the content does not match its checksum"
            raise HttpFailureError(WRONG_CHECKSUM, detail, transient=True)

    def _restart(self) -> None:
        self._progress.advance(-self.tell())
        self._file.seek(0)
        self._file.truncate()
        self._checksum = _crc32c.Checksum()


def facts_of(path: Path) -> FileFacts:
    """Return the size and checksum of a regular file.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    with files.open_binary(path) as file:
        checksum = _checksum_of(file)
        return FileFacts(file.tell(), checksum)


def _checksum_of(file: BinaryIO) -> str:
    """Return the CRC32C of the rest of a file as Google writes it: big-endian, in base64."""
    checksum = _crc32c.Checksum()
    while block := file.read(_READ_BYTES):
        checksum.update(block)
    return _encode(checksum)


def _encode(checksum: Any) -> str:  # noqa: ANN401  (the library has no types)
    return base64.b64encode(checksum.digest()).decode()
