"""One record of CSV after the other: slow, for where quotes are not in order.

The rules are those of ``csv`` and pandas, but that text after a closing quote is an error: it is
the sign by which a quote that nobody closed is known.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A record.

    Attributes:
        stop: Where the next one begins.
        fields: Its fields as they stand there; ``None`` if its quotes are not in order, and
            ``stop`` is the next line's begin.
    """

    stop: int
    fields: list[bytes] | None


def read_record(text: bytes, start: int) -> Record | None:
    """Read the record that begins at ``start``; ``None`` if it does not end in this text."""
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


def plain(field: bytes) -> bytes:
    """Give a field's value."""
    if field.startswith(b'"'):
        return field[1:-1].replace(b'""', b'"')
    return field


def is_readable(record: bytes) -> bool:
    """Tell whether a record is text that every reader of CSV takes for one row."""
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    if b"\0" in record:
        return False
    if b"\r" not in record.removesuffix(b"\n").removesuffix(b"\r"):
        return True
    read = read_record(record, 0)
    if read is None or read.fields is None:
        return False
    return not any(b"\r" in field for field in read.fields if not field.startswith(b'"'))


def _field_stop(text: bytes, at: int) -> int | None:
    """Give where the field that begins at ``at`` ends; ``None`` if that is beyond the text."""
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
