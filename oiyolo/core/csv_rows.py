"""Remove rows from CSV files without changing a byte of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator


def without(lines: Iterable[bytes], keys: Container[bytes]) -> Iterator[bytes]:
    """Yield the rows whose first field is not one of the keys, each with its end of line.

    Args:
        lines: The lines of a CSV file; a quoted field may contain ends of lines.
        keys: First fields of the rows to leave out; they need no quotes.
    """
    row = b""
    for line in lines:
        row += line
        if row.count(b'"') % 2:  # within a quoted field
            continue
        if row.rstrip(b"\r\n").partition(b",")[0] not in keys:
            yield row
        row = b""
    yield row
