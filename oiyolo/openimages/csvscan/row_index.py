"""On-disk index of a CSV file's rows: the offset of each row and a hash of its value in one column.

The index is written while all rows of a file are checked for the first time, and takes about 5 % of
the file's size. Later searches compare the hashes in the index with the hashes of the searched
values, and read only the rows that may match, in a fraction of the time that reading the whole file
takes. Hashes can collide, so a row that the index selects still has to be compared exactly.

Format: a header of 512 bytes (JSON, padded with spaces), followed by blocks. A block consists of
two uint64 (the offset of its first row, and the number of rows n), n uint32 (the offset of each
row, relative to the first), and n uint32 (the hash of each row's value). All numbers are
little-endian.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from oiyolo.core import files
from oiyolo.openimages.csvscan.membership import HASH_MULTIPLIER, MembershipTest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Offsets = NDArray[np.int64]
    Hashes = NDArray[np.uint32]

KEY_BYTES: Final = 8
"""Number of bytes at the end of a value that are hashed."""
_FORMAT: Final = 1
_HEADER_BYTES: Final = 512
_BLOCK_ROWS: Final = 1 << 18
_GAP_BYTES: Final = 16 << 10
"""Reading a gap of up to this size costs hardly more than a separate system call, and keeps the
reads sequential."""
_READ_BYTES: Final = 1 << 20


def hash_keys(keys: NDArray[np.uint64]) -> Hashes:
    """Return 32-bit hashes of keys.

    Args:
        keys: The last ``KEY_BYTES`` bytes of each value as little-endian numbers; a shorter value
            is preceded by zero bytes.
    """
    return ((keys * np.uint64(HASH_MULTIPLIER)) >> np.uint64(32)).astype(np.uint32)


def _hash_values(values: Iterable[bytes]) -> Hashes:
    ends = [value.replace(b'"', b'""')[-KEY_BYTES:] for value in values]
    padded = [end.rjust(KEY_BYTES, b"\0") for end in ends]
    return hash_keys(np.frombuffer(b"".join(padded), "<u8"))


class RowIndexWriter:
    """Collects row offsets and hashes and writes them in blocks (see ``open_writer``).

    Args:
        file: File to write; ``None`` if no index is to be written.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._starts: list[Offsets] = []
        self._hashes: list[Hashes] = []
        self._count = 0
        if file is not None:
            file.seek(_HEADER_BYTES)

    @property
    def is_active(self) -> bool:
        """Whether an index is being written."""
        return self._file is not None

    def add(self, starts: Offsets, hashes: Hashes) -> None:
        """Add rows.

        Args:
            starts: Offset of each row in the CSV file.
            hashes: Hash of each row's value.
        """
        self._starts.append(starts)
        self._hashes.append(hashes)
        self._count += len(starts)
        if self._count >= _BLOCK_ROWS:
            self._flush()

    def abandon(self) -> None:
        """Write no index, because some rows are not indexed or the disk is full."""
        self._file = None

    def finish(self, column: str, version: str, size_bytes: int) -> bool:
        """Write the header and return whether the index is complete.

        Args:
            column: Column whose values are hashed.
            version: Version of the CSV file.
            size_bytes: Size of the CSV file.
        """
        self._flush()
        if self._file is None:
            return False
        header = _header(column, version, size_bytes, self._file.tell())
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()
        os.fsync(self._file.fileno())
        return True

    def _flush(self) -> None:
        if self._file is None or not self._count:
            return
        starts = np.concatenate(self._starts)
        hashes = np.concatenate(self._hashes)
        self._starts, self._hashes, self._count = [], [], 0
        first = int(starts[0])
        try:
            self._file.write(np.array([first, len(starts)], "<u8").tobytes())
            self._file.write((starts - first).astype("<u4").tobytes())
            self._file.write(hashes.astype("<u4").tobytes())
        except OSError:  # the disk is full; the index is optional
            self.abandon()


@contextlib.contextmanager
def open_writer(
    index_path: Path | None, column: str, version: str, size_bytes: int
) -> Iterator[RowIndexWriter]:
    """Open an index for writing; it gets its final name if the block succeeds and it is complete.

    Args:
        index_path: Final path of the index; ``None`` to write none.
        column: Column whose values are hashed.
        version: Version of the CSV file.
        size_bytes: Size of the CSV file.
    """
    if index_path is None:
        yield RowIndexWriter(None)
        return
    with contextlib.ExitStack() as stack:
        try:
            part = stack.enter_context(files.part_path(index_path))
            file = stack.enter_context(part.open("wb"))
        except OSError:  # the cache is read-only
            yield RowIndexWriter(None)
            return
        writer = RowIndexWriter(file)
        yield writer
        with contextlib.suppress(OSError):
            if writer.finish(column, version, size_bytes):
                part.replace(index_path)


