"""A log that grows while it is read: each look costs what was appended since the last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.trainlog.parse import BLOCK_BYTES, LogParser, Utf8, unreadable

if TYPE_CHECKING:
    from io import BufferedReader

    from oiyolo.trainlog.tables import TrainLog

_TAIL_BYTES = 256


class LogFollower:
    """Reads a log that something else writes, again and again, each byte once.

    The log need not be there yet. One that was cut short, replaced, or written anew is read from
    its beginning; one that is gone stays as it was last seen. A last line that has no end yet is
    left for later.
    """

    def __init__(self, path: str | os.PathLike[str], *, regions: bool = True) -> None:
        """Begin; nothing is read before ``update``.

        Args:
            path: The log; see ``read_log``.
            regions: See ``read_log``.
        """
        self.path = Path(path)
        self._regions = regions
        self._log: TrainLog | None = None
        self._parser = LogParser(regions=regions)
        self._utf8 = Utf8()
        self._file: tuple[int, int] | None = None  # device and inode
        self._size_bytes = 0  # how far it was read
        self._tail = b""  # what was read last

    @property
    def log(self) -> TrainLog:
        """Everything so far, the same object until more comes.

        To have it costs nothing; a table of it costs what copying its columns costs, when it is
        first asked for. The IOU of iterations was worked out as they were read.
        """
        if self._log is None:
            self._log = self._parser.log(str(self.path))
        return self._log

    def update(self) -> bool:
        """Read what was appended since; tell whether ``log`` is another now.

        Raises:
            InputFormError: There is something that cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return self._update_from(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _update_from(self, file: BufferedReader) -> bool:
        anew = not self._is_the_same(file)
        if anew:
            self._start_over()
        file.seek(self._size_bytes)
        more = False
        while block := file.read(BLOCK_BYTES):
            more = True
            self._parser.take(self._utf8(block))
            self._size_bytes += len(block)
            self._tail = (self._tail + block)[-_TAIL_BYTES:]
        self._file = _identity(file)
        if anew or more:
            self._log = None
        return anew or more

    def _is_the_same(self, file: BufferedReader) -> bool:
        """Tell whether a file goes on from what was read, or is another one by that name."""
        if self._file is None:
            return True
        if self._file != _identity(file) or os.fstat(file.fileno()).st_size < self._size_bytes:
            return False
        # A file that was written anew may have kept its inode, or got it back, and be longer.
        file.seek(self._size_bytes - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _start_over(self) -> None:
        self._parser = LogParser(regions=self._regions)
        self._utf8 = Utf8()
        self._file = None
        self._size_bytes = 0
        self._tail = b""


def _identity(file: BufferedReader) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino
