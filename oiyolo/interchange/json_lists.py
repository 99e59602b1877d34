"""Read a JSON object whose lists are long, one element at a time.

The text is decoded and parsed in pieces, so that never more than a piece of it, and the element
that is being read, are in memory next to the result.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, Final

from oiyolo.interchange.imported import LineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import BinaryIO

_PIECE_BYTES: Final = 1 << 20
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_ENDS: Final = frozenset(",:]} \t\n\r")


class JsonError(LineError):
    """A file is not JSON."""


def load(
    file: BinaryIO, lists: Collection[str], object_hook: Callable[[dict[str, Any]], object]
) -> object:
    """Return the content of a file as ``json.load`` does.

    Args:
        file: The file, in UTF-8, UTF-16 or UTF-32.
        lists: Keys of the outermost object whose values are lists to read one element at a time.
        object_hook: Returns what takes the place of an object; it is not applied to the outermost.

    Raises:
        JsonError: The text is not JSON.
        UnicodeDecodeError: It is not in one of these encodings.
        RecursionError: Values are nested too deeply.
    """
    text = _Text(file, object_hook)
    content = _read_object(text, lists) if text.next_is("{") else text.value()
    if not text.is_at_end():
        raise text.error("Extra data")
    return content


def _read_object(text: _Text, lists: Collection[str]) -> dict[str, object]:
    content: dict[str, object] = {}
    text.take("{")
    while not text.next_is("}"):
        if content:
            text.take(",")
        if not text.next_is('"'):
            raise text.error("Expecting property name enclosed in double quotes")
        key = str(text.value())
        text.take(":")
        is_list = key in lists and text.next_is("[")
        content[key] = _read_list(text) if is_list else text.value()
    text.take("}")
    return content


def _read_list(text: _Text) -> list[object]:
    elements: list[object] = []
    text.take("[")
    while not text.next_is("]"):
        if elements:
            text.take(",")
        elements.append(text.value())
    text.take("]")
    return elements


class _Text:
    """The text of a file, of which a piece is in memory, and a position in it."""

    def __init__(self, file: BinaryIO, object_hook: Callable[[dict[str, Any]], object]) -> None:
        first = file.read(_PIECE_BYTES)
        self._file = file
        self._decode = codecs.getincrementaldecoder(json.detect_encoding(first))().decode
        self._scan = json.JSONDecoder(object_hook=object_hook).raw_decode
        self._is_complete = not first
        self._piece, self._at, self._lines_before = self._decode(first, final=not first), 0, 0

    def error(self, message: str, at: int | None = None) -> JsonError:
        """Return an error at a position in the piece, by default the present one."""
        end = self._at if at is None else at
        return JsonError(message, self._lines_before + self._piece.count("\n", 0, end) + 1)

    def is_at_end(self) -> bool:
        """Return whether only white space is left."""
        return self._next() == ""

    def next_is(self, character: str) -> bool:
        """Return whether a character comes next, after white space."""
        return self._next() == character

    def take(self, character: str) -> None:
        """Skip a character.

        Raises:
            JsonError: Another one comes next.
        """
        if self._next() != character:
            raise self.error(f"Expecting {character!r}")
        self._at += 1

    def value(self) -> object:
        """Return the next value, and skip it.

        Raises:
            JsonError: What follows is not a value.
        """
        self._next()
        while True:
            try:
                value, end = self._scan(self._piece, self._at)
            except json.JSONDecodeError as error:
                if self._is_complete:
                    raise self.error(error.msg, error.pos) from None
            else:
                # What ends a number is not part of it, even at the end of a piece.
                if self._is_complete or self._piece[end : end + 1] in _ENDS:
                    self._at = end
                    return value
            self._read_on()

    def _next(self) -> str:
        """Skip white space, and return the next character; empty at the end."""
        while True:
            self._at = _SPACE.match(self._piece, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._piece):
                return self._piece[self._at]
            if self._is_complete:
                return ""
            self._read_on()

    def _read_on(self) -> None:
        """Drop what lies before the position, and read as much as is left, or more."""
        self._lines_before += self._piece.count("\n", 0, self._at)
        rest = self._piece[self._at :]
        new = self._file.read(max(_PIECE_BYTES, len(rest)))
        self._is_complete = not new
        self._piece, self._at = rest + self._decode(new, final=not new), 0
