"""Google Cloud Storage client: reads, lists and writes the objects of a bucket.

It uses the user's own credentials (Application Default Credentials) or, if there are none,
anonymous access, which public buckets allow. ``STORAGE_EMULATOR_HOST`` selects an emulator, as in
Google's own tools. The CRC32C of every object is checked on download and on upload.

The retries of Google's library are switched off, because they continue for two minutes if nothing
responds. Here an object gets a few attempts with timeouts, and a stop event ends the pauses.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http
import io
import os
import re
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.progress import NO_PROGRESS, progress
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.download import HttpFailureError, StoppedError
from oiyolo.net.retry import RetryPolicy, is_retryable, retry_after_s
from oiyolo.net.urls import without_secrets

with warnings.catch_warnings():
    # Google's libraries emit a FutureWarning on older versions of Python.
    warnings.simplefilter("ignore", FutureWarning)
    import google.auth
    import google.auth.credentials
    import google.auth.transport.requests
    import google.cloud.storage
    import google_crc32c
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.api_core.retry import Retry
    from google.auth.exceptions import (
        DefaultCredentialsError,
        GoogleAuthError,
        TransportError,
    )
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.core.errors import OiyoloError
    from oiyolo.core.progress import Progress
    from oiyolo.net.buckets import BucketFolder

EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_CHECKSUM: Final = "crc32c"
"""Every object has one; an object composed of parts has no MD5."""
_RETRY_POLICY: Final = RetryPolicy(connect_timeout_s=5.0, read_timeout_s=15.0)
_MAX_PAUSE_S: Final = 30.0
_CHUNK_BYTES: Final = 16 << 20
"""Larger files are uploaded in chunks of this size; each chunk is retried on its own."""
_READ_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 64
_ONE_REQUEST_BYTES: Final = 8 << 20
"""Google's library uploads files up to this size in one request."""
_UPLOAD_TIMEOUT_FACTOR: Final = 4
"""Uploading a chunk takes longer than receiving a response."""
_CHUNK_DEADLINE_S: Final = 300.0
_NOT_FOUND: Final = "HTTP 404"
_NOT_ALLOWED: Final = frozenset({"HTTP 401", "HTTP 403"})
_ROLES: Final = "roles/storage.objectViewer to read, roles/storage.objectUser to write"
_MAX_MESSAGE_CHARACTERS: Final = 300
_WRONG_CHECKSUM: Final = "the content does not match its checksum"
_CONNECTION_ERRORS: Final = (TransportError, ConnectionError, TimeoutError)
_LOWER_LAYERS: Final = ("requests.", "urllib3.", "http.")
"""Google's library passes on some exceptions of the packages that it is built on."""
_REQUEST_PREFIX: Final = re.compile(r"^[A-Z]+ https?://\S+ ")
"""The messages of Google's library begin with the request."""
_UNINFORMATIVE_MESSAGES: Final = ("unknown error", "('Request failed")
_KNOWN_STATUSES: Final = frozenset(int(status) for status in http.HTTPStatus)

_auth: Any = google.auth
_storage: Any = google.cloud.storage
_crc32c: Any = google_crc32c
"""These are only partly typed, and differently in each version."""

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """The account that sends the requests.

    Attributes:
        credentials: Credentials, as Google's libraries take them.
        project: Google Cloud project of the credentials; empty if they name none.
        is_anonymous: Whether there are no credentials.
    """

    credentials: Any
    project: str
    is_anonymous: bool


@dataclass(frozen=True)
class StoredObject:
    """A complete object with a verified checksum.

    Attributes:
        content: The object's bytes.
        attempts: Number of attempts made.
    """

    content: bytes
    attempts: int = 1


