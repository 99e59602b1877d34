"""Open regular files only, and write them atomically: to a temporary file, which is then renamed.

Only a complete file ever gets the final name. A partial file that a ``kill -9`` leaves behind ends
in ``PART_SUFFIX``. The next process that writes a file into that folder removes it, and so does a
stage that has nothing to write (``remove_parts`` under a lock, ``remove_abandoned_parts`` without
one).

A project may have been received from another user, so a FIFO, a device or a link to another file
may be where a file is expected. ``open_regular`` refuses these.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from oiyolo import __version__
from oiyolo.core.errors import NewerVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_SUFFIX = ".part"
FORM_KEY = "oiyolo_form"
_FORM = 1
_SHOWN = 60
_PART_NAME = re.compile(rf"\.(?P<name>.+)\.(?P<pid>\d+)-\d+{re.escape(PART_SUFFIX)}")
_CLOCK_SLACK_S = 60.0
"""Tolerated difference between this machine's clock and that of a file server."""
_READ_BLOCK_BYTES = 1 << 20
_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL_FILESYSTEMS = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs"),
        *("ramfs", "overlay", "squashfs", "vfat", "exfat", "ntfs3", "fuseblk"),
    }
)
"""File systems that only one machine writes to; any other type may be shared."""


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}

_swept_folders: set[str] = set()
_own_parts: set[str] = set()
_sweep_lock = threading.Lock()


class NotRegularFileError(OSError):
    """A folder, FIFO, socket, device or, for writing, a link, where a file is expected."""

    def __init__(self, path: Path, kind: str) -> None:
        number = errno.EISDIR if kind == _KINDS[stat.S_IFDIR] else errno.EINVAL
        super().__init__(number, f"{kind} is in the place of a file", str(path))


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a regular file and return its descriptor; never wait for a FIFO.

    Args:
        path: The file. A symbolic link is followed only for reading: what is written under a known
            name must not end up in another file.
        flags: Flags of ``os.open``.
        mode: Permissions of a new file.

    Raises:
        NotRegularFileError: The path is anything but a regular file.
        OSError: The file cannot be opened.
    """
    is_written = flags & os.O_ACCMODE != os.O_RDONLY
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if is_written else 0)
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.ENXIO, errno.ELOOP} and (kind := _kind_of(path)):
            raise NotRegularFileError(path, kind) from None
        raise
    file_type = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if file_type != stat.S_IFREG:
        os.close(descriptor)
        raise NotRegularFileError(path, _KINDS.get(file_type, "something else"))
    return descriptor


def check_regular(path: Path) -> None:
    """Raise NotRegularFileError if something other than a file, or a link to one, is there."""
    if path.exists() and not path.is_file():
        raise NotRegularFileError(path, _KINDS.get(stat.S_IFMT(path.stat().st_mode), "no file"))


def _kind_of(path: Path) -> str:
    """Return what is in the place of a file, without following a link; empty for a file."""
    try:
        return _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode), "")
    except OSError:
        return ""


def open_binary(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes; errors as for ``open_regular``."""
    return os.fdopen(open_regular(path), "rb")


