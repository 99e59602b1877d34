"""Read a CSV text one record at a time: slow, for text whose quotes are irregular.

The rules are those of Python's ``csv`` module and of pandas, with one difference: text after a
closing quote is an error, because it is the sign of an earlier quote that was never closed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One record of a CSV text.

    Attributes:
        stop: Offset at which the next record begins.
        fields: Fields as written, with their quotes; ``None`` if a quote is misplaced, and then
            ``stop`` is the beginning of the next line.
    """

    stop: int
    fields: list[bytes] | None


def read_record(text: bytes, start: int) -> Record | None:
    """Read the record that begins at ``start``; return ``None`` if it does not end in ``text``."""
    line_end = text.find(b"\n", start)
    if line_end >= 0 and text.find(b'"', start, line_end) < 0:
        return Record(line_end + 1, text[start:line_end].removesuffix(b"\r").split(b","))
    fields = []
    at = start
    while True:
        stop = _field_stop(text, at)
        if stop is None:
            return None
        fields.append(text[at:stop])
        if text.startswith(b",", stop):
            at = stop + 1
        elif text.startswith((b"\n", b"\r\n"), stop):
            return Record(text.index(b"\n", stop) + 1, fields)
        elif stop >= len(text) or text[stop:] == b"\r":
            return None
        else:
            return Record(line_end + 1, None) if line_end >= 0 else None


def unquote(field: bytes) -> bytes:
    """Return a field's value, without its surrounding quotes and with doubled quotes unescaped."""
    if field.startswith(b'"'):
        return field[1:-1].replace(b'""', b'"')
    return field


def is_readable(record: bytes) -> bool:
    """Return whether a record is UTF-8 text that every CSV reader parses as one row."""
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    if b"\0" in record:
        return False
    if b"\r" not in record.removesuffix(b"\n").removesuffix(b"\r"):
        return True
    parsed = read_record(record, 0)
    if parsed is None or parsed.fields is None:
        return False
    return not any(b"\r" in field for field in parsed.fields if not field.startswith(b'"'))


def _field_stop(text: bytes, at: int) -> int | None:
    """Return where the field that begins at ``at`` ends; ``None`` if that is beyond the text."""
    if not text.startswith(b'"', at):
        line_end = text.find(b"\n", at)
        comma = text.find(b",", at, line_end if line_end >= 0 else len(text))
        if comma >= 0:
            return comma
        if line_end < 0:
            return None
        return line_end - (line_end > at and text.startswith(b"\r", line_end - 1))
    close = text.find(b'"', at + 1)
    while close >= 0 and text.startswith(b'"', close + 1):
        close = text.find(b'"', close + 2)
    return close + 1 if close >= 0 else None