def identity() -> Identity:
    """Return the user's credentials; anonymous ones if there are none.

    Raises:
        UsageError: There are credentials, but they cannot be used.
    """
    anonymous = _auth.credentials.AnonymousCredentials
    project_variable = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    if os.environ.get(EMULATOR_VARIABLE):
        return Identity(anonymous(), project_variable, is_anonymous=True)
    try:
        with warnings.catch_warnings():
            # The library recommends a quota project, which only some of Google's services require.
            warnings.simplefilter("ignore", UserWarning)
            credentials, project = _auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UsageError(
                "the credentials that GOOGLE_APPLICATION_CREDENTIALS names cannot be used",
                found=_one_line(error),
                remedy="Correct the variable, or unset it and log in with "
                "`gcloud auth application-default login`",
            ) from None
        return Identity(anonymous(), project_variable, is_anonymous=True)
    except GoogleAuthError as error:
        raise UsageError("the Google credentials cannot be used", found=_one_line(error)) from None
    return Identity(credentials, project or project_variable, is_anonymous=False)


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

    def read(self, name: str, *, limit_bytes: int, deadline_s: float) -> StoredObject:
        """Return a complete object, in memory.

        Args:
            name: Name of the object in the folder.
            limit_bytes: Maximum size of the object; a larger one is an error.
            deadline_s: Maximum duration of an attempt; a slower one fails and is retried.

        Raises:
            HttpFailureError: No usable response after all attempts.
            OiyoloError: The credentials cannot be used at all.
            StoppedError: The stop event was set.
        """
        blob = self._opened_bucket().blob(self.folder.object_name(name))

        def request(attempt: int) -> StoredObject:
            sink = _Sink(limit_bytes, time.monotonic() + deadline_s, self.stop)
            blob.download_to_file(sink, checksum=_CHECKSUM, timeout=self._timeout_s, retry=None)
            return StoredObject(sink.getvalue(), attempt)

        return self._with_retries(request)

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
        bucket = self._opened_bucket()
        token, left = None, limit
        while True:
            with self._user_errors("listed"):
                request = functools.partial(
                    self._page, bucket, prefix, token, left, between=(first, end)
                )
                page, token = self._with_retries(request)
            for name in page[:left]:
                yield name[len(prefix) :]
            left = None if left is None else left - len(page)
            if token is None or (left is not None and left <= 0):
                return

    def has_objects(self) -> bool | None:
        """Return whether the folder has any object; ``None`` if it cannot be listed.

        A user who may read objects need not have the permission to list them.

        Raises:
            UsageError: There is no such bucket.
        """
        bucket = self._opened_bucket()
        try:
            page, _ = self._with_retries(
                functools.partial(self._page, bucket, self.folder.name_prefix, None, 1)
            )
        except HttpFailureError as failure:
            if failure.reason == _NOT_FOUND:
                raise self._user_error(failure, "listed") from failure
            return None
        return bool(page)

    def upload_file(self, path: Path, name: str, progress: Progress) -> None:
        """Upload a file, unless the bucket already has the same one.

        Args:
            path: The file.
            name: Name of the object in the folder.
            progress: Bar to advance by each block.

        Raises:
            UnavailableError: The upload failed, or the bucket refuses this user.
            UsageError: There is no such bucket.
            OSError: The file cannot be read.
        """
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            blob = self._opened_bucket().blob(
                self.folder.object_name(name), chunk_size=_CHUNK_BYTES
            )
            with self._user_errors("written to"):
                if self._has_same(blob, size_bytes, file):
                    progress.advance(size_bytes)
                    return
                source = _Source(file, progress, self.stop)
                self._with_retries(lambda _: self._send(blob, source, size_bytes))

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
        blob = self._opened_bucket().blob(self.folder.object_name(name))
        source = _Source(io.BytesIO(content), NO_PROGRESS, self.stop)
        with self._user_errors("written to"):
            self._with_retries(lambda _: self._send(blob, source, len(content), content_type))

    @contextlib.contextmanager
    def _user_errors(self, action: str) -> Iterator[None]:
        """Turn a failure into the error that says what the user can do."""
        try:
            yield
        except HttpFailureError as failure:
            raise self._user_error(failure, action) from failure

    def _user_error(self, failure: HttpFailureError, action: str) -> OiyoloError:
        what = f"the bucket cannot be {action}"
        where = str(self.folder)
        if failure.reason == _NOT_FOUND:
            return UsageError(
                "there is no such bucket",
                where=where,
                remedy=f"Create it: `gcloud storage buckets create gs://{self.folder.bucket}`",
            )
        remedy = "Check the network, then run the same command again"
        if failure.reason in _NOT_ALLOWED and self._is_anonymous:
            remedy = "Log in: `gcloud auth application-default login`"
        elif failure.reason in _NOT_ALLOWED:
            remedy = f"Ask for a role on the bucket: {_ROLES}"
        return UnavailableError(what, where=where, found=failure.detail, remedy=remedy)

    def _opened_bucket(self) -> Any:  # noqa: ANN401  (the library has no types)
        with self._open_lock:
            if self._bucket is None:
                self._open()
            return self._bucket

    def _open(self) -> None:
        account = identity()
        self._is_anonymous = account.is_anonymous
        session: Any = _auth.transport.requests.AuthorizedSession(
            account.credentials,
            # Anonymous credentials cannot be refreshed; the attempt would hide the response.
            **({"refresh_status_codes": ()} if account.is_anonymous else {}),
        )
        # The default pool holds ten connections and discards all others after use.
        adapter = type(session.get_adapter("https://"))
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter(pool_maxsize=self._connections))
        self._client = _storage.Client(project=None, credentials=account.credentials, _http=session)
        # For each missing object, the cache would also request the bucket's metadata, in its own
        # threads and with retries that cannot be stopped.
        self._client._bucket_metadata_cache = None  # noqa: SLF001  (there is no other switch)
        self._bucket = self._client.bucket(self.folder.bucket)

    def _page(
        self,
        bucket: Any,  # noqa: ANN401  (the library has no types)
        prefix: str,
        token: str | None,
        limit: int | None,
        _attempt: int,
        *,
        between: tuple[str | None, str | None] = (None, None),
    ) -> tuple[list[str], str | None]:
        blobs = self._client.list_blobs(
            bucket,
            prefix=prefix,
            start_offset=between[0],
            end_offset=between[1],
            page_token=token,
            max_results=limit,
            fields="items(name),nextPageToken",
            timeout=self._timeout_s,
            retry=None,
        )
        page = next(blobs.pages, ())
        return [blob.name for blob in page], blobs.next_page_token

    def _has_same(self, blob: Any, size_bytes: int, file: io.BufferedReader) -> bool:  # noqa: ANN401
        """Return whether the bucket has this very file; false if the user may not read it."""
        try:
            self._with_retries(lambda _: blob.reload(timeout=self._timeout_s, retry=None))
        except HttpFailureError as failure:
            if failure.transient:
                raise
            return False
        if blob.size != size_bytes:
            return False
        checksum = _checksum_of(file)
        file.seek(0)
        return bool(blob.crc32c == checksum)

    def _send(
        self,
        blob: Any,  # noqa: ANN401  (the library has no types)
        source: _Source,
        size_bytes: int,
        content_type: str | None = None,
    ) -> None:
        is_one_request = size_bytes <= _ONE_REQUEST_BYTES

        def request(_: int) -> None:
            source.rewind()
            blob.upload_from_file(
                source,
                size=size_bytes,
                content_type=content_type,
                checksum=_CHECKSUM,
                timeout=(
                    self.retry_policy.connect_timeout_s,
                    _UPLOAD_TIMEOUT_FACTOR * self.retry_policy.read_timeout_s,
                ),
                retry=None if is_one_request else chunk_retry,
            )

        chunk_retry = Retry(
            predicate=source.retry_predicate(self.retry_policy.max_attempts),
            initial=self.retry_policy.first_pause_s,
            maximum=_MAX_PAUSE_S,
            timeout=_CHUNK_DEADLINE_S,
        )
        self._with_retries(
            request, max_attempts=self.retry_policy.max_attempts if is_one_request else 1
        )

    def _with_retries(self, request: Callable[[int], T], *, max_attempts: int | None = None) -> T:
        """Return what ``request`` returns, and retry it after transient failures.

        Args:
            request: Function for one attempt; its argument is the attempt's number, from 1.
            max_attempts: Maximum number of attempts; that of the retry policy if ``None``.
        """
        max_attempts = max_attempts or self.retry_policy.max_attempts
        attempt = 0
        while True:
            attempt += 1
            if self.stop.is_set():
                raise StoppedError(str(self.folder))
            try:
                return request(attempt)
            except Exception as error:  # noqa: BLE001  (other exceptions are raised again)
                failure = _failure(error)
                failure.__cause__ = error
            failure.attempts = attempt
            if not failure.transient or attempt >= max_attempts:
                raise failure
            if self.stop.wait(self.retry_policy.pause_s(attempt, failure.retry_after_s)):
                raise StoppedError(str(self.folder))


