"""What a JPEG's markers tell without decoding it: is it whole, has it a profile."""

from __future__ import annotations

import re
from typing import Final

_START: Final = b"\xff\xd8\xff"
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
# In the entropy-coded data 0xFF is followed by 0 (stuffing) or a restart marker (D0 to D7).
_MARKER_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PROFILE_PART: Final = re.compile(rb"\xff\xe2(..)ICC_PROFILE\0(.)(.)", re.DOTALL)
_PROFILE_HEAD_BYTES: Final = 16
"""Of a part: its length, the name, its number and how many there are (ICC.1:2010, annex B.4)."""


def what_is_wrong(content: bytes) -> str | None:
    """Walk over a JPEG's markers to its end (ITU-T T.81, annex B).

    Returns:
        Why this is no whole JPEG, in a few words; ``None`` if it is one.
    """
    if not content:
        return "empty"
    if not content.startswith(_START):
        return "not a JPEG"
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:  # noqa: PLR2004  (every marker begins with it)
            return "broken JPEG"
        marker = content[at + 1]
        if marker == 0xFF:  # noqa: PLR2004  (fill bytes may stand before a marker)
            at += 1
            continue
        if marker == _END_OF_IMAGE:
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            found = _MARKER_AFTER_SCAN.search(content, at)
            if found is None:
                return "truncated JPEG"
            at = found.start()
    return None if content[at : at + 2] == b"\xff\xd9" else "truncated JPEG"


def icc_profile(content: bytes) -> bytes | None:
    """Give the ICC profile in a JPEG; ``None`` if there is none, or only a part of one."""
    if b"ICC_PROFILE\0" not in content[: content.find(b"\xff\xda")]:
        return None
    parts = {}
    for found in _PROFILE_PART.finditer(content):
        start = found.start() + 2
        end = start + int.from_bytes(found[1], "big")
        parts[found[2][0]] = content[start + _PROFILE_HEAD_BYTES : end]
        if len(parts) == found[3][0]:
            return b"".join(parts[number] for number in sorted(parts))
    return None
