"""Resume a partial download: which headers to send, and what the response means.

Pure: headers in, decisions out. The rules are those of RFC 9110 (sections 13.1.5, 14 and 15.3.7):
a partial file is resumed with ``Range`` and ``If-Range``, and the rest is appended only if the
response does not contradict the version of the part.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_MODIFIED: Final = 304
_UNSATISFIABLE: Final = 416
ACCEPTED_STATUSES: Final = frozenset({_OK, _PARTIAL, _NOT_MODIFIED, _UNSATISFIABLE})
"""HTTP statuses that ``choose_action`` accepts."""

_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_GOOGLE_MD5: Final = re.compile(r"(?:^|[\s,])md5=([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class FileVersion:
    """Version of a file on a server, as its response headers describe it.

    Attributes:
        etag: ``ETag``, as sent.
        last_modified: ``Last-Modified``, as sent.
        size_bytes: Size of the whole file; ``None`` if the server does not send it.
        md5: MD5 in hexadecimal if the server sends it, as Google Cloud Storage does.
    """

    etag: str = ""
    last_modified: str = ""
    size_bytes: int | None = None
    md5: str = ""

    @property
    def validator(self) -> str:
        """Value for ``If-Range``; empty if the server sent no usable validator."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def same_as(self, other: FileVersion) -> bool | None:
        """Return whether both versions have the same bytes; ``None`` if that is unknown."""
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

    @classmethod
    def from_dict(cls, data: object) -> FileVersion | None:
        """Return the version from its fields; ``None`` if ``data`` is anything else."""
        if not isinstance(data, dict) or data.keys() != asdict(cls()).keys():
            return None
        version = cls(**data)
        texts = (version.etag, version.last_modified, version.md5)
        has_size = version.size_bytes is None or type(version.size_bytes) is int
        return version if has_size and all(isinstance(text, str) for text in texts) else None


class ResponseAction(Enum):
    """What to do with a response."""

    NOT_MODIFIED = auto()
    """Keep the local copy: it is the newest version."""
    APPEND = auto()
    """Append the body: it begins where the partial file ends."""
    SKIP_PREFIX = auto()
    """Compare the beginning of the body with the partial file, and append the rest."""
    RESTART = auto()
    """Discard the partial file: the body is the whole file, of another or an unknown version."""
    COMPLETE = auto()
    """Ignore the body: the partial file is already the whole file."""
    REQUEST_WHOLE = auto()
    """Send the request again without a range: the response does not fit the requested one."""


def version_of(status: int, headers: Mapping[str, str]) -> FileVersion:
    """Return the version of the file that a response describes.

    Args:
        status: HTTP status. The size of the whole file is in ``Content-Range`` for 206 and 416,
            else in ``Content-Length``.
        headers: Response headers, in a mapping that ignores case.

    Returns:
        The version; an empty one for an encoded body, whose headers describe other bytes.
    """
    if headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        return FileVersion()
    if status in {_PARTIAL, _UNSATISFIABLE}:
        match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        size = match[3] if match else ""
    else:
        size = headers.get("Content-Length", "")
    return FileVersion(
        etag=headers.get("ETag", ""),
        last_modified=headers.get("Last-Modified", ""),
        size_bytes=int(size) if size.isdecimal() else None,
        md5=_md5_from_google_hash(headers.get("x-goog-hash", "")),
    )


def range_headers(
    partial_version: FileVersion | None, done_bytes: int, *, use_ranges: bool
) -> dict[str, str]:
    """Return the headers that request the rest of a file; empty to request the whole file.

    Args:
        partial_version: Version of the partial file; ``None`` if there is none.
        done_bytes: Size of the partial file.
        use_ranges: Whether the server handles ranges correctly.
    """
    if partial_version is None or not done_bytes or not use_ranges or not partial_version.validator:
        return {}
    return {"Range": f"bytes={done_bytes}-", "If-Range": partial_version.validator}


def choose_action(
    status: int,
    headers: Mapping[str, str],
    partial_version: FileVersion | None,
    done_bytes: int,
    *,
    append_only: bool,
) -> ResponseAction:
    """Return what to do with the response to a request with ``range_headers``.

    Args:
        status: One of ``ACCEPTED_STATUSES``.
        headers: Response headers, in a mapping that ignores case.
        partial_version: Version of the partial file; ``None`` if there is none.
        done_bytes: Size of the partial file.
        append_only: Whether the partial file was already handed on and cannot be discarded. If the
            server then does not say which version it sends, the beginning of the body is compared.
    """
    if status == _NOT_MODIFIED:
        return ResponseAction.NOT_MODIFIED
    version = version_of(status, headers)
    is_same = (
        version.same_as(partial_version) if partial_version is not None and done_bytes else False
    )
    if status == _OK:
        can_skip = is_same or (is_same is None and append_only)
        return ResponseAction.SKIP_PREFIX if can_skip else ResponseAction.RESTART
    if is_same is False:
        return ResponseAction.REQUEST_WHOLE
    if status == _UNSATISFIABLE:
        return (
            ResponseAction.COMPLETE
            if version.size_bytes == done_bytes
            else ResponseAction.REQUEST_WHOLE
        )
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    fits = match is not None and match[1] is not None and int(match[1]) == done_bytes
    return ResponseAction.APPEND if fits else ResponseAction.REQUEST_WHOLE


def _md5_from_google_hash(google_hash: str) -> str:
    """Return the MD5 in ``x-goog-hash``, in hexadecimal; empty if it has none.

    The header lists a CRC32C and the MD5 of the whole file, both in base64
    (https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash).
    """
    match = _GOOGLE_MD5.search(google_hash)
    if match is None:
        return ""
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error:
        return ""
