"""The files that the cache keeps for one official file.

For ``boxes.csv`` these are, in one folder:

- ``boxes.csv``: the file, complete and verified.
- ``boxes.csv.facts.json``: metadata of this file. It is also kept for a file that was only
  streamed, so that a later command can ask whether that version is still current.
- ``boxes.csv.streamed.json``: metadata of a newer version that was only streamed.
- ``boxes.csv.unfinished`` and ``boxes.csv.unfinished.json``: an interrupted download, and the
  version that it is part of (``net.download``).
- ``boxes.csv.complete.json``: metadata of a download that is being moved to its final name.
- ``boxes.csv.lock``: the lock of the process that writes here.

Other processes read ``boxes.csv`` without a lock, so it is replaced, and never removed first.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, locks, records
from oiyolo.net.download import PARTIAL_SUFFIX, PartialDownload
from oiyolo.net.ranges import FileVersion
from oiyolo.net.urls import display_url

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from oiyolo.net.download import Download

_RECENT_S: Final = 60.0
"""How long a copy is used without asking a server that sends neither ETag nor Last-Modified."""
_UNUSED_S: Final = 3600.0
"""How long a copy has been outdated before it is deleted: nobody is about to read it any more."""


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of the version of a file that was seen last; written to ``.facts.json``.

    Attributes:
        url: URL of the file, without credentials.
        size_bytes: Size of the file.
        md5: MD5 of the file, in hexadecimal.
        etag: The server's ``ETag`` header.
        last_modified: The server's ``Last-Modified`` header.
        rows_checked: Whether all rows were checked and found well-formed.
    """

    url: str
    size_bytes: int
    md5: str
    etag: str
    last_modified: str
    rows_checked: bool = False

    @classmethod
    def of(cls, url: str, download: Download) -> FileMetadata:
        """Return the metadata of a finished download."""
        return cls(url, download.size_bytes, download.md5, download.etag, download.last_modified)

    @property
    def conditions(self) -> dict[str, str]:
        """Headers of a request that is answered with content only if the file has changed."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}

    @property
    def as_version(self) -> FileVersion:
        """The version, for comparison with a server's answer."""
        return FileVersion(self.etag, self.last_modified, self.size_bytes, self.md5)


class CacheEntry:
    """One official file in the cache, with all files that belong to it.

    Args:
        path: Path of the complete file.
        url: URL of the file.

    Attributes:
        path: Path of the complete file.
        url: URL of the file.
        shown_url: URL of the file, without credentials.
        partial: The download of the file, running or interrupted.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url, self.shown_url = path, url, display_url(url)
        self.partial = PartialDownload(path.with_name(path.name + PARTIAL_SUFFIX), url)
        self._metadata_path = path.with_name(path.name + ".facts.json")
        self._streamed_path = path.with_name(path.name + ".streamed.json")
        self._complete_path = path.with_name(path.name + ".complete.json")
        self._lock_path = path.with_name(path.name + ".lock")

    def locked(self) -> AbstractContextManager[None]:
        """Return a context manager that holds the entry's lock, waiting for another holder."""
        return locks.exclusive(self._lock_path, what=self.path.name, operation="fetch", wait=True)

    @property
    def is_read_only(self) -> bool:
        """Whether this process may not write to the entry's folder."""
        return not os.access(self.path.parent, os.W_OK)

    def metadata(self) -> FileMetadata | None:
        """Return the metadata of the last version; ``None`` if it is missing or damaged.

        The file itself may be missing, or be an older version.
        """
        streamed = self._read_metadata(self._streamed_path)
        return streamed or self._read_metadata(self._metadata_path)

    def _read_metadata(self, path: Path) -> FileMetadata | None:
        metadata = records.load(path, FileMetadata)
        return metadata if metadata is not None and metadata.url == self.shown_url else None

    def metadata_of_copy(self) -> FileMetadata | None:
        """Return the metadata of the complete file.

        ``None`` if it is missing, damaged, or older than a version that was streamed.
        """
        streamed, copy = self._read_metadata(self._streamed_path), self._metadata_of_file()
        return None if streamed and copy and streamed.md5 != copy.md5 else copy

    def _metadata_of_file(self) -> FileMetadata | None:
        metadata = self._read_metadata(self._metadata_path)
        if metadata is None or not self.path.is_file() or self._complete_path.exists():
            return None
        return metadata if self.path.stat().st_size == metadata.size_bytes else None

    def is_recent(self, metadata: FileMetadata) -> bool:
        """Return whether the copy of a server that never says "not modified" is current enough.

        Otherwise each of several processes that start together would download the file.
        """
        if metadata.conditions:
            return False
        age_s = time.time() - self._metadata_path.stat().st_mtime
        return 0 <= age_s < _RECENT_S

    def save_metadata(self, metadata: FileMetadata) -> None:
        """Write the metadata to disk."""
        files.write_json(self._metadata_path, asdict(metadata))

    def finish_download(self, metadata: FileMetadata) -> None:
        """Move the partial file, which is complete and verified, to its final path."""
        files.write_json(self._complete_path, asdict(metadata))
        self._finish(metadata)

    def _finish(self, metadata: FileMetadata) -> None:
        if self.partial.path.is_file():
            self.partial.finish(self.path)
        self.save_metadata(metadata)
        self._streamed_path.unlink(missing_ok=True)
        self._complete_path.unlink(missing_ok=True)

    def recover(self) -> None:
        """Finish what a killed process had begun, and delete its other files; needs the lock.

        A kill neither leaves a file with another version's metadata nor costs a second download.
        """
        self._remove_parts()
        metadata = self._read_metadata(self._complete_path)
        path = self.partial.path if self.partial.path.is_file() else self.path
        if metadata and path.is_file() and path.stat().st_size == metadata.size_bytes:
            self._finish(metadata)
        self._complete_path.unlink(missing_ok=True)

    def record_streamed(self, metadata: FileMetadata) -> None:
        """Save the metadata of a streamed version; a copy of another version becomes outdated.

        Another process may be about to read the copy, so that is deleted by a later call.
        """
        copy = self._metadata_of_file()
        if copy is not None and copy.md5 == metadata.md5:
            self._streamed_path.unlink(missing_ok=True)
        elif copy is not None and not self._is_long_outdated():
            if not self._streamed_path.exists() or self.metadata() != metadata:
                files.write_json(self._streamed_path, asdict(metadata))
        else:  # no copy that anybody uses
            self.path.unlink(missing_ok=True)
            self.save_metadata(metadata)
            self._streamed_path.unlink(missing_ok=True)

    def _is_long_outdated(self) -> bool:
        """Return whether a newer version than the copy was streamed long ago."""
        if not self._streamed_path.exists():
            return False
        return time.time() - self._streamed_path.stat().st_mtime > _UNUSED_S

    def _remove_parts(self) -> None:
        """Delete partly written files of this entry; those of other entries may be in use."""
        # Earlier versions wrote an index of the rows.
        self.path.with_name(self.path.name + ".rows").unlink(missing_ok=True)
        for part in self.path.parent.glob(f".{self.path.name}.*{files.PART_SUFFIX}"):
            part.unlink(missing_ok=True)
