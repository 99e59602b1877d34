"""Check that a JPEG is complete, and read its ICC profile, from its markers without decoding it."""

from __future__ import annotations

import re
from typing import Final

START: Final = b"\xff\xd8\xff"
"""The first bytes of every JPEG."""
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
# In entropy-coded data 0xFF is followed by 0 (byte stuffing) or by a restart marker (D0 to D7).
_MARKER_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PROFILE_PART: Final = re.compile(rb"\xff\xe2(..)ICC_PROFILE\0(.)(.)", re.DOTALL)
_PROFILE_HEADER_BYTES: Final = 16
"""Header of a part of a profile: length, name, number of the part, number of parts (ICC.1:2010,
annex B.4)."""


def find_defect(content: bytes) -> str | None:
    """Walk through a JPEG's markers up to its end (ITU-T T.81, annex B).

    Returns:
        Why the file is not a complete JPEG, in a few words; ``None`` if it is one.
    """
    if not content.startswith(START):
        return "not a JPEG" if content else "empty"
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:  # noqa: PLR2004  (every marker begins with it)
            return "broken JPEG"
        marker = content[at + 1]
        if marker == 0xFF:  # noqa: PLR2004  (fill bytes may precede a marker)
            at += 1
            continue
        if marker == _END_OF_IMAGE:
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            match = _MARKER_AFTER_SCAN.search(content, at)
            at = match.start() if match else len(content)
    return None if content[at : at + 2] == b"\xff\xd9" else "truncated JPEG"


def icc_profile(content: bytes) -> bytes | None:
    """Return the ICC profile in a JPEG; ``None`` if there is none or a part is missing."""
    if b"ICC_PROFILE\0" not in content[: content.find(b"\xff\xda")]:
        return None
    parts = {}
    for match in _PROFILE_PART.finditer(content):
        start = match.start() + 2
        end = start + int.from_bytes(match[1], "big")
        parts[match[2][0]] = content[start + _PROFILE_HEADER_BYTES : end]
        if len(parts) == match[3][0]:
            return b"".join(parts[number] for number in sorted(parts))
    return None
