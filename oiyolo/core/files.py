"""Files that are either whole or absent: temporary name beside the target, then rename.

A final name is only ever given to a complete file. What a ``kill -9`` leaves behind carries
``PART_SUFFIX`` and is removed by the next run of the same stage (``remove_parts``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_SUFFIX = ".part"
_READ_BLOCK_BYTES = 1 << 20
_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL_TYPES = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs"),
        *("ramfs", "overlay", "squashfs", "vfat", "exfat", "ntfs3", "fuseblk"),
    }
)
"""File systems that one machine alone writes to; what is not known may be shared."""


@contextlib.contextmanager
def part_beside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and remove it afterwards if it is still there.

    In the same folder, because a rename must not cross file systems. The folder is made when it
    is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART_SUFFIX}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; it takes the final name if the block ends well.

    Args:
        path: The final name.
        durable: Flush the file to the disk before the rename, so that a power cut cannot leave
            an empty file under the final name. Off for files that are quickly made again.

    Yields:
        The temporary path to write to.
    """
    with part_beside(path) as part:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with whole_file(path, durable=durable) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text`` as UTF-8 with the newlines it has, whole or not at all."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON that a person can read, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401  (JSON is what it is)
    """Read a JSON file of ours; ``None`` when it is absent or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def remove_parts(folder: Path) -> int:
    """Remove what killed runs left unfinished in ``folder``; return how many files that were."""
    if not folder.is_dir():
        return 0
    parts = [entry.name for entry in os.scandir(folder) if entry.name.endswith(PART_SUFFIX)]
    for name in parts:
        (folder / name).unlink(missing_ok=True)
    return len(parts)


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's content in hexadecimal, reading it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def on_network(path: Path) -> bool:
    """Tell whether other machines may write to where ``path`` lies; it need not exist."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    return _type_of(path.resolve(), lines) not in {"", *_LOCAL_TYPES}


def _type_of(path: Path, mounts: list[str]) -> str:
    """Give the type of the file system that a path lies on, out of ``mountinfo``'s lines.

    See https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html; of two mounts at one place
    the later one counts.
    """
    best, found = -1, ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        place, kind = before.split(" ")[4:5], after.split(" ")[0]
        if not place:
            continue
        point = Path(place[0].encode().decode("unicode_escape"))
        if len(point.parts) >= best and path.is_relative_to(point):
            best, found = len(point.parts), kind
    return found
