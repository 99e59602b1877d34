"""One state and one reason for every selected image: a SQLite file per project.

States run ``pending → fetched → prepared → train | valid | test``; ``excluded`` carries a reason.
An image that a later selection no longer wants keeps its row (and above all its split, which never
changes once it is assigned) but is not counted. Every change of state is also an event, which is
how ``oiyolo why`` can tell an image's whole story. All writing happens in transactions, so the sums
close at any moment, also after a ``kill -9``.

It is made for the 1.7 million images that have boxes: sums are kept rather than counted, and what
goes through all images does so in pages.
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
HAS_PREPARED: Final = (PREPARED, *SPLITS)
"""States of an image that has a prepared file with its label."""

_FORMAT: Final = 3
_BUSY_TIMEOUT_S: Final = 30.0
_CACHE_KIB: Final = 32 << 10
"""With SQLite's own 2 MB a transaction over a million images writes each page many times."""
_PAGE_ROWS: Final = 10_000
"""So many rows are read at once by what goes through all images."""
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
    told TEXT NOT NULL
);
CREATE INDEX events_by_image ON events (image_id);
"""
_SUMS_OF_NEW: Final = """CREATE TRIGGER sums_of_new AFTER INSERT ON images
WHEN NEW.selected = 1 BEGIN
    INSERT INTO sums VALUES (NEW.state, NEW.stage, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET images = images + 1;
END"""
_SUMS_SCHEMA: Final = (
    """CREATE TABLE sums (
        state TEXT NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL, images INTEGER NOT NULL,
        PRIMARY KEY (state, stage, reason)
    ) WITHOUT ROWID""",
    _SUMS_OF_NEW,
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
"""The sums, which triggers keep, because counting 1.7 million rows takes seconds; and how far each
shard's journal was entered."""
_EVENTS_OF_SELECT: Final = "INSERT INTO events SELECT value, ?, 'select', ?, ? FROM json_each(?)"
"""Time, state, what is told, and a page of ids; a third of the time of a statement for each id."""
_SUMS_SINCE: Final = 3
_ADDED_IN: Final = {2: ("phash",)}
"""Columns of text that later formats added; an older ledger gets them when it is opened."""


@dataclass(frozen=True)
class Change:
    """What a stage found out about one image.

    Attributes:
        image_id: The image.
        state: Its new state.
        told: What happened, in a few words, for ``oiyolo why``.
        reason: For ``excluded`` (or still ``pending``): a short reason that can be counted.
        facts: Columns to set besides, such as ``bytes`` or ``md5``.
        attempts: How often it was asked for, to be added to what was before.
        at: When it happened (ISO 8601, UTC); now, if it is empty.
    """

    image_id: str
    state: str
    told: str
    reason: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    attempts: int = 0
    at: str = ""


@dataclass(frozen=True)
class Counts:
    """The sums: every selected image in exactly one state."""

    selected: int
    states: Mapping[str, int]
    excluded: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Give ``status --json``'s object."""
        return {
            "selected": self.selected,
            "states": dict(self.states),
            "excluded": dict(self.excluded),
        }


@dataclass(frozen=True)
class Reselection:
    """What a new selection changed in the ledger."""

    added: int
    kept: int
    dropped: int


@dataclass(frozen=True)
class Assigned:
    """An image that has a split, selected or not, and what binds it to others.

    Attributes:
        image_id: The image.
        split: Its split.
        md5: MD5 of its file, or empty.
        author: The author that it was split by, or empty.
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
        path: The SQLite file. It is made when it is missing, unless ``read_only``.
        read_only: Reading commands take no lock and must not change anything.

    Raises:
        InputFormError: The file is no ledger, or one of a newer oiyolo.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lacks: frozenset[str] = frozenset()
        self._has_sums = True
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
                remedy="Move it away and run `oiyolo fetch`; images on disk are fetched again",
            ) from None
        except InputFormError:
            self._db.close()
            raise

    def _set_up(self, *, read_only: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if not tables and not read_only:
            self._choose_journal()
            with self._transaction():
                # Another process may have made it since.
                (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                if not tables:
                    for statement in (*_SCHEMA.strip().split(";\n"), *_SUMS_SCHEMA):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        elif 0 < version < _FORMAT:
            self._lacks = frozenset(
                column
                for added, columns in _ADDED_IN.items()
                if added > version
                for column in columns
            )
            self._has_sums = version >= _SUMS_SINCE
            if not read_only:
                self._choose_journal()
                self._migrate()
        elif version != _FORMAT:
            raise InputFormError(
                "the ledger is of another version of oiyolo",
                where=str(self.path),
                expected=f"format {_FORMAT} or older",
                found=f"format {version}",
                remedy="Use the oiyolo that wrote it",
            )
        elif not read_only:
            self._choose_journal()
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _choose_journal(self) -> None:
        """Let ``status`` read while ``fetch`` writes, where all who do so are on one machine.

        SQLite's write-ahead log needs memory that its users share; over a network file system it
        damages the file (https://www.sqlite.org/wal.html).
        """
        wanted = "delete" if files.on_network(self.path) else "wal"
        (mode,) = self._db.execute("PRAGMA journal_mode").fetchone()
        if mode != wanted:
            # While others read it stays as it is; whoever opens it next tries again.
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute(f"PRAGMA journal_mode = {wanted}")

    def _migrate(self) -> None:
        """Bring a ledger of an older format into the present one, all of it or nothing."""
        with self._transaction():
            # Another process may have done it since.
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version < _FORMAT:
                for column in sorted(self._lacks):
                    self._db.execute(f"ALTER TABLE images ADD COLUMN {column} TEXT")
                for statement in _SUMS_SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._lacks, self._has_sums = frozenset(), True

    def _column(self, name: str) -> str:
        """Give a column's name for a query; an older ledger that is only read may lack it."""
        return f"NULL AS {name}" if name in self._lacks else name

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

    def reselect(self, subset_by_id: Mapping[str, str]) -> Reselection:
        """Make these the selected images: new ones enter as pending, missing ones are uncounted."""
        added, back, dropped = self._differences(subset_by_id)
        at = now()
        with self._transaction():
            self._enter_new(added, subset_by_id, at)
            for selected, ids, told in (
                (1, back, "selected again"),
                (0, dropped, "no longer selected"),
            ):
                for page in _pages(ids):
                    self._db.execute(
                        "UPDATE images SET selected = ? "
                        "WHERE image_id IN (SELECT value FROM json_each(?))",
                        (selected, page),
                    )
                    self._db.execute(_EVENTS_OF_SELECT, (at, "", told, page))
        return Reselection(len(added) + len(back), len(subset_by_id) - len(added), len(dropped))

    def _enter_new(
        self, image_ids: Sequence[str], subset_by_id: Mapping[str, str], at: str
    ) -> None:
        """Enter images as pending; their sum at once, which by a trigger takes as long as they."""
        if not image_ids:
            return
        of_subset: dict[str, list[str]] = {}
        for image_id in image_ids:
            of_subset.setdefault(subset_by_id[image_id], []).append(image_id)
        self._db.execute("DROP TRIGGER sums_of_new")
        for subset, ids in of_subset.items():
            for page in _pages(ids):
                self._db.execute(
                    "INSERT INTO images (image_id, subset) SELECT value, ? FROM json_each(?)",
                    (subset, page),
                )
                told = f"selected from {subset}"
                self._db.execute(_EVENTS_OF_SELECT, (at, PENDING, told, page))
        self._db.execute(_SUMS_OF_NEW)
        self._db.execute(
            "INSERT INTO sums VALUES (?, '', '', ?) "
            "ON CONFLICT DO UPDATE SET images = images + excluded.images",
            (PENDING, len(image_ids)),
        )

    def _differences(
        self, subset_by_id: Mapping[str, str]
    ) -> tuple[list[str], list[str], list[str]]:
        """Give the ids that are new, that are back, and that are no longer selected.

        Walks along both in order of their ids, so that nothing is held of what stays as it is.
        """
        added: list[str] = []
        back: list[str] = []
        dropped: list[str] = []
        wanted = iter(sorted(subset_by_id))
        next_id = next(wanted, None)
        for image_id, selected in self._db.execute(
            "SELECT image_id, selected FROM images ORDER BY image_id"
        ):
            while next_id is not None and next_id < image_id:
                added.append(next_id)
                next_id = next(wanted, None)
            if next_id == image_id:
                if not selected:
                    back.append(image_id)
                next_id = next(wanted, None)
            elif selected:
                dropped.append(image_id)
        if next_id is not None:
            added += [next_id, *wanted]
        return added, back, dropped

    def record(self, stage: str, changes: Iterable[Change]) -> None:
        """Enter what a stage did, all of it or nothing."""
        with self._transaction():
            self._enter(stage, changes)

    def _enter(self, stage: str, changes: Iterable[Change]) -> None:
        at = now()
        for change in changes:
            if not self._change(stage, change, at):
                raise ValueError(f"not in the ledger: {change.image_id}")

    def _change(self, stage: str, change: Change, at: str, only: str = "") -> bool:
        """Enter one change and its event; tell whether there is such an image.

        Args:
            stage: Whose change it is.
            change: The change.
            at: Its time, if it has none.
            only: A further condition on the image's row.
        """
        _check_facts(change.facts)
        columns = "".join(f", {name} = ?" for name in change.facts)
        changed = self._db.execute(
            "UPDATE images SET state = ?, stage = ?, reason = ?, "
            f"attempts = attempts + ?{columns} WHERE image_id = ?{only}",
            (
                change.state,
                stage,
                change.reason,
                change.attempts,
                *change.facts.values(),
                change.image_id,
            ),
        )
        if changed.rowcount:
            self._db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (change.image_id, change.at or at, stage, change.state, change.told),
            )
        return bool(changed.rowcount)

    def merge(self, stage: str, changes: Iterable[Change], *, journal: str, up_to: int) -> int:
        """Enter a part of a journal that was kept beside the ledger, once.

        What the ledger learned of an image in the meantime stands: only an image that is pending,
        or that the same stage excluded and that has come after all, is changed.

        Args:
            stage: Whose journal it is.
            changes: The part, from where the last one ended.
            journal: What tells it from all other journals.
            up_to: Where the part ends in the journal, in bytes.

        Returns:
            How many images changed.
        """
        at = now()
        changed = 0
        with self._transaction():
            for change in changes:
                only = " AND state = 'pending'"
                if change.state == FETCHED:
                    only = f" AND (state = 'pending' OR (state = 'excluded' AND stage = '{stage}'))"
                changed += self._change(stage, change, at, only)
            self._db.execute(
                "INSERT INTO journals VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET entered_bytes = excluded.entered_bytes",
                (journal, up_to),
            )
        return changed

    def merged(self) -> dict[str, int]:
        """Give the journals of which something was entered, and how many bytes of each."""
        if not self._has_sums:
            return {}
        return dict(self._db.execute("SELECT journal, entered_bytes FROM journals"))

    def forget_journal(self, journal: str) -> None:
        """Drop what is known of a journal that is no more."""
        with self._transaction():
            self._db.execute("DELETE FROM journals WHERE journal = ?", (journal,))

    def note(self, facts_by_id: Mapping[str, Mapping[str, object]]) -> None:
        """Enter facts that change no state, such as one that an older oiyolo did not record."""
        with self._transaction():
            for image_id, facts in facts_by_id.items():
                _check_facts(facts)
                columns = ", ".join(f"{name} = ?" for name in facts)
                self._db.execute(
                    f"UPDATE images SET {columns} WHERE image_id = ?", (*facts.values(), image_id)
                )

    def ids(self, *states: str, stage: str | None = None) -> list[str]:
        """Give the selected images in any of these states, in order of their ids.

        Args:
            states: States, or ``excluded``.
            stage: Only those whose last change this stage made.
        """
        marks = ", ".join("?" * len(states))
        query = f"SELECT image_id FROM images WHERE selected = 1 AND state IN ({marks})"
        values = list(states)
        if stage is not None:
            query += " AND stage = ?"
            values.append(stage)
        return [row[0] for row in self._db.execute(query + " ORDER BY image_id", values)]

    def each(self, *states: str) -> Iterator[str]:
        """Give images as ``ids`` does, one by one in flat memory, state by state.

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

    def facts(self, column: str, *states: str) -> dict[str, object]:
        """Give one column of the selected images in these states (all of them, if none is given).

        Raises:
            ValueError: No such column.
        """
        if column not in _FACTS | {"subset", "state", "reason"}:
            raise ValueError(f"no such column: {column}")
        query = f"SELECT image_id, {self._column(column)} FROM images WHERE selected = 1"
        if states:
            query += f" AND state IN ({', '.join('?' * len(states))})"
        return dict(self._db.execute(query + " ORDER BY image_id", states))

    def assigned(self) -> list[Assigned]:
        """Give every image that ever got a split, selected or not, in order of the ids."""
        rows = self._db.execute(
            f"SELECT image_id, split, md5, author, {self._column('phash')} "
            "FROM images WHERE split IS NOT NULL ORDER BY image_id"
        )
        return [Assigned(row[0], row[1], *(text or "" for text in row[2:])) for row in rows]

    def has_splits(self) -> bool:
        """Tell whether any image ever got a split."""
        query = "SELECT EXISTS (SELECT 1 FROM images WHERE split IS NOT NULL)"
        (found,) = self._db.execute(query).fetchone()
        return bool(found)

    def forget_splits(self) -> None:
        """Take all assignments back (``split --reassign``)."""
        with self._transaction():
            self._db.execute("UPDATE images SET split = NULL")
            marks = ", ".join("?" * len(SPLITS))
            self._db.execute(
                "UPDATE images SET state = 'prepared', stage = 'prepare' "
                f"WHERE state IN ({marks}) OR (state = 'excluded' AND stage = 'split')",
                SPLITS,
            )

    def counts(self) -> Counts:
        """Count the selected images by state, and the excluded ones by reason."""
        states = dict.fromkeys(STATES, 0)
        excluded: dict[str, int] = {}
        for (state, _, reason), count in self._sums().items():
            if state == EXCLUDED:
                excluded[reason] = excluded.get(reason, 0) + count
            else:
                states[state] += count
        excluded = dict(sorted(excluded.items(), key=lambda item: (-item[1], item[0])))
        return Counts(sum(states.values()) + sum(excluded.values()), states, excluded)

    def missing(self, stage: str) -> dict[str, int]:
        """Count by reason what is pending and what a stage excluded; the most frequent first."""
        missing: dict[str, int] = {}
        for (state, by, reason), count in self._sums().items():
            if state == PENDING or (state == EXCLUDED and by == stage):
                missing[reason] = missing.get(reason, 0) + count
        return dict(sorted(missing.items(), key=lambda item: (-item[1], item[0])))

    def _sums(self) -> dict[tuple[str, str, str], int]:
        """Count the selected images by state, stage and reason."""
        query = "SELECT state, stage, reason, images FROM sums WHERE images > 0"
        if not self._has_sums:
            query = (
                "SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1 "
                "GROUP BY state, stage, reason"
            )
        return {tuple(row[:3]): row[3] for row in self._db.execute(query)}

    def row(self, image_id: str) -> dict[str, object] | None:
        """Give all that is known of one image; ``None`` if it was never selected."""
        cursor = self._db.execute("SELECT * FROM images WHERE image_id = ?", (image_id,))
        found = cursor.fetchone()
        if found is None:
            return None
        return {column[0]: value for column, value in zip(cursor.description, found, strict=True)}

    def story(self, image_id: str) -> list[tuple[str, str, str]]:
        """Give an image's events in order: time (ISO 8601, UTC), stage, what happened."""
        return list(
            self._db.execute(
                "SELECT at, stage, told FROM events WHERE image_id = ? ORDER BY rowid", (image_id,)
            )
        )


def _pages(image_ids: Sequence[str]) -> Iterator[str]:
    """Give the ids as JSON arrays, which SQLite takes for rows: many in one statement."""
    for at in range(0, len(image_ids), _PAGE_ROWS):
        yield json.dumps(image_ids[at : at + _PAGE_ROWS])


def _check_facts(facts: Mapping[str, object]) -> None:
    if unknown := facts.keys() - _FACTS:
        raise ValueError(f"no such facts: {sorted(unknown)}")


def now() -> str:
    """Give the time as the ledger writes it: ISO 8601, UTC, in whole seconds."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
