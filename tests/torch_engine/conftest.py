"""PyTorch on one thread: the networks of these tests are too small for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch", reason="the torch engine needs PyTorch")
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
