"""The user's own bucket as a source: ``<ImageID>.jpg``, or names from Storage Transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core.errors import UsageError
from oiyolo.imagery import jpeg
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.gcs import BucketClient
from oiyolo.net.retry import HttpFailureError
from oiyolo.sources.image import MAX_IMAGE_BYTES, FetchedImage, NoImagesError, NotFetchedError
from oiyolo.sources.web import file_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.sources.image import ImageRequest

_DEADLINE_S: Final = 120.0
_NOT_FOUND: Final = "HTTP 404"


class Bucket:
    """A folder in a Google Cloud Storage bucket; threads may share it.

    An object named by its URL is the author's own file, as Storage Transfer copied it, and is
    verified by OriginalSize and OriginalMD5. An object named by its ImageID can only be verified
    by the bucket's own checksum and the JPEG's markers.

    Args:
        name: ``gs://bucket/prefix``.
        client: Client for the folder; created if ``None``.

    Raises:
        UsageError: ``name`` is not a Cloud Storage URL.
    """

    def __init__(self, name: str, client: BucketClient | None = None) -> None:
        self._client = client or BucketClient(parse_bucket_url(name))
        self.name = str(self._client.folder)
        self._first_scheme = 0

    def check(self) -> None:
        """Raise if there is no such bucket, or its folder is empty.

        Raises:
            NoImagesError: As described.
            UnavailableError: Google rejects the credentials.
        """
        remedy = "Correct the bucket's name in [images] sources (--sources)"
        try:
            is_empty = self._client.has_objects() is False
        except UsageError as error:
            raise NoImagesError(error.what, where=self.name, remedy=remedy) from error
        if is_empty:
            raise NoImagesError(
                "this folder of the bucket is empty", where=self.name, remedy=remedy
            )

    def get(self, request: ImageRequest) -> FetchedImage:
        """Return a complete, verified file, by either of its names.

        Raises:
            NotFetchedError: The bucket has no such image, or only a damaged one.
            UnavailableError: Google rejects the credentials.
        """
        # Nearly all images of a bucket are named alike, so try the latest successful scheme first.
        first = self._first_scheme
        try:
            return self._get(request, first)
        except NotFetchedError as failure:
            if failure.transient:
                raise
            first_failure = failure
        try:
            fetched = self._get(request, 1 - first)
        except NotFetchedError as failure:
            raise _combine(first_failure, failure) from failure
        self._first_scheme = 1 - first
        return FetchedImage(fetched.content, fetched.attempts + first_failure.attempts)

    def _get(self, request: ImageRequest, scheme: int) -> FetchedImage:
        name, find_problem = _name_and_check(request, scheme)
        url = f"{self.name}/{name}"
        try:
            fetched = FetchedImage(
                *self._client.read(name, limit_bytes=MAX_IMAGE_BYTES, deadline_s=_DEADLINE_S)
            )
        except HttpFailureError as failure:
            raise NotFetchedError.from_http(failure, url) from failure
        if problem := find_problem(fetched):
            raise NotFetchedError(problem, f"{url}: {problem}", attempts=fetched.attempts)
        return fetched


def _name_and_check(
    request: ImageRequest, scheme: int
) -> tuple[str, Callable[[FetchedImage], str | None]]:
    """Return an image's name in the bucket's folder, and the function that finds its problem.

    Args:
        request: The image.
        scheme: 0 to name it by its ImageID, 1 to name it by its OriginalURL.
    """
    if scheme == 0:
        return f"{request.image_id}.jpg", lambda fetched: jpeg.find_defect(fetched.content)
    name = transfer_name(request.original_url)
    if not name:
        detail = "the image list has no OriginalURL to name it by"
        raise NotFetchedError(_NOT_FOUND, detail, attempts=0)
    return name, lambda fetched: file_problem(request, fetched)


def transfer_name(url: str) -> str:
    """Return the object name that Storage Transfer gives to a URL: ``<host>/<path>``, no port.

    The name is empty if ``url`` is invalid. The format is described at
    https://cloud.google.com/storage-transfer/docs/create-url-list.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    return host + parts.path if host and parts.path.strip("/") else ""


def _combine(*failures: NotFetchedError) -> NotFetchedError:
    """Return one failure for all; its reason is a damaged object rather than a missing one."""
    main = next((f for f in failures if f.reason != _NOT_FOUND), failures[0])
    return NotFetchedError(
        main.reason,
        "; ".join(f.detail for f in failures),
        transient=any(f.transient for f in failures),
        reached=any(f.reached for f in failures),
        attempts=sum(f.attempts for f in failures),
    )
