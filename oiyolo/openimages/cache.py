"""Cache of Open Images' official files: downloaded once, verified, shared by all projects.

On a machine with little disk space the files are streamed instead, and only their metadata is kept.
``cache_entry`` lists the files on disk.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core import files, records
from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.core.progress import progress
from oiyolo.core.units import format_bytes
from oiyolo.net.client import HttpClient
from oiyolo.net.download import Stream
from oiyolo.net.retry import HttpFailureError
from oiyolo.net.urls import display_url
from oiyolo.openimages.cache_entry import CacheEntry, FileMetadata
from oiyolo.openimages.csvscan.window import LocalFile
from oiyolo.openimages.releases import OFFICIAL_BASE_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oiyolo.core.errors import OiyoloError
    from oiyolo.net.download import Download
    from oiyolo.openimages.releases import OfficialFile

_MIN_MEASURED_BYTES: Final = 5_000_000
_BANDWIDTH_FILE: Final = "bandwidth.json"

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class CachedFile(LocalFile):
    """An official file in the cache.

    Attributes:
        path: Path of the file.
        version: MD5 of the file, in hexadecimal.
        url: URL from which it was downloaded, without credentials.
        rows_checked: Whether all rows of this version were checked and found well-formed.
    """

    version: str
    url: str
    rows_checked: bool = False


class StreamedFile:
    """An official file that is downloaded while it is read, and not kept.

    Attributes:
        where: URL of the file.
        version: MD5 of the file, in hexadecimal; empty until it was read to its end.
        rows_checked: Always false, because the version is not known in advance.
    """

    rows_checked = False

    def __init__(
        self, stream: Stream, total_bytes: int, accept: Callable[[Download], None]
    ) -> None:
        self.where = display_url(stream.url)
        self.version = ""
        self._stream, self._total_bytes, self._accept = stream, total_bytes, accept

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """Download the file once; yield its content in blocks of about ``size_bytes``.

        The content is verified after the last block, so do not use it before the iterator ends
        without an error.

        Raises:
            UnavailableError: The download failed, or the file changed during the download.
            InputFormError: The site does not have the file, or sent a different one (size or MD5).
        """
        name = self.where.rsplit("/", 1)[-1]
        with (
            _missing_as_input_error(self.where),
            progress(name, total=self._total_bytes or None, unit="B") as bar,
            contextlib.closing(self._stream.blocks(size_bytes)) as blocks,
        ):
            for block in blocks:
                bar.advance(len(block))
                yield block
        if self._stream.result is None:
            raise AssertionError("a stream that ends without an error is complete")
        self._accept(self._stream.result)
        self.version = self._stream.result.md5


class Cache:
    """Cache of the official files of one base URL.

    Args:
        folder: Cache folder of all projects.
        base_url: URL that the files' paths are appended to.
        needs_site: Whether it is an error that the site cannot be reached, or lacks a file, even if
            there is a cached copy.

    Attributes:
        base_url: The URL, without a trailing slash; it may hold credentials.
        folder: Folder in which the files of this URL are cached.
    """

    def __init__(self, folder: Path, base_url: str, *, needs_site: bool = False) -> None:
        self.base_url = base_url.rstrip("/")
        self._needs_site = needs_site
        self.folder = _cache_folder(folder, display_url(self.base_url))
        if not self.folder.exists():
            _move_without_secrets(_cache_folder(folder, self.base_url), self.folder)
        self._web = HttpClient()
        self._is_offline = False

    @property
    def is_offline(self) -> bool:
        """Whether the site could not be reached, so that cached copies are used."""
        return self._is_offline

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    def get(self, official: OfficialFile) -> CachedFile:
        """Return an official file, downloading it if it is missing or has changed on the server.

        A copy in a read-only cache is used as it is.
        An interrupted download is resumed. If the server cannot be reached, the cached copy is
        used, with a warning. Two processes that need a file at the same time download it once.

        Raises:
            UnavailableError: The file is not cached and the site cannot be reached, or the file
                does not fit on the disk.
            InputFormError: The site does not have the file, or sent a different one (size or MD5).
        """
        entry = self._entry(official)
        copy = entry.metadata_of_copy()
        if copy is not None and entry.is_read_only:  # another user's cache
            return CachedFile(entry.path, copy.md5, entry.shown_url, copy.rows_checked)
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        with entry.locked():
            entry.recover()
            metadata = entry.metadata_of_copy()
            if not (metadata and (self._is_offline or entry.is_recent(metadata))):
                metadata = self._update(official, entry, metadata)
        return CachedFile(entry.path, metadata.md5, entry.shown_url, metadata.rows_checked)

    def open_stream(self, official: OfficialFile) -> CachedFile | StreamedFile:
        """Return an official file for reading once, without keeping it.

        A cached copy is used if it is current or the server cannot be reached. An outdated copy is
        deleted later, because another process may be about to read it. Without a cached copy this
        sends no request: an error occurs only when the first block is read.
        """
        entry = self._entry(official)
        copy = entry.metadata_of_copy()
        if copy is not None and self.current_version(official) == copy.md5:
            return CachedFile(entry.path, copy.md5, entry.shown_url, copy.rows_checked)

        def accept(download: Download) -> None:
            self._check_official(official, download.size_bytes, download.md5)
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            with entry.locked():
                entry.record_streamed(FileMetadata.of(entry.shown_url, download))
            self._save_bandwidth(download)

        expected_bytes = self._expected_bytes(official)
        stream = Stream(self._web, entry.url, expected_bytes=expected_bytes)
        return StreamedFile(stream, expected_bytes, accept)

    def current_version(self, official: OfficialFile) -> str:
        """Return the version that the server has now, by one request without content.

        If the server cannot be reached, this is the version that was seen last, with a warning.

        Returns:
            MD5 of the version, in hexadecimal; empty if the server does not send the MD5 of a new
            version, or if no version was seen before (then no request is sent).
        """
        entry = self._entry(official)
        metadata = entry.metadata()
        if metadata is None:
            return ""
        if self._is_offline:
            return metadata.md5
        try:
            newer = self._web.newer_version(entry.url, metadata.conditions)
        except UnavailableError as error:
            self._go_offline(error)
            return metadata.md5
        if newer is None or newer.same_as(metadata.as_version):
            return metadata.md5
        return newer.md5

    def has(self, official: OfficialFile) -> bool:
        """Return whether a complete copy is cached, without checking that it is current."""
        return self.find(official) is not None

    def find(self, official: OfficialFile) -> CachedFile | None:
        """Return a complete copy as it is, without asking the site; ``None`` if there is none."""
        entry = self._entry(official)
        copy = entry.metadata_of_copy()
        if copy is None:
            return None
        return CachedFile(entry.path, copy.md5, entry.shown_url, copy.rows_checked)

    def is_current(self, official: OfficialFile) -> bool:
        """Return whether a complete copy is cached, and is what the site has now."""
        metadata = self._entry(official).metadata_of_copy()
        return metadata is not None and self.current_version(official) == metadata.md5

    def check_available(self, official: OfficialFile) -> None:
        """Raise as ``get`` would if a file is neither cached nor on the site; downloads nothing.

        Raises:
            UnavailableError: The site cannot be reached.
            InputFormError: The site does not have the file.
        """
        entry = self._entry(official)
        if entry.metadata_of_copy() is None:
            with _missing_as_input_error(entry.url):
                self._web.newer_version(entry.url, {})

    def missing_bytes(self, official: OfficialFile) -> int:
        """Return how many bytes of a file are still to be downloaded; 0 if that is unknown."""
        entry = self._entry(official)
        if entry.metadata_of_copy() is not None:
            return 0
        version, partial_bytes = entry.partial.find()
        total_bytes = version.size_bytes if version is not None else None
        return max(0, (total_bytes or self._expected_bytes(official)) - partial_bytes)

    def mark_checked(self, cached: CachedFile) -> None:
        """Record that all rows of this version were checked and found well-formed."""
        entry = CacheEntry(cached.path, cached.url)
        if entry.is_read_only:
            return
        with entry.locked():
            metadata = entry.metadata_of_copy()
            if metadata is not None and metadata.md5 == cached.version:
                entry.save_metadata(replace(metadata, rows_checked=True))

    def bandwidth_bytes_s(self) -> float | None:
        """Return the speed of the last large download in bytes per second; ``None`` without one."""
        path = self.folder / _BANDWIDTH_FILE
        measured = records.find_intact(path, dict[str, float]) or {}
        size_bytes, seconds = measured.get("bytes", 0), measured.get("seconds", 0)
        return size_bytes / seconds if size_bytes > 0 and seconds > 0 else None

    def _entry(self, official: OfficialFile) -> CacheEntry:
        return CacheEntry(self.folder / official.path, f"{self.base_url}/{official.path}")

    def _update(
        self, official: OfficialFile, entry: CacheEntry, metadata: FileMetadata | None
    ) -> FileMetadata:
        """Download a file if it is newer than the copy; return the metadata of the cached file."""
        try:
            with _missing_as_input_error(entry.url):
                download = self._download(official, entry, metadata)
        except (UnavailableError, InputFormError) as error:
            is_site_error = isinstance(error.__cause__, HttpFailureError | UnavailableError)
            if not metadata or not is_site_error:
                raise
            self._go_offline(error)
            return metadata
        if not download.changed and metadata:
            return metadata
        fetched = FileMetadata.of(entry.shown_url, download)
        entry.finish_download(fetched)
        _log.info("fetched %s (%s)", entry.shown_url, format_bytes(download.size_bytes))
        self._save_bandwidth(download)
        return fetched

    def _download(
        self, official: OfficialFile, entry: CacheEntry, metadata: FileMetadata | None
    ) -> Download:
        return entry.partial.download(
            self._web,
            label=entry.path.name,
            headers=metadata.conditions if metadata else {},
            current_version=metadata.as_version if metadata else None,
            expected_bytes=self._expected_bytes(official),
            check_size=lambda size_bytes: self._check_official(official, size_bytes),
            check_file=lambda file: self._check_official(official, file.size_bytes, file.md5),
            disk_remedy="set cache in [openimages] to a folder on a larger disk, or use --stream, "
            "which keeps only the selected rows",
        )

    def _go_offline(self, error: OiyoloError) -> None:
        """Send no further requests, so that there is one warning and one timeout only.

        Raises:
            UnavailableError: The site is needed.
        """
        if self._needs_site:
            raise UnavailableError(
                "the site cannot be reached, so it is unknown whether anything is new",
                where=error.where,
                found=error.found or error.what,
                remedy="Nothing was changed; run the same command again later",
            ) from error
        self._is_offline = True
        _log.warning("%s Using copies that were cached earlier.", error)

    def _save_bandwidth(self, download: Download) -> None:
        if download.received_bytes > _MIN_MEASURED_BYTES:
            measured = {"bytes": download.received_bytes, "seconds": download.seconds}
            files.write_json(self.folder / _BANDWIDTH_FILE, measured)

    def _expected_bytes(self, official: OfficialFile) -> int:
        """Return the size that a file must have; 0 if it is unknown, or for another base URL."""
        return official.size_bytes if self.base_url == OFFICIAL_BASE_URL else 0

    def _check_official(self, official: OfficialFile, size_bytes: int, md5: str = "") -> None:
        """Raise if a file is not the official one; ``md5`` is empty while it is not known yet."""
        if self.base_url != OFFICIAL_BASE_URL:
            return
        if (not md5 or official.md5 in {"", md5}) and official.size_bytes in {0, size_bytes}:
            return
        raise InputFormError(
            "not the official file",
            where=self._entry(official).shown_url,
            expected=f"{official.size_bytes} bytes, MD5 {official.md5}",
            found=f"{size_bytes} bytes" + (f", MD5 {md5}" if md5 else ""),
            remedy="A proxy may have altered it; try again, or from another network",
        )


def _cache_folder(cache: Path, base_url: str) -> Path:
    """Return the folder in which the files of a base URL are cached."""
    address = urlsplit(base_url)
    return cache / "openimages" / address.netloc.replace(":", "_") / address.path.strip("/")


def _move_without_secrets(before: Path, folder: Path) -> None:
    """Rename the cache folder of a URL with credentials, which older versions named after them."""
    if before == folder or not before.is_dir():
        return
    with contextlib.suppress(OSError):  # another process did it, or the cache is read-only
        for path in before.rglob("*.json"):
            saved = files.read_json(path)
            if isinstance(saved, dict) and isinstance(saved.get("url"), str):
                files.write_json(path, {**saved, "url": display_url(saved["url"])})
        folder.parent.mkdir(parents=True, exist_ok=True)
        before.rename(folder)


@contextlib.contextmanager
def _missing_as_input_error(url: str) -> Iterator[None]:
    """Raise InputFormError if a site is reached but lacks the file; pass on other errors."""
    try:
        yield
    except UnavailableError as error:
        cause = error.__cause__
        if not isinstance(cause, HttpFailureError) or cause.transient or not cause.reached:
            raise
        raise InputFormError(
            "the site does not have this official file",
            where=display_url(url),
            expected="one of Open Images' official files",
            found=cause.detail,
            remedy="Check base_url and release in [openimages]",
        ) from error
