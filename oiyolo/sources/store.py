"""Where fetched images are kept: without their final names first, with them once that is recorded.

In between the caller enters them in its books. So a ``kill -9`` at any moment leaves nothing that
has to be fetched twice: what is recorded but lacks its final name gets it from the next run.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.errors import InputFormError
from oiyolo.core.files import PART_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_SAFE_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Store(Protocol):
    """A place for fetched images.

    Attributes:
        folder: On whose disk they are kept, which must not fill up; ``None`` if on nobody's here.
        at_once: So many may be put at the same time.
    """

    @property
    def folder(self) -> Path | None:
        """See above."""

    @property
    def at_once(self) -> int:
        """See above."""

    def put(self, image_id: str, content: bytes) -> None:
        """Keep a whole, verified file, not yet under its final name; called from many threads."""

    def finish(self, image_ids: Iterable[str]) -> None:
        """Give final names to what was put and is recorded by now."""

    def drop(self, image_ids: Iterable[str]) -> None:
        """Forget what was put and will not be recorded."""


class FolderStore:
    """A folder of ``<ImageID>.jpg``.

    Args:
        folder: The folder; it is made when it is missing.
        mark: Letters that keep the unfinished files of several processes apart. One process at a
            time may use a folder with the same mark.
    """

    at_once: Final = 4

    def __init__(self, folder: Path, mark: str = "fetch") -> None:
        self.folder = folder
        self._tail = f".jpg.{mark}{PART_SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, image_id: str, content: bytes) -> None:
        """See ``Store``."""
        check_id(image_id)
        # Plain texts and descriptors take half of what pathlib does; this is done for each image.
        descriptor = os.open(self._part(image_id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def finish(self, image_ids: Iterable[str]) -> None:
        """See ``Store``."""
        for image_id in image_ids:
            os.replace(self._part(image_id), f"{self.folder}/{image_id}.jpg")  # noqa: PTH105  (texts)

    def drop(self, image_ids: Iterable[str]) -> None:
        """See ``Store``."""
        for image_id in image_ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part(image_id))  # noqa: PTH108  (texts, as above)

    def recover(self, recorded_bytes: Callable[[str], int | None]) -> int:
        """Finish what a killed process had recorded, and drop what it had not.

        Args:
            recorded_bytes: Gives the size of an image that is recorded as fetched, else ``None``.

        Returns:
            How many images got their final names.
        """
        with os.scandir(self.folder) as entries:
            parts = {
                entry.name[1 : -len(self._tail)]: entry.stat().st_size
                for entry in entries
                if entry.name.startswith(".") and entry.name.endswith(self._tail)
            }
        whole = [i for i, size_bytes in parts.items() if recorded_bytes(i) == size_bytes]
        self.finish(whole)
        self.drop(parts.keys() - set(whole))
        return len(whole)

    def _part(self, image_id: str) -> str:
        return f"{self.folder}/.{image_id}{self._tail}"


def check_id(image_id: str) -> None:
    """Refuse a name that could lead out of a folder.

    Raises:
        InputFormError: It holds more than letters, digits, ``_`` and ``-``.
    """
    if not _SAFE_ID.fullmatch(image_id):
        raise InputFormError(
            "this is no ImageID", expected="16 hexadecimal digits", found=repr(image_id)
        )
