"""Interfaces of the sources: the request for an image, the fetched file, and the failure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.errors import UnavailableError

if TYPE_CHECKING:
    from oiyolo.net.retry import HttpFailureError

MAX_IMAGE_BYTES: Final = 100 << 20
"""No photograph in Open Images is larger than 15 MB (OriginalSize of the official lists)."""


@dataclass(frozen=True)
class ImageRequest:
    """The columns of one row of the image list that fetching needs.

    Attributes:
        image_id: ImageID.
        subset: Open Images' subset.
        original_url: OriginalURL, the author's own file; empty if none is listed.
        original_size_bytes: OriginalSize; ``None`` if none is listed.
        original_md5: OriginalMD5, in base64; empty if none is listed.
        thumbnail_url: Thumbnail300KURL, a copy of about 300,000 pixels; empty if none is listed.
        rotation: Rotation, in degrees counterclockwise, that makes the image upright; ``None`` if
            unknown.
        expected_md5: MD5 that the file must have, in hexadecimal; empty if any intact file will do.
        import_name: Name of its import, or of the import that has a copy of it; empty if none has.
        name: Path of the file, relative to the folder of the import.
        is_copy: Whether it is an image of Open Images, which other sources have as well.
    """

    image_id: str
    subset: str
    original_url: str
    original_size_bytes: int | None
    original_md5: str
    thumbnail_url: str = ""
    rotation: float | None = None
    expected_md5: str = ""
    import_name: str = ""
    name: str = ""
    is_copy: bool = False


@dataclass(frozen=True)
class FetchedImage:
    """A complete, verified file.

    Attributes:
        content: The file's bytes.
        attempts: Number of requests made.
    """

    content: bytes
    attempts: int = 1

    @cached_property
    def md5(self) -> str:
        """MD5 of the file, in hexadecimal."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


class NoImagesError(UnavailableError):
    """The sources have none of the images, so they are probably not the intended ones."""


class NotFetchedError(Exception):
    """A source has no usable file for an image.

    Attributes:
        reason: Short reason that can be counted: "HTTP 404", "truncated JPEG".
        detail: Full reason, with the URL or path.
        transient: Whether a later attempt may succeed.
        reached: Whether the source responded at all.
        attempts: Number of requests made.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        transient: bool = False,
        reached: bool = True,
        attempts: int = 1,
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.transient = transient
        self.reached = reached
        self.attempts = attempts

    @classmethod
    def from_http(cls, failure: HttpFailureError, where: str) -> NotFetchedError:
        """Return the error for a failed request; ``where`` is the image's URL."""
        return cls(
            failure.reason,
            f"{where}: {failure.detail}",
            transient=failure.transient,
            reached=failure.reached,
            attempts=failure.attempts,
        )


Verifier = Callable[[], FetchedImage]
"""Function that verifies a response, in a worker thread: hashing must not block the event loop."""


class Source(Protocol):
    """A source of images that runs in an event loop.

    Attributes:
        name: Name in the ledger.
        note: Remark after the name in ``oiyolo why``; usually empty.
    """

    name: str
    note: str

    async def get(self, request: ImageRequest) -> Verifier:
        """Download an image; return the function that verifies it.

        That function may raise ``NotFetchedError``, too.

        Raises:
            NotFetchedError: The source has no such image.
        """


class BlockingSource(Protocol):
    """A source of images that blocks its thread: a folder, a bucket.

    Attributes:
        name: Name in the ledger.
    """

    name: str

    def check(self) -> None:
        """Raise if the source has no image at all; otherwise every image would be missing.

        Raises:
            NoImagesError: It does not exist, cannot be read or is empty.
        """

    def get(self, request: ImageRequest) -> FetchedImage:
        """Return a complete, verified file.

        Raises:
            NotFetchedError: The source has no such image, or only a damaged one.
        """
