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
import hashlib
import json
import re
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final, cast

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.core.clock import utc_now
from oiyolo.core.errors import InputFormError, LockedError, NewerVersionError
from oiyolo.core.image_ids import FORM, is_image_id, parse_ids
from oiyolo.project.database import Database

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from oiyolo.core.image_ids import ImageId

PENDING: Final = "pending"
FETCHED: Final = "fetched"
PREPARED: Final = "prepared"
EXCLUDED: Final = "excluded"
SPLITS: Final = ("train", "valid", "test")
STATES: Final = (PENDING, FETCHED, PREPARED, *SPLITS)
WITHDRAW_STAGE: Final = "withdraw"
"""The stage of an excluded image that is never to be used again."""
WITHDRAWN: Final = "withdrawn"
"""The reason of such an image."""
PREPARED_STATES: Final = (PREPARED, *SPLITS)
"""States of an image that has a prepared file with its label."""

_FORMAT: Final = 6
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
    phash TEXT,
    prepared_bytes INTEGER,
    original_name TEXT
) WITHOUT ROWID;
CREATE INDEX images_by_state ON images (selected, state);
CREATE INDEX images_by_name ON images (original_name) WHERE original_name IS NOT NULL;
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
_NAMES_SCHEMA: Final = (
    "ALTER TABLE images ADD COLUMN original_name TEXT",
    "CREATE INDEX images_by_name ON images (original_name) WHERE original_name IS NOT NULL",
)
_INSERT: Final = "INSERT INTO images (image_id, subset) SELECT value, ? FROM json_each(?)"
_INSERT_NAMED: Final = (
    "INSERT INTO images (image_id, subset, original_name) SELECT "
    "json_extract(value, '$[0]'), ?, json_extract(value, '$[1]') FROM json_each(?)"
)
_INSERT_SELECT_EVENTS: Final = (
    "INSERT INTO events SELECT value, ?, 'select', ?, ? FROM json_each(?)"
)
"""Takes time, state, message and a page of ids: three times as fast as a statement for each id."""
_PHASH_SINCE: Final = 2
_SUMS_SINCE: Final = 3
_MESSAGE_SINCE: Final = 4
"""Before this format the column ``message`` of the events was called ``told``."""
_PREPARED_BYTES_SINCE: Final = 5
_NAMES_SINCE: Final = 6
_COLUMNS_SINCE: Final = {
    "phash": _PHASH_SINCE,
    "prepared_bytes": _PREPARED_BYTES_SINCE,
    "original_name": _NAMES_SINCE,
}
"""The format in which a column was added to the images."""


