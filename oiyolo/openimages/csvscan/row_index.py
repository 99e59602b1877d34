"""Where each row of a checked file begins, with a hash of the one column that rows are wanted by.

The pass that checks every row of a file writes such a map beside it, some 5 % of its size. Later
passes look through the map and read only what is wanted, in a fraction of the time that reading the
file takes. Hashes may agree by chance, so that a row of the map is one that *may* be wanted.

After a head of 512 bytes (JSON), blocks follow: two uint64 (where the block's first row begins, and
how many rows there are), a uint32 for each row (where it begins, from the first), and a uint32 for
each row (its hash). All are little-endian.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from oiyolo.core import files
from oiyolo.openimages.csvscan.membership import SPREAD, Among

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Places = NDArray[np.int64]
    Hashes = NDArray[np.uint32]

KEY_BYTES: Final = 8
"""So many bytes at a field's end are what is hashed."""
_FORMAT: Final = 1
_HEAD_BYTES: Final = 512
_BLOCK_ROWS: Final = 1 << 18
_NEAR_BYTES: Final = 16 << 10
"""To read over so many bytes costs little more than another call of the system, and lets a disk
read on in one go."""
_READ_BYTES: Final = 1 << 20


def hashes_of(keys: NDArray[np.uint64]) -> Hashes:
    """Hash the last ``KEY_BYTES`` of fields; those of a shorter one stand in the highest bytes."""
    return ((keys * np.uint64(SPREAD)) >> np.uint64(32)).astype(np.uint32)


def _hashes_of_words(words: Iterable[bytes]) -> Hashes:
    ends = [word.replace(b'"', b'""')[-KEY_BYTES:] for word in words]
    padded = [end.rjust(KEY_BYTES, b"\0") for end in ends]
    return hashes_of(np.frombuffer(b"".join(padded), "<u8"))


