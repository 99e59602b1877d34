"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from oiyolo.core import files


class Broken(Exception):  # noqa: N818
    """What a test raises in the middle of writing."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_off(path: Path, error: type[BaseException]) -> None:
    with files.whole_file(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_takes_its_name_when_the_block_ends(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "deep" / "below" / "a.txt"
    with files.whole_file(path, durable=durable) as part:
        part.write_text("whole")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        break_off(tmp_path / "a.txt", error)
    assert names(tmp_path) == []


def test_an_exception_in_the_block_leaves_what_was_there_before(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(Broken):
        break_off(tmp_path / "a.txt", Broken)
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_wrote_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.whole_file(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_threads_that_write_the_same_name_do_not_share_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 50_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(5):
            files.write_bytes(path, content, durable=False)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["a.bin"]


def test_what_a_killed_process_leaves_has_no_final_name_and_is_removed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from oiyolo.core import files
        with files.whole_file(pathlib.Path(sys.argv[1]) / "a.txt") as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.endswith(files.PART_SUFFIX)
    (tmp_path / "whole.txt").write_text("")
    assert files.remove_parts(tmp_path) == 1
    assert names(tmp_path) == ["whole.txt"]


def test_removing_parts_where_there_is_no_folder_removes_none(tmp_path: Path) -> None:
    assert files.remove_parts(tmp_path / "absent") == 0


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "é\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n\n".encode()


def test_json_is_read_back_and_a_person_can_read_it(tmp_path: Path) -> None:
    value = {"name": "Bär", "list": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "Bär" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1', b"\xff\xfe"])
def test_json_that_is_absent_or_damaged_reads_as_none(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert files.read_json(path) is None


def test_a_digest_is_that_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_READ_BLOCK_BYTES", 7)
    content = os.urandom(1000)
    (tmp_path / "a").write_bytes(content)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


MOUNTS = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "23 22 0:40 / /shared rw - nfs4 server:/export rw",
    "24 22 0:41 / /shared/my\\040disk rw - xfs /dev/sdb rw",
    "25 22 0:42 / /twice rw - ext4 /dev/sdc rw",
    "26 25 0:43 / /twice rw - fuse.gcsfuse bucket rw",
    "damaged",
]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/me", False),
        ("/shared", True),
        ("/shared/project/data", True),
        ("/sharedness", False),
        ("/shared/my disk/project", False),
        ("/twice/x", True),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("\n".join(MOUNTS) + "\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    assert files.on_network(Path(path)) is told


def test_without_a_list_of_mounts_a_disk_is_taken_for_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "none")
    assert not files.on_network(tmp_path)
