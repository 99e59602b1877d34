"""Atomic writes: write to a temporary file in the same folder, then rename it.

Only a complete file ever gets the final name. A partial file that a ``kill -9`` leaves behind ends
in ``PART_SUFFIX``; the same stage removes it when it runs again (``remove_parts`` under a lock,
``remove_abandoned_parts`` without one).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_SUFFIX = ".part"
_PART_NAME = re.compile(rf"\.(?P<name>.+)\.(?P<pid>\d+)-\d+{re.escape(PART_SUFFIX)}")
_READ_BLOCK_BYTES = 1 << 20
_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL_FILESYSTEMS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs"),
        *("ramfs", "overlay", "squashfs", "vfat", "exfat", "ntfs3", "fuseblk"),
    }
)
"""File systems that only one machine writes to; any other type may be shared."""


@contextlib.contextmanager
def part_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and remove that file afterwards.

    It is in the same folder because a rename must not cross file systems. A missing folder is
    created. The block may rename the file, so that nothing is left to remove.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART_SUFFIX}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path, and rename it to ``path`` unless the block raises.

    Args:
        path: The final path.
        durable: Whether to flush the file to the disk before the rename, so that a power failure
            cannot leave an empty file under the final name. Pass ``False`` for files that are
            quick to regenerate.

    Yields:
        The temporary path to write to.
    """
    with part_path(path) as part:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_write(path, durable=durable) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text`` as UTF-8 atomically, without translating newlines."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the content of a JSON file; ``None`` if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def remove_parts(folder: Path) -> int:
    """Remove the partial files that killed processes left in ``folder``; return their number."""
    if not folder.is_dir():
        return 0
    parts = [entry.name for entry in os.scandir(folder) if entry.name.endswith(PART_SUFFIX)]
    for name in parts:
        (folder / name).unlink(missing_ok=True)
    return len(parts)


def remove_abandoned_parts(folder: Path, *names: str) -> None:
    """Remove partial files whose process has ended, also while others write to the folder.

    Args:
        folder: The folder, which may be missing.
        names: Final names of the files; any by default.
    """
    for path in folder.glob(f".*{PART_SUFFIX}"):
        part = _PART_NAME.fullmatch(path.name)
        if (
            part
            and (not names or part["name"] in names)
            and not _is_other_process(int(part["pid"]))
        ):
            path.unlink(missing_ok=True)


def _is_other_process(pid: int) -> bool:
    """Return whether a process may be writing; init never is, and this one is not right now."""
    return pid not in {1, os.getpid()} and Path(f"/proc/{pid}").exists()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, reading it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_on_network(path: Path) -> bool:
    """Return whether ``path``, which need not exist, is on a file system that may be shared."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    return _filesystem_type(path.resolve(), lines) not in {"", *_LOCAL_FILESYSTEMS}


def _filesystem_type(path: Path, mounts: list[str]) -> str:
    """Return the type of the file system that holds a path, from the lines of ``mountinfo``.

    The format is https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html. If two file
    systems are mounted at the same path, the later one hides the earlier one.
    """
    deepest, filesystem = -1, ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" ")[4:5], after.split(" ")[0]
        if not fields:
            continue
        mount_point = Path(fields[0].encode().decode("unicode_escape"))
        if len(mount_point.parts) >= deepest and path.is_relative_to(mount_point):
            deepest, filesystem = len(mount_point.parts), kind
    return filesystem
