"""A file's bytes as they come, in one buffer that is used again and again.

Memory that is new for every block costs several times what searching the block costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_ROW_BYTES: Final = 1 << 20
"""A row that is longer is taken for one with a quote that nobody closed."""
MARGIN_BYTES: Final = 128
"""So much may be looked at before and behind the bytes that count."""
MAP_SUFFIX: Final = ".rows"

_FRONT: Final = MARGIN_BYTES + LONGEST_ROW_BYTES
_LONGEST_HEADER_BYTES: Final = 1 << 16


class Readable(Protocol):
    """A file, wherever it comes from."""

    @property
    def where(self) -> str:
        """Its path or URL, for messages."""

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """Give its bytes from the first on, cut anywhere, in blocks of about a size."""


@dataclass(frozen=True)
class OnDisk:
    """A file on this machine.

    Attributes:
        path: Where it lies.
    """

    path: Path

    @property
    def where(self) -> str:
        """See ``Readable``."""
        return str(self.path)

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """See ``Readable``.

        Raises:
            InputFormError: It cannot be read.
        """
        space = memoryview(bytearray(size_bytes))
        for count in self.read_into(space):
            yield bytes(space[:count])

    def read_into(self, space: memoryview) -> Iterator[int]:
        """Write its bytes to the beginning of a space, block after block; give each one's size.

        Raises:
            InputFormError: It cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                while count := file.readinto(space):
                    yield count
        except OSError as error:
            raise InputFormError(
                "the file cannot be read", where=self.where, found=error.strerror or str(error)
            ) from None


@dataclass(frozen=True)
class Mapped(OnDisk):
    """A file on this machine that a map of its rows may lie beside.

    Attributes:
        path: Where it lies.
        version: Another version of it has another one.
    """

    version: str

    @property
    def map_path(self) -> Path:
        """Where the map lies; see ``rowmap``."""
        return self.path.with_name(self.path.name + MAP_SUFFIX)


class Window:
    """The part of a file that is being looked at.

    Blocks are always written to the same place; what is left of earlier ones moves before it.

    Args:
        file: The file, which is read once.
        block_bytes: How much of it is read at a time.

    Attributes:
        text: Holds the part, with margins around it.
        start: Where it begins; whoever is done with some of it moves this on.
        stop: Where it ends.
    """

    def __init__(self, file: Readable, block_bytes: int) -> None:
        self.text = bytearray(_FRONT + block_bytes + MARGIN_BYTES)
        self.start = self.stop = _FRONT
        self._view = memoryview(self.text)
        space = self._view[_FRONT : _FRONT + block_bytes]
        if isinstance(file, OnDisk):
            self._counts = file.read_into(space)
        else:
            self._counts = _copied(file, space)

    @property
    def left_bytes(self) -> int:
        """How long the part is."""
        return self.stop - self.start

    @property
    def rest(self) -> bytes:
        """A copy of the part."""
        return bytes(self._view[self.start : self.stop])

    def more(self) -> bool:
        """Let the next block follow; at most ``LONGEST_ROW_BYTES`` may be left. ``False``: none."""
        start = _FRONT - self.left_bytes
        self._view[start:_FRONT] = self._view[self.start : self.stop]
        count = next(self._counts, 0)
        self.start, self.stop = start, _FRONT + count
        return count > 0

    def take_header(self) -> bytes:
        """Give the first line, or what there is of one that is too long for a header."""
        newline = -1
        while newline < 0 and self.left_bytes < _LONGEST_HEADER_BYTES and self.more():
            newline = self.text.find(b"\n", self.start, self.stop)
        size = newline + 1 - self.start if newline >= 0 else self.left_bytes
        line = self.rest[: min(size, _LONGEST_HEADER_BYTES)]
        self.start += len(line)
        return line

    def end_with_newline(self) -> None:
        """Write a newline behind the last row, if it has none."""
        if self.text[self.stop - 1] != ord("\n"):
            self.text[self.stop] = ord("\n")
            self.stop += 1


def _copied(file: Readable, space: memoryview) -> Iterator[int]:
    for block in file.blocks(len(space)):
        for at in range(0, len(block), len(space)):
            piece = block[at : at + len(space)]
            space[: len(piece)] = piece
            yield len(piece)
