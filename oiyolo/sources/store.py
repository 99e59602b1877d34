"""Stores for fetched images: a file gets its final name only after it has been recorded.

The caller puts a file, records it, and then finishes it. So after a ``kill -9`` at any moment no
recorded image is fetched again: the next fetch finishes each recorded file without a final name.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.files import PART_SUFFIX, NotRegularFileError, open_regular
from oiyolo.core.image_ids import is_image_id, parse_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Store(Protocol):
    """A folder or bucket that receives fetched images."""

    @property
    def folder(self) -> Path | None:
        """Folder whose disk must keep free space; ``None`` if images are stored remotely."""

    @property
    def concurrent_puts(self) -> int:
        """Maximum number of concurrent calls of ``put``."""

    def put(self, image_id: str, content: bytes) -> None:
        """Store a complete, verified file, not yet under its final name; thread-safe."""

    def finish(self, image_ids: Iterable[str]) -> None:
        """Rename stored files to their final names, once they are recorded."""

    def drop(self, image_ids: Iterable[str]) -> None:
        """Delete stored files that will not be recorded."""


class FolderStore:
    """A folder of ``<ImageID>.jpg``.

    Args:
        folder: The folder; it is created if it is missing.
        tag: Letters in the names of unfinished files. Processes that write to the same folder at
            the same time need different tags.
    """

    concurrent_puts: Final = 4

    def __init__(self, folder: Path, tag: str = "fetch") -> None:
        self.folder = folder
        self._part_suffix = f".jpg.{tag}{PART_SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, image_id: str, content: bytes) -> None:
        """Write a complete, verified file, under its temporary name."""
        parse_id(image_id, where=str(self.folder))
        part = self._part(image_id)
        final = f"{self.folder}/{image_id}.jpg"
        if os.path.isdir(final):  # noqa: PTH112  (a folder cannot be replaced; strings, as below)
            raise NotRegularFileError(Path(final), "a folder")
        # Once per image: file descriptors take half the time of pathlib.
        descriptor = open_regular(Path(part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
        except BaseException:
            os.unlink(part)  # noqa: PTH108  (strings)
            raise
        finally:
            os.close(descriptor)

    def finish(self, image_ids: Iterable[str]) -> None:
        """Rename stored files to their final names."""
        for image_id in image_ids:
            os.replace(self._part(image_id), f"{self.folder}/{image_id}.jpg")  # noqa: PTH105  (strings)

    def drop(self, image_ids: Iterable[str]) -> None:
        """Delete stored files that will not be recorded."""
        for image_id in image_ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part(image_id))  # noqa: PTH108  (strings, as above)

    def recover(self, recorded_bytes: Callable[[str], int | None]) -> int:
        """Finish the files that a killed process had recorded, and delete its other files.

        Args:
            recorded_bytes: Function that returns the size of an image that is recorded as fetched,
                and ``None`` for any other image.

        Returns:
            Number of files that got their final names.
        """
        with os.scandir(self.folder) as entries:
            size_by_id = {
                entry.name[1 : -len(self._part_suffix)]: _size_of(entry)
                for entry in entries
                if entry.name.startswith(".")
                and entry.name.endswith(self._part_suffix)
                and not entry.is_dir(follow_symlinks=False)
            }
        complete = [
            i
            for i, size_bytes in size_by_id.items()
            if is_image_id(i) and size_bytes is not None and recorded_bytes(i) == size_bytes
        ]
        self.finish(complete)
        self.drop(size_by_id.keys() - set(complete))
        return len(complete)

    def _part(self, image_id: str) -> str:
        return f"{self.folder}/.{image_id}{self._part_suffix}"


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """Return the size of a file; ``None`` for a link, a FIFO or a device."""
    if not entry.is_file(follow_symlinks=False):
        return None
    return entry.stat(follow_symlinks=False).st_size
