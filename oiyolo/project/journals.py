"""What shards of a fetch did, in journals beside the ledger, until somebody merges them into it.

Many machines cannot write to one SQLite file over a network file system, so each shard has a folder
below ``data/shards/`` with a lock and a journal of its own: lines of JSON, only ever appended, on
the disk before the images that they tell of get their names. Whoever next holds the dataset's lock
enters them in the ledger. How far each journal was entered stands in the ledger itself and changes
in the same transaction, so that every line counts once, wherever a kill falls.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import locks
from oiyolo.core.errors import LockedError
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
"""Whose work the journals tell of."""
_STATES: Final = frozenset({PENDING, FETCHED, EXCLUDED})
_FACTS: Final = frozenset({"source", "bytes", "md5"})
_LINES_AT_ONCE: Final = 5_000
_PAGE_BYTES: Final = 1 << 20

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True)
class Waiting:
    """What the ledger does not know yet.

    Attributes:
        shards: Shards with something in their journals that was not entered.
        images: Outcomes in these.
        at_work: Shards that are being fetched now.
    """

    shards: int = 0
    images: int = 0
    at_work: int = 0


class Journal:
    """A shard's journal, opened by the shard itself, under its lock.

    Args:
        folder: The shard's folder.
        about: Facts for a person who reads it.

    Attributes:
        name: What tells it from all other journals.
        entries: What it holds, the last word on each image.
    """

    def __init__(self, folder: Path, about: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        reading = _Reading(folder / JOURNAL)
        self.entries = reading.entries()
        self.name = reading.name or uuid.uuid4().hex
        # What a kill tore ends without its newline; the next line must not be joined to it.
        self.size_bytes = reading.whole_bytes if reading.name else 0
        os.ftruncate(self._descriptor, self.size_bytes)
        if not reading.name:
            self._write([{"journal": self.name, **about}])

    def append(self, changes: Sequence[Change]) -> None:
        """Write changes down; they are on the disk when this returns, all of them or none."""
        self._write([_written(change) for change in changes])
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
        except OSError:  # a full disk: nothing may be left half written
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes = size_bytes


class _Reading:
    """A journal as somebody else reads it, while it may grow.

    Attributes:
        name: Its name; empty if there is no whole first line.
        whole_bytes: How far it has whole lines, as far as it was read.
        bad_lines: Lines that are none of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bad_lines = 0
        with path.open("rb") as file:
            first = file.readline(_PAGE_BYTES)
        header = _parsed(first) if first.endswith(b"\n") else None
        self.name = str((header or {}).get("journal", ""))
        self.whole_bytes = len(first) if self.name else 0

    def entries(self) -> dict[str, Change]:
        """Give the last word on each image."""
        if not self.name:
            return {}
        return {c.image_id: c for changes, _ in self.changes() for c in changes}

    def changes(self, after: int = 0, *, grows: bool = False) -> Iterator[tuple[list[Change], int]]:
        """Give what it holds, some thousand lines at a time, each with where these end.

        Args:
            after: Begin here rather than after the first line.
            grows: Its shard is at work: what cannot be read yet may be whole later, so it ends
                the reading, where it is passed over in a journal that nobody writes to.
        """
        self.whole_bytes = max(after, self.whole_bytes)
        found: list[Change] = []
        with self._path.open("rb") as file:
            file.seek(self.whole_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                change = _change(_parsed(line))
                if change is None and grows:
                    break
                self.whole_bytes += len(line)
                if change is None:
                    self.bad_lines += 1
                else:
                    found.append(change)
                if len(found) >= _LINES_AT_ONCE:
                    yield found, self.whole_bytes
                    found = []
        if found or self.bad_lines:
            yield found, self.whole_bytes


def entries(folder: Path) -> dict[str, Change]:
    """Give what a shard's journal holds, the last word on each image; nothing if there is none."""
    try:
        return _Reading(folder / JOURNAL).entries()
    except FileNotFoundError:
        return {}


def name_and_size(folder: Path) -> tuple[str, int] | None:
    """Tell a shard's journal, as it stands, from all others; ``None`` if there is none."""
    path = folder / JOURNAL
    try:
        return _Reading(path).name, path.stat().st_size
    except FileNotFoundError:
        return None


def folder_of(data_folder: Path, name: str) -> Path:
    """Give a shard's folder."""
    return data_folder / FOLDER / name


def merge(data_folder: Path, ledger: Ledger) -> int:
    """Enter in the ledger what it does not know yet; the caller holds the dataset's lock.

    A journal whose shard is at work is entered as far as it goes, and stays. Any other is removed
    when the ledger has all of it.

    Returns:
        How many images changed.
    """
    merged = ledger.merged()
    known = set()
    changed = 0
    paths = _journals(data_folder)
    if not paths:
        return 0
    with progress("merge", unit="img") as told:
        for path in paths:
            grows = locks.is_held(path.with_name(LOCK))
            reading = _Reading(path)
            known.add(reading.name)
            before = merged.get(reading.name, 0)
            for changes, up_to in reading.changes(before, grows=grows):
                changed += ledger.merge(STAGE, changes, journal=reading.name, up_to=up_to)
                told.advance(len(changes))
            if reading.bad_lines:
                _log.warning(
                    "%s: %d damaged lines were passed over; their images are fetched again",
                    path,
                    reading.bad_lines,
                )
            if not grows:
                _remove(path, reading.whole_bytes)
    for name in merged.keys() - known:
        ledger.forget_journal(name)
    return changed


def waiting(data_folder: Path, ledger: Ledger) -> Waiting:
    """Tell what a merge would enter; takes no lock."""
    merged = ledger.merged()
    shards = images = at_work = 0
    for path in _journals(data_folder):
        at_work += locks.is_held(path.with_name(LOCK))
        with contextlib.suppress(FileNotFoundError):  # somebody merged it just now
            reading = _Reading(path)
            after = max(merged.get(reading.name, 0), reading.whole_bytes)
            lines = _lines_after(path, after) if reading.name else 0
            shards += lines > 0
            images += lines
    return Waiting(shards, images, at_work)


def at_work(data_folder: Path) -> list[str]:
    """Give the names of the shards that are being fetched now, on whatever machine."""
    return [p.parent.name for p in _journals(data_folder) if locks.is_held(p.with_name(LOCK))]


def _journals(data_folder: Path) -> list[Path]:
    return sorted((data_folder / FOLDER).glob(f"*/{JOURNAL}"))


def _remove(path: Path, whole_bytes: int) -> None:
    """Remove a journal that is merged, unless its shard has begun to write to it again."""
    lock = locks.exclusive(path.with_name(LOCK), what="the shard", doing="merge")
    with contextlib.suppress(LockedError, FileNotFoundError), lock:
        with path.open("rb") as file:
            file.seek(whole_bytes)
            torn = file.read()
        if b"\n" not in torn:
            path.unlink()


def _lines_after(path: Path, offset: int) -> int:
    lines = 0
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_PAGE_BYTES):
            lines += block.count(b"\n")
    return lines


def _written(change: Change) -> dict[str, object]:
    """Give a change as it stands in a journal: what is empty is left out."""
    return {name: value for name, value in asdict(change).items() if value}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def _change(value: dict[str, Any] | None) -> Change | None:
    """Read a line's change; ``None`` if it is none."""
    if value is None:
        return None
    texts = [value.get(name, "") for name in ("image_id", "state", "told", "reason", "at")]
    facts, attempts = value.get("facts", {}), value.get("attempts", 0)
    is_ours = (
        all(isinstance(text, str) for text in texts)
        and all(texts[:2])
        and texts[1] in _STATES
        and isinstance(facts, dict)
        and facts.keys() <= _FACTS
        and all(isinstance(fact, (str, int)) for fact in facts.values())
        and type(attempts) is int
        and value.keys() <= Change.__dataclass_fields__.keys()
    )
    image_id, state, told, reason, at = texts
    return Change(image_id, state, told, reason, facts, attempts, at) if is_ours else None
