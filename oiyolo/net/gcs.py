"""The one door to Google Cloud Storage: objects in and out of a bucket, whole and checked.

Asked with the user's own credentials (Application Default Credentials) or, where there are none, as
anybody, which public buckets allow. ``STORAGE_EMULATOR_HOST`` leads to an emulator, as in Google's
own tools. Every object's CRC32C is compared on the way in and on the way out.

The client's own retries go on for two minutes where nothing answers, so they are switched off: here
an object gets a few attempts, with deadlines, and a stop event ends the pauses between them.
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
from oiyolo.net.buckets import bucket_place
from oiyolo.net.download import HttpFailureError, StoppedError
from oiyolo.net.retry import Patience, may_pass, retry_after_s
from oiyolo.net.urls import without_secrets

with warnings.catch_warnings():
    # Google's libraries tell everybody on an older Python that it is older.
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
    from oiyolo.net.buckets import BucketPlace

EMULATOR_VARIABLE: Final = "STORAGE_EMULATOR_HOST"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_CHECKSUM: Final = "crc32c"
"""Every object has one; an MD5 is missing where it was put together from parts."""
_PATIENCE: Final = Patience(connect_s=5.0, read_s=15.0)
_LONGEST_PAUSE_S: Final = 30.0
_CHUNK_BYTES: Final = 16 << 20
"""Larger files go up in such parts, of which each is tried again alone."""
_READ_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 64
_ONE_REQUEST_BYTES: Final = 8 << 20
"""The client sends smaller files in one request."""
_PATIENCE_TO_SEND: Final = 4
"""A part of a large file is on its way longer than an answer."""
_PART_DEADLINE_S: Final = 300.0
_NOT_FOUND: Final = "HTTP 404"
_NOT_ALLOWED: Final = frozenset({"HTTP 401", "HTTP 403"})
_ROLES: Final = "roles/storage.objectViewer to read, roles/storage.objectUser to write"
_LONGEST_TOLD: Final = 300
_WRONG_CHECKSUM: Final = "it is not what its checksum says"
_UNREACHED: Final = (TransportError, ConnectionError, TimeoutError)
_BELOW: Final = ("requests.", "urllib3.", "http.")
"""The client lets the errors of what it stands on through here and there."""
_PREFIX: Final = re.compile(r"^[A-Z]+ https?://\S+ ")
"""The client's texts begin with the request."""
_SAYS_NOTHING: Final = ("unknown error", "('Request failed")
_KNOWN: Final = frozenset(int(status) for status in http.HTTPStatus)

_auth: Any = google.auth
_storage: Any = google.cloud.storage
_crc32c: Any = google_crc32c
"""They are typed in part, and not alike from version to version."""

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """Who asks.

    Attributes:
        credentials: As Google's libraries take them.
        project: The project that they belong to; empty if they do not say.
        is_anonymous: There were none.
    """

    credentials: Any
    project: str
    is_anonymous: bool


@dataclass(frozen=True)
class StoredObject:
    """An object that came whole; its checksum was compared."""

    content: bytes
    attempts: int = 1


def identity() -> Identity:
    """Find the user's credentials; where there are none, be anybody.

    Raises:
        UsageError: There are some, and they cannot be read.
    """
    anybody = _auth.credentials.AnonymousCredentials
    named = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    if os.environ.get(EMULATOR_VARIABLE):
        return Identity(anybody(), named, is_anonymous=True)
    try:
        with warnings.catch_warnings():
            # It advises a quota project, which only some of Google's services ask for.
            warnings.simplefilter("ignore", UserWarning)
            credentials, project = _auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UsageError(
                "the credentials that GOOGLE_APPLICATION_CREDENTIALS names cannot be used",
                found=_plainly(error),
                remedy="Correct the variable, or unset it and log in with "
                "`gcloud auth application-default login`",
            ) from None
        return Identity(anybody(), named, is_anonymous=True)
    except GoogleAuthError as error:
        raise UsageError("the Google credentials cannot be used", found=_plainly(error)) from None
    return Identity(credentials, project or named, is_anonymous=False)


