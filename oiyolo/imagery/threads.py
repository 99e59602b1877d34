"""Limit the thread pools of libraries while the project's own threads use the cores."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import cv2
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """Disable the threads of OpenCV, BLAS and OpenMP in this process.

    They would compete with the project's threads for the cores: OpenBLAS, for example, wakes its
    threads even for the small matrix products of a perceptual hash, and they spin until the next.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)
