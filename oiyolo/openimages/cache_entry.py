"""The files that the cache keeps for one official file.

For ``boxes.csv`` these are, in one folder:

- ``boxes.csv``: the file, complete and verified.
- ``boxes.csv.facts.json``: metadata of the version that was seen last. It is also kept for a file
  that was only streamed, so that a later command can ask whether that version is still current.
- ``boxes.csv.unfinished`` and ``boxes.csv.unfinished.json``: an interrupted download, and the
  version that it is part of (``net.download``).
- ``boxes.csv.lock``: the lock of the process that writes here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from oiyolo.core import files, locks
from oiyolo.net.download import PARTIAL_SUFFIX, PartialDownload
from oiyolo.net.ranges import FileVersion

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from oiyolo.net.download import Download


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of the version of a file that was seen last; written to ``.facts.json``.

    Attributes:
        url: URL of the file.
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
        partial: The download of the file, running or interrupted.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self.partial = PartialDownload(path.with_name(path.name + PARTIAL_SUFFIX), url)
        self._metadata_path = path.with_name(path.name + ".facts.json")
        self._lock_path = path.with_name(path.name + ".lock")

    def locked(self) -> AbstractContextManager[None]:
        """Return a context manager that holds the entry's lock, waiting for another holder."""
        return locks.exclusive(self._lock_path, what=self.path.name, operation="fetch", wait=True)

    def metadata(self) -> FileMetadata | None:
        """Return the metadata of the last version; ``None`` if it is missing or damaged.

        The file itself may be missing.
        """
        saved = files.read_json(self._metadata_path)
        if not isinstance(saved, dict) or saved.get("url") != self.url:
            return None
        try:
            metadata = FileMetadata(**saved)
        except TypeError:  # fields are missing or unknown
            return None
        texts = (metadata.md5, metadata.etag, metadata.last_modified)
        return metadata if all(isinstance(text, str) for text in texts) else None

    def metadata_of_copy(self) -> FileMetadata | None:
        """Return the metadata of the complete file; ``None`` if it is missing or damaged."""
        metadata = self.metadata()
        if metadata is None or not self.path.is_file():
            return None
        return metadata if self.path.stat().st_size == metadata.size_bytes else None

    def save_metadata(self, metadata: FileMetadata) -> None:
        """Write the metadata to disk."""
        files.write_json(self._metadata_path, asdict(metadata))

    def finish_download(self, metadata: FileMetadata) -> None:
        """Move the partial file, which is complete and verified, to its final path."""
        # In this order, a kill neither leaves a file with another version's metadata nor costs a
        # second download.
        self.path.unlink(missing_ok=True)
        self.save_metadata(metadata)
        self.partial.finish(self.path)

    def record_streamed(self, metadata: FileMetadata) -> None:
        """Save the metadata of a streamed version, and delete a copy of another version."""
        before = self.metadata_of_copy()
        if before is None or before.md5 != metadata.md5:
            self.path.unlink(missing_ok=True)
            self.save_metadata(metadata)

    def remove_parts(self) -> None:
        """Delete partly written files of this entry; those of other entries may be in use."""
        # Earlier versions wrote an index of the rows.
        self.path.with_name(self.path.name + ".rows").unlink(missing_ok=True)
        for part in self.path.parent.glob(f".{self.path.name}.*{files.PART_SUFFIX}"):
            part.unlink(missing_ok=True)
