"""Read a file block by block into one reused buffer.

Allocating new memory for every block costs several times as much as searching it. The window
therefore overwrites the same buffer: each block is read to the same position, and the bytes of
earlier blocks that are not processed yet are moved directly before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_ROW_BYTES: Final = 1 << 20
"""A longer row is reported as one with an unclosed quote."""
MARGIN_BYTES: Final = 128
"""Number of bytes before and after the window that vectorized code may read."""

_FRONT: Final = MARGIN_BYTES + LONGEST_ROW_BYTES
_LONGEST_HEADER_BYTES: Final = 1 << 16


class Readable(Protocol):
    """A file that can be read from the beginning, such as a local file or a download."""

    @property
    def where(self) -> str:
        """Path or URL, for messages."""

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the content in order, in blocks of about ``size_bytes``, cut at any byte."""


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine.

    Attributes:
        path: Path of the file.
    """

    path: Path

    @property
    def where(self) -> str:
        """Path of the file, for messages."""
        return str(self.path)

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the content in blocks of at most ``size_bytes``.

        Raises:
            InputFormError: The file cannot be read.
        """
        buffer = memoryview(bytearray(size_bytes))
        for count in self.read_into(buffer):
            yield bytes(buffer[:count])

    def read_into(self, buffer: memoryview) -> Iterator[int]:
        """Read block after block to the start of ``buffer``; yield the size of each in bytes.

        Raises:
            InputFormError: The file cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    yield count
        except OSError as error:
            raise InputFormError(
                "cannot read the file", where=self.where, found=error.strerror or str(error)
            ) from None


class Window:
    """The part of a file that is in memory and not processed yet.

    Args:
        file: The file, which is read once.
        block_bytes: Number of bytes to read at a time.

    Attributes:
        text: Buffer that contains the window, with a margin on either side.
        start: Offset of the window in ``text``; the caller advances it past processed bytes.
        stop: Offset of the window's end.
    """

    def __init__(self, file: Readable, block_bytes: int) -> None:
        self.text = bytearray(_FRONT + block_bytes + MARGIN_BYTES)
        self.start = self.stop = _FRONT
        self._view = memoryview(self.text)
        buffer = self._view[_FRONT : _FRONT + block_bytes]
        if isinstance(file, LocalFile):
            self._counts = file.read_into(buffer)
        else:
            self._counts = _copy_blocks(file, buffer)

    @property
    def size_bytes(self) -> int:
        """Size of the window in bytes."""
        return self.stop - self.start

    @property
    def content(self) -> bytes:
        """A copy of the window's bytes."""
        return bytes(self._view[self.start : self.stop])

    def read_block(self) -> bool:
        """Append the next block and return whether there was one.

        At most ``LONGEST_ROW_BYTES`` may be in the window when this is called.
        """
        start = _FRONT - self.size_bytes
        self._view[start:_FRONT] = self._view[self.start : self.stop]
        count = next(self._counts, 0)
        self.start, self.stop = start, _FRONT + count
        return count > 0

    def take_header(self) -> bytes:
        """Remove the first line and return it, or its beginning if it is too long for a header."""
        newline = -1
        while newline < 0 and self.size_bytes < _LONGEST_HEADER_BYTES and self.read_block():
            newline = self.text.find(b"\n", self.start, self.stop)
        size = newline + 1 - self.start if newline >= 0 else self.size_bytes
        line = self.content[: min(size, _LONGEST_HEADER_BYTES)]
        self.start += len(line)
        return line

    def end_with_newline(self) -> None:
        """Append a newline unless the window ends with one."""
        if self.text[self.stop - 1] != ord("\n"):
            self.text[self.stop] = ord("\n")
            self.stop += 1


def _copy_blocks(file: Readable, buffer: memoryview) -> Iterator[int]:
    for block in file.blocks(len(buffer)):
        for at in range(0, len(block), len(buffer)):
            part = block[at : at + len(buffer)]
            buffer[: len(part)] = part
            yield len(part)
