"""The user's own bucket: ``<ImageID>.jpg``, or the names that Storage Transfer gives."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.imagery import jpeg
from oiyolo.net.buckets import bucket_place
from oiyolo.net.download import HttpFailureError
from oiyolo.net.gcs import BucketClient
from oiyolo.sources.image import MAX_IMAGE_BYTES, FetchedImage, NotFetchedError
from oiyolo.sources.original import what_is_wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.sources.image import WantedImage

_log = logging.getLogger("oiyolo")

_DEADLINE_S: Final = 120.0
_NOT_THERE: Final = "HTTP 404"


class Bucket:
    """A folder in a bucket of Google Cloud Storage; threads may share it.

    A copy named by its address is the author's own file, as Storage Transfer took it over, and is
    held against OriginalSize and OriginalMD5; of one named by its ImageID only the bucket's own
    checksum and the JPEG's markers tell whether it is whole.

    Args:
        name: ``gs://bucket/prefix``.
        client: What asks the bucket; its own if not given.

    Raises:
        UsageError: ``name`` is no such address.
    """

    def __init__(self, name: str, client: BucketClient | None = None) -> None:
        self._client = client or BucketClient(bucket_place(name))
        self.name = str(self._client.place)
        self._looking = threading.Lock()
        self._looked = False
        self._first = 0

    def get(self, wanted: WantedImage) -> FetchedImage:
        """See ``BlockingSource``.

        Raises:
            NotFetchedError: It has no such image, or not a whole one.
            UsageError: There is no such bucket.
            UnavailableError: Google does not take the credentials.
        """
        self._look()
        # Nearly all of a bucket's images are named alike: what was right last is asked for first.
        first = self._first
        try:
            return self._get(wanted, first)
        except NotFetchedError as failure:
            if failure.transient:
                raise
            before = failure
        try:
            fetched = self._get(wanted, 1 - first)
        except NotFetchedError as failure:
            raise _together(before, failure) from failure
        self._first = 1 - first
        return FetchedImage(fetched.content, fetched.attempts + before.attempts)

    def _look(self) -> None:
        """Look once whether the bucket is there, or each image would be missing for that reason."""
        with self._looking:
            if self._looked:
                return
            if self._client.holds_anything() is False:
                _log.warning("fetch: nothing lies in %s", self.name)
            self._looked = True

    def _get(self, wanted: WantedImage, form: int) -> FetchedImage:
        below, check = _named(wanted, form)
        shown = f"{self.name}/{below}"
        try:
            came = self._client.read(below, limit_bytes=MAX_IMAGE_BYTES, deadline_s=_DEADLINE_S)
        except HttpFailureError as failure:
            raise NotFetchedError(
                failure.reason,
                f"{shown}: {failure.detail}",
                transient=failure.transient,
                reached=failure.reached,
                attempts=failure.attempts,
            ) from failure
        fetched = FetchedImage(came.content, came.attempts)
        if wrong := check(fetched):
            raise NotFetchedError(wrong, f"{shown}: {wrong}", attempts=came.attempts)
        return fetched


def _named(wanted: WantedImage, form: int) -> tuple[str, Callable[[FetchedImage], str | None]]:
    """Give an image's name below the bucket's prefix, and what tells what is wrong with it."""
    if form == 0:
        return f"{wanted.image_id}.jpg", lambda fetched: jpeg.what_is_wrong(fetched.content)
    name = name_of_address(wanted.original_url)
    if not name:
        told = "the image list has no OriginalURL, by which it could be named"
        raise NotFetchedError(_NOT_THERE, told, attempts=0)
    return name, lambda fetched: what_is_wrong(wanted, fetched)


def name_of_address(url: str) -> str:
    """Give the name under which Storage Transfer keeps an address: ``<host>/<path>``.

    Without the port (https://cloud.google.com/storage-transfer/docs/create-url-list). Empty if it
    is no address.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    return host + parts.path if host and parts.path.strip("/") else ""


def _together(*failures: NotFetchedError) -> NotFetchedError:
    """Give the failure that tells most: what was there and was wrong, rather than not there."""
    telling = next((f for f in failures if f.reason != _NOT_THERE), failures[0])
    return NotFetchedError(
        telling.reason,
        "; ".join(f.detail for f in failures),
        transient=any(f.transient for f in failures),
        reached=any(f.reached for f in failures),
        attempts=sum(f.attempts for f in failures),
    )
