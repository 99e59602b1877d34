"""The user's own bucket as a place for fetched images: ``<ImageID>.jpg`` below its prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.net.gcs import BucketClient
from oiyolo.sources.store import check_id

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from oiyolo.net.buckets import BucketPlace

_SUFFIX: Final = ".jpg"


class BucketStore:
    """A folder in a bucket of Google Cloud Storage.

    An object is there whole or not at all, and at once under its final name: there is nothing to
    finish, and what was put stays.

    Args:
        place: The folder.
        stop: When this event is set, waiting ends and ``StoppedError`` is raised.
    """

    folder: Final = None
    at_once: Final = 32

    def __init__(self, place: BucketPlace, stop: threading.Event | None = None) -> None:
        self._client = BucketClient(place, connections=self.at_once, stop=stop)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def here(self, image_ids: Sequence[str]) -> set[str]:
        """Give those of some images, in order of their ids, that are in the bucket already.

        Raises:
            UnavailableError: The bucket does not answer, or not to this user.
            UsageError: There is no such bucket.
        """
        if not image_ids:
            return set()
        # A full stop is less than any digit or letter; what follows the last name is not asked for.
        between = (image_ids[0] + _SUFFIX, image_ids[-1] + _SUFFIX + "\0")
        names = self._client.names(between=between)
        return {name.removesuffix(_SUFFIX) for name in names}.intersection(image_ids)

    def put(self, image_id: str, content: bytes) -> None:
        """See ``Store``.

        Raises:
            UnavailableError: It does not come through.
            UsageError: There is no such bucket, or it must not be written by this user.
        """
        check_id(image_id)
        self._client.put(content, image_id + _SUFFIX, content_type="image/jpeg")

    def finish(self, image_ids: Iterable[str]) -> None:
        """See ``Store``."""

    def drop(self, image_ids: Iterable[str]) -> None:
        """See ``Store``."""
