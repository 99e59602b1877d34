"""What a source is asked for, what it gives, and how it says no."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

MAX_IMAGE_BYTES: Final = 100 << 20
"""No photograph in Open Images is larger than 15 MB (OriginalSize of the official lists)."""
IMAGE_DEADLINE_S: Final = 120.0


@dataclass(frozen=True)
class WantedImage:
    """One row of the image list, as far as fetching needs it."""

    image_id: str
    subset: str
    original_url: str
    original_size_bytes: int | None
    original_md5: str


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


class Source(Protocol):
    """A place that images come from."""

    name: str

    def get(self, wanted: WantedImage) -> FetchedImage:
        """Give a whole, verified file.

        Raises:
            NotFetchedError: It has none.
        """
