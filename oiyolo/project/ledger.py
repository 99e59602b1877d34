"""The ledger: a SQLite file per project with the state of every selected image.

States run ``pending → fetched → prepared → train | valid | test``; ``excluded`` has a reason. An
image that a later selection does not contain keeps its row (above all its split, which never
changes once it is assigned) but is not counted. Every change of state is also recorded as an event,
from which ``oiyolo why`` prints an image's history. All writes happen in transactions, so the
counts add up at any moment, even after a ``kill -9``.

The ledger is designed for the 1.7 million images that have boxes: counts are maintained by triggers
instead of being computed, and an iteration over all images reads them in pages.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

PENDING: Final = "pending"
FETCHED: Final = "fetched"
PREPARED: Final = "prepared"
EXCLUDED: Final = "excluded"
SPLITS: Final = ("train", "valid", "test")
STATES: Final = (PENDING, FETCHED, PREPARED, *SPLITS)
PREPARED_STATES: Final = (PREPARED, *SPLITS)
"""States of an image that has a prepared file with its label."""

_FORMAT: Final = 4
_BUSY_TIMEOUT_S: Final = 30.0
_CACHE_KIB: Final = 32 << 10
"""With SQLite's default of 2 MB a transaction over a million images writes each page many times."""
_PAGE_ROWS: Final = 10_000
"""Number of rows that are read or written at once."""
_SCHEMA: Final = """
CREATE TABLE images (
    image_id TEXT PRIMARY KEY,
    subset TEXT NOT NULL,
    selected INTEGER NOT NULL DEFAULT 1,
    state TEXT NOT NULL DEFAULT 'pending',
    stage TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    split TEXT,
    source TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER,
    md5 TEXT,
    width_px INTEGER,
    height_px INTEGER,
    prepared_from TEXT,
    author TEXT,
    phash TEXT
) WITHOUT ROWID;
CREATE INDEX images_by_state ON images (selected, state);
CREATE TABLE events (
    image_id TEXT NOT NULL,
    at TEXT NOT NULL,
    stage TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX events_by_image ON events (image_id);
"""
_SUMS_INSERT_TRIGGER: Final = """CREATE TRIGGER sums_of_new AFTER INSERT ON images
WHEN NEW.selected = 1 BEGIN
    INSERT INTO sums VALUES (NEW.state, NEW.stage, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET images = images + 1;
END"""
_SUMS_SCHEMA: Final = (
    """CREATE TABLE sums (
        state TEXT NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL, images INTEGER NOT NULL,
        PRIMARY KEY (state, stage, reason)
    ) WITHOUT ROWID""",
    _SUMS_INSERT_TRIGGER,
    """CREATE TRIGGER sums_of_changed AFTER UPDATE OF selected, state, stage, reason ON images BEGIN
        UPDATE sums SET images = images - 1
            WHERE OLD.selected = 1
            AND state = OLD.state AND stage = OLD.stage AND reason = OLD.reason;
        INSERT INTO sums SELECT NEW.state, NEW.stage, NEW.reason, 1 WHERE NEW.selected = 1
            ON CONFLICT DO UPDATE SET images = images + 1;
    END""",
    """INSERT INTO sums
        SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1
        GROUP BY state, stage, reason""",
    "CREATE TABLE journals (journal TEXT PRIMARY KEY, entered_bytes INTEGER NOT NULL)",
)
"""The counts by state, which triggers maintain because counting 1.7 million rows takes seconds; and
how far each shard's journal was merged."""
_INSERT_SELECT_EVENTS: Final = (
    "INSERT INTO events SELECT value, ?, 'select', ?, ? FROM json_each(?)"
)
"""Takes time, state, message and a page of ids: three times as fast as a statement for each id."""
_PHASH_SINCE: Final = 2
_SUMS_SINCE: Final = 3
_MESSAGE_SINCE: Final = 4
"""Before this format the column ``message`` of the events was called ``told``."""