def upload(
    paths: Sequence[Path],
    url: str,
    *,
    what: str = "upload",
    retry_policy: RetryPolicy | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Upload files to a bucket, each completely or not at all, except those it already has.

    Args:
        paths: The files. Each keeps its own name.
        url: ``gs://bucket/prefix``.
        what: Label of the progress bar.
        retry_policy: Attempts, pauses and timeouts.
        stop: Event that ends the upload with ``StoppedError``.

    Raises:
        UsageError: ``url`` is invalid, there is no such bucket, or a file is missing.
        UnavailableError: The bucket does not respond, or refuses this user.
    """
    client = BucketClient(
        parse_bucket_url(url), connections=1, retry_policy=retry_policy, stop=stop
    )
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UsageError("the file to upload is missing", where=str(missing))
    total_bytes = sum(path.stat().st_size for path in paths)
    with contextlib.closing(client), progress(what, total=total_bytes, unit="B") as bar:
        for path in paths:
            client.upload_file(path, path.name, bar)


class _LimitExceededError(Exception):
    """An object is larger than its limit, or takes longer than its deadline."""

    def __init__(self, reason: str, detail: str, *, transient: bool) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.transient = reason, detail, transient


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
            raise _LimitExceededError(
                "too large", f"more than {self._limit_bytes} bytes", transient=False
            )
        if time.monotonic() > self._end_s:
            raise _LimitExceededError(
                "too slow", "not complete before its deadline", transient=True
            )
        return super().write(block)


class _Source:
    """A file to upload that advances a progress bar and can be stopped."""

    def __init__(self, file: BinaryIO, progress: Progress, stop: threading.Event) -> None:
        self._file, self._progress, self._stop = file, progress, stop
        self._counted_bytes = 0
        self._consecutive_failures = 0

    def rewind(self) -> None:
        """Go back to the beginning of the file."""
        self._file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes; all that are left if it is negative."""
        if self._stop.is_set():
            raise StoppedError
        block = self._file.read(size)
        self._consecutive_failures = 0
        new_bytes = self._file.tell() - self._counted_bytes
        if new_bytes > 0:  # a retry reads bytes that the bar has counted already
            self._progress.advance(new_bytes)
            self._counted_bytes += new_bytes
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset, as ``io.IOBase.seek`` does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the current offset."""
        return self._file.tell()

    def retry_predicate(self, max_attempts: int) -> Callable[[Exception], bool]:
        """Return the function that tells Google's library whether to retry a failed chunk."""

        def should_retry(error: Exception) -> bool:
            self._consecutive_failures += 1
            failure = _find_failure(error)
            return (
                failure is not None
                and failure.transient
                and self._consecutive_failures < max_attempts
                and not self._stop.is_set()
            )

        return should_retry


def _failure(error: Exception) -> HttpFailureError:
    """Return the failure that an exception stands for; raise any other exception again."""
    failure = _find_failure(error)
    if failure is None:
        raise error
    return failure


def _find_failure(error: Exception) -> HttpFailureError | None:
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    failure: HttpFailureError | None = None
    if isinstance(error, _LimitExceededError):
        failure = HttpFailureError(error.reason, error.detail, transient=error.transient)
    elif isinstance(error, DataCorruption):
        failure = HttpFailureError("wrong checksum", _WRONG_CHECKSUM, transient=True)
    elif isinstance(error, (GoogleAPICallError, InvalidResponse)):
        failure = _status_failure(error)
    elif isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        raise UnavailableError(
            "Google rejects the credentials",
            found=_one_line(error),
            remedy="Log in again: `gcloud auth application-default login`",
        ) from error
    elif isinstance(error, _CONNECTION_ERRORS) or type(error).__module__.startswith(_LOWER_LAYERS):
        failure = HttpFailureError(
            "connection failed", _one_line(error), transient=True, reached=False
        )
    return failure


def _status_failure(error: Any) -> HttpFailureError:  # noqa: ANN401  (two types, same attributes)
    response = getattr(error, "response", None)
    status = int(getattr(error, "code", 0) or getattr(response, "status_code", 0))
    retry_after = getattr(response, "headers", {}).get("Retry-After", "")
    label = (
        f"HTTP {status} {http.HTTPStatus(status).phrase}"
        if status in _KNOWN_STATUSES
        else f"HTTP {status}"
    )
    message = _REQUEST_PREFIX.sub("", _one_line(error))
    return HttpFailureError(
        f"HTTP {status}",
        label if message.startswith(_UNINFORMATIVE_MESSAGES) else f"{label}: {message}",
        transient=is_retryable(status),
        retry_after_s=retry_after_s(retry_after),
    )


def _one_line(error: BaseException) -> str:
    """Return an error's message on one line, without the upload key that a URL may hold."""
    message = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    return without_secrets(" ".join(message.split()))[:_MAX_MESSAGE_CHARACTERS]


def _checksum_of(file: io.BufferedReader) -> str:
    """Return a file's CRC32C as Google writes it: big-endian, in base64."""
    checksum = _crc32c.Checksum()
    while block := file.read(_READ_BYTES):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
