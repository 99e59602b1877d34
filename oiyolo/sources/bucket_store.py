"""The user's own bucket as a store for fetched images: ``<ImageID>.jpg`` in a folder of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core.image_ids import parse_id
from oiyolo.net.gcs import BucketClient

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from oiyolo.net.buckets import BucketFolder

_SUFFIX: Final = ".jpg"


class BucketStore:
    """A folder in a Google Cloud Storage bucket, as a ``Store``.

    An object appears complete and under its final name, so ``finish`` and ``drop`` do nothing, and
    every object that was put stays.

    Args:
        bucket_folder: The folder.
        stop: Event that ends all requests and pauses with ``StoppedError``.
    """

    folder: Final = None
    concurrent_puts: Final = 32

    def __init__(self, bucket_folder: BucketFolder, stop: threading.Event | None = None) -> None:
        self._client = BucketClient(bucket_folder, connections=self.concurrent_puts, stop=stop)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def existing_ids(self, image_ids: Sequence[str]) -> set[str]:
        """Return the images that are in the bucket already.

        Args:
            image_ids: ImageIDs to look for, in ascending order.

        Raises:
            UnavailableError: The bucket does not respond, or refuses this user.
            UsageError: There is no such bucket.
        """
        if not image_ids:
            return set()
        # "." sorts before all digits and letters; "\0" ends the range right after the last name.
        between = (image_ids[0] + _SUFFIX, image_ids[-1] + _SUFFIX + "\0")
        names = self._client.list_names(between=between)
        return {name.removesuffix(_SUFFIX) for name in names}.intersection(image_ids)

    def put(self, image_id: str, content: bytes) -> None:
        """Upload a complete, verified file under its final name.

        Raises:
            UnavailableError: The upload failed, or the bucket refuses this user.
            UsageError: There is no such bucket.
        """
        parse_id(image_id, where="the images to store")
        self._client.put(content, image_id + _SUFFIX, content_type="image/jpeg")

    def finish(self, image_ids: Iterable[str]) -> None:
        """Do nothing: the objects have their final names already."""

    def drop(self, image_ids: Iterable[str]) -> None:
        """Do nothing: the objects stay."""
