"""The ledger: every selected image is in exactly one state at any moment."""

from __future__ import annotations

import random
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.project.ledger import (
    EXCLUDED,
    FETCHED,
    PENDING,
    PREPARED,
    SPLITS,
    STATES,
    Change,
    Ledger,
    SplitRecord,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDS = [f"{n:016x}" for n in range(6)]
NEW, OLD = "f" * 16, "a" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        opened.reselect(dict.fromkeys(IDS, "train"))
        yield opened


def check_counts(ledger: Ledger) -> None:
    counts = ledger.counts()
    assert counts.selected == sum(counts.states.values()) + sum(counts.excluded.values())
    assert counts.selected == len(ledger.ids(*STATES, EXCLUDED))
    assert counts.selected == len(ledger.column("state"))
    assert set(counts.states) == set(STATES)
    assert sorted(ledger.iter_ids(*STATES, EXCLUDED)) == ledger.ids(*STATES, EXCLUDED)
    db = sqlite3.connect(ledger.path)
    counted = db.execute(
        "SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1 GROUP BY 1, 2, 3"
    ).fetchall()
    stored = db.execute(
        "SELECT state, stage, reason, images FROM sums WHERE images != 0"
    ).fetchall()
    db.close()
    assert sorted(stored) == sorted(counted)


def test_a_selected_image_is_pending_at_first(ledger: Ledger) -> None:
    assert ledger.ids(PENDING) == IDS
    assert ledger.counts().as_dict() == {
        "selected": 6,
        "states": {**dict.fromkeys(STATES, 0), "pending": 6},
        "excluded": {},
    }
    row = ledger.row(IDS[0])
    assert row is not None
    assert row["subset"] == "train"
    assert row["attempts"] == 0


def test_a_change_sets_state_reason_and_facts_and_adds_an_event(ledger: Ledger) -> None:
    ledger.record(
        "fetch",
        [
            Change(IDS[0], FETCHED, "fetched from mirror", facts={"bytes": 10, "md5": "m"},
                   attempts=2),
            Change(IDS[1], EXCLUDED, "HTTP 404 at length", reason="HTTP 404", attempts=1),
            Change(IDS[2], PENDING, "503", reason="HTTP 503", attempts=4),
        ],
    )  # fmt: skip
    ledger.record("fetch", [Change(IDS[2], FETCHED, "at last", attempts=1)])
    check_counts(ledger)
    assert ledger.ids(FETCHED) == [IDS[0], IDS[2]]
    assert ledger.ids(EXCLUDED, stage="fetch") == [IDS[1]]
    assert ledger.ids(EXCLUDED, stage="split") == []
    assert ledger.counts().excluded == {"HTTP 404": 1}
    assert ledger.column("bytes", FETCHED) == {IDS[0]: 10, IDS[2]: None}
    assert ledger.column("reason")[IDS[2]] == ""
    row = ledger.row(IDS[2])
    assert row is not None
    assert row["attempts"] == 5
    assert [(stage, message) for _, stage, message in ledger.events(IDS[2])] == [
        ("select", "selected from train"),
        ("fetch", "503"),
        ("fetch", "at last"),
    ]


def test_the_most_frequent_reason_of_exclusion_comes_first(ledger: Ledger) -> None:
    reasons = ["b", "a", "a", "c"]
    changes = [Change(i, EXCLUDED, "", reason=r) for i, r in zip(IDS, reasons, strict=False)]
    ledger.record("fetch", changes)
    assert list(ledger.counts().excluded.items()) == [("a", 2), ("b", 1), ("c", 1)]


def test_all_changes_of_one_call_are_applied_or_none(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no such facts: \\['colour'\\]"):
        ledger.record(
            "fetch",
            [Change(IDS[0], FETCHED, "fine"), Change(IDS[1], FETCHED, "", facts={"colour": 1})],
        )
    assert ledger.ids(FETCHED) == []
    assert len(ledger.events(IDS[0])) == 1

    def interrupted() -> Iterator[Change]:
        yield Change(IDS[0], FETCHED, "fine")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.record("fetch", interrupted())
    assert ledger.ids(FETCHED) == []
    ledger.record("fetch", [Change(IDS[0], FETCHED, "fine")])
    assert ledger.ids(FETCHED) == [IDS[0]]


def test_an_unknown_column_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no such column: 1; DROP"):
        ledger.column("1; DROP TABLE images")


def test_the_fingerprint_and_the_days_are_those_of_images_with_a_split(ledger: Ledger) -> None:
    first, second = sorted(ledger.ids("pending"))[:2]
    assert ledger.event_days("fetch", "fetched") == ()
    fetched = Change(first, "fetched", "fetched", at="2026-01-02T03:04:05+00:00")
    odd = Change(first, "fetched", "fetched again", at="2026-01-09 | <b>")
    ledger.record("fetch", [fetched, odd, Change(second, "fetched", "fetched")])
    empty = ledger.fingerprint_of_dataset()
    ledger.record("split", [Change(first, "train", "assigned", facts={"split": "train"})])
    assert ledger.event_days("fetch", "fetched") == ("2026-01-02", "2026-01-09")
    assigned = ledger.fingerprint_of_dataset()
    ledger.set_facts({second: {"source": "mirror"}})
    assert ledger.fingerprint_of_dataset() == assigned != empty
    ledger.set_facts({first: {"source": "mirror"}})
    assert ledger.fingerprint_of_dataset() != assigned


def test_an_image_that_was_never_selected_has_no_row_and_no_events(ledger: Ledger) -> None:
    assert ledger.row("f" * 16) is None
    assert ledger.events("f" * 16) == []


def test_a_new_selection_counts_added_kept_and_dropped_images(ledger: Ledger) -> None:
    changed = ledger.reselect({IDS[0]: "train", IDS[1]: "train", NEW: "test"})
    assert (changed.added, changed.kept, changed.dropped) == (1, 2, 4)
    assert ledger.ids(PENDING) == [*IDS[:2], NEW]
    changed = ledger.reselect({IDS[5]: "train", IDS[0]: "train"})
    assert (changed.added, changed.kept, changed.dropped) == (1, 1, 2)  # IDS[5] is selected again
    assert [message for _, _, message in ledger.events(IDS[5])] == [
        "selected from train",
        "no longer selected",
        "selected again",
    ]
    check_counts(ledger)


def test_the_same_selection_again_changes_nothing(ledger: Ledger) -> None:
    before = ledger.events(IDS[0])
    changed = ledger.reselect(dict.fromkeys(IDS, "train"))
    assert (changed.added, changed.kept, changed.dropped) == (0, 6, 0)
    assert ledger.events(IDS[0]) == before


def test_an_image_that_is_selected_again_still_has_its_split(ledger: Ledger) -> None:
    facts = {"split": "valid", "md5": "m", "author": "A"}
    ledger.record("split", [Change(IDS[0], "valid", "assigned", facts=facts)])
    ledger.reselect({})
    assert ledger.counts().selected == 0
    assert ledger.split_records() == [SplitRecord(IDS[0], "valid", "m", "A", "")]
    ledger.reselect(dict.fromkeys(IDS, "train"))
    assert ledger.split_records() == [SplitRecord(IDS[0], "valid", "m", "A", "")]
    assert ledger.ids("valid") == [IDS[0]]


def test_images_are_prepared_again_after_their_splits_are_discarded(ledger: Ledger) -> None:
    ledger.record(
        "split",
        [
            Change(IDS[0], "train", "", facts={"split": "train"}),
            Change(IDS[1], EXCLUDED, "", reason="would join groups of different splits"),
        ],
    )
    assert ledger.has_splits()
    ledger.record("fetch", [Change(IDS[2], EXCLUDED, "", reason="HTTP 404")])
    ledger.record("prepare", [Change(IDS[3], EXCLUDED, "", reason="no box left")])
    ledger.forget_splits()
    assert ledger.split_records() == []
    assert not ledger.has_splits()
    assert ledger.ids(PREPARED) == IDS[:2]
    assert ledger.ids(EXCLUDED) == IDS[2:4]
    check_counts(ledger)


@pytest.mark.parametrize("seed", range(8))
def test_the_counts_add_up_after_any_sequence_of_operations(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pool = [f"{n:016x}" for n in range(30)]
    splits: dict[str, str] = {}
    with Ledger(path) as ledger:
        for _ in range(40):
            ids = rng.sample(pool, rng.randrange(len(pool)))
            operation = rng.randrange(6)
            if operation == 0:
                ledger.reselect(dict.fromkeys(ids, "train"))
                assert ledger.counts().selected == len(ids)
            elif operation == 5 and rng.random() < 0.3:
                ledger.forget_splits()
                splits.clear()
            else:
                selected = [i for i in ids if i in ledger.column("state")]
                state = rng.choice([*STATES, EXCLUDED])
                new = {i: state for i in selected if state in SPLITS and i not in splits}
                splits |= new
                changes = [
                    Change(i, state, "", reason="x" if state == EXCLUDED else "",
                           facts={"split": state} if i in new else {})
                    for i in selected
                ]  # fmt: skip
                ledger.record("stage", changes)
            check_counts(ledger)
            assert {row.image_id: row.split for row in ledger.split_records()} == splits
    with Ledger(path, read_only=True) as again:
        check_counts(again)


def test_a_reader_sees_whole_transactions_during_writes(path: Path) -> None:
    ids = [f"{n:016x}" for n in range(200)]
    with Ledger(path) as writer:
        writer.reselect(dict.fromkeys(ids, "train"))
    seen: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                with Ledger(path, read_only=True) as reader:
                    counts = reader.counts()
                seen.append((counts.selected, counts.states[FETCHED]))
        except BaseException as error:  # noqa: BLE001  (checked by the test)
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with Ledger(path) as writer:
        for round_ in range(30):
            state = FETCHED if round_ % 2 == 0 else PENDING
            writer.record("fetch", [Change(i, state, "") for i in ids])
    stop.set()
    thread.join()
    assert not errors
    assert seen
    assert {selected for selected, _ in seen} == {200}
    assert {fetched for _, fetched in seen} <= {0, 200}


def test_a_reader_cannot_write(path: Path, ledger: Ledger) -> None:
    with (
        Ledger(path, read_only=True) as reader,
        pytest.raises(UnavailableError),
    ):
        reader.reselect({NEW: "train"})
    assert ledger.counts().selected == 6


def test_a_missing_ledger_is_an_error_for_a_reader_and_is_not_created(path: Path) -> None:
    with pytest.raises(InputFormError) as caught:
        Ledger(path, read_only=True)
    assert caught.value.where == str(path)
    assert not path.exists()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_not_a_ledger_is_refused(path: Path, *, read_only: bool) -> None:
    path.parent.mkdir()
    path.write_bytes(b"ImageID,Source\n" * 500)
    with pytest.raises(InputFormError) as caught:
        Ledger(path, read_only=read_only)
    assert caught.value.where == str(path)
    assert caught.value.expected == "a SQLite file written by oiyolo"
    assert path.read_bytes().startswith(b"ImageID")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_ledger_of_a_newer_format_is_refused(path: Path, *, read_only: bool) -> None:
    with Ledger(path):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(InputFormError) as caught:
        Ledger(path, read_only=read_only)
    assert caught.value.found == "format 7"


FORMAT_1 = """
CREATE TABLE images (
    image_id TEXT PRIMARY KEY, subset TEXT NOT NULL, selected INTEGER NOT NULL DEFAULT 1,
    state TEXT NOT NULL DEFAULT 'pending', stage TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '', split TEXT, source TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, bytes INTEGER, md5 TEXT, width_px INTEGER,
    height_px INTEGER, prepared_from TEXT, author TEXT
) WITHOUT ROWID;
CREATE INDEX images_by_state ON images (selected, state);
CREATE TABLE events (
    image_id TEXT NOT NULL, at TEXT NOT NULL, stage TEXT NOT NULL, state TEXT NOT NULL,
    told TEXT NOT NULL
);
CREATE INDEX events_by_image ON events (image_id);
INSERT INTO images (image_id, subset, state, stage, split, md5, author)
    VALUES ('aaaaaaaaaaaaaaaa', 'train', 'test', 'split', 'test', 'm', 'A');
INSERT INTO events
    VALUES ('aaaaaaaaaaaaaaaa', '2026-01-01T00:00:00+00:00', 'split', 'test', 'assigned');
PRAGMA user_version = 1;
"""
"""Format 1: without perceptual hashes, without stored counts; messages are called ``told``."""

FORMAT_3_CHANGES = """
ALTER TABLE images ADD COLUMN phash TEXT;
CREATE TABLE sums (
    state TEXT NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL, images INTEGER NOT NULL,
    PRIMARY KEY (state, stage, reason)
) WITHOUT ROWID;
CREATE TRIGGER sums_of_new AFTER INSERT ON images WHEN NEW.selected = 1 BEGIN
    INSERT INTO sums VALUES (NEW.state, NEW.stage, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET images = images + 1;
END;
CREATE TRIGGER sums_of_changed AFTER UPDATE OF selected, state, stage, reason ON images BEGIN
    UPDATE sums SET images = images - 1
        WHERE OLD.selected = 1
        AND state = OLD.state AND stage = OLD.stage AND reason = OLD.reason;
    INSERT INTO sums SELECT NEW.state, NEW.stage, NEW.reason, 1 WHERE NEW.selected = 1
        ON CONFLICT DO UPDATE SET images = images + 1;
END;
INSERT INTO sums
    SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1
    GROUP BY state, stage, reason;
CREATE TABLE journals (journal TEXT PRIMARY KEY, entered_bytes INTEGER NOT NULL);
INSERT INTO journals VALUES ('j', 7);
PRAGMA user_version = 3;
"""
"""From format 1 to 3, in which messages are still called ``told``."""


def create_old(path: Path, *scripts: str) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    for script in ("PRAGMA journal_mode = WAL;", *scripts):
        db.executescript(script)
    db.close()


@pytest.fixture
def old_path(path: Path) -> Path:
    create_old(path, FORMAT_1)
    return path


def format_of(path: Path) -> int:
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    assert isinstance(version, int)
    return version


def test_an_older_ledger_is_read_without_changing_it(old_path: Path) -> None:
    with Ledger(old_path, read_only=True) as ledger:
        assert ledger.split_records() == [SplitRecord(OLD, "test", "m", "A", "")]
        assert ledger.column("phash") == {OLD: None}
        assert ledger.counts().states["test"] == 1
    assert format_of(old_path) == 1


def test_an_older_ledger_is_migrated_when_it_is_opened_for_writing(
    old_path: Path,
) -> None:
    for _ in range(2):
        with Ledger(old_path) as ledger:
            ledger.set_facts({OLD: {"phash": "0123456789abcdef"}})
            assert ledger.split_records() == [
                SplitRecord(OLD, "test", "m", "A", "0123456789abcdef")
            ]
            assert [message for _, _, message in ledger.events(OLD)] == ["assigned"]
            check_counts(ledger)
    assert format_of(old_path) == 6
    with Ledger(old_path, read_only=True) as ledger:
        assert ledger.column("phash") == {OLD: "0123456789abcdef"}


@pytest.mark.parametrize(("changes", "version"), [("", 1), (FORMAT_3_CHANGES, 3)])
def test_messages_of_an_older_ledger_are_read_and_kept_by_its_migration(
    path: Path, changes: str, version: int
) -> None:
    create_old(path, FORMAT_1, changes)
    old_event = ("2026-01-01T00:00:00+00:00", "split", "assigned")
    with Ledger(path, read_only=True) as reader:
        assert reader.events(OLD) == [old_event]
        assert format_of(path) == version
        merged = reader.merged_bytes()
        with Ledger(path) as ledger:
            ledger.record("split", [Change(OLD, "test", "assigned again")])
            check_counts(ledger)
            assert ledger.merged_bytes() == merged
        # A reader that was opened before the migration can still read.
        assert [message for _, _, message in reader.events(OLD)] == ["assigned", "assigned again"]
    assert format_of(path) == 6
    db = sqlite3.connect(path)
    rows = db.execute("SELECT message FROM events ORDER BY rowid").fetchall()
    db.close()
    assert rows == [("assigned",), ("assigned again",)]


def test_concurrent_migrations_of_an_older_ledger_all_succeed(old_path: Path) -> None:
    errors: list[BaseException] = []

    def open_and_write() -> None:
        try:
            with Ledger(old_path) as ledger:
                ledger.set_facts({OLD: {"phash": "1" * 16}})
        except BaseException as error:  # noqa: BLE001  (checked by the test)
            errors.append(error)

    threads = [threading.Thread(target=open_and_write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert format_of(old_path) == 6


def test_facts_are_set_without_a_change_of_state(ledger: Ledger) -> None:
    before = ledger.counts()
    ledger.set_facts({IDS[0]: {"phash": "f" * 16}, IDS[1]: {"phash": "0" * 16}})
    assert ledger.column("phash")[IDS[0]] == "f" * 16
    assert ledger.counts() == before
    assert len(ledger.events(IDS[0])) == 1
    with pytest.raises(ValueError, match="no such facts: \\['colour'\\]"):
        ledger.set_facts({IDS[2]: {"phash": "1"}, IDS[0]: {"colour": 1}})
    assert ledger.column("phash")[IDS[2]] is None


def test_missing_images_are_counted_by_reason(ledger: Ledger) -> None:
    ledger.record(
        "fetch",
        [
            Change(IDS[0], EXCLUDED, "", reason="HTTP 404"),
            Change(IDS[1], PENDING, "", reason="HTTP 503"),
            Change(IDS[2], FETCHED, ""),
        ],
    )
    ledger.record("prepare", [Change(IDS[3], EXCLUDED, "", reason="no box left")])
    assert list(ledger.missing("fetch").items()) == [("", 2), ("HTTP 404", 1), ("HTTP 503", 1)]


def test_images_can_change_during_an_iteration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oiyolo.project.ledger._PAGE_ROWS", 7)
    ids = [f"{n:016x}" for n in range(50)]
    with Ledger(path) as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        seen = []
        for image_id in ledger.iter_ids(PENDING):
            seen.append(image_id)
            ledger.record("fetch", [Change(image_id, FETCHED, "")])
        assert seen == ids
        assert list(ledger.iter_ids(PENDING)) == []
        assert list(ledger.iter_ids(FETCHED)) == ids


@pytest.mark.parametrize(("shared", "mode"), [(True, "delete"), (False, "wal")])
def test_a_ledger_on_a_network_file_system_does_not_use_the_write_ahead_log(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool, mode: str
) -> None:
    for now_shared in (not shared, shared):  # the ledger is moved from one to the other
        monkeypatch.setattr("oiyolo.core.files.is_on_network", lambda _, shared=now_shared: shared)
        with Ledger(path) as ledger:
            ledger.reselect(dict.fromkeys(IDS, "train"))
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode").fetchone() == (mode,)
    db.close()


def test_a_path_may_contain_special_characters(tmp_path: Path) -> None:
    path = tmp_path / "100 % #1?" / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.reselect({OLD: "train"})
    assert path.is_file()
    with Ledger(path, read_only=True) as again:
        assert again.counts().selected == 1
