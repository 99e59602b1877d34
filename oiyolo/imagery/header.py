"""Read the size and the orientation of an image file without reading or decoding its pixels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core import files
from oiyolo.imagery import jpeg
from oiyolo.imagery.decode import check_size, open_image
from oiyolo.imagery.exif import UPRIGHT, read_orientation

if TYPE_CHECKING:
    from pathlib import Path

_HEAD_BYTES: Final = (1 << 13, 1 << 17)
"""How much of a file is read: the frame header is in the first 8 KiB unless metadata precede it."""
_SOF_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of frame (ITU-T T.81, table B.1)."""
_SOF_BYTES: Final = 9
_ENTRIES: Final = (b"\x12\x01\x03\0\x01\0\0\0", b"\x01\x12\0\x03\0\0\0\x01\0")
"""The beginning of the EXIF entry "orientation" in both byte orders, up to its value's first byte
that is not zero."""
_UPRIGHT_VALUE: Final = b"\x01"
_XMP_NAME: Final = b"tiff:Orientation"


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        stored_wh: Width and height as stored, in pixels.
        orientation: EXIF orientation, from 1 to 8.
    """

    stored_wh: tuple[int, int]
    orientation: int


def read_header(path: Path) -> ImageHeader:
    """Return the header of an image file.

    Raises:
        UnreadableImageError: The file is not an image, or exceeds the limits of ``open_image``.
        OSError: The file cannot be read, or is not a regular file.
    """
    descriptor = files.open_regular(path)
    try:
        for count in _HEAD_BYTES:
            head = os.pread(descriptor, count, 0)
            if not head.startswith(jpeg.START):
                break
            if (stored_wh := _jpeg_size(head)) is not None:
                check_size(stored_wh)
                upright = _is_upright(head)
                return ImageHeader(stored_wh, UPRIGHT if upright else _orientation(path))
    finally:
        os.close(descriptor)
    content = files.read_bytes(path)
    return ImageHeader(open_image(content).stored_wh, read_orientation(content))


def _is_upright(head: bytes) -> bool:
    """Return whether no entry in the beginning of a JPEG says anything but upright.

    Only other files are searched with Pillow, which takes more time than all else.
    """
    return _XMP_NAME not in head and all(
        head.count(entry) == head.count(entry + _UPRIGHT_VALUE) for entry in _ENTRIES
    )


def _orientation(path: Path) -> int:
    return read_orientation(files.read_bytes(path))


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height from the beginning of a JPEG; ``None`` if they are not in it."""
    at = 2
    while at + _SOF_BYTES <= len(head) and head[at] == 0xFF:  # noqa: PLR2004  (a marker)
        marker = head[at + 1]
        if marker in _SOF_MARKERS:
            height, width = head[at + 5 : at + 7], head[at + 7 : at + 9]
            wh = int.from_bytes(width, "big"), int.from_bytes(height, "big")
            return wh if all(wh) else None
        is_fill = marker == 0xFF  # noqa: PLR2004  (fill bytes may precede a marker)
        at += 1 if is_fill else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
