"""Supervision of a training program: its log is complete, whatever the program does."""

from __future__ import annotations

import logging
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import progress as progress_module
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.supervise import supervise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Writes like darknet: one line in several writes, on both streams in turn.
STAND_IN = textwrap.dedent(
    """
    import os, sys
    first, last = int(sys.argv[1]), int(sys.argv[2])
    os.write(2, b"layer     filters")
    os.write(2, b"    size\\n")
    for n in range(first, last + 1):
        os.write(1, b"Region 16 Avg IOU: 0.500000, Class: 0.9, Obj: 0.3, No Obj: 0.1, ")
        if n % 3 == 0:
            os.write(2, b"Saving weights to weights/x\\n")
        os.write(1, b".5R: 0.500000, .75R: 0.000000,  count: 3\\n")
        os.write(1, b"%d: 1.500000, 2.500000 avg, " % n)
        os.write(1, b"0.001000 rate, 0.250000 seconds, %d images\\n" % (n * 8))
    if len(sys.argv) > 3:
        os.write(2, b"darknet: out of memory")
        os.kill(os.getpid(), 11)
    """
)


@pytest.fixture(autouse=True)
def progress_as_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress_module, "_display_class", lambda: progress_module._LogLines)
    token = progress_module.enabled.set(True)
    yield
    progress_module.enabled.reset(token)


def command(first: int, last: int, *more: str) -> list[str]:
    return [sys.executable, "-S", "-c", STAND_IN, str(first), str(last), *more]


def run_supervised(argv: list[str], folder: Path, *, done: int = 0) -> int:
    log_path = folder / "train_log.txt"
    result = supervise(
        argv, cwd=folder, log_path=log_path, read=LiveReader(), total=40, start_iteration=done
    )
    return result.exit_code


def iteration(number: int) -> str:
    return f"{number}: 1.500000, 2.500000 avg, 0.001000 rate, 0.250000 seconds, {number * 8} images"


REGION = (
    "Region 16 Avg IOU: 0.500000, Class: 0.9, Obj: 0.3, No Obj: 0.1, "
    ".5R: 0.500000, .75R: 0.000000,  count: 3"
)


def test_the_log_has_complete_lines_of_a_program_that_writes_in_parts(tmp_path: Path) -> None:
    assert run_supervised(command(1, 40), tmp_path) == 0
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert lines[0] == "layer     filters    size"
    assert [line for line in lines if line.startswith("Region")] == [REGION] * 40
    assert [line for line in lines if "rate" in line] == [iteration(n) for n in range(1, 41)]
    assert lines.count("Saving weights to weights/x") == 13
    assert len(lines) == 1 + 40 + 40 + 13
    assert (tmp_path / "train_log.txt").read_bytes().endswith(b"\n")


@pytest.mark.parametrize("before", ["", "40: 1.5, 2.5 avg, 0.0", "1: whole line\n"])
def test_a_resumed_training_appends_to_the_log_on_a_new_line(tmp_path: Path, before: str) -> None:
    (tmp_path / "train_log.txt").write_text(before)
    assert run_supervised(command(3, 4), tmp_path, done=2) == 0
    text = (tmp_path / "train_log.txt").read_text()
    assert text.startswith(before)
    added = text.removeprefix(before)
    is_cut_off = bool(before) and not before.endswith("\n")
    assert added.startswith("\nlayer" if is_cut_off else "layer")
    assert added.splitlines()[-1] == iteration(4)


def test_the_log_has_the_last_output_of_a_program_that_dies(tmp_path: Path) -> None:
    assert run_supervised(command(1, 2, "die"), tmp_path) == -11
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert lines[-1] == "darknet: out of memory"
    assert lines[-2] == iteration(2)


def test_progress_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    with caplog.at_level("INFO", logger="oiyolo"):
        run_supervised(command(11, 12), tmp_path, done=10)
    first, second = caplog.messages
    assert first == "train: 11 of 40 (avg 2.500, IOU 0.50, img/s 32, loss 1.500)"
    assert second == "train: 12 of 40 (avg 2.500, IOU 0.50, img/s 32, loss 1.500)"


def test_an_interrupt_keeps_the_output_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_LINE_EVERY_S", 0.0)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress_module._log, "info", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_supervised(command(1, 1000), tmp_path)
    lines = (tmp_path / "train_log.txt").read_text().splitlines()
    assert lines[-1] == iteration(1)
