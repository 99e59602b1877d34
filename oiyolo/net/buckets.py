"""Where a bucket's objects lie: ``gs://bucket/prefix``, read and checked without asking anybody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from oiyolo.core.errors import UsageError

SCHEME: Final = "gs://"
_BUCKET: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
_FEWEST_CHARACTERS: Final = 3
_MOST_CHARACTERS: Final = 222
_LONGEST_PREFIX_BYTES: Final = 512
"""An object's whole name has at most 1024 (https://cloud.google.com/storage/docs/objects#naming)."""
_UNUSABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class BucketPlace:
    """A folder in a bucket.

    Attributes:
        bucket: The bucket's name.
        prefix: What its objects' names begin with, without a slash at either end; empty for all.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return SCHEME + "/".join(part for part in (self.bucket, self.prefix) if part)

    @property
    def path(self) -> str:
        """The prefix as names begin with it: empty, or with a slash at its end."""
        return f"{self.prefix}/" if self.prefix else ""

    def name(self, below: str) -> str:
        """Give the full name of an object below the prefix."""
        return self.path + below

    def below(self, *folders: str) -> BucketPlace:
        """Give a folder below this one."""
        return BucketPlace(self.bucket, "/".join(part for part in (self.prefix, *folders) if part))


def is_bucket(text: str) -> bool:
    """Tell whether a text is meant as a place in a bucket."""
    return text.startswith(SCHEME)


def bucket_place(text: str, *, where: str = "") -> BucketPlace:
    """Read ``gs://bucket/prefix``.

    Args:
        text: What somebody wrote.
        where: Where, for the error.

    Raises:
        UsageError: It is no such address, or no bucket or object can have such a name.
    """
    wrong = _what_is_wrong(text)
    if wrong:
        raise UsageError(
            "not a place in a bucket",
            where=where,
            expected="gs://bucket or gs://bucket/prefix",
            found=f"{text!r}: {wrong}",
        )
    bucket, _, prefix = text[len(SCHEME) :].partition("/")
    return BucketPlace(bucket, prefix.strip("/"))


def _what_is_wrong(text: str) -> str:
    if not is_bucket(text):
        return f"it does not begin with {SCHEME}"
    bucket, _, prefix = text[len(SCHEME) :].partition("/")
    return _wrong_bucket(bucket) or _wrong_prefix(prefix.strip("/"))


def _wrong_bucket(bucket: str) -> str:
    if not bucket:
        return "it names no bucket"
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return "a bucket's name has small letters, digits, dashes, underscores and dots"
    if not _FEWEST_CHARACTERS <= len(bucket) <= _MOST_CHARACTERS:
        return f"a bucket's name has {_FEWEST_CHARACTERS} to {_MOST_CHARACTERS} characters"
    return ""


def _wrong_prefix(prefix: str) -> str:
    if not prefix:
        return ""
    if _UNUSABLE.search(prefix):
        return "there are control characters in the prefix"
    if any(part in {"", ".", ".."} for part in prefix.split("/")):
        return "the prefix has empty parts, or dots alone"
    if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
        return f"the prefix has more than {_LONGEST_PREFIX_BYTES} bytes"
    return ""
