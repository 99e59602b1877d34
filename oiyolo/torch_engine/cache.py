"""Decoded training images: in memory, then in a memory-mapped file, as far as they fit.

Darknet decodes every image each time that it is drawn, which takes longer than a fast GPU trains.
An image is decoded when it is first used and kept as 8-bit RGB: in memory up to a limit, then in a
file up to another, whose pages the system keeps in memory as long as it has some to spare. Images
that fit in neither are decoded each time. The file has no name, so nothing is left of it, however
the process ends.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import disks, files
from oiyolo.imagery import decode
from oiyolo.torch_engine import samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    import numpy.typing as npt

    from oiyolo.imagery.decode import Rgb

_MEMORY_SHARE: Final = 0.5
_DISK_SHARE: Final = 0.5
_MEMORY_INFO: Final = Path("/proc/meminfo")
_UNKNOWN_MEMORY_BYTES: Final = 2 << 30
_BYTES_PER_KIB: Final = 1024


class ImageCache:
    """Images by their index in a list.

    Args:
        paths: Paths of the images.
        list_path: The list that contains them, for messages.
        memory_bytes: Limit of the images in memory; ``None`` for half of what is available.
        file_bytes: Limit of the memory-mapped file; ``None`` for half of the free disk space, 0
            for no file.
        folder: Folder of the file; ``None`` for no file.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        list_path: str = "",
        memory_bytes: int | None = None,
        file_bytes: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._paths = paths
        self._list_path = list_path
        self._images: dict[int, Rgb] = {}
        self._lock = threading.Lock()
        self._memory_left = available_memory_bytes() if memory_bytes is None else memory_bytes
        self._folder = folder
        self._file_bytes = 0
        if folder is not None:
            free = int(disks.free_bytes(folder) * _DISK_SHARE)
            self._file_bytes = free if file_bytes is None else min(free, file_bytes)
        self._file: IO[bytes] | None = None
        self._map: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._map_used = 0

    def get(self, index: int) -> Rgb:
        """Return an image as RGB, shape (height, width, 3), which the caller must not change.

        Raises:
            InputFormError: The file is missing or damaged.
        """
        image = self._images.get(index)
        return self._keep(index, self._decode(index)) if image is None else image

    def get_many(self, indices: Sequence[int], threads: Executor) -> list[Rgb]:
        """Return images in order; those that are not cached are decoded in threads.

        Raises:
            InputFormError: A file is missing or damaged.
        """
        missing = {index for index in indices if index not in self._images}
        decoded = dict(zip(missing, threads.map(self.get, missing), strict=True)) if missing else {}
        return [decoded[i] if i in decoded else self._images[i] for i in indices]

    def _decode(self, index: int) -> Rgb:
        path = self._paths[index]
        try:
            image = decode.open_image(files.read_bytes(Path(path)))
            return image.decode(image.stored_wh)
        except (OSError, decode.UnreadableImageError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            problem = f"{path!r} is not a readable image ({why})"
            raise samples.damaged_error(self._list_path, [problem]) from None

    def _keep(self, index: int, rgb: Rgb) -> Rgb:
        """Return the cached copy of an image, or the image itself if nothing more fits."""
        with self._lock:
            if index in self._images:
                return self._images[index]
            if rgb.nbytes <= self._memory_left:
                self._memory_left -= rgb.nbytes
                self._images[index] = rgb
            elif (place := self._reserve(rgb.nbytes)) is not None:
                mapped = place.reshape(rgb.shape)
                mapped[:] = rgb
                self._images[index] = rgb = mapped
        return rgb

    def _reserve(self, size: int) -> Rgb | None:
        """Return an unused part of the memory-mapped file; ``None`` if nothing more fits.

        The disk's blocks are reserved first: writing to a mapped page for which there is no space
        on the disk would end the process.
        """
        if self._map_used + size > self._file_bytes:
            return None
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (kept)
            weakref.finalize(self, self._file.close)
            self._file.truncate(self._file_bytes)
            self._map = np.memmap(self._file, np.uint8, "r+", shape=(self._file_bytes,))
        try:
            os.posix_fallocate(self._file.fileno(), self._map_used, size)
        except OSError:
            self._file_bytes = 0
            return None
        start, self._map_used = self._map_used, self._map_used + size
        return self._map[start : start + size]


def available_memory_bytes() -> int:
    """Return the part of this machine's available memory that images may take."""
    try:
        lines = dict(line.split(":") for line in _MEMORY_INFO.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * _BYTES_PER_KIB
    except (OSError, KeyError, ValueError):
        available = _UNKNOWN_MEMORY_BYTES
    return int(available * _MEMORY_SHARE)
