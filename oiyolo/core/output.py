"""What is printed: text without terminal controls, on streams that may be closed or full."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TextIO, cast

from oiyolo.core.errors import OiyoloError

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but for tab and newline, marks of text direction, and lone surrogates."""
_FIRST_BYTE_SURROGATE = 0xDC00  # PEP 383: a byte that is not UTF-8 is this plus the byte


def printable(text: str) -> str:
    """Return a text whose control characters are written as escapes, for a terminal or a log.

    Names come from files of unknown origin: a raw escape sequence could move the cursor, or
    rewrite what is on the screen.
    """
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0x80 <= code - _FIRST_BYTE_SURROGATE <= 0xFF:  # noqa: PLR2004  (a byte)
        code -= _FIRST_BYTE_SURROGATE
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004  (a byte)


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 can encode a text, which may be a name of a file in another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_json(value: object, encoding: str | None = None) -> str:
    """Return a value as one line of JSON: no raw control characters, null for NaN and infinity.

    Args:
        value: A JSON-compatible value.
        encoding: The encoding of the stream; all but ASCII is escaped unless it is UTF-8.
    """
    is_utf8 = (encoding or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(_without_nan(value), ensure_ascii=not is_utf8)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _without_nan(value: object) -> object:
    """Return the value with null in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


class _Stream(ABC):
    """A text stream that writes to another one, and decides what happens if that fails."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)

    def write(self, text: str) -> int:
        """Write a text; characters that the encoding lacks are written as escapes."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes only text")
        self._attempt(lambda: self._target.write(self._encodable(text)))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._attempt(self._target.flush)

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._target, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    @abstractmethod
    def _attempt(self, operation: Callable[[], object]) -> None:
        """Run an operation on the other stream."""


class _LossyStream(_Stream):
    """Drops what cannot be written."""

    def _attempt(self, operation: Callable[[], object]) -> None:
        with contextlib.suppress(OSError, ValueError):  # a ValueError: the stream is closed
            operation()


class _ResultStream(_Stream):
    """Drops what nobody reads any more, and raises if something cannot be written otherwise."""

    def _attempt(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except BrokenPipeError:
            pass
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", errno.EBADF)
            found = "it is closed" if number == errno.EBADF else str(error)
            raise OiyoloError(
                "the result cannot be written to stdout",
                found=found,
                remedy="The command itself has ended; run it again with another output to see the "
                "result",
            ) from None


def lossy(stream: TextIO) -> TextIO:
    """Return a stream for progress, logs and errors, which are dropped if they cannot be written.

    A command must not fail because the terminal of its progress is gone.
    """
    return stream if isinstance(stream, _LossyStream) else cast("TextIO", _LossyStream(stream))


def for_results(stream: TextIO) -> TextIO:
    """Return a stream for results: quiet if the reader of a pipe has closed it.

    Any other failure to write raises ``OiyoloError``.
    """
    return cast("TextIO", _ResultStream(stream))
