"""What a source is asked for, what it gives, and how it says no."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

MAX_IMAGE_BYTES: Final = 100 << 20
"""No photograph in Open Images is larger than 15 MB (OriginalSize of the official lists)."""


@dataclass(frozen=True)
class WantedImage:
    """One row of the image list, as far as fetching needs it.

    Attributes:
        image_id: The image.
        subset: Open Images' subset.
        original_url: Where its author's file is; empty if none is listed.
        original_size_bytes: Its listed size.
        original_md5: Its listed MD5, in base64; empty if none is listed.
        thumbnail_url: Where a copy of about 300,000 pixels is; empty if none is listed.
        rotation: Degrees counterclockwise that make it upright; ``None`` where nobody knows.
    """

    image_id: str
    subset: str
    original_url: str
    original_size_bytes: int | None
    original_md5: str
    thumbnail_url: str = ""
    rotation: float | None = None


@dataclass(frozen=True)
class FetchedImage:
    """A whole, verified file."""

    content: bytes
    attempts: int = 1

    @cached_property
    def md5(self) -> str:
        """The MD5 of the file in hexadecimal."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


class NotFetchedError(Exception):
    """A source has no usable file for an image.

    Attributes:
        reason: A short reason that can be counted: "HTTP 404", "truncated JPEG".
        detail: The same at length, with the address.
        transient: Another try later may go better.
        reached: The source answered at all.
        attempts: How often it was asked.
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


Check = Callable[[], FetchedImage]
"""Verifies what came, in a thread: a digest of a large file must not hold up an event loop."""


class Source(Protocol):
    """A place that images come from, asked in an event loop.

    Attributes:
        name: As the ledger names it.
        told: What ``oiyolo why`` says beside the name; mostly empty.
    """

    name: str
    told: str

    async def get(self, wanted: WantedImage) -> Check:
        """Get what there is; what is given verifies it, and may raise ``NotFetchedError`` too.

        Raises:
            NotFetchedError: There is nothing.
        """


class BlockingSource(Protocol):
    """A place that images come from, asked in threads: a folder, a bucket."""

    name: str

    def get(self, wanted: WantedImage) -> FetchedImage:
        """Give a whole, verified file.

        Raises:
            NotFetchedError: It has none.
        """
