"""Files of a training, which are written while it goes on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from torch import Tensor
    from typing_extensions import Self


class HostCopy:
    """Tensors as they are now, on their way to the host; the device goes on computing meanwhile.

    Args:
        tensors: The tensors by name, all on one device.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        self._copies = {
            name: torch.empty_like(
                tensor, device="cpu", pin_memory=on_gpu, requires_grad=False
            ).copy_(tensor.detach(), non_blocking=on_gpu)
            for name, tensor in tensors.items()
        }
        self._event: torch.cuda.Event | None = None
        if on_gpu:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> dict[str, Tensor]:
        """Wait for the device, and return the copies."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies


class Saver:
    """Writes files in a thread, those of one iteration at a time.

    Args:
        announce: Called with the path of each file once it is complete, by the thread that calls
            the methods.
    """

    def __init__(self, announce: Callable[[Path], None]) -> None:
        self._announce = announce
        self._pool = ThreadPoolExecutor(1, "saving")
        self._pending: deque[tuple[Path, Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let files become complete that are being written, also where training has failed."""
        self._pool.shutdown()

    def save(self, path: Path, write: Callable[[Path], None]) -> None:
        """Have a file written; what it is made of must not change any more.

        Args:
            path: The file.
            write: Writes it, in the thread.
        """
        self._pending.append((path, self._pool.submit(write, path)))

    def report(self) -> None:
        """Announce the files that have become complete.

        Raises:
            OSError: One of them could not be written.
        """
        while self._pending and self._pending[0][1].done():
            self._announce_next()

    def wait(self) -> None:
        """Wait until all files are complete, and announce them.

        Raises:
            OSError: One of them could not be written.
        """
        while self._pending:
            self._announce_next()

    def _announce_next(self) -> None:
        path, done = self._pending.popleft()
        done.result()
        self._announce(path)
