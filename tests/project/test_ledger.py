"""The ledger: every selected image in one state, at any moment."""

from __future__ import annotations

import random
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.project.ledger import (
    EXCLUDED,
    FETCHED,
    PENDING,
    PREPARED,
    SPLITS,
    STATES,
    Assigned,
    Change,
    Ledger,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDS = [f"{n:016x}" for n in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        opened.reselect(dict.fromkeys(IDS, "train"))
        yield opened


def sums_close(ledger: Ledger) -> None:
    counts = ledger.counts()
    assert counts.selected == sum(counts.states.values()) + sum(counts.excluded.values())
    assert counts.selected == len(ledger.ids(*STATES, EXCLUDED))
    assert counts.selected == len(ledger.facts("state"))
    assert set(counts.states) == set(STATES)
    assert sorted(ledger.each(*STATES, EXCLUDED)) == ledger.ids(*STATES, EXCLUDED)
    db = sqlite3.connect(ledger.path)
    counted = db.execute(
        "SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1 GROUP BY 1, 2, 3"
    ).fetchall()
    kept = db.execute("SELECT state, stage, reason, images FROM sums WHERE images != 0").fetchall()
    db.close()
    assert sorted(kept) == sorted(counted)


def test_a_selected_image_begins_as_pending(ledger: Ledger) -> None:
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


def test_a_change_is_a_state_a_reason_facts_and_an_event(ledger: Ledger) -> None:
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
    sums_close(ledger)
    assert ledger.ids(FETCHED) == [IDS[0], IDS[2]]
    assert ledger.ids(EXCLUDED, stage="fetch") == [IDS[1]]
    assert ledger.ids(EXCLUDED, stage="split") == []
    assert ledger.counts().excluded == {"HTTP 404": 1}
    assert ledger.facts("bytes", FETCHED) == {IDS[0]: 10, IDS[2]: None}
    assert ledger.facts("reason")[IDS[2]] == ""
    row = ledger.row(IDS[2])
    assert row is not None
    assert row["attempts"] == 5
    assert [(stage, told) for _, stage, told in ledger.story(IDS[2])] == [
        ("select", "selected from train"),
        ("fetch", "503"),
        ("fetch", "at last"),
    ]


def test_excluded_reasons_come_with_the_most_frequent_first(ledger: Ledger) -> None:
    reasons = ["b", "a", "a", "c"]
    changes = [Change(i, EXCLUDED, "", reason=r) for i, r in zip(IDS, reasons, strict=False)]
    ledger.record("fetch", changes)
    assert list(ledger.counts().excluded.items()) == [("a", 2), ("b", 1), ("c", 1)]


def test_all_changes_of_one_call_are_entered_or_none(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no such facts: \\['colour'\\]"):
        ledger.record(
            "fetch",
            [Change(IDS[0], FETCHED, "fine"), Change(IDS[1], FETCHED, "", facts={"colour": 1})],
        )
    assert ledger.ids(FETCHED) == []
    assert len(ledger.story(IDS[0])) == 1

    def interrupted() -> Iterator[Change]:
        yield Change(IDS[0], FETCHED, "fine")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.record("fetch", interrupted())
    assert ledger.ids(FETCHED) == []
    ledger.record("fetch", [Change(IDS[0], FETCHED, "fine")])
    assert ledger.ids(FETCHED) == [IDS[0]]


def test_a_column_that_is_none_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no such column: 1; DROP"):
        ledger.facts("1; DROP TABLE images")


def test_an_image_that_was_never_selected_has_no_row_and_no_story(ledger: Ledger) -> None:
    assert ledger.row("f" * 16) is None
    assert ledger.story("f" * 16) == []


def test_a_new_selection_tells_what_it_added_kept_and_dropped(ledger: Ledger) -> None:
    changed = ledger.reselect({IDS[0]: "train", IDS[1]: "train", "new": "test"})
    assert (changed.added, changed.kept, changed.dropped) == (1, 2, 4)
    assert ledger.ids(PENDING) == [*IDS[:2], "new"]
    changed = ledger.reselect({IDS[5]: "train", IDS[0]: "train"})
    assert changed.added == 1  # it is back
    assert changed.dropped == 2
    assert [told for _, _, told in ledger.story(IDS[5])] == [
        "selected from train",
        "no longer selected",
        "selected again",
    ]
    sums_close(ledger)


def test_the_same_selection_again_changes_nothing(ledger: Ledger) -> None:
    before = ledger.story(IDS[0])
    changed = ledger.reselect(dict.fromkeys(IDS, "train"))
    assert (changed.added, changed.kept, changed.dropped) == (0, 6, 0)
    assert ledger.story(IDS[0]) == before


def test_an_image_that_comes_back_still_has_its_split(ledger: Ledger) -> None:
    facts = {"split": "valid", "md5": "m", "author": "A"}
    ledger.record("split", [Change(IDS[0], "valid", "assigned", facts=facts)])
    ledger.reselect({})
    assert ledger.counts().selected == 0
    assert ledger.assigned() == [Assigned(IDS[0], "valid", "m", "A", "")]
    ledger.reselect(dict.fromkeys(IDS, "train"))
    assert ledger.assigned() == [Assigned(IDS[0], "valid", "m", "A", "")]
    assert ledger.ids("valid") == [IDS[0]]


def test_forgetting_the_splits_makes_their_images_prepared_again(ledger: Ledger) -> None:
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
    assert ledger.assigned() == []
    assert not ledger.has_splits()
    assert ledger.ids(PREPARED) == IDS[:2]
    assert ledger.ids(EXCLUDED) == IDS[2:4]
    sums_close(ledger)


@pytest.mark.parametrize("seed", range(8))
def test_the_sums_close_after_any_operations_in_any_order(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pool = [f"{n:02}" for n in range(30)]
    splits: dict[str, str] = {}
    with Ledger(path) as ledger:
        for _ in range(40):
            some = rng.sample(pool, rng.randrange(len(pool)))
            done = rng.randrange(6)
            if done == 0:
                ledger.reselect(dict.fromkeys(some, "train"))
                assert ledger.counts().selected == len(some)
            elif done == 5 and rng.random() < 0.3:
                ledger.forget_splits()
                splits.clear()
            else:
                known = [i for i in some if i in ledger.facts("state")]
                state = rng.choice([*STATES, EXCLUDED])
                fresh = {i: state for i in known if state in SPLITS and i not in splits}
                splits |= fresh
                changes = [
                    Change(i, state, "", reason="x" if state == EXCLUDED else "",
                           facts={"split": state} if i in fresh else {})
                    for i in known
                ]  # fmt: skip
                ledger.record("some", changes)
            sums_close(ledger)
            assert {row.image_id: row.split for row in ledger.assigned()} == splits
    with Ledger(path, read_only=True) as again:
        sums_close(again)


def test_a_reader_sees_whole_transactions_while_another_writes(path: Path) -> None:
    ids = [f"{n:04}" for n in range(200)]
    with Ledger(path) as writer:
        writer.reselect(dict.fromkeys(ids, "train"))
    seen: list[tuple[int, int]] = []
    problems: list[BaseException] = []
    ended = threading.Event()

    def read() -> None:
        try:
            while not ended.is_set():
                with Ledger(path, read_only=True) as reader:
                    counts = reader.counts()
                seen.append((counts.selected, counts.states[FETCHED]))
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            problems.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with Ledger(path) as writer:
        for round_ in range(30):
            state = FETCHED if round_ % 2 == 0 else PENDING
            writer.record("fetch", [Change(i, state, "") for i in ids])
    ended.set()
    thread.join()
    assert not problems
    assert seen
    assert {selected for selected, _ in seen} == {200}
    assert {fetched for _, fetched in seen} <= {0, 200}


def test_a_reader_changes_nothing(path: Path, ledger: Ledger) -> None:
    with (
        Ledger(path, read_only=True) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.reselect({"new": "train"})
    assert ledger.counts().selected == 6


def test_a_reader_of_no_ledger_is_told_so_and_makes_none(path: Path) -> None:
    with pytest.raises(InputFormError, match="cannot be opened") as caught:
        Ledger(path, read_only=True)
    assert caught.value.where == str(path)
    assert not path.exists()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_of_another_kind_is_refused(path: Path, *, read_only: bool) -> None:
    path.parent.mkdir()
    path.write_bytes(b"ImageID,Source\n" * 500)
    with pytest.raises(InputFormError) as caught:
        Ledger(path, read_only=read_only)
    assert caught.value.where == str(path)
    assert caught.value.expected == "a SQLite file written by oiyolo"
    assert path.read_bytes().startswith(b"ImageID")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_newer_ledger_is_refused(path: Path, *, read_only: bool) -> None:
    with Ledger(path):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 4")
    db.close()
    with pytest.raises(InputFormError, match="found format 4"):
        Ledger(path, read_only=read_only)


OLD_SCHEMA = """
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
    VALUES ('a', 'train', 'test', 'split', 'test', 'm', 'A');
INSERT INTO events VALUES ('a', '2026-01-01T00:00:00+00:00', 'split', 'test', 'assigned');
PRAGMA user_version = 1;
"""
"""Format 1: without perceptual hashes."""


@pytest.fixture
def old_path(path: Path) -> Path:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript("PRAGMA journal_mode = WAL;" + OLD_SCHEMA)
    db.close()
    return path


def format_of(path: Path) -> int:
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    assert isinstance(version, int)
    return version


def test_an_older_ledger_is_read_as_it_is_and_not_changed_by_reading(old_path: Path) -> None:
    with Ledger(old_path, read_only=True) as ledger:
        assert ledger.assigned() == [Assigned("a", "test", "m", "A", "")]
        assert ledger.facts("phash") == {"a": None}
        assert ledger.counts().states["test"] == 1
    assert format_of(old_path) == 1


def test_an_older_ledger_that_is_written_to_is_brought_into_the_present_form(
    old_path: Path,
) -> None:
    for _ in range(2):
        with Ledger(old_path) as ledger:
            ledger.note({"a": {"phash": "0123456789abcdef"}})
            assert ledger.assigned() == [Assigned("a", "test", "m", "A", "0123456789abcdef")]
            assert [told for _, _, told in ledger.story("a")] == ["assigned"]
            sums_close(ledger)
    assert format_of(old_path) == 3
    with Ledger(old_path, read_only=True) as ledger:
        assert ledger.facts("phash") == {"a": "0123456789abcdef"}


def test_processes_that_open_an_older_ledger_at_once_all_succeed(old_path: Path) -> None:
    problems: list[BaseException] = []

    def opened() -> None:
        try:
            with Ledger(old_path) as ledger:
                ledger.note({"a": {"phash": "1" * 16}})
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            problems.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert format_of(old_path) == 3


def test_a_fact_is_noted_without_a_change_of_state(ledger: Ledger) -> None:
    before = ledger.counts()
    ledger.note({IDS[0]: {"phash": "f" * 16}, IDS[1]: {"phash": "0" * 16}})
    assert ledger.facts("phash")[IDS[0]] == "f" * 16
    assert ledger.counts() == before
    assert len(ledger.story(IDS[0])) == 1
    with pytest.raises(ValueError, match="no such facts: \\['colour'\\]"):
        ledger.note({IDS[2]: {"phash": "1"}, IDS[0]: {"colour": 1}})
    assert ledger.facts("phash")[IDS[2]] is None


def test_what_is_missing_is_counted_by_reason(ledger: Ledger) -> None:
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


def test_images_are_gone_through_while_they_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.project.ledger._PAGE_ROWS", 7)
    ids = [f"{n:04}" for n in range(50)]
    with Ledger(path) as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        seen = []
        for image_id in ledger.each(PENDING):
            seen.append(image_id)
            ledger.record("fetch", [Change(image_id, FETCHED, "")])
        assert seen == ids
        assert list(ledger.each(PENDING)) == []
        assert list(ledger.each(FETCHED)) == ids


@pytest.mark.parametrize(("shared", "mode"), [(True, "delete"), (False, "wal")])
def test_a_ledger_on_a_network_file_system_needs_no_shared_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool, mode: str
) -> None:
    for now_shared in (not shared, shared):  # it is moved from the one to the other
        monkeypatch.setattr("oiyolo.core.files.on_network", lambda _, so=now_shared: so)
        with Ledger(path) as ledger:
            ledger.reselect(dict.fromkeys(IDS, "train"))
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA journal_mode").fetchone() == (mode,)
    db.close()


def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "100 % #1?" / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.reselect({"a": "train"})
    assert path.is_file()
    with Ledger(path, read_only=True) as again:
        assert again.counts().selected == 1