class BucketClient:
    """A folder in a bucket; threads may share it.

    Nothing is imported or asked before the first call that needs it.

    Args:
        place: The folder.
        connections: So many are kept alive: as many as threads that share it.
        patience: Attempts, pauses and deadlines.
        stop: When this event is set, waiting ends and ``StoppedError`` is raised.
    """

    def __init__(
        self,
        place: BucketPlace,
        *,
        connections: int = _CONNECTIONS,
        patience: Patience | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.place = place
        self.patience = patience or _PATIENCE
        self.stop = stop or threading.Event()
        self._timeout_s = (self.patience.connect_s, self.patience.read_s)
        self._connections = connections
        self._opening = threading.Lock()
        self._client: Any = None
        self._bucket: Any = None
        self._is_anonymous = False

    def close(self) -> None:
        """Close all connections."""
        with self._opening:
            if self._client is not None:
                self._client.close()

    def read(self, below: str, *, limit_bytes: int, deadline_s: float) -> StoredObject:
        """Give a whole object, kept in memory.

        Args:
            below: Its name below the place.
            limit_bytes: A longer one is cut off and refused.
            deadline_s: One that takes longer is given up (and tried again).

        Raises:
            HttpFailureError: Nothing usable after all attempts.
            OiyoloError: The credentials cannot be used at all.
            StoppedError: The stop event was set.
        """
        blob = self._opened().blob(self.place.name(below))

        def once(attempt: int) -> StoredObject:
            sink = _Sink(limit_bytes, time.monotonic() + deadline_s, self.stop)
            blob.download_to_file(sink, checksum=_CHECKSUM, timeout=self._timeout_s, retry=None)
            return StoredObject(sink.getvalue(), attempt)

        return self._patiently(once)

    def names(
        self, *, most: int | None = None, between: tuple[str, str] = ("", "")
    ) -> Iterator[str]:
        """Give the names of the objects below the place, without its own prefix.

        Args:
            most: Not more than so many.
            between: From the first of these names on, and before the second; empty for no end.

        Raises:
            UnavailableError: The bucket does not answer, or not to this user.
            UsageError: There is no such bucket.
        """
        prefix = self.place.path
        first, end = (prefix + name if name else None for name in between)
        bucket = self._opened()
        token, left = None, most
        while True:
            with self._complaining("listed"):
                asked = functools.partial(
                    self._page, bucket, prefix, token, left, between=(first, end)
                )
                page, token = self._patiently(asked)
            for name in page[:left]:
                yield name[len(prefix) :]
            left = None if left is None else left - len(page)
            if token is None or (left is not None and left <= 0):
                return

    def holds_anything(self) -> bool | None:
        """Tell whether anything lies below the place; ``None`` if the bucket does not say.

        Who may read each object need not be allowed to list them.

        Raises:
            UsageError: There is no such bucket.
        """
        bucket = self._opened()
        try:
            page, _ = self._patiently(
                functools.partial(self._page, bucket, self.place.path, None, 1)
            )
        except HttpFailureError as failure:
            if failure.reason == _NOT_FOUND:
                raise self._complaint(failure, "listed") from failure
            return None
        return bool(page)

    def write(self, path: Path, below: str, told: Progress) -> None:
        """Copy a file into the bucket, unless the same one lies there.

        Args:
            path: The file.
            below: Its name below the place.
            told: Is told of every block.

        Raises:
            UnavailableError: It does not come through.
            UsageError: There is no such bucket, or it must not be written by this user.
            OSError: The file cannot be read.
        """
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            blob = self._opened().blob(self.place.name(below), chunk_size=_CHUNK_BYTES)
            with self._complaining("written to"):
                if self._has(blob, size_bytes, file):
                    told.advance(size_bytes)
                    return
                source = _Source(file, told, self.stop)
                self._patiently(lambda _: self._send(blob, source, size_bytes))

    def put(self, content: bytes, below: str, *, content_type: str) -> None:
        """Write an object, whole or not at all; one that lies there is replaced.

        Args:
            content: What it holds.
            below: Its name below the place.
            content_type: What it is, for whoever reads it by HTTP.

        Raises:
            UnavailableError: It does not come through.
            UsageError: There is no such bucket, or it must not be written by this user.
        """
        blob = self._opened().blob(self.place.name(below))
        source = _Source(io.BytesIO(content), NO_PROGRESS, self.stop)
        with self._complaining("written to"):
            self._patiently(lambda _: self._send(blob, source, len(content), content_type))

    @contextlib.contextmanager
    def _complaining(self, done: str) -> Iterator[None]:
        """Turn a failure into the error that says what the user can do."""
        try:
            yield
        except HttpFailureError as failure:
            raise self._complaint(failure, done) from failure

    def _complaint(self, failure: HttpFailureError, done: str) -> OiyoloError:
        what = f"the bucket cannot be {done}"
        where = str(self.place)
        if failure.reason == _NOT_FOUND:
            return UsageError(
                "there is no such bucket",
                where=where,
                remedy=f"Make it: `gcloud storage buckets create gs://{self.place.bucket}`",
            )
        remedy = "Check the network, then give the same command again"
        if failure.reason in _NOT_ALLOWED and self._is_anonymous:
            remedy = "Log in: `gcloud auth application-default login`"
        elif failure.reason in _NOT_ALLOWED:
            remedy = f"Ask for a role on the bucket: {_ROLES}"
        return UnavailableError(what, where=where, found=failure.detail, remedy=remedy)

    def _opened(self) -> Any:  # noqa: ANN401  (the library has no types)
        with self._opening:
            if self._bucket is None:
                self._open()
            return self._bucket

    def _open(self) -> None:
        asking = identity()
        self._is_anonymous = asking.is_anonymous
        session: Any = _auth.transport.requests.AuthorizedSession(
            asking.credentials,
            # Nobody's credentials cannot be renewed; trying to would hide the answer.
            **({"refresh_status_codes": ()} if asking.is_anonymous else {}),
        )
        # The adapter's own pool holds ten, and would throw all further connections away.
        adapter = type(session.get_adapter("https://"))
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter(pool_maxsize=self._connections))
        self._client = _storage.Client(project=None, credentials=asking.credentials, _http=session)
        # It would ask for the bucket's own facts beside, in threads of its own, for each missing
        # object again, and with retries that nobody can end.
        self._client._bucket_metadata_cache = None  # noqa: SLF001  (there is no other switch)
        self._bucket = self._client.bucket(self.place.bucket)

    def _page(
        self,
        bucket: Any,  # noqa: ANN401  (the library has no types)
        prefix: str,
        token: str | None,
        most: int | None,
        _attempt: int,
        *,
        between: tuple[str | None, str | None] = (None, None),
    ) -> tuple[list[str], str | None]:
        found = self._client.list_blobs(
            bucket,
            prefix=prefix,
            start_offset=between[0],
            end_offset=between[1],
            page_token=token,
            max_results=most,
            fields="items(name),nextPageToken",
            timeout=self._timeout_s,
            retry=None,
        )
        page = next(found.pages, ())
        return [blob.name for blob in page], found.next_page_token

    def _has(self, blob: Any, size_bytes: int, file: io.BufferedReader) -> bool:  # noqa: ANN401
        """Tell whether the bucket has this very file; who may only write is not told."""
        try:
            self._patiently(lambda _: blob.reload(timeout=self._timeout_s, retry=None))
        except HttpFailureError as failure:
            if failure.transient:
                raise
            return False
        if blob.size != size_bytes:
            return False
        digest = _checksum_of(file)
        file.seek(0)
        return bool(blob.crc32c == digest)

    def _send(
        self,
        blob: Any,  # noqa: ANN401  (the library has no types)
        source: _Source,
        size_bytes: int,
        content_type: str | None = None,
    ) -> None:
        is_one_request = size_bytes <= _ONE_REQUEST_BYTES

        def once(_: int) -> None:
            source.begin_anew()
            blob.upload_from_file(
                source,
                size=size_bytes,
                content_type=content_type,
                checksum=_CHECKSUM,
                timeout=(self.patience.connect_s, _PATIENCE_TO_SEND * self.patience.read_s),
                retry=None if is_one_request else parts,
            )

        parts = Retry(
            predicate=source.may_try_again(self.patience.attempts),
            initial=self.patience.first_pause_s,
            maximum=_LONGEST_PAUSE_S,
            timeout=_PART_DEADLINE_S,
        )
        self._patiently(once, attempts=self.patience.attempts if is_one_request else 1)

    def _patiently(self, once: Callable[[int], T], *, attempts: int | None = None) -> T:
        """Try until it goes well, or as often as ``patience`` (or ``attempts``) has it."""
        most = attempts or self.patience.attempts
        attempt = 0
        while True:
            attempt += 1
            if self.stop.is_set():
                raise StoppedError(str(self.place))
            try:
                return once(attempt)
            except Exception as error:  # noqa: BLE001  (what is no failure of the bucket goes on)
                failure = _failure(error)
                failure.__cause__ = error
            failure.attempts = attempt
            if not failure.transient or attempt >= most:
                raise failure
            if self.stop.wait(self.patience.pause_s(attempt, failure.retry_after_s)):
                raise StoppedError(str(self.place))


