"""Shards and their journals: every line is merged exactly once, despite damage and kills."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core import locks
from oiyolo.core.errors import UsageError
from oiyolo.project import journals
from oiyolo.project.journals import JOURNAL, LOCK, Journal
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, PREPARED, Change, Ledger
from oiyolo.project.shards import Shard, all_shards, parse_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDS = [f"{n:016x}" for n in range(12)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ledger(data: Path) -> Iterator[Ledger]:
    with Ledger(data / "ledger.sqlite") as opened:
        opened.reselect(dict.fromkeys(IDS, "train"))
        yield opened


def fetched(image_id: str, message: str = "fetched from mirror") -> Change:
    facts = {"source": "mirror", "bytes": 7, "md5": "m"}
    return Change(image_id, FETCHED, message, "", facts, 1, "2026-01-01T00:00:00+00:00")


def write(data: Path, part: Shard, *changes: Change) -> Path:
    folder = journals.shard_folder(data, part.name)
    with contextlib.closing(Journal(folder, {"shard": str(part)})) as journal:
        journal.append(changes)
    return folder / JOURNAL


@given(st.sets(st.text("0123456789abcdef", min_size=16, max_size=16)), st.integers(1, 40))
def test_each_image_is_in_exactly_one_shard(ids: set[str], total: int) -> None:
    holders = {i: [part for part in all_shards(total) if part.contains(i)] for i in ids}
    assert all(len(parts) == 1 for parts in holders.values())


def test_the_shard_of_an_image_never_changes() -> None:
    holders = [[part.index for part in all_shards(5) if part.contains(i)] for i in IDS[:6]]
    assert holders == [[1], [1], [0], [1], [4], [1]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "/4",
        "1/",
        "4/4",
        "-1/4",
        "0/0",
        "a/b",
        "1/2/3",
        "0/10001",
        "0x1/2",
        "\u0660/\u0664",
    ],
)
def test_an_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shard(text)


def test_shards_are_counted_from_0() -> None:
    assert parse_shard(" 3/8 ") == Shard(3, 8)
    with pytest.raises(UsageError, match=r"expected 0/8 to 7/8, because shards are counted from 0"):
        parse_shard("8/8")


def test_a_journal_round_trips_its_changes(data: Path) -> None:
    odd = Change(IDS[1], EXCLUDED, 'a "quote",\n a \udcff and a ü', "HTTP 404", {}, 2, "t")
    folder = write(data, Shard(0, 1), fetched(IDS[0]), odd).parent
    entries = journals.read_entries(folder)
    assert entries[IDS[0]] == fetched(IDS[0])
    assert entries[IDS[1]].reason == "HTTP 404"
    assert entries[IDS[1]].message.startswith('a "quote",\n a ')


def test_an_old_journal_with_the_key_told_is_read_and_merged(data: Path, ledger: Ledger) -> None:
    path = write(data, Shard(0, 1), fetched(IDS[0]), fetched(IDS[1]))
    content = path.read_bytes()
    assert content.count(b'"message":') == 2
    path.write_bytes(content.replace(b'"message":', b'"told":'))
    assert journals.read_entries(path.parent) == {i: fetched(i) for i in IDS[:2]}
    write(data, Shard(0, 1), fetched(IDS[2]))  # a resumed shard appends the new key
    assert b'"told":' in path.read_bytes()
    assert journals.merge(data, ledger) == 3
    assert ledger.ids(FETCHED) == IDS[:3]
    assert [ledger.events(i)[-1][2] for i in IDS[:3]] == ["fetched from mirror"] * 3


def test_a_merge_records_states_facts_and_events_with_their_times(
    data: Path, ledger: Ledger
) -> None:
    path = write(
        data,
        Shard(0, 2),
        Change(IDS[0], PENDING, "503", "HTTP 503", {}, 3, "2025-12-31T00:00:00+00:00"),
        fetched(IDS[0]),
        Change(IDS[1], EXCLUDED, "404", "HTTP 404", {}, 1, "2026-01-01T00:00:00+00:00"),
    )
    assert journals.merge_backlog(data, ledger) == journals.MergeBacklog(1, 3, 0)
    assert journals.merge(data, ledger) == 3
    assert ledger.ids(FETCHED) == [IDS[0]]
    assert ledger.counts().excluded == {"HTTP 404": 1}
    row = ledger.row(IDS[0])
    assert row is not None
    assert (row["source"], row["bytes"], row["attempts"]) == ("mirror", 7, 4)
    assert ledger.events(IDS[0])[1:] == [
        ("2025-12-31T00:00:00+00:00", "fetch", "503"),
        ("2026-01-01T00:00:00+00:00", "fetch", "fetched from mirror"),
    ]
    assert not path.exists()
    assert journals.merge_backlog(data, ledger) == journals.MergeBacklog()


def test_a_second_merge_changes_nothing(data: Path, ledger: Ledger) -> None:
    path = write(data, Shard(0, 2), fetched(IDS[0]))
    content = path.read_bytes()
    journals.merge(data, ledger)
    path.write_bytes(content)  # as if the process was killed before it removed the journal
    events = ledger.events(IDS[0])
    # The ledger records how much was merged, until the journal is gone.
    assert journals.merge(data, ledger) == 0
    assert ledger.events(IDS[0]) == events
    journals.merge(data, ledger)


@pytest.mark.parametrize("killed_after", range(5))
def test_a_killed_merge_is_resumed(
    data: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    monkeypatch.setattr(journals, "_BATCH_LINES", 2)
    write(data, Shard(0, 2), *map(fetched, IDS[:5]))
    write(data, Shard(1, 2), *map(fetched, IDS[5:9]))
    merge, calls = Ledger.merge, []

    def killed(self: Ledger, stage: str, changes: list[Change], *, journal: str, up_to: int) -> int:
        calls.append(up_to)
        if len(calls) > killed_after:
            raise KeyboardInterrupt
        return merge(self, stage, changes, journal=journal, up_to=up_to)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "merge", killed)
        with contextlib.suppress(KeyboardInterrupt):
            journals.merge(data, ledger)
    journals.merge(data, ledger)
    assert ledger.ids(FETCHED) == IDS[:9]
    assert {len(ledger.events(i)) for i in IDS[:9]} == {2}
    assert sum(ledger.counts().states.values()) == 12


@settings(deadline=None)  # each writes to the disk
@given(cut=st.integers(0, 10_000))
def test_a_truncated_journal_keeps_its_complete_lines_and_is_resumed(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    data = tmp_path_factory.mktemp("cut")
    path = write(data, Shard(0, 1), *map(fetched, IDS[:4]))
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    complete = max(0, content[:cut].count(b"\n") - 1)
    assert list(journals.read_entries(path.parent)) == IDS[:complete]
    write(data, Shard(0, 1), fetched(IDS[9]))
    assert list(journals.read_entries(path.parent)) == [*IDS[:complete], IDS[9]]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    "bad",
    [
        b"\0\0\0\0\n",
        b"[]\n",
        b'{"image_id":"x"}\n',
        b'{"image_id":"0000000000000001","state":"train","message":""}\n',
        b'{"image_id":"0000000000000001","state":"fetched","message":"","facts":{"split":"test"}}\n',
        b'{"image_id":"0000000000000001","state":"fetched","message":"","facts":{"bytes":[1]}}\n',
        b'{"image_id":"ffffffffffffffff","state":"fetched","message":"not a selected image"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"9" * 10_000 + b"\n",
        b'{"image_id":"0000000000000001","state":"fetched","message":"","attempts":%d}\n' % 10**30,
        b'{"image_id":"0000000000000001","state":"fetched","message":"","facts":{"bytes":%d}}\n'
        % 2**63,
    ],
)
def test_a_damaged_line_affects_only_its_own_image(data: Path, ledger: Ledger, bad: bytes) -> None:
    path = write(data, Shard(0, 1), fetched(IDS[0]), fetched(IDS[2]))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], bad, *lines[2:]]))
    assert journals.merge(data, ledger) == 2
    assert ledger.ids(FETCHED) == [IDS[0], IDS[2]]
    assert not path.exists()


def test_the_journal_of_an_active_shard_is_merged_so_far_and_kept(
    data: Path, ledger: Ledger
) -> None:
    part = Shard(0, 1)
    folder = journals.shard_folder(data, part.name)
    with (
        locks.exclusive(folder / LOCK, what="the shard", operation="fetch"),
        contextlib.closing(Journal(folder, {})) as journal,
    ):
        journal.append([fetched(IDS[0])])
        with (folder / JOURNAL).open("ab") as file:
            file.write(b'{"image_id":"00000')
        assert journals.merge_backlog(data, ledger) == journals.MergeBacklog(1, 1, 1)
        assert journals.merge(data, ledger) == 1
        assert journals.merge(data, ledger) == 0
        assert (folder / JOURNAL).exists()
    with contextlib.closing(Journal(folder, {})) as journal:
        assert list(journal.entries) == [IDS[0]]
        journal.append([fetched(IDS[1])])
    assert journals.merge(data, ledger) == 1
    assert ledger.ids(FETCHED) == IDS[:2]


def test_newer_states_in_the_ledger_take_precedence(data: Path, ledger: Ledger) -> None:
    write(data, Shard(0, 1), fetched(IDS[0]), fetched(IDS[1]), fetched(IDS[2]),
          Change(IDS[3], EXCLUDED, "404", "HTTP 404"))  # fmt: skip
    ledger.record(
        "fetch",
        [Change(IDS[1], EXCLUDED, "404", reason="HTTP 404"), Change(IDS[3], FETCHED, "here")],
    )
    ledger.record("prepare", [Change(IDS[0], PREPARED, "prepared")])
    ledger.record("prepare", [Change(IDS[2], EXCLUDED, "no box", reason="no box left")])
    assert journals.merge(data, ledger) == 1
    assert ledger.ids(FETCHED) == [IDS[1], IDS[3]]
    assert ledger.ids(PREPARED) == [IDS[0]]
    assert ledger.ids(EXCLUDED) == [IDS[2]]


def test_a_full_disk_leaves_no_partial_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = journals.shard_folder(data, "x")
    real_write = os.write

    def write_until_full(descriptor: int, block: memoryview) -> int:
        if len(block) > 20:
            return real_write(descriptor, block[:20])
        raise OSError(errno.ENOSPC, "full")

    with contextlib.closing(Journal(folder, {})) as journal:
        journal.append([fetched(IDS[0])])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_until_full)
            with pytest.raises(OSError, match="full"):
                journal.append([fetched(IDS[1])])
        journal.append([fetched(IDS[2])])
    assert list(journals.read_entries(folder)) == [IDS[0], IDS[2]]
