"""Cloud Storage URLs, ``gs://bucket/prefix``: parsed and checked without any request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from oiyolo.core.errors import UsageError

SCHEME: Final = "gs://"
_BUCKET: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
_MIN_BUCKET_CHARACTERS: Final = 3
_MAX_BUCKET_CHARACTERS: Final = 222
_MAX_PREFIX_BYTES: Final = 512
"""An object's whole name has at most 1024 (https://cloud.google.com/storage/docs/objects#naming)."""
_INVALID_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class FileFacts(NamedTuple):
    """What tells one content from another, of an object or a local file.

    Attributes:
        size_bytes: Size in bytes.
        crc32c: CRC32C as Google writes it: big-endian, in base64.
    """

    size_bytes: int
    crc32c: str


@dataclass(frozen=True)
class BucketFolder:
    """A bucket, or a folder in it.

    Attributes:
        bucket: Name of the bucket.
        prefix: Prefix of the names of all objects in the folder, without a slash at either end;
            empty for the whole bucket.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return SCHEME + "/".join(part for part in (self.bucket, self.prefix) if part)

    @property
    def name_prefix(self) -> str:
        """The prefix and a slash, with which object names begin; empty for the whole bucket."""
        return f"{self.prefix}/" if self.prefix else ""

    def object_name(self, name: str) -> str:
        """Return the full name of the object with this name in the folder."""
        return self.name_prefix + name

    def subfolder(self, *names: str) -> BucketFolder:
        """Return a folder inside this one."""
        return BucketFolder(self.bucket, "/".join(part for part in (self.prefix, *names) if part))


def is_bucket(text: str) -> bool:
    """Return whether a text begins with ``gs://``; ``parse_bucket_url`` checks the rest."""
    return text.startswith(SCHEME)


def parse_bucket_url(text: str, *, where: str = "") -> BucketFolder:
    """Parse ``gs://bucket/prefix``.

    Args:
        text: The URL.
        where: Option or key that holds it, for the error.

    Raises:
        UsageError: It is not such a URL, or no bucket or object can have such a name.
    """
    problem = _url_problem(text)
    if problem:
        raise UsageError(
            "not a Cloud Storage URL",
            where=where,
            expected="gs://bucket or gs://bucket/prefix",
            found=f"{text!r}: {problem}",
        )
    bucket, _, prefix = text[len(SCHEME) :].partition("/")
    return BucketFolder(bucket, prefix.strip("/"))


def _url_problem(text: str) -> str:
    """Return what is wrong with a URL; empty if nothing is."""
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    prefix = prefix.strip("/")
    segments = prefix.split("/") if prefix else []
    problems = {
        f"it does not begin with {SCHEME}": not is_bucket(text),
        "it names no bucket": not bucket,
        "a bucket name contains only lowercase letters, digits, dashes, underscores and dots": (
            not _BUCKET.fullmatch(bucket) or ".." in bucket
        ),
        f"a bucket name has {_MIN_BUCKET_CHARACTERS} to {_MAX_BUCKET_CHARACTERS} characters": (
            not _MIN_BUCKET_CHARACTERS <= len(bucket) <= _MAX_BUCKET_CHARACTERS
        ),
        "the prefix contains control characters": bool(_INVALID_CHARACTER.search(prefix)),
        "the prefix contains empty segments, or segments of only dots": (
            not {"", ".", ".."}.isdisjoint(segments)
        ),
        f"the prefix has more than {_MAX_PREFIX_BYTES} bytes": (
            len(prefix.encode(errors="surrogatepass")) > _MAX_PREFIX_BYTES
        ),
    }
    return next((problem for problem, applies in problems.items() if applies), "")