_CHANGES_SINCE: Final = {
    _PHASH_SINCE: ("ALTER TABLE images ADD COLUMN phash TEXT",),
    _SUMS_SINCE: _SUMS_SCHEMA,
    _MESSAGE_SINCE: ("ALTER TABLE events RENAME COLUMN told TO message",),
    _PREPARED_BYTES_SINCE: ("ALTER TABLE images ADD COLUMN prepared_bytes INTEGER",),
    _NAMES_SINCE: _NAMES_SCHEMA,
}
"""What makes a ledger of each format from one of the format before."""


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
        retried: Whether the image was fetched again, whatever its state; only in a journal.
    """

    image_id: str
    state: str
    message: str
    reason: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    attempts: int = 0
    at: str = ""
    retried: bool = False


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

    @property
    def before(self) -> int:
        """Number of images that the previous selection contained."""
        return self.kept + self.dropped


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
        *("prepared_from", "prepared_bytes", "split", "author", "phash"),
    }
)


_VALID: Final = {
    "state": (*STATES, EXCLUDED),
    "split": SPLITS,
    "subset": ("train", "validation", "test", ""),
}
"""Values of the columns that become names of files and objects."""
_SHOWN_CHARACTERS: Final = 60
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_CHARACTERS: Final = 10


class Ledger:
    """The ledger of one project; use it as a context manager.

    Args:
        path: The SQLite file. A missing one is created, unless ``read_only``.
        read_only: Whether to open it for reading only, as commands without a lock do.

    Raises:
        InputFormError: The file is not a ledger, or was written by a newer oiyolo.
        UnavailableError: The file cannot be read, or not be written.

    Every method that returns ids, states or splits raises InputFormError for an invalid one: they
    become file names, and the ledger may come from another user.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._db = Database(path, read_only=read_only)
        try:
            self._set_up(read_only=read_only)
        except BaseException:
            self._db.close()
            raise

    def _set_up(self, *, read_only: bool) -> None:
        self._version = self._db.value("PRAGMA user_version")
        is_new = not read_only and not self._has_tables()
        if not is_new and not 0 < self._version <= _FORMAT:
            raise NewerVersionError(
                "the ledger was written by a newer version of oiyolo",
                where=str(self.path),
                expected=f"format {_FORMAT} or older (this is oiyolo {__version__})",
                found=f"format {self._version}",
                remedy="Use the oiyolo that wrote it, or a newer one; nothing was changed",
            )
        if not read_only:
            self._set_journal_mode()
            if self._version < _FORMAT:
                self._migrate()
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _has_tables(self) -> bool:
        return bool(self._db.value("SELECT COUNT(*) FROM sqlite_master"))

    def _set_journal_mode(self) -> None:
        """Use a write-ahead log, so that ``status`` can read while ``fetch`` writes.

        On a network file system use a rollback journal: a write-ahead log needs memory that all
        users of the file share, and would damage the file (https://www.sqlite.org/wal.html).
        """
        best_mode = "delete" if files.is_on_network(self.path) else "wal"
        ((mode,),) = self._db.rows("PRAGMA journal_mode")
        if mode != best_mode:
            # The mode cannot change while others read; the next process to open the file retries.
            with contextlib.suppress(LockedError):
                self._db.execute(f"PRAGMA journal_mode = {best_mode}")

    def _migrate(self) -> None:
        """Create the tables, or migrate those of an older format, in one transaction."""
        with self._transaction():
            # Another process may have done it since.
            version = self._db.value("PRAGMA user_version")
            statements: list[str] = []
            if not self._has_tables():
                statements = [*_SCHEMA.strip().split(";\n"), *_SUMS_SCHEMA]
            else:
                for since, changes in _CHANGES_SINCE.items():
                    statements += changes if version < since else ()
            for statement in statements:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._version = _FORMAT

    def _expression(self, column: str) -> str:
        """Return a column for a query; NULL if an older, read-only ledger does not have it."""
        is_missing = self._version < _COLUMNS_SINCE.get(column, 0)
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

    def reselect(
        self,
        subset_by_id: Mapping[str, str],
        withdrawn: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> SelectionChange:
        """Replace the selection: new images become pending; images no longer in it do not count.

        Args:
            subset_by_id: The subset of each image that matches the selection's options; empty for
                an imported image that has none.
            withdrawn: What happened to each withdrawn image, whether it matches or not; those that
                match are excluded, and any other image that was withdrawn becomes pending again.
            names: Name of the import and path in it, joined by a slash, of each imported image.
        """
        parse_ids(list(subset_by_id), where="the new selection")
        added, returned, dropped = self._diff(sorted(subset_by_id))
        at = utc_now()
        with self._transaction():
            self._insert_images(added, subset_by_id, names or {}, at)
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
            self._withdraw(withdrawn or {}, at)
            for image_id in self.withdrawn_ids() - (withdrawn or {}).keys():
                self._apply("select", Change(image_id, PENDING, "no longer withdrawn"), at)
        return _selection_change(subset_by_id, [*added, *returned], dropped, withdrawn or {})

    def withdraw(self, withdrawn: Mapping[str, str]) -> list[str]:
        """Exclude images for good, selected or not; return the ids of those that changed.

        Args:
            withdrawn: What happened to each image, which need not be in the ledger.
        """
        with self._transaction():
            return self._withdraw(withdrawn, utc_now())

    def _withdraw(self, withdrawn: Mapping[str, str], at: str) -> list[str]:
        condition = f" AND stage != '{WITHDRAW_STAGE}'"
        changes = (Change(i, EXCLUDED, text, reason=WITHDRAWN) for i, text in withdrawn.items())
        return [c.image_id for c in changes if self._apply(WITHDRAW_STAGE, c, at, condition)]

    def withdrawn_ids(self) -> set[str]:
        """Return the ids of all withdrawn images, selected or not."""
        # The condition on "selected" makes SQLite use the index.
        query = "SELECT image_id FROM images WHERE selected IN (0, 1) AND state = ? AND stage = ?"
        rows = self._db.rows(query, (EXCLUDED, WITHDRAW_STAGE))
        return {str(image_id) for image_id in self._parsed([row[0] for row in rows])}

    def preview(self, selection: Iterable[str], withdrawn: Container[str] = ()) -> SelectionChange:
        """Return what ``reselect`` would change, without changing it.

        Args:
            selection: Ids of the images that match the selection's options.
            withdrawn: Ids of images that are withdrawn.
        """
        ids = sorted(selection)
        added, returned, dropped = self._diff(ids)
        return _selection_change(ids, [*added, *returned], dropped, withdrawn)

    def _insert_images(
        self,
        image_ids: Sequence[str],
        subset_by_id: Mapping[str, str],
        names: Mapping[str, str],
        at: str,
    ) -> None:
        """Insert images as pending, and add up their number at once: a trigger is slow."""
        if not image_ids:
            return
        ids_by_place: dict[tuple[str, str], list[str]] = {}
        for image_id in image_ids:
            place = subset_by_id[image_id], names.get(image_id, "").partition("/")[0]
            ids_by_place.setdefault(place, []).append(image_id)
        self._db.execute("DROP TRIGGER sums_of_new")
        for (subset, import_name), ids in ids_by_place.items():
            message = f"selected from {f'the import {import_name}' if import_name else subset}"
            insert = _INSERT_NAMED if import_name else _INSERT
            rows: Sequence[object] = [[i, names[i]] for i in ids] if import_name else ids
            for page in _pages(rows):
                self._db.execute(insert, (subset, page))
            for page in _pages(ids):
                self._db.execute(_INSERT_SELECT_EVENTS, (at, PENDING, message, page))
        self._db.execute(_SUMS_INSERT_TRIGGER)
        self._db.execute(
            "INSERT INTO sums VALUES (?, '', '', ?) "
            "ON CONFLICT DO UPDATE SET images = images + excluded.images",
            (PENDING, len(image_ids)),
        )

    def _diff(self, selection: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        """Return the ids that are new, that are selected again, and that are no longer selected.

        Walks the selection and the ledger in parallel, both in order of ids, so that unchanged
        images need no memory.
        """
        added: list[str] = []
        returned: list[str] = []
        dropped: list[str] = []
        selected_ids = iter(selection)
        next_id = next(selected_ids, None)
        for image_id, selected in self._iter_selected():
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

    def _iter_selected(self) -> Iterator[tuple[str, object]]:
        """Yield each image and whether it is selected, in order of ids."""
        query = "SELECT image_id, selected FROM images ORDER BY image_id"
        for page in self._db.pages(query):
            ids = self._parsed([row[0] for row in page])
            yield from zip(ids, map(itemgetter(1), page), strict=True)

    def record(self, stage: str, changes: Iterable[Change]) -> None:
        """Apply the changes of a stage, all of them or none.

        Raises:
            ValueError: An image is not in the ledger, or a fact has no column.
        """
        at = utc_now()
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
        pending, or that the same stage excluded and the journal records as fetched after all. An
        image that was fetched again changes in any state, but keeps a good one if that failed.

        Args:
            stage: The stage that wrote the journal.
            changes: The part of the journal, from where the previous part ended.
            journal: Unique name of the journal.
            up_to: Where the part ends in the journal, in bytes.

        Returns:
            Number of images that changed.
        """
        at = utc_now()
        changed = 0
        with self._transaction():
            for change in changes:
                applied = self._apply(stage, change, at, _merge_condition(stage, change))
                if not applied and change.retried:
                    self._keep(stage, change, at)
                changed += applied
            self._db.execute(
                "INSERT INTO journals VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET entered_bytes = excluded.entered_bytes",
                (journal, up_to),
            )
        return changed

    def _keep(self, stage: str, change: Change, at: str) -> None:
        """Record that a good image could not be fetched again."""
        self._db.execute(
            "UPDATE images SET attempts = attempts + ? WHERE image_id = ?",
            (change.attempts, change.image_id),
        )
        self._db.execute(
            "INSERT INTO events SELECT image_id, ?, ?, state, ? FROM images WHERE image_id = ?",
            (change.at or at, stage, kept_message(change.message), change.image_id),
        )

    def merged_bytes(self) -> dict[str, int]:
        """Return how many bytes of each journal were merged, by the journal's name."""
        if self._version < _SUMS_SINCE:
            return {}
        rows = self._db.rows("SELECT journal, entered_bytes FROM journals")
        return {str(journal): int(str(size_bytes)) for journal, size_bytes in rows}

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
        rows = self._db.rows(query + " ORDER BY image_id", values)
        return list(self._parsed([row[0] for row in rows]))

    def _parsed(self, values: Sequence[object]) -> Sequence[ImageId]:
        """Return values of the column ``image_id``, checked."""
        return parse_ids(cast("Sequence[str]", values), where=str(self.path))

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
            while page := self._db.rows(query, (state, last)):
                ids = self._parsed([row[0] for row in page])
                yield from ids
                last = ids[-1]

    def column(self, name: str, *states: str) -> dict[str, object]:
        """Return one column of the selected images by id.

        Args:
            name: The column.
            states: States of the images; empty for any state.

        Raises:
            ValueError: There is no such column.
        """
        if name not in _FACTS | {"subset", "state", "reason", "original_name"}:
            raise ValueError(f"no such column: {name}")
        query = f"SELECT image_id, {self._expression(name)} FROM images WHERE selected = 1"
        if states:
            query += f" AND state IN ({', '.join('?' * len(states))})"
        rows = self._db.rows(query + " ORDER BY image_id", states)
        if name in _VALID:
            self._check_words(name, {row[1] for row in rows})
        if name == "phash":
            self._check_hashes(row[1] for row in rows)
        ids = self._parsed([row[0] for row in rows])
        return dict(zip(ids, (row[1] for row in rows), strict=True))

    def _check_words(self, name: str, words: Iterable[object]) -> None:
        """Raise if a column has another word than those that oiyolo writes."""
        if unknown := [word for word in words if word not in _VALID[name]]:
            raise self._value_error(name, ", ".join(_VALID[name]), unknown[0])

    def _check_hashes(self, values: Iterable[object]) -> None:
        """Raise if a perceptual hash is not of the form that oiyolo writes, or missing."""
        if bad := [value for value in values if value and not is_image_id(value)]:
            raise self._value_error("phash", FORM, bad[0])

    def _value_error(self, name: str, expected: str, found: object) -> InputFormError:
        return InputFormError(
            f"invalid {name} of an image in the ledger",
            where=str(self.path),
            expected=expected,
            found=ascii(found)[:_SHOWN_CHARACTERS],
            remedy="Restore the file from a copy; it was damaged or edited",
        )

    def unselected_ids(self) -> list[str]:
        """Return the ids of the images that are no longer selected, in order."""
        rows = self._db.rows("SELECT image_id FROM images WHERE selected = 0 ORDER BY image_id")
        return list(self._parsed([row[0] for row in rows]))

    def excluded_since(self, stage: str, before: str) -> list[str]:
        """Return the ids of the images that a stage excluded and has not tried again since.

        Args:
            stage: The stage.
            before: Time (ISO 8601, UTC) before which it made its last attempt.

        Returns:
            The ids, those that wait longest first.
        """
        rows = self._db.rows(
            "SELECT image_id FROM ("
            "SELECT image_id, (SELECT MAX(at) FROM events WHERE events.image_id = images.image_id "
            "AND events.stage = images.stage) AS tried_at "
            "FROM images WHERE selected = 1 AND state = ? AND stage = ?) "
            "WHERE tried_at < ? ORDER BY tried_at, image_id",
            (EXCLUDED, stage, before),
        )
        return list(self._parsed([row[0] for row in rows]))

    def unfetched(self, selection: Iterable[str]) -> set[str]:
        """Return those of the ids that are new or pending, whether they are selected or not."""
        done = self._db.execute("SELECT image_id FROM images WHERE state != 'pending'")
        return set(selection).difference(image_id for (image_id,) in done)

    def has_image_from(self, sources: Sequence[str]) -> bool:
        """Return whether an image, selected or not, was fetched from one of the sources."""
        placeholders = ", ".join("?" * len(sources))
        query = f"SELECT EXISTS (SELECT 1 FROM images WHERE source IN ({placeholders}))"
        (exists,) = self._db.execute(query, list(sources)).fetchone()
        return bool(exists)

    def split_records(self) -> list[SplitRecord]:
        """Return every image that has a split, selected or not, in order of ids."""
        rows = self._db.rows(
            f"SELECT image_id, split, md5, author, {self._expression('phash')} "
            "FROM images WHERE split IS NOT NULL ORDER BY image_id"
        )
        self._check_words("split", {row[1] for row in rows})
        self._check_hashes(row[4] for row in rows)
        ids = self._parsed([row[0] for row in rows])
        return [
            SplitRecord(image_id, *(str(text or "") for text in row[1:]))
            for image_id, row in zip(ids, rows, strict=True)
        ]

    def has_splits(self) -> bool:
        """Return whether any image has a split, selected or not."""
        query = "SELECT EXISTS (SELECT 1 FROM images WHERE split IS NOT NULL)"
        return bool(self._db.value(query))

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
        rows = self._db.rows(query)
        self._check_words("state", {row[0] for row in rows})
        return {(str(row[0]), str(row[1]), str(row[2])): int(str(row[3])) for row in rows}

    def original_names(self) -> dict[str, str]:
        """Return the name of each image that was ever selected from an import, by its id."""
        if self._version < _NAMES_SINCE:
            return {}
        rows = self._db.rows(
            "SELECT image_id, original_name FROM images WHERE original_name IS NOT NULL"
        )
        ids = self._parsed([row[0] for row in rows])
        return dict(zip(ids, (str(row[1]) for row in rows), strict=True))

    def ids_of_name(self, name: str) -> list[str]:
        """Return the ids of the imported images with this name, or whose name ends with it.

        Args:
            name: Name of the import and path in it; a part at the beginning may be missing.
        """
        if self._version < _NAMES_SINCE:
            return []
        rows = self._db.rows(
            "SELECT image_id FROM images WHERE original_name IS NOT NULL AND (original_name = ?1 "
            "OR substr(original_name, -length(?1) - 1) = '/' || ?1) ORDER BY image_id",
            (name,),
        )
        return list(self._parsed([row[0] for row in rows]))

    def known_ids(self, image_ids: Iterable[str]) -> list[str]:
        """Return those of some ids that the ledger has, selected or not."""
        found: list[str] = []
        for page in _pages(list(image_ids)):
            query = "SELECT image_id FROM images WHERE image_id IN (SELECT value FROM json_each(?))"
            found += self._parsed([row[0] for row in self._db.rows(query, (page,))])
        return found

    def counts_by_origin(self) -> dict[str, int]:
        """Return the number of selected images that are not excluded, by the name of their import.

        Those of Open Images are counted under an empty name.
        """
        if self._version < _NAMES_SINCE:
            return {}
        rows = self._db.rows(
            "SELECT COALESCE(substr(original_name, 1, instr(original_name, '/') - 1), ''), "
            "COUNT(*) FROM images WHERE selected = 1 AND state != 'excluded' GROUP BY 1 ORDER BY 1"
        )
        return {str(name): int(str(count)) for name, count in rows}

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
            (str(at), str(stage), str(message))
            for _, at, stage, _, message in self._db.rows(query, (image_id,))
        ]

    def last_event(self) -> int:
        """Return the number of the latest event, which grows with every change of an image."""
        return int(str(self._db.value("SELECT COALESCE(MAX(rowid), 0) FROM events")))

    def fingerprint_of_dataset(self) -> str:
        """Return a digest of the images with a split, their files and where these came from."""
        placeholders = ", ".join("?" * len(SPLITS))
        rows = self._db.rows(
            "SELECT image_id, state, source, md5, width_px, height_px, "
            f"{self._expression('prepared_bytes')} FROM images "
            f"WHERE selected = 1 AND state IN ({placeholders}) ORDER BY image_id",
            SPLITS,
        )
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def event_days(self, stage: str, state: str) -> tuple[str, ...]:
        """Return the first and the last day (ISO 8601) of a change of the images with a split.

        Args:
            stage: The stage that made the change.
            state: The state after it.
        """
        placeholders = ", ".join("?" * len(SPLITS))
        ((first, last),) = self._db.rows(
            "SELECT MIN(at), MAX(at) FROM events WHERE stage = ? AND state = ? AND image_id IN "
            f"(SELECT image_id FROM images WHERE selected = 1 AND state IN ({placeholders}))",
            (stage, state, *SPLITS),
        )
        days = [str(at)[:_DAY_CHARACTERS] for at in (first, last) if at]
        return tuple(day for day in days if _DAY.fullmatch(day))


def _selection_change(
    ids: Iterable[str], added: Iterable[str], dropped: Sequence[str], withdrawn: Container[str]
) -> SelectionChange:
    """Return how many images a selection adds, keeps and drops; withdrawn ones do not count."""
    selected, new = (sum(i not in withdrawn for i in part) for part in (ids, added))
    return SelectionChange(new, selected - new, len(dropped))


def kept_message(failure: str) -> str:
    """Return the message of an event: a good image could not be fetched again."""
    return f"kept, as it cannot be fetched again: {failure}"


def _merge_condition(stage: str, change: Change) -> str:
    """Return the SQL condition on an image's row under which a journal's change applies."""
    if change.retried:
        states = "" if change.state == FETCHED else " AND state IN ('pending', 'excluded')"
        return f"{states} AND stage != '{WITHDRAW_STAGE}'"
    if change.state == FETCHED:
        return f" AND (state = 'pending' OR (state = 'excluded' AND stage = '{stage}'))"
    return " AND state = 'pending'"


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _pages(rows: Sequence[object]) -> Iterator[str]:
    """Yield JSON arrays, usually of ids, which SQLite reads as rows: a statement takes many."""
    for at in range(0, len(rows), _PAGE_ROWS):
        yield json.dumps(rows[at : at + _PAGE_ROWS])


def _check_facts(facts: Mapping[str, object]) -> None:
    if unknown := facts.keys() - _FACTS:
        raise ValueError(f"no such facts: {sorted(unknown)}")
