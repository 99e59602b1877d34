"""How to go on with a file that came only in part: what to ask for, and what an answer means.

Nothing here talks to anybody: headers in, decisions out. The rules are those of RFC 9110 (sections
13.1.5, 14 and 15.3.7): a part is continued with ``Range`` and ``If-Range``, and only where the
server says by a strong validator that it is still the same file.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_MODIFIED: Final = 304
_UNSATISFIABLE: Final = 416
STATUSES: Final = frozenset({_OK, _PARTIAL, _NOT_MODIFIED, _UNSATISFIABLE})
"""What ``next_step`` understands."""

_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_GOOGLE_MD5: Final = re.compile(r"(?:^|[\s,])md5=([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class Version:
    """What a server says of a file, by which one version is told from another.

    Attributes:
        etag: Its ``ETag``, as sent.
        last_modified: Its ``Last-Modified``, as sent.
        size_bytes: The size of the whole; ``None`` where it was not said.
        md5: Its MD5 in hexadecimal where the server tells it, as Google Cloud Storage does.
    """

    etag: str = ""
    last_modified: str = ""
    size_bytes: int | None = None
    md5: str = ""

    @property
    def validator(self) -> str:
        """What ``If-Range`` may hold; empty where the server gave nothing of use for it."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def same_as(self, other: Version) -> bool | None:
        """Tell whether both are the same bytes; ``None`` where that cannot be told."""
        sizes = {self.size_bytes, other.size_bytes} - {None}
        if len(sizes) > 1:
            return False
        for mine, others in (
            (self.md5, other.md5),
            (self.etag, other.etag),
            (self.last_modified, other.last_modified),
        ):
            if mine and others and mine != others:
                return False
            if mine and others and not mine.startswith("W/"):
                return True
        return None

    def as_dict(self) -> dict[str, Any]:
        """Give it in a form that JSON takes."""
        return {
            "etag": self.etag,
            "last_modified": self.last_modified,
            "size_bytes": self.size_bytes,
            "md5": self.md5,
        }

    @classmethod
    def of_dict(cls, kept: object) -> Version | None:
        """Give back what ``as_dict`` gave; ``None`` for anything else."""
        if not isinstance(kept, dict):
            return None
        texts = [kept.get(name) for name in ("etag", "last_modified", "md5")]
        size_bytes = kept.get("size_bytes")
        if not all(isinstance(text, str) for text in texts):
            return None
        if not (size_bytes is None or type(size_bytes) is int):
            return None
        return cls(kept["etag"], kept["last_modified"], size_bytes, kept["md5"])


class Step(Enum):
    """What to do with an answer."""

    NOT_CHANGED = auto()
    """The copy that the question was about is the newest."""
    GO_ON = auto()
    """The body is what is missing."""
    SKIP = auto()
    """The body is the whole; its beginning is here already."""
    START_OVER = auto()
    """The body is the whole, of another version or of one that is not here."""
    COMPLETE = auto()
    """Nothing is missing any more."""
    ASK_FOR_ALL = auto()
    """The answer does not fit the range that was asked for: ask again, without one."""


def version_of(status: int, headers: Mapping[str, str]) -> Version:
    """Read a file's version from an answer.

    Args:
        status: 200, or 206 or 416, whose ``Content-Range`` has the size of the whole.
        headers: The answer's headers; names in any case are the mapping's business.
    """
    if headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        return Version()  # size and validators are those of other bytes
    if status in {_PARTIAL, _UNSATISFIABLE}:
        found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        size = found[3] if found else ""
    else:
        size = headers.get("Content-Length", "")
    return Version(
        etag=headers.get("ETag", ""),
        last_modified=headers.get("Last-Modified", ""),
        size_bytes=int(size) if size.isdecimal() else None,
        md5=_told_md5(headers.get("x-goog-hash", "")),
    )


def question(held: Version | None, done: int, *, ranges: bool) -> dict[str, str]:
    """Give the headers that ask for what is missing; none where all has to be asked for.

    Args:
        held: What is known of the version of which there is a part.
        done: How many bytes of it are here.
        ranges: Ranges are of use with this server.
    """
    if held is None or not done or not ranges or not held.validator:
        return {}
    return {"Range": f"bytes={done}-", "If-Range": held.validator}


def next_step(
    status: int, headers: Mapping[str, str], held: Version | None, done: int, *, must_go_on: bool
) -> Step:
    """Decide what an answer to ``question`` means.

    Args:
        status: One of ``STATUSES``.
        headers: The answer's headers.
        held: As in ``question``.
        done: As in ``question``.
        must_go_on: What is here was handed on already: where the server does not say whether it
            is the same version, the beginning of the body is to be compared rather than taken.
    """
    if status == _NOT_MODIFIED:
        return Step.NOT_CHANGED
    now = version_of(status, headers)
    same = now.same_as(held) if held is not None and done else False
    if status == _OK:
        compares = same or (same is None and must_go_on)
        return Step.SKIP if compares else Step.START_OVER
    if same is False:
        return Step.ASK_FOR_ALL
    if status == _UNSATISFIABLE:
        return Step.COMPLETE if now.size_bytes == done else Step.ASK_FOR_ALL
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    begins_here = found is not None and found[1] is not None and int(found[1]) == done
    return Step.GO_ON if begins_here else Step.ASK_FOR_ALL


def _told_md5(google_hash: str) -> str:
    """Read ``x-goog-hash``, which holds the MD5 of the whole, in base64, beside a CRC.

    See https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash
    """
    found = _GOOGLE_MD5.search(google_hash)
    if found is None:
        return ""
    try:
        return base64.b64decode(found[1], validate=True).hex()
    except binascii.Error:
        return ""
