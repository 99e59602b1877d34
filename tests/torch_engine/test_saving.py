"""Files of a training that are written while it goes on."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import torch

from oiyolo.torch_engine.saving import HostCopy, Saver

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_announced_once_it_is_complete(tmp_path: Path) -> None:
    announced: list[Path] = []
    may_write = threading.Event()

    def write(path: Path) -> None:
        may_write.wait()
        path.write_text("complete")

    with Saver(announced.append) as saver:
        saver.save(tmp_path / "a", write)
        saver.save(tmp_path / "b", write)
        saver.report()
        assert announced == []
        may_write.set()
        saver.wait()
        assert announced == [tmp_path / "a", tmp_path / "b"]
        saver.report()
        assert len(announced) == 2


def test_what_is_being_written_becomes_complete_at_the_end(tmp_path: Path) -> None:
    may_write = threading.Event()

    def write(path: Path) -> None:
        may_write.wait()
        path.write_text("complete")

    with Saver(lambda _: None) as saver:
        saver.save(tmp_path / "a", write)
        threading.Timer(0.01, may_write.set).start()
    assert (tmp_path / "a").read_text() == "complete"


def test_a_file_that_cannot_be_written_is_an_error_and_not_announced(tmp_path: Path) -> None:
    announced: list[Path] = []

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with Saver(announced.append) as saver:
        saver.save(tmp_path / "a", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            saver.wait()
    assert caught.value.errno == errno.ENOSPC
    assert announced == []


def test_a_copy_keeps_what_training_changes() -> None:
    values = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    before = values.detach().clone()
    copy = HostCopy({"values": values, "none": torch.zeros(0)})
    with torch.no_grad():
        values.zero_()
    copied = copy.wait()
    assert torch.equal(copied["values"], before)
    assert not copied["values"].requires_grad
    assert HostCopy({}).wait() == {}