@dataclass(frozen=True)
class Change:
    """A change of the state of one image.

    Attributes:
        image_id: The image.
        state: Its new state.
        message: What happened, in a few words, for ``oiyolo why``.
        reason: For ``excluded`` (or still ``pending``): a short reason that can be counted.
        facts: Further columns to set, such as ``bytes`` or ``md5``.
        attempts: Number of requests that were made for it, added to those before.
        at: When it happened (ISO 8601, UTC); empty for now.
    """

    image_id: str
    state: str
    message: str
    reason: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    attempts: int = 0
    at: str = ""


@dataclass(frozen=True)
class Counts:
    """Counts of the selected images, each of which is in exactly one state.

    Attributes:
        selected: All selected images.
        states: Images by state, except excluded ones.
        excluded: Excluded images by reason.
    """

    selected: int
    states: Mapping[str, int]
    excluded: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Return the counts as ``status --json`` prints them."""
        return {
            "selected": self.selected,
            "states": dict(self.states),
            "excluded": dict(self.excluded),
        }


@dataclass(frozen=True)
class SelectionChange:
    """Number of images that a new selection added (or selected again), kept and dropped."""

    added: int
    kept: int
    dropped: int


@dataclass(frozen=True)
class SplitRecord:
    """An image that has a split, selected or not, with the values that may group it with others.

    Attributes:
        image_id: The image.
        split: Its split.
        md5: MD5 of its file, or empty.
        author: The author that it was grouped by, or empty.
        phash: Its perceptual hash, or empty.
    """

    image_id: str
    split: str
    md5: str
    author: str
    phash: str


_FACTS: Final = frozenset(
    {
        *("source", "bytes", "md5", "width_px", "height_px"),
        *("prepared_from", "split", "author", "phash"),
    }
)


class Ledger:
    """The ledger of one project; use it as a context manager.

    Args:
        path: The SQLite file. A missing one is created, unless ``read_only``.
        read_only: Whether to open it for reading only, as commands without a lock do.

    Raises:
        InputFormError: The file is not a ledger, or was written by a newer oiyolo.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
            )
        except sqlite3.OperationalError as error:
            raise InputFormError(
                "the ledger cannot be opened", where=str(path), found=str(error)
            ) from None
        try:
            self._set_up(read_only=read_only)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputFormError(
                "the ledger cannot be read",
                where=str(path),
                expected="a SQLite file written by oiyolo",
                found=str(error),
                remedy="Move it away and run `oiyolo fetch`, which fetches all images again",
            ) from None
        except InputFormError:
            self._db.close()
            raise

    def _set_up(self, *, read_only: bool) -> None:
        (self._version,) = self._db.execute("PRAGMA user_version").fetchone()
        is_new = not read_only and not self._has_tables()
        if not is_new and not 0 < self._version <= _FORMAT:
            raise InputFormError(
                "the ledger was written by another version of oiyolo",
                where=str(self.path),
                expected=f"format {_FORMAT} or older",
                found=f"format {self._version}",
                remedy="Use the oiyolo that wrote it",
            )
        if not read_only:
            self._set_journal_mode()
            if self._version < _FORMAT:
                self._migrate()
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _has_tables(self) -> bool:
        (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return bool(tables)

    def _set_journal_mode(self) -> None:
        """Use a write-ahead log, so that ``status`` can read while ``fetch`` writes.

        On a network file system use a rollback journal: a write-ahead log needs memory that all
        users of the file share, and would damage the file (https://www.sqlite.org/wal.html).
        """
        best_mode = "delete" if files.is_on_network(self.path) else "wal"
        (mode,) = self._db.execute("PRAGMA journal_mode").fetchone()
        if mode != best_mode:
            # The mode cannot change while others read; the next process to open the file retries.
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute(f"PRAGMA journal_mode = {best_mode}")

    def _migrate(self) -> None:
        """Create the tables, or migrate those of an older format, in one transaction."""
        with self._transaction():
            # Another process may have done it since.
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            statements: list[str] = []
            if not self._has_tables():
                statements = [*_SCHEMA.strip().split(";\n"), *_SUMS_SCHEMA]
            elif version < _FORMAT:
                if version < _PHASH_SINCE:
                    statements.append("ALTER TABLE images ADD COLUMN phash TEXT")
                if version < _SUMS_SINCE:
                    statements += _SUMS_SCHEMA
                if version < _MESSAGE_SINCE:
                    statements.append("ALTER TABLE events RENAME COLUMN told TO message")
            for statement in statements:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._version = _FORMAT

    def _expression(self, column: str) -> str:
        """Return a column for a query; NULL if an older, read-only ledger does not have it."""
        is_missing = column == "phash" and self._version < _PHASH_SINCE
        return f"NULL AS {column}" if is_missing else column

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def reselect(self, subset_by_id: Mapping[str, str]) -> SelectionChange:
        """Replace the selection: new images become pending; images no longer in it do not count."""
        added, returned, dropped = self._diff(subset_by_id)
        at = now()
        with self._transaction():
            self._insert_images(added, subset_by_id, at)
            for selected, ids, message in (
                (1, returned, "selected again"),
                (0, dropped, "no longer selected"),
            ):
                for page in _pages(ids):
                    self._db.execute(
                        "UPDATE images SET selected = ? "
                        "WHERE image_id IN (SELECT value FROM json_each(?))",
                        (selected, page),
                    )
                    self._db.execute(_INSERT_SELECT_EVENTS, (at, "", message, page))
        added_count = len(added) + len(returned)
        return SelectionChange(added_count, len(subset_by_id) - added_count, len(dropped))

    def _insert_images(
        self, image_ids: Sequence[str], subset_by_id: Mapping[str, str], at: str
    ) -> None:
        """Insert images as pending, and add up their number at once: a trigger is slow."""
        if not image_ids:
            return
        ids_by_subset: dict[str, list[str]] = {}
        for image_id in image_ids:
            ids_by_subset.setdefault(subset_by_id[image_id], []).append(image_id)
        self._db.execute("DROP TRIGGER sums_of_new")
        for subset, ids in ids_by_subset.items():
            for page in _pages(ids):
                self._db.execute(
                    "INSERT INTO images (image_id, subset) SELECT value, ? FROM json_each(?)",
                    (subset, page),
                )
                message = f"selected from {subset}"
                self._db.execute(_INSERT_SELECT_EVENTS, (at, PENDING, message, page))
        self._db.execute(_SUMS_INSERT_TRIGGER)
        self._db.execute(
            "INSERT INTO sums VALUES (?, '', '', ?) "
            "ON CONFLICT DO UPDATE SET images = images + excluded.images",
            (PENDING, len(image_ids)),
        )

    def _diff(self, subset_by_id: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
        """Return the ids that are new, that are selected again, and that are no longer selected.

        Walks the selection and the ledger in parallel, both in order of ids, so that unchanged
        images need no memory.
        """
        added: list[str] = []
        returned: list[str] = []
        dropped: list[str] = []
        selected_ids = iter(sorted(subset_by_id))
        next_id = next(selected_ids, None)
        for image_id, selected in self._db.execute(
            "SELECT image_id, selected FROM images ORDER BY image_id"
        ):
            while next_id is not None and next_id < image_id:
                added.append(next_id)
                next_id = next(selected_ids, None)
            if next_id == image_id:
                if not selected:
                    returned.append(image_id)
                next_id = next(selected_ids, None)
            elif selected:
                dropped.append(image_id)
        if next_id is not None:
            added += [next_id, *selected_ids]
        return added, returned, dropped

    def record(self, stage: str, changes: Iterable[Change]) -> None:
        """Apply the changes of a stage, all of them or none.

        Raises:
            ValueError: An image is not in the ledger, or a fact has no column.
        """
        at = now()
        with self._transaction():
            for change in changes:
                if not self._apply(stage, change, at):
                    raise ValueError(f"not in the ledger: {change.image_id}")

    def _apply(self, stage: str, change: Change, at: str, condition: str = "") -> bool:
        """Apply one change and record its event; return whether an image matched.

        Args:
            stage: The stage that made the change.
            change: The change.
            at: Its time, if it has none of its own.
            condition: A further SQL condition on the image's row.
        """
        _check_facts(change.facts)
        columns = "".join(f", {name} = ?" for name in change.facts)
        updated = self._db.execute(
            "UPDATE images SET state = ?, stage = ?, reason = ?, "
            f"attempts = attempts + ?{columns} WHERE image_id = ?{condition}",
            (
                change.state,
                stage,
                change.reason,
                change.attempts,
                *change.facts.values(),
                change.image_id,
            ),
        )
        if updated.rowcount:
            self._db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (change.image_id, change.at or at, stage, change.state, change.message),
            )
        return bool(updated.rowcount)

    def merge(self, stage: str, changes: Iterable[Change], *, journal: str, up_to: int) -> int:
        """Apply a part of a journal, and record in the same transaction where it ends.

        The ledger's newer states take precedence: a change applies only to an image that is
        pending, or that the same stage excluded and the journal records as fetched after all.

        Args:
            stage: The stage that wrote the journal.
            changes: The part of the journal, from where the previous part ended.
            journal: Unique name of the journal.
            up_to: Where the part ends in the journal, in bytes.

        Returns:
            Number of images that changed.
        """
        at = now()
        changed = 0
        with self._transaction():
            for change in changes:
                condition = " AND state = 'pending'"
                if change.state == FETCHED:
                    condition = (
                        f" AND (state = 'pending' OR (state = 'excluded' AND stage = '{stage}'))"
                    )
                changed += self._apply(stage, change, at, condition)
            self._db.execute(
                "INSERT INTO journals VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET entered_bytes = excluded.entered_bytes",
                (journal, up_to),
            )
        return changed

    def merged_bytes(self) -> dict[str, int]:
        """Return how many bytes of each journal were merged, by the journal's name."""
        if self._version < _SUMS_SINCE:
            return {}
        return dict(self._db.execute("SELECT journal, entered_bytes FROM journals"))

    def forget_journal(self, journal: str) -> None:
        """Delete the record of a journal that no longer exists."""
        with self._transaction():
            self._db.execute("DELETE FROM journals WHERE journal = ?", (journal,))

    def set_facts(self, facts_by_id: Mapping[str, Mapping[str, object]]) -> None:
        """Set columns without a change of state, such as one that an older oiyolo did not record.

        Raises:
            ValueError: A fact has no column.
        """
        with self._transaction():
            for image_id, facts in facts_by_id.items():
                _check_facts(facts)
                columns = ", ".join(f"{name} = ?" for name in facts)
                self._db.execute(
                    f"UPDATE images SET {columns} WHERE image_id = ?", (*facts.values(), image_id)
                )

    def ids(self, *states: str, stage: str | None = None) -> list[str]:
        """Return the ids of the selected images in any of these states, in order.

        Args:
            states: States of the images, such as ``pending`` or ``excluded``.
            stage: Stage that made their last change; any stage if ``None``.
        """
        placeholders = ", ".join("?" * len(states))
        query = f"SELECT image_id FROM images WHERE selected = 1 AND state IN ({placeholders})"
        values = list(states)
        if stage is not None:
            query += " AND stage = ?"
            values.append(stage)
        return [row[0] for row in self._db.execute(query + " ORDER BY image_id", values)]

    def iter_ids(self, *states: str) -> Iterator[str]:
        """Yield the ids of the selected images, in order within each state, in constant memory.

        The ledger may change meanwhile, by this process or another one.
        """
        query = (
            "SELECT image_id FROM images WHERE selected = 1 AND state = ? AND image_id > ? "
            f"ORDER BY image_id LIMIT {_PAGE_ROWS}"
        )
        for state in states:
            last = ""
            while page := self._db.execute(query, (state, last)).fetchall():
                yield from (image_id for (image_id,) in page)
                last = page[-1][0]

    def column(self, name: str, *states: str) -> dict[str, object]:
        """Return one column of the selected images by id.

        Args:
            name: The column.
            states: States of the images; empty for any state.

        Raises:
            ValueError: There is no such column.
        """
        if name not in _FACTS | {"subset", "state", "reason"}:
            raise ValueError(f"no such column: {name}")
        query = f"SELECT image_id, {self._expression(name)} FROM images WHERE selected = 1"
        if states:
            query += f" AND state IN ({', '.join('?' * len(states))})"
        return dict(self._db.execute(query + " ORDER BY image_id", states))

    def split_records(self) -> list[SplitRecord]:
        """Return every image that has a split, selected or not, in order of ids."""
        rows = self._db.execute(
            f"SELECT image_id, split, md5, author, {self._expression('phash')} "
            "FROM images WHERE split IS NOT NULL ORDER BY image_id"
        )
        return [SplitRecord(row[0], row[1], *(text or "" for text in row[2:])) for row in rows]

    def has_splits(self) -> bool:
        """Return whether any image has a split, selected or not."""
        query = "SELECT EXISTS (SELECT 1 FROM images WHERE split IS NOT NULL)"
        (exists,) = self._db.execute(query).fetchone()
        return bool(exists)

    def forget_splits(self) -> None:
        """Discard all splits (``split --reassign``).

        Images that had one, or that the split stage excluded, become prepared.
        """
        with self._transaction():
            self._db.execute("UPDATE images SET split = NULL")
            placeholders = ", ".join("?" * len(SPLITS))
            self._db.execute(
                "UPDATE images SET state = 'prepared', stage = 'prepare' "
                f"WHERE state IN ({placeholders}) OR (state = 'excluded' AND stage = 'split')",
                SPLITS,
            )

    def counts(self) -> Counts:
        """Return the number of selected images by state, and of excluded ones by reason."""
        states = dict.fromkeys(STATES, 0)
        excluded: dict[str, int] = {}
        for (state, _, reason), count in self._sums().items():
            if state == EXCLUDED:
                excluded[reason] = excluded.get(reason, 0) + count
            else:
                states[state] += count
        selected = sum(states.values()) + sum(excluded.values())
        return Counts(selected, states, _largest_first(excluded))

    def missing(self, stage: str) -> dict[str, int]:
        """Return by reason how many images are pending or excluded by a stage, largest first."""
        missing: dict[str, int] = {}
        for (state, changed_by, reason), count in self._sums().items():
            if state == PENDING or (state == EXCLUDED and changed_by == stage):
                missing[reason] = missing.get(reason, 0) + count
        return _largest_first(missing)

    def _sums(self) -> dict[tuple[str, str, str], int]:
        """Return the number of selected images by state, stage and reason."""
        query = "SELECT state, stage, reason, images FROM sums WHERE images > 0"
        if self._version < _SUMS_SINCE:
            query = (
                "SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1 "
                "GROUP BY state, stage, reason"
            )
        return {tuple(row[:3]): row[3] for row in self._db.execute(query)}

    def row(self, image_id: str) -> dict[str, object] | None:
        """Return all columns of one image; ``None`` if it was never selected."""
        cursor = self._db.execute("SELECT * FROM images WHERE image_id = ?", (image_id,))
        values = cursor.fetchone()
        if values is None:
            return None
        return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}

    def events(self, image_id: str) -> list[tuple[str, str, str]]:
        """Return an image's events in order: time (ISO 8601, UTC), stage, message."""
        # All columns by position, because the last one has another name in an older ledger.
        query = "SELECT * FROM events WHERE image_id = ? ORDER BY rowid"
        return [
            (at, stage, message)
            for _, at, stage, _, message in self._db.execute(query, (image_id,))
        ]


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _pages(image_ids: Sequence[str]) -> Iterator[str]:
    """Yield JSON arrays of ids, which SQLite reads as rows, so that a statement takes many."""
    for at in range(0, len(image_ids), _PAGE_ROWS):
        yield json.dumps(image_ids[at : at + _PAGE_ROWS])


def _check_facts(facts: Mapping[str, object]) -> None:
    if unknown := facts.keys() - _FACTS:
        raise ValueError(f"no such facts: {sorted(unknown)}")


def now() -> str:
    """Return the current time as the ledger records it: ISO 8601, UTC, in whole seconds."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
