"""Follow a growing log; each update reads only what was appended since the last one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.trainlog.parse import BLOCK_BYTES, LogParser, Utf8Converter, unreadable_log_error

if TYPE_CHECKING:
    from io import BufferedReader

    from oiyolo.trainlog.tables import TrainLog

_TAIL_BYTES = 256


class LogFollower:
    """Follows a log that another process writes, and reads each byte once.

    The file need not exist yet. If it is truncated, replaced or rewritten, it is read again from
    the start; if it is deleted, ``log`` stays as it was. An incomplete last line waits for its end.
    """

    def __init__(self, path: str | os.PathLike[str], *, regions: bool = True) -> None:
        """Create a follower; nothing is read before ``update``.

        Args:
            path: The log.
            regions: Whether region lines are read, as in ``read_log``.
        """
        self.path = Path(path)
        self._regions = regions
        self._log: TrainLog | None = None
        self._parser = LogParser(regions=regions)
        self._utf8 = Utf8Converter()
        self._file_id: tuple[int, int] | None = None  # device and inode
        self._offset_bytes = 0  # position of the next read
        self._tail = b""  # the last bytes read

    @property
    def log(self) -> TrainLog:
        """Everything read so far; the same object until the log grows.

        Access costs the numbers of the lines that were added. Each table costs one copy of its
        columns on first access, and IOUs one pass over the region lines.
        """
        if self._log is None:
            self._log = self._parser.log(str(self.path))
        return self._log

    def update(self) -> bool:
        """Read what was appended; return whether ``log`` has changed.

        Raises:
            InputFormError: The path exists but cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return self._update_from(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable_log_error(self.path, error) from error

    def _update_from(self, file: BufferedReader) -> bool:
        restarted = not self._is_same_file(file)
        if restarted:
            self._restart()
        file.seek(self._offset_bytes)
        has_grown = False
        while block := file.read(BLOCK_BYTES):
            has_grown = True
            self._parser.feed_bytes(self._utf8(block))
            self._offset_bytes += len(block)
            self._tail = (self._tail + block)[-_TAIL_BYTES:]
        self._file_id = _identity(file)
        if restarted or has_grown:
            self._log = None
        return restarted or has_grown

    def _is_same_file(self, file: BufferedReader) -> bool:
        """Return whether a file continues what was read, and is not a new file of that name."""
        if self._file_id is None:
            return True
        if self._file_id != _identity(file) or os.fstat(file.fileno()).st_size < self._offset_bytes:
            return False
        # A rewritten file may be longer and still have the same inode.
        file.seek(self._offset_bytes - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _restart(self) -> None:
        self._parser = LogParser(regions=self._regions)
        self._utf8 = Utf8Converter()
        self._file_id = None
        self._offset_bytes = 0
        self._tail = b""


def _identity(file: BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino
