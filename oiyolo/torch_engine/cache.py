"""Decoded training images, kept in memory as far as they fit.

Darknet decodes every image each time that it is drawn, which takes longer than a fast GPU trains.
Here an image is decoded when it is first used and kept as 8-bit RGB, up to half of the memory that
is available. The others are decoded each time, in threads: at 416x416 a core decodes 1,100 of them
per second, and a file of decoded pixels is read from a disk no faster (0.5 MB each at 0.8 GB/s).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, memory
from oiyolo.imagery import decode
from oiyolo.torch_engine import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from oiyolo.imagery.decode import Rgb

_SHARE: Final = 0.5
_UNKNOWN_MEMORY_BYTES: Final = 4 << 30
_CHECK_BYTES: Final = 64 << 20
"""Images are kept without a look at the memory up to this size."""


class ImageCache:
    """Images by their index in a list; an image that is listed twice is kept once.

    Args:
        paths: Paths of the images.
        list_path: The list that contains them, for messages.
        limit_bytes: Limit of the images in memory; ``None`` for half of what is available.
        processes: Number of processes on this machine that have such a cache.
        available: Returns the available memory in bytes; ``None`` if it is unknown. Images are kept
            only while half of what was available at first still is.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        list_path: str = "",
        limit_bytes: int | None = None,
        processes: int = 1,
        available: Callable[[], int | None] = memory.available_bytes,
    ) -> None:
        self._paths = paths
        first: dict[str, int] = {}
        self._first = [first.setdefault(path, index) for index, path in enumerate(paths)]
        self._list_path = list_path
        self._images: dict[int, Rgb] = {}
        self._lock = threading.Lock()
        self._available = available
        self._reserve = int((available() or _UNKNOWN_MEMORY_BYTES) * _SHARE)
        self._left = self._reserve // processes if limit_bytes is None else limit_bytes
        self._unchecked = 0

    def get(self, index: int) -> Rgb:
        """Return an image as RGB, shape (height, width, 3), which the caller must not change.

        Raises:
            InputFormError: The file is missing or damaged.
        """
        index = self._first[index]
        image = self._images.get(index)
        return self._keep(index, self._decode(index)) if image is None else image

    def get_many(self, indices: Sequence[int], threads: Executor) -> list[Rgb]:
        """Return images in order; those that are not cached are decoded in threads.

        Raises:
            InputFormError: A file is missing or damaged.
        """
        indices = [self._first[index] for index in indices]
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
        """Keep an image if it fits, and return it."""
        with self._lock:
            if index not in self._images and rgb.nbytes <= self._left and self._has_memory(rgb):
                self._left -= rgb.nbytes
                self._images[index] = rgb
        return rgb

    def _has_memory(self, rgb: Rgb) -> bool:
        """Return whether enough memory is left, which other uses take as well."""
        self._unchecked += rgb.nbytes
        if self._unchecked < _CHECK_BYTES:
            return True
        available = self._available()
        has_memory = available is None or available > self._reserve
        self._unchecked = 0 if has_memory else _CHECK_BYTES
        return has_memory
