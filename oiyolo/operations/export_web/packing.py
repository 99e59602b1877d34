"""Pack bytes into characters that a page in UTF-8 may contain; ``assets/unpack.js`` unpacks them.

Base64 would add a third. Here each character has seven bits, and the few that HTML does not keep
are written in two bytes, so that a sixth is added. Networks are compressed better before that if
the bytes of their numbers are sorted by their position: the first byte of each number, then the
second of each...
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP_WINDOW_BITS: Final = 31
_LEVEL: Final = 9
_BITS: Final = 7
_BLOCK_BYTES: Final = _BITS << 17
_UNSAFE: Final = (0, 13, 60)
"""HTML replaces the first, turns the second into a line feed, and a script may end at the third."""


class Packed(NamedTuple):
    """A packed file.

    Attributes:
        text: The characters, encoded in UTF-8.
        byte_count: Size of the compressed file, in bytes.
        width: Bytes of each number by which the bytes were sorted.
    """

    text: bytes
    byte_count: int
    width: int


def pack(content: bytes, *, width: int = 1) -> Packed:
    """Return a packed file.

    Args:
        content: The file.
        width: Bytes of each number in it: 4 for float32, 2 for float16, 1 for other content.
    """
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    compressed = compressor.compress(_sorted_bytes(content, width)) + compressor.flush()
    return Packed(b"".join(_characters(compressed)), len(compressed), width)


def _sorted_bytes(content: bytes, width: int) -> bytes:
    rows = len(content) // width
    values = np.frombuffer(content, np.uint8)
    table = values[: rows * width].reshape(rows, width)
    return table.T.tobytes() + values[rows * width :].tobytes()


def _characters(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _BLOCK_BYTES):
        bits = np.unpackbits(np.frombuffer(content[start : start + _BLOCK_BYTES], np.uint8))
        rows = np.pad(bits, (0, -len(bits) % _BITS)).reshape(-1, _BITS)
        text = (np.packbits(rows, axis=1)[:, 0] >> 1).tobytes()
        for code in _UNSAFE:
            text = text.replace(bytes([code]), chr(code + 256).encode())
        yield text