class RowMapWriter:
    """Gathers what a checking pass finds; see ``written``.

    Args:
        file: What is written to; ``None`` if there can be no map.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._begins: list[Places] = []
        self._hashes: list[Hashes] = []
        self._count = 0
        if file is not None:
            file.seek(_HEAD_BYTES)

    @property
    def is_wanted(self) -> bool:
        """There still is a map to write."""
        return self._file is not None

    def add(self, begins: Places, hashes: Hashes) -> None:
        """Add rows: where each begins in the file, and its hash."""
        self._begins.append(begins)
        self._hashes.append(hashes)
        self._count += len(begins)
        if self._count >= _BLOCK_ROWS:
            self._flush()

    def give_up(self) -> None:
        """Write no map: some rows could not be told, or it does not fit on the disk."""
        self._file = None

    def finish(self, column: str, version: str, size_bytes: int) -> bool:
        """Write the head; ``False`` if there is no map.

        Args:
            column: The column that rows are wanted by.
            version: Of the file.
            size_bytes: How long the file is.
        """
        self._flush()
        if self._file is None:
            return False
        head = _head(column, version, size_bytes, self._file.tell())
        self._file.seek(0)
        self._file.write(head)
        self._file.flush()
        os.fsync(self._file.fileno())
        return True

    def _flush(self) -> None:
        if self._file is None or not self._count:
            return
        begins = np.concatenate(self._begins)
        hashes = np.concatenate(self._hashes)
        self._begins, self._hashes, self._count = [], [], 0
        first = int(begins[0])
        try:
            self._file.write(np.array([first, len(begins)], "<u8").tobytes())
            self._file.write((begins - first).astype("<u4").tobytes())
            self._file.write(hashes.astype("<u4").tobytes())
        except OSError:  # a full disk; the selection can do without
            self.give_up()


@contextlib.contextmanager
def written(
    map_path: Path | None, column: str, version: str, size_bytes: int
) -> Iterator[RowMapWriter]:
    """Let a map be written, which gets its name if the block ends well and all rows were told.

    Args:
        map_path: Its final name; ``None`` for no map.
        column: The column that rows are wanted by.
        version: Of the file.
        size_bytes: How long the file is.
    """
    if map_path is None:
        yield RowMapWriter(None)
        return
    with contextlib.ExitStack() as stack:
        try:
            part = stack.enter_context(files.part_beside(map_path))
            file = stack.enter_context(part.open("wb"))
        except OSError:  # a cache that is read only
            yield RowMapWriter(None)
            return
        writer = RowMapWriter(file)
        yield writer
        with contextlib.suppress(OSError):
            if writer.finish(column, version, size_bytes):
                part.replace(map_path)


def _head(column: str, version: str, size_bytes: int, map_bytes: int) -> bytes:
    told = {"column": column, "version": version, "size_bytes": size_bytes}
    return (
        json.dumps({"format": _FORMAT, **told, "map_bytes": map_bytes}).encode().ljust(_HEAD_BYTES)
    )


class RowMap:
    """The map of one file.

    Args:
        path: The file.
        map_path: Its map.
        size_bytes: How long the file is.
    """

    def __init__(self, path: Path, map_path: Path, size_bytes: int) -> None:
        self._path, self._map_path, self._size_bytes = path, map_path, size_bytes

    @classmethod
    def opened(cls, path: Path, map_path: Path, column: str, version: str) -> RowMap | None:
        """Give a file's map; ``None`` where there is none of this version and column."""
        try:
            with map_path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            size_bytes = path.stat().st_size
            wanted = _head(column, version, size_bytes, map_path.stat().st_size)
        except OSError:
            return None
        return cls(path, map_path, size_bytes) if head == wanted else None

    def rows(self, words: Iterable[bytes]) -> Iterator[tuple[bytes, list[int], list[int]]]:
        """Give the rows that may hold one of some words, in order and many at a time.

        These are one text, the size of each row in it, and where each begins in the file. A row
        comes with its newline, and with empty lines that follow it.
        """
        wanted = _hashes_of_words(words)
        if not len(wanted):
            return
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            # Twice the usual reading ahead, where the file is not in memory.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            for begins, ends in self._found(Among(wanted)):
                if len(begins):
                    text = _read(descriptor, begins, ends)
                    yield text, (ends - begins).tolist(), begins.tolist()
        finally:
            os.close(descriptor)

    def _found(self, wanted: Among) -> Iterator[tuple[Places, Places]]:
        """Give where the rows with one of some hashes begin and end, block by block."""
        with self._map_path.open("rb") as file:
            file.seek(_HEAD_BYTES)
            head = np.fromfile(file, "<u8", 2)
            while len(head) == 2:  # noqa: PLR2004  (the end of the map has none)
                first, count = head.tolist()
                begins, hashes = np.fromfile(file, "<u4", count), np.fromfile(file, "<u4", count)
                head = np.fromfile(file, "<u8", 2)
                end = int(head[0]) if len(head) else self._size_bytes
                rows = wanted.places(hashes)
                ends = begins[np.minimum(rows + 1, count - 1)].astype(np.int64) + first
                ends[rows == count - 1] = end
                yield begins[rows].astype(np.int64) + first, ends


def _read(descriptor: int, begins: Places, ends: Places) -> bytes:
    """Read rows one after the other, and for it what stands between near ones, in few pieces."""
    number_of = begins // _READ_BYTES  # no piece may grow without end
    is_new = number_of[1:] != number_of[:-1]
    breaks = np.flatnonzero(is_new | (begins[1:] != ends[:-1])) + 1
    run_begins, run_ends = begins[np.append(0, breaks)], ends[np.append(breaks, len(ends)) - 1]
    is_far = run_begins[1:] - run_ends[:-1] > _NEAR_BYTES
    cuts = (np.flatnonzero(is_far | is_new[breaks - 1]) + 1).tolist()
    places, stops = run_begins.tolist(), run_ends.tolist()
    texts: list[bytes] = []
    for first, last in itertools.pairwise([0, *cuts, len(places)]):
        origin = places[first]
        text = os.pread(descriptor, stops[last - 1] - origin, origin)
        if last == first + 1:
            texts.append(text)
            continue
        of_runs = zip(places[first:last], stops[first:last], strict=True)
        texts += [text[begin - origin : stop - origin] for begin, stop in of_runs]
    return b"".join(texts)