def open_append(path: Path) -> FileIO:
    """Open a regular file, or a new one, for appending without a buffer, as ``open_regular``."""
    return FileIO(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def open_text(path: Path) -> TextIO:
    """Open a regular UTF-8 file for reading, without newline translation, as ``open_regular``."""
    return os.fdopen(open_regular(path), encoding="utf-8", newline="")


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file; errors as for ``open_regular``."""
    with open_binary(path) as file:
        return file.read()


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the text of a regular UTF-8 file; errors as for ``open_regular``."""
    with os.fdopen(open_regular(path), encoding="utf-8", errors=errors) as file:
        return file.read()


def text_or_empty(path: Path) -> str:
    """Return the text of a regular file, with replaced bytes; empty if it cannot be read."""
    try:
        return read_text(path, errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def part_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and remove that file afterwards.

    It is in the same folder because a rename must not cross file systems. A missing folder is
    created. The block may rename the file, so that nothing is left to remove.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART_SUFFIX}")
    _own_parts.add(part.name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        _own_parts.discard(part.name)


def _sweep_once(folder: Path) -> None:
    """Remove the abandoned partial files in a folder to which this process has not written yet."""
    with _sweep_lock:
        if str(folder) not in _swept_folders:
            _swept_folders.add(str(folder))
            remove_abandoned_parts(folder)


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


def link_or_copy(source: Path, target: Path) -> None:
    """Add a second name to a file; where the file system has no hard links, copy the file."""
    try:
        os.link(source, target)
    except OSError:
        with atomic_write(target, durable=False) as part:
            shutil.copyfile(source, part)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON atomically.

    Raises:
        NewerVersionError: It would replace a file of a newer oiyolo (``read_json``).
    """
    read_json(path)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the content of a JSON file; ``None`` if it is missing or not JSON (NaN is not).

    Raises:
        NewerVersionError: A newer oiyolo wrote it, in a form that this one would misread.
        OSError: The file cannot be read, or is not a regular file.
    """
    try:
        content = parse_json(read_text(path))
    except (FileNotFoundError, ValueError, RecursionError):  # including invalid UTF-8
        return None
    check_form(path, content)
    return content


def check_form(path: Path, content: object) -> None:
    """Raise if a newer oiyolo wrote a JSON object in a form that this one would misread.

    A version that changes the form of a file so that older ones would misread it writes the key
    ``FORM_KEY`` with a higher number; without this key, the number is 1.

    Raises:
        NewerVersionError: The number is higher than this version knows.
    """
    form = content.get(FORM_KEY, _FORM) if isinstance(content, dict) else _FORM
    if not isinstance(content, dict) or form == _FORM:
        return
    writer = ascii(str(content.get("oiyolo") or content.get("version") or ""))[1:-1][:_SHOWN]
    writer = f"oiyolo {writer}" if writer else "an unknown version of oiyolo"
    raise NewerVersionError(
        "the file was written by a newer version of oiyolo",
        where=str(path),
        expected=f"format {_FORM}, as this oiyolo {__version__} writes it",
        found=f"format {ascii(form)[:_SHOWN]}, written by {writer}",
        remedy="Install that version or a newer one; nothing was changed",
    )


def parse_json(text: str) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the value of a JSON text; ValueError for NaN and for halves of characters, too."""
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()  # half a character could not be written
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def remove_parts(folder: Path) -> int:
    """Remove the partial files that killed processes left in ``folder``; return their number."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_part(entry)]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return len(names)


def remove_abandoned_parts(folder: Path, *names: str) -> None:
    """Remove partial files whose process has ended, also while others write to the folder.

    Args:
        folder: The folder, which may be missing.
        names: Final names of the files; any by default.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        abandoned = [entry.name for entry in entries if _is_part(entry) and _is_abandoned(entry)]
    for name in abandoned:
        part = _PART_NAME.fullmatch(name)
        if part and (not names or part["name"] in names):
            (folder / name).unlink(missing_ok=True)


def _is_part(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(PART_SUFFIX) and not entry.is_dir(follow_symlinks=False)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    """Return whether the process that wrote a partial file has ended."""
    part = _PART_NAME.fullmatch(entry.name)
    if part is None or entry.name in _own_parts:
        return False
    pid = int(part["pid"])
    if pid == os.getpid():
        return True
    started_s = _start_time_s(pid)
    if started_s is None:
        return True
    try:
        written_s = entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:  # complete now
        return False
    return started_s > written_s + _CLOCK_SLACK_S  # another process has got the number since


def _start_time_s(pid: int) -> float | None:
    """Return when a process started, in seconds since the epoch; ``None`` if it has ended.

    The format is https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html. A zombie has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        state, ticks = fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
    if state in {"Z", "X"}:
        return None
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, reading it in blocks."""
    return digest_of(path, "sha256")


def digest_of(path: Path, algorithm: str) -> str:
    """Return the digest of a file's content in hexadecimal, with an algorithm of ``hashlib``."""
    digest = hashlib.new(algorithm)
    with open_binary(path) as file:
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
