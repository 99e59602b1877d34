"""Journals, in which the shards of a fetch record outcomes until they are merged into the ledger.

Several machines cannot write to one SQLite file over a network file system, so each shard has a
folder below ``data/shards/`` with its own lock and journal. A journal is an append-only file of
JSON lines; a line is on the disk before the image that it describes gets its final name. The next
process that holds the dataset's lock merges the journals into the ledger. The ledger also records
how much of each journal was merged, in the same transaction, so that every line counts exactly
once, whenever a process is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, locks
from oiyolo.core.batches import batched
from oiyolo.core.errors import LockedError
from oiyolo.core.image_ids import is_image_id
from oiyolo.core.progress import progress
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Ledger

FOLDER: Final = "shards"
LOCK: Final = ".lock"
JOURNAL: Final = "journal.jsonl"
DONE: Final = "done.json"
STAGE: Final = "fetch"
"""The stage whose outcomes the journals hold."""
_STATES: Final = frozenset({PENDING, FETCHED, EXCLUDED})
_FACTS: Final = frozenset({"source", "bytes", "md5"})
_TEXTS: Final = ("image_id", "state", "message", "reason", "at")
_OLD_KEYS: Final = {"told": "message"}
_MAX_COUNT: Final = 2**63 - 1
"""The largest whole number of SQLite."""
_BATCH_LINES: Final = 5_000
_PAGE_BYTES: Final = 1 << 20

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class MergeBacklog:
    """What remains to be merged into the ledger.

    Attributes:
        shards: Number of shards whose journals have unmerged lines.
        images: Number of unmerged lines, one for each outcome.
        active: Number of shards that are being fetched now.
    """

    shards: int = 0
    images: int = 0
    active: int = 0


class Journal:
    """A shard's journal, opened for appending by the shard that holds its lock.

    Args:
        folder: The shard's folder.
        header: Facts about the shard for people who open the file.

    Attributes:
        name: A unique name.
        entries: The last change of each image.
        size_bytes: Size of the complete lines.
    """

    def __init__(self, folder: Path, header: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = files.open_regular(
            folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644
        )
        reader = _JournalReader(folder / JOURNAL)
        self.entries = reader.entries()
        self.name = reader.name or uuid.uuid4().hex
        # A kill may have left a partial line; the next line must not be appended to it.
        self.size_bytes = reader.whole_bytes if reader.name else 0
        os.ftruncate(self._descriptor, self.size_bytes)
        if not reader.name:
            self._write([{"journal": self.name, **header}])

    def append(self, changes: Sequence[Change]) -> None:
        """Append changes, all of them or none; they are on the disk when this returns."""
        self._write([_to_json(change) for change in changes])
        self.entries.update((change.image_id, change) for change in changes)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write(self, values: Sequence[Mapping[str, object]]) -> None:
        lines = "".join(
            json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n" for value in values
        )
        data = memoryview(lines.encode(errors="backslashreplace"))
        size_bytes = self.size_bytes + len(data)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError:  # a full disk: no partial line may remain
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes = size_bytes


class _JournalReader:
    """A reader of a journal that another process may be appending to.

    Attributes:
        name: Its name; empty if its first line is incomplete.
        whole_bytes: Where the last complete line that was read ends.
        bad_lines: Number of invalid lines that were skipped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bad_lines = 0
        with files.open_binary(path) as file:
            first = file.readline(_PAGE_BYTES)
        header = _parse_line(first) if first.endswith(b"\n") else {}
        files.check_form(path, header)
        self.name = str(header.get("journal", ""))
        self.whole_bytes = len(first) if self.name else 0

    def entries(self) -> dict[str, Change]:
        """Return the last change of each image."""
        return {change.image_id: change for change in self.changes()} if self.name else {}

    def changes(self, after: int = 0, *, is_active: bool = False) -> Iterator[Change]:
        """Yield the changes, moving ``whole_bytes`` to the end of each one's line.

        Args:
            after: Position in bytes to start from, if it is beyond the first line.
            is_active: Whether the shard is being fetched now. An invalid line may be complete
                later, so it ends the reading; in a journal that nobody writes to it is skipped.
        """
        self.whole_bytes = max(after, self.whole_bytes)
        with files.open_binary(self._path) as file:
            file.seek(self.whole_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                change = _to_change(_parse_line(line))
                if change is None and is_active:
                    return
                self.whole_bytes += len(line)
                if change is None:
                    self.bad_lines += 1
                else:
                    yield change


def read_entries(folder: Path) -> dict[str, Change]:
    """Return the last change of each image in a shard's journal; empty if there is no journal."""
    try:
        return _JournalReader(folder / JOURNAL).entries()
    except FileNotFoundError:
        return {}


def name_and_size(folder: Path) -> tuple[str, int] | None:
    """Return the name and size of a shard's journal, which identify its state; else ``None``."""
    path = folder / JOURNAL
    try:
        return _JournalReader(path).name, path.stat().st_size
    except FileNotFoundError:
        return None


def shard_folder(data_folder: Path, name: str) -> Path:
    """Return a shard's folder."""
    return data_folder / FOLDER / name


def merge(data_folder: Path, ledger: Ledger) -> int:
    """Merge all journals into the ledger; the caller holds the dataset's lock.

    The journal of an active shard is merged up to its last complete line, and kept. Any other
    journal is removed when all of it is merged.

    Returns:
        Number of images that changed.
    """
    merged = ledger.merged_bytes()
    present = set()
    changed = 0
    paths = _journals(data_folder)
    if not paths:
        return 0
    with progress("merge", unit="img") as bar:
        for path in paths:
            is_active = locks.is_held(path.with_name(LOCK))
            reader = _JournalReader(path)
            present.add(reader.name)
            before = merged.get(reader.name, 0)
            for changes in batched(reader.changes(before, is_active=is_active), _BATCH_LINES):
                up_to = reader.whole_bytes
                changed += ledger.merge(STAGE, changes, journal=reader.name, up_to=up_to)
                bar.advance(len(changes))
            if reader.bad_lines:
                _log.warning(
                    "%s: skipped %d malformed lines; their images will be fetched again",
                    path,
                    reader.bad_lines,
                )
            if not is_active:
                _remove(path, reader.whole_bytes)
    for name in merged.keys() - present:
        ledger.forget_journal(name)
    return changed


def merge_backlog(data_folder: Path, ledger: Ledger) -> MergeBacklog:
    """Return what a merge would add to the ledger; takes no lock."""
    merged = ledger.merged_bytes()
    shards = images = active = 0
    for path in _journals(data_folder):
        active += locks.is_held(path.with_name(LOCK))
        with contextlib.suppress(FileNotFoundError):  # another process has just merged it
            reader = _JournalReader(path)
            after = max(merged.get(reader.name, 0), reader.whole_bytes)
            lines = _count_lines(path, after) if reader.name else 0
            shards += lines > 0
            images += lines
    return MergeBacklog(shards, images, active)


def _journals(data_folder: Path) -> list[Path]:
    return sorted((data_folder / FOLDER).glob(f"*/{JOURNAL}"))


def _remove(path: Path, whole_bytes: int) -> None:
    """Remove a merged journal, unless its shard has started to write to it again."""
    lock = locks.exclusive(path.with_name(LOCK), what="the shard", operation="merge")
    with contextlib.suppress(LockedError, FileNotFoundError), lock:
        if not _count_lines(path, whole_bytes):
            path.unlink()


def _count_lines(path: Path, offset: int) -> int:
    with files.open_binary(path) as file:
        file.seek(offset)
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_PAGE_BYTES), b""))


def _to_json(change: Change) -> dict[str, object]:
    """Return a change as a journal stores it, without empty values."""
    return {name: value for name, value in asdict(change).items() if value}


def _parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; empty if it has none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # ValueErrors: bytes, and numbers of thousands of digits
        return {}
    return value if isinstance(value, dict) else {}


def _to_change(value: Mapping[str, Any]) -> Change | None:
    """Return the change in a parsed line; ``None`` if it is not a valid one."""
    try:
        change = Change(**{"message": "", **{_OLD_KEYS.get(k, k): v for k, v in value.items()}})
    except TypeError:  # a missing or unknown key
        return None
    facts = change.facts
    is_valid = (
        all(isinstance(getattr(change, name), str) for name in _TEXTS)
        and is_image_id(change.image_id)
        and change.state in _STATES
        and isinstance(facts, dict)
        and facts.keys() <= _FACTS
        and all(isinstance(fact, str) or _is_count(fact) for fact in facts.values())
        and _is_count(change.attempts)
        and type(change.retried) is bool
    )
    return change if is_valid else None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT
