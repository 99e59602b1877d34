"""Atomic writes, partial files, checksums and the detection of network file systems."""

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
    """Raised by a test in the middle of writing."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupt_write(path: Path, error: type[BaseException]) -> None:
    with files.atomic_write(path) as part:
        part.write_text("partial")
        raise error


@pytest.mark.parametrize("durable", [True, False])
def test_the_file_gets_its_final_name_when_the_block_ends(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "deep" / "below" / "a.txt"
    with files.atomic_write(path, durable=durable) as part:
        part.write_text("complete")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "complete"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_no_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        interrupt_write(tmp_path / "a.txt", error)
    assert names(tmp_path) == []


def test_an_exception_in_the_block_keeps_the_previous_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(Broken):
        interrupt_write(tmp_path / "a.txt", Broken)
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_writes_nothing_raises_and_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_write(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_threads_that_write_the_same_file_use_different_partial_files(tmp_path: Path) -> None:
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


def test_the_partial_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from oiyolo.core import files
        with files.atomic_write(pathlib.Path(sys.argv[1]) / "a.txt") as part:
            part.write_text("partial")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (partial,) = names(tmp_path)
    assert partial.endswith(files.PART_SUFFIX)
    (tmp_path / "complete.txt").write_text("")
    assert files.remove_parts(tmp_path) == 1
    assert names(tmp_path) == ["complete.txt"]


def test_only_abandoned_partial_files_of_the_given_names_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    abandoned = f".a.txt.{ended.pid}-7.part"
    others = [f".b.txt.{ended.pid}-7.part", f".a.txt.{os.getppid()}-7.part", "film.part"]
    for name in (abandoned, *others):
        (tmp_path / name).write_text("half")
    files.remove_abandoned_parts(tmp_path, "a.txt")
    assert names(tmp_path) == sorted(others)
    files.remove_abandoned_parts(tmp_path)
    assert names(tmp_path) == sorted(others[1:])


def test_in_a_missing_folder_there_are_no_partial_files(tmp_path: Path) -> None:
    assert files.remove_parts(tmp_path / "missing") == 0
    files.remove_abandoned_parts(tmp_path / "missing")


def test_text_is_written_without_newline_translation(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "é\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n\n".encode()


def test_json_round_trips_and_keeps_non_ascii_characters_readable(tmp_path: Path) -> None:
    value = {"name": "Bär", "list": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "Bär" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1', b"\xff\xfe"])
def test_missing_or_damaged_json_reads_as_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert files.read_json(path) is None


def test_the_checksum_covers_the_whole_file(
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
    ("path", "expected"),
    [
        ("/home/me", False),
        ("/shared", True),
        ("/shared/project/data", True),
        ("/sharedness", False),
        ("/shared/my disk/project", False),
        ("/twice/x", True),
    ],
)
def test_a_network_file_system_is_recognised_by_its_mount(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("\n".join(MOUNTS) + "\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    assert files.is_on_network(Path(path)) is expected


def test_without_a_list_of_mounts_a_path_counts_as_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "missing")
    assert not files.is_on_network(tmp_path)


def part_of(folder: Path, pid: int, name: str = "a.txt") -> Path:
    path = folder / f".{name}.{pid}-7{files.PART_SUFFIX}"
    path.write_text("half")
    return path


def test_the_first_write_into_a_folder_removes_abandoned_partial_files(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    part_of(tmp_path, ended.pid)
    running = part_of(tmp_path, os.getppid())
    files.write_text(tmp_path / "b.txt", "new")
    assert names(tmp_path) == sorted([running.name, "b.txt"])


def test_a_process_number_that_was_given_again_is_no_writer(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            part = part_of(tmp_path, other.pid)
            files.remove_abandoned_parts(tmp_path)
            assert part.exists()
            os.utime(part, (1, 1))  # long before the process started
            files.remove_abandoned_parts(tmp_path)
            assert not part.exists()
        finally:
            other.kill()


def test_a_folder_with_the_name_of_a_partial_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f".a.txt.1-1{files.PART_SUFFIX}").mkdir()
    assert files.remove_parts(tmp_path) == 0
    files.remove_abandoned_parts(tmp_path)
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY])
def test_anything_but_a_file_is_refused_at_once(tmp_path: Path, kind: str, flags: int) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(files.NotRegularFileError) as caught:
        files.open_regular(path, flags)
    assert caught.value.filename == str(path)
    assert kind in str(caught.value.strerror)


def test_a_link_is_followed_for_reading_and_refused_for_writing(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    link = tmp_path / "link"
    link.symlink_to("victim")
    assert files.read_text(link) == "kept"
    for flags in (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(files.NotRegularFileError):
            files.open_regular(link, flags)
    with pytest.raises(files.NotRegularFileError):
        files.open_append(link)
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_link_to_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing")
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "link")
    assert files.read_json(tmp_path / "link") is None
    with pytest.raises(files.NotRegularFileError):
        files.open_append(tmp_path / "link")
    assert not (tmp_path / "missing").exists()


def test_a_fifo_in_the_place_of_a_record_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(files.NotRegularFileError):
        files.read_json(tmp_path / "a.json")
