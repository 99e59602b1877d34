"""Libraries use one thread while the project's own threads use the cores."""

from __future__ import annotations

import cv2
from threadpoolctl import threadpool_info

from oiyolo.imagery.threads import single_threaded_libraries


def numbers_of_threads() -> list[int]:
    return [cv2.getNumThreads(), *(pool["num_threads"] for pool in threadpool_info())]


def test_libraries_have_one_thread_and_get_back_their_own_number() -> None:
    before = numbers_of_threads()
    with single_threaded_libraries():
        now = numbers_of_threads()
    assert now == [1] * len(before)
    assert len(now) > 1  # numpy's BLAS is one of them
    assert numbers_of_threads() == before