def _header(column: str, version: str, size_bytes: int, index_bytes: int) -> bytes:
    fields = {"column": column, "version": version, "size_bytes": size_bytes}
    return (
        json.dumps({"format": _FORMAT, **fields, "map_bytes": index_bytes})
        .encode()
        .ljust(_HEADER_BYTES)
    )


class RowIndex:
    """The row index of one CSV file, opened for searching.

    Args:
        path: Path of the CSV file.
        index_path: Path of its index.
        size_bytes: Size of the CSV file.
    """

    def __init__(self, path: Path, index_path: Path, size_bytes: int) -> None:
        self._path, self._index_path, self._size_bytes = path, index_path, size_bytes

    @classmethod
    def find(cls, path: Path, index_path: Path, column: str, version: str) -> RowIndex | None:
        """Return the index of a file; ``None`` if it is missing or of another version or column."""
        try:
            with index_path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
            size_bytes = path.stat().st_size
            expected = _header(column, version, size_bytes, index_path.stat().st_size)
        except OSError:
            return None
        return cls(path, index_path, size_bytes) if header == expected else None

    def rows(self, values: Iterable[bytes]) -> Iterator[tuple[bytes, list[int], list[int]]]:
        """Yield the rows that may contain one of some values, in the file's order, many at a time.

        Yields:
            The rows as one text, the size of each row in bytes, and the offset of each row in the
            file. A row includes its newline and any empty lines that follow it.
        """
        hashes = _hash_values(values)
        if not len(hashes):
            return
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            # Doubles the kernel's read-ahead for a file that is not in memory.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            for starts, stops in self._matching_spans(MembershipTest(hashes)):
                if len(starts):
                    text = _read_spans(descriptor, starts, stops)
                    yield text, (stops - starts).tolist(), starts.tolist()
        finally:
            os.close(descriptor)

    def _matching_spans(self, hash_test: MembershipTest) -> Iterator[tuple[Offsets, Offsets]]:
        """Yield the offsets at which rows with a matching hash begin and end, block by block."""
        with self._index_path.open("rb") as file:
            file.seek(_HEADER_BYTES)
            block_header = np.fromfile(file, "<u8", 2)
            while len(block_header) == 2:  # noqa: PLR2004  (empty at the end of the index)
                first, count = block_header.tolist()
                starts, hashes = np.fromfile(file, "<u4", count), np.fromfile(file, "<u4", count)
                block_header = np.fromfile(file, "<u8", 2)
                block_stop = int(block_header[0]) if len(block_header) else self._size_bytes
                rows = hash_test.indices_of_members(hashes)
                stops = starts[np.minimum(rows + 1, count - 1)].astype(np.int64) + first
                stops[rows == count - 1] = block_stop
                yield starts[rows].astype(np.int64) + first, stops


def _read_spans(descriptor: int, starts: Offsets, stops: Offsets) -> bytes:
    """Read rows and return them concatenated.

    Rows that are close to each other are read by one system call, together with the gaps between
    them. No call reads across a multiple of ``_READ_BYTES``, except to finish a row.
    """
    section_of = starts // _READ_BYTES
    is_new_section = section_of[1:] != section_of[:-1]
    breaks = np.flatnonzero(is_new_section | (starts[1:] != stops[:-1])) + 1
    run_starts, run_stops = starts[np.append(0, breaks)], stops[np.append(breaks, len(stops)) - 1]
    is_far = run_starts[1:] - run_stops[:-1] > _GAP_BYTES
    cuts = (np.flatnonzero(is_far | is_new_section[breaks - 1]) + 1).tolist()
    begins, ends = run_starts.tolist(), run_stops.tolist()
    texts: list[bytes] = []
    for first, last in itertools.pairwise([0, *cuts, len(begins)]):
        origin = begins[first]
        text = os.pread(descriptor, ends[last - 1] - origin, origin)
        if last == first + 1:
            texts.append(text)
            continue
        runs = zip(begins[first:last], ends[first:last], strict=True)
        texts += [text[begin - origin : end - origin] for begin, end in runs]
    return b"".join(texts)
