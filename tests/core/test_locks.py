"""Locks between processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import locks
from oiyolo.core.errors import LockedError

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = textwrap.dedent(
    """
    import pathlib, sys, time
    from oiyolo.core import locks
    with locks.exclusive(pathlib.Path(sys.argv[1]), what="the dataset", doing="fetch"):
        print("held", flush=True)
        time.sleep(60)
    """
)
SECOND = textwrap.dedent(
    """
    import pathlib, sys
    from oiyolo.core import locks
    from oiyolo.core.errors import OiyoloError
    try:
        with locks.exclusive(pathlib.Path(sys.argv[1]), what="the dataset", doing="split"):
            pass
    except OiyoloError as error:
        print(error)
        sys.exit(error.exit_code)
    """
)


def second(path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", SECOND, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_second_process_is_told_who_holds_the_lock_and_gets_it_after_a_kill(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / ".lock"
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            refused = second(path)
            with pytest.raises(LockedError) as caught, locks.exclusive(path, what="x", doing="y"):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    assert refused.returncode == 6
    assert "the dataset is in use by another run" in refused.stdout
    assert f"oiyolo fetch, process {holder.pid}" in refused.stdout
    assert caught.value.where == str(path.parent)
    assert caught.value.remedy
    assert second(path).returncode == 0


def test_a_lock_is_free_again_after_its_block_also_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for _ in range(2):
        with pytest.raises(KeyError), locks.exclusive(path, what="x", doing="y"):
            raise KeyError
    with locks.exclusive(path, what="x", doing="y"):
        assert second(path).returncode == 6
    assert second(path).returncode == 0


def test_a_holder_inside_the_same_process_counts_too(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        locks.exclusive(path, what="x", doing="train"),
        pytest.raises(LockedError, match="oiyolo train"),
        locks.exclusive(path, what="x", doing="y"),
    ):
        pass


def test_who_waits_gets_the_lock_when_the_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    script = HOLDER.replace("time.sleep(60)", "time.sleep(0.3)")
    argv = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with locks.exclusive(path, what="x", doing="y", wait=True):
            holder.wait()
        assert holder.returncode == 0


def test_a_lock_leaves_no_open_file_to_children(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locks.exclusive(path, what="x", doing="y"):
        script = "import os, time; print('up', flush=True); time.sleep(60)"
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, close_fds=False
        )
        assert child.stdout is not None
        child.stdout.readline()
    try:
        assert second(path).returncode == 0
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def test_a_look_tells_whether_a_lock_is_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    with locks.exclusive(path, what="it", doing="test"):
        assert locks.is_held(path)
    assert not locks.is_held(path)