def upload(
    paths: Sequence[Path],
    place: str,
    *,
    what: str = "upload",
    patience: Patience | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Copy files into a bucket, each whole or not at all; what lies there already is left alone.

    Args:
        paths: The files. Each keeps its own name.
        place: ``gs://bucket/prefix``.
        what: The work, for the progress.
        patience: Attempts, pauses and deadlines.
        stop: When this event is set, ``StoppedError`` is raised.

    Raises:
        UsageError: ``place`` is no such address, there is no such bucket, or a file is missing.
        UnavailableError: The bucket does not answer, or not to this user.
    """
    client = BucketClient(bucket_place(place), connections=1, patience=patience, stop=stop)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UsageError("there is no such file to upload", where=str(missing))
    total_bytes = sum(path.stat().st_size for path in paths)
    with contextlib.closing(client), progress(what, total=total_bytes, unit="B") as told:
        for path in paths:
            client.write(path, path.name, told)


class _TooMuchError(Exception):
    """More came, or it took longer, than is wanted."""

    def __init__(self, reason: str, detail: str, *, transient: bool) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.transient = reason, detail, transient


class _Sink(io.BytesIO):
    """Takes an object in, up to a limit and until a moment of ``time.monotonic``."""

    def __init__(self, limit_bytes: int, end_s: float, stop: threading.Event) -> None:
        super().__init__()
        self._limit_bytes, self._end_s, self._stop = limit_bytes, end_s, stop

    def write(self, block: Any, /) -> int:  # noqa: ANN401  (whatever holds bytes)
        """See ``io``."""
        if self._stop.is_set():
            raise StoppedError
        if self.tell() + len(block) > self._limit_bytes:
            raise _TooMuchError(
                "too large", f"more than {self._limit_bytes} bytes", transient=False
            )
        if time.monotonic() > self._end_s:
            raise _TooMuchError("too slow", "not complete before its deadline", transient=True)
        return super().write(block)


class _Source:
    """Gives a file out, tells how far it is, and ends when it is stopped."""

    def __init__(self, file: BinaryIO, told: Progress, stop: threading.Event) -> None:
        self._file, self._told, self._stop = file, told, stop
        self._told_bytes = 0
        self._failed_in_a_row = 0

    def begin_anew(self) -> None:
        """Go back to the beginning."""
        self._file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """See ``io``."""
        if self._stop.is_set():
            raise StoppedError
        block = self._file.read(size)
        self._failed_in_a_row = 0
        new_bytes = self._file.tell() - self._told_bytes
        if new_bytes > 0:  # a second attempt passes over what was told
            self._told.advance(new_bytes)
            self._told_bytes += new_bytes
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        """See ``io``."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See ``io``."""
        return self._file.tell()

    def may_try_again(self, attempts: int) -> Callable[[Exception], bool]:
        """Give the client's question after a failed part: once more?"""

        def may(error: Exception) -> bool:
            self._failed_in_a_row += 1
            known = _known_failure(error)
            return (
                known is not None
                and known.transient
                and self._failed_in_a_row < attempts
                and not self._stop.is_set()
            )

        return may


def _failure(error: Exception) -> HttpFailureError:
    """Give a failure of the bucket as this door tells it; whatever else it is, is raised."""
    known = _known_failure(error)
    if known is None:
        raise error
    return known


def _known_failure(error: Exception) -> HttpFailureError | None:
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    known: HttpFailureError | None = None
    if isinstance(error, _TooMuchError):
        known = HttpFailureError(error.reason, error.detail, transient=error.transient)
    elif isinstance(error, DataCorruption):
        known = HttpFailureError("wrong checksum", _WRONG_CHECKSUM, transient=True)
    elif isinstance(error, (GoogleAPICallError, InvalidResponse)):
        known = _of_answer(error)
    elif isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        raise UnavailableError(
            "Google does not take the credentials",
            found=_plainly(error),
            remedy="Log in again: `gcloud auth application-default login`",
        ) from error
    elif isinstance(error, _UNREACHED) or type(error).__module__.startswith(_BELOW):
        known = HttpFailureError(
            "connection failed", _plainly(error), transient=True, reached=False
        )
    return known


def _of_answer(error: Any) -> HttpFailureError:  # noqa: ANN401  (two kinds, with the same facts)
    response = getattr(error, "response", None)
    status = int(getattr(error, "code", 0) or getattr(response, "status_code", 0))
    asked = getattr(response, "headers", {}).get("Retry-After", "")
    told = (
        f"HTTP {status} {http.HTTPStatus(status).phrase}" if status in _KNOWN else f"HTTP {status}"
    )
    said = _PREFIX.sub("", _plainly(error))
    return HttpFailureError(
        f"HTTP {status}",
        told if said.startswith(_SAYS_NOTHING) else f"{told}: {said}",
        transient=may_pass(status),
        retry_after_s=retry_after_s(asked),
    )


def _plainly(error: BaseException) -> str:
    """Give an error's text on one line; an address in it may hold the key of an upload."""
    told = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    return without_secrets(" ".join(told.split()))[:_LONGEST_TOLD]


def _checksum_of(file: io.BufferedReader) -> str:
    """Give a file's CRC32C as Google writes it: big-endian, in base64."""
    digest = _crc32c.Checksum()
    while block := file.read(_READ_BYTES):
        digest.update(block)
    return base64.b64encode(digest.digest()).decode()
