"""Locks between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import locks
from oiyolo.core.errors import LockedError
from oiyolo.core.files import NotRegularFileError

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = textwrap.dedent(
    """
    import pathlib, sys, time
    from oiyolo.core import locks
    with locks.exclusive(pathlib.Path(sys.argv[1]), what="the dataset", operation="fetch"):
        print("locked", flush=True)
        time.sleep(60)
    """
)
CONTENDER = textwrap.dedent(
    """
    import pathlib, sys
    from oiyolo.core import locks
    from oiyolo.core.errors import OiyoloError
    try:
        with locks.exclusive(pathlib.Path(sys.argv[1]), what="the dataset", operation="split"):
            pass
    except OiyoloError as error:
        print(error)
        sys.exit(error.exit_code)
    """
)


def try_to_lock(path: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", CONTENDER, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_an_error_names_the_holder_and_a_killed_holder_releases_the_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / ".lock"
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            refused = try_to_lock(path)
            with (
                pytest.raises(LockedError) as caught,
                locks.exclusive(path, what="x", operation="y"),
            ):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    assert refused.returncode == 6
    assert "the dataset is in use by another process" in refused.stdout
    assert f"oiyolo fetch, process {holder.pid}" in refused.stdout
    assert caught.value.where == str(path.parent)
    assert caught.value.remedy
    assert try_to_lock(path).returncode == 0


def test_a_lock_is_released_after_its_block_even_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for _ in range(2):
        with pytest.raises(KeyError), locks.exclusive(path, what="x", operation="y"):
            raise KeyError
    with locks.exclusive(path, what="x", operation="y"):
        assert try_to_lock(path).returncode == 6
    assert try_to_lock(path).returncode == 0


def test_a_lock_also_excludes_its_own_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        locks.exclusive(path, what="x", operation="train"),
        pytest.raises(LockedError, match="oiyolo train"),
        locks.exclusive(path, what="x", operation="y"),
    ):
        pass


def test_a_waiting_process_gets_the_lock_when_the_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    script = HOLDER.replace("time.sleep(60)", "time.sleep(0.3)")
    argv = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with locks.exclusive(path, what="x", operation="y", wait=True):
            holder.wait()
        assert holder.returncode == 0


def test_child_processes_do_not_inherit_a_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locks.exclusive(path, what="x", operation="y"):
        script = "import os, time; print('up', flush=True); time.sleep(60)"
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, close_fds=False
        )
        assert child.stdout is not None
        child.stdout.readline()
    try:
        assert try_to_lock(path).returncode == 0
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def test_is_held_returns_whether_a_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    with locks.exclusive(path, what="it", operation="test"):
        assert locks.is_held(path)
    assert not locks.is_held(path)


def test_a_lock_file_that_is_a_link_is_refused_and_its_target_is_kept(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".lock").symlink_to("victim")
    with (
        pytest.raises(NotRegularFileError),
        locks.exclusive(tmp_path / ".lock", what="it", operation="test"),
    ):
        pass
    assert victim.read_text() == "kept"


def test_a_lock_file_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("a letter\n")
    with locks.exclusive(path, what="it", operation="test"):
        assert try_to_lock(path).returncode == 6
    assert path.read_text() == "a letter\n"


def test_a_fifo_in_the_place_of_a_lock_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with (
        pytest.raises(NotRegularFileError),
        locks.exclusive(tmp_path / ".lock", what="it", operation="test"),
    ):
        pass
    with pytest.raises(NotRegularFileError):
        locks.is_held(tmp_path / ".lock")
