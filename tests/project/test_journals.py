"""Shards' journals: every line counts once, whatever happens to the file and to who merges it."""

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
from oiyolo.project.shards import Shard, all_shards, shard

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


def came(image_id: str, told: str = "fetched from mirror") -> Change:
    facts = {"source": "mirror", "bytes": 7, "md5": "m"}
    return Change(image_id, FETCHED, told, "", facts, 1, "2026-01-01T00:00:00+00:00")


def write(data: Path, part: Shard, *changes: Change) -> Path:
    folder = journals.folder_of(data, part.name)
    with contextlib.closing(Journal(folder, {"shard": str(part)})) as journal:
        journal.append(changes)
    return folder / JOURNAL


@given(st.sets(st.text("0123456789abcdef", min_size=16, max_size=16)), st.integers(1, 40))
def test_shards_have_no_image_in_common_and_together_have_all(ids: set[str], of: int) -> None:
    holders = {i: [part for part in all_shards(of) if part.holds(i)] for i in ids}
    assert all(len(parts) == 1 for parts in holders.values())


def test_an_image_is_in_the_same_shard_for_ever() -> None:
    holders = [[part.index for part in all_shards(5) if part.holds(i)] for i in IDS[:6]]
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
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        shard(text)


def test_a_shard_is_counted_from_0() -> None:
    assert shard(" 3/8 ") == Shard(3, 8)
    with pytest.raises(UsageError, match=r"expected 0/8 to 7/8, because shards are counted from 0"):
        shard("8/8")


def test_what_was_written_is_read_again(data: Path) -> None:
    odd = Change(IDS[1], EXCLUDED, 'a "quote",\n a \udcff and a ü', "HTTP 404", {}, 2, "t")
    folder = write(data, Shard(0, 1), came(IDS[0]), odd).parent
    found = journals.entries(folder)
    assert found[IDS[0]] == came(IDS[0])
    assert found[IDS[1]].reason == "HTTP 404"
    assert found[IDS[1]].told.startswith('a "quote",\n a ')


def test_a_merge_enters_states_facts_events_and_their_times(data: Path, ledger: Ledger) -> None:
    path = write(
        data,
        Shard(0, 2),
        Change(IDS[0], PENDING, "503", "HTTP 503", {}, 3, "2025-12-31T00:00:00+00:00"),
        came(IDS[0]),
        Change(IDS[1], EXCLUDED, "404", "HTTP 404", {}, 1, "2026-01-01T00:00:00+00:00"),
    )
    assert journals.waiting(data, ledger) == journals.Waiting(1, 3, 0)
    assert journals.merge(data, ledger) == 3
    assert ledger.ids(FETCHED) == [IDS[0]]
    assert ledger.counts().excluded == {"HTTP 404": 1}
    row = ledger.row(IDS[0])
    assert row is not None
    assert (row["source"], row["bytes"], row["attempts"]) == ("mirror", 7, 4)
    assert ledger.story(IDS[0])[1:] == [
        ("2025-12-31T00:00:00+00:00", "fetch", "503"),
        ("2026-01-01T00:00:00+00:00", "fetch", "fetched from mirror"),
    ]
    assert not path.exists()
    assert journals.waiting(data, ledger) == journals.Waiting()


def test_a_second_merge_enters_nothing(data: Path, ledger: Ledger) -> None:
    path = write(data, Shard(0, 2), came(IDS[0]))
    kept = path.read_bytes()
    journals.merge(data, ledger)
    path.write_bytes(kept)  # as if the kill had come before it was removed
    story = ledger.story(IDS[0])
    # The row about it is what says so; it goes when the journal is gone.
    assert journals.merge(data, ledger) == 0
    assert ledger.story(IDS[0]) == story
    journals.merge(data, ledger)


@pytest.mark.parametrize("broken_after", range(5))
def test_a_merge_that_is_killed_is_gone_on_with(
    data: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, broken_after: int
) -> None:
    monkeypatch.setattr(journals, "_LINES_AT_ONCE", 2)
    write(data, Shard(0, 2), *map(came, IDS[:5]))
    write(data, Shard(1, 2), *map(came, IDS[5:9]))
    merge, calls = Ledger.merge, []

    def killed(self: Ledger, stage: str, changes: list[Change], *, journal: str, up_to: int) -> int:
        calls.append(up_to)
        if len(calls) > broken_after:
            raise KeyboardInterrupt
        return merge(self, stage, changes, journal=journal, up_to=up_to)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "merge", killed)
        with contextlib.suppress(KeyboardInterrupt):
            journals.merge(data, ledger)
    journals.merge(data, ledger)
    assert ledger.ids(FETCHED) == IDS[:9]
    assert {len(ledger.story(i)) for i in IDS[:9]} == {2}
    assert sum(ledger.counts().states.values()) == 12


@settings(deadline=None)  # each writes to the disk
@given(cut=st.integers(0, 10_000))
def test_a_journal_cut_anywhere_gives_its_whole_lines_and_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    data = tmp_path_factory.mktemp("cut")
    path = write(data, Shard(0, 1), *map(came, IDS[:4]))
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    whole = max(0, content[:cut].count(b"\n") - 1)
    assert list(journals.entries(path.parent)) == IDS[:whole]
    write(data, Shard(0, 1), came(IDS[9]))
    assert list(journals.entries(path.parent)) == [*IDS[:whole], IDS[9]]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    "bad",
    [
        b"\0\0\0\0\n",
        b"[]\n",
        b'{"image_id":"x"}\n',
        b'{"image_id":"0000000000000001","state":"train","told":""}\n',
        b'{"image_id":"0000000000000001","state":"fetched","told":"","facts":{"split":"test"}}\n',
        b'{"image_id":"0000000000000001","state":"fetched","told":"","facts":{"bytes":[1]}}\n',
        b'{"image_id":"ffffffffffffffff","state":"fetched","told":"an image nobody selected"}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_damaged_line_costs_its_own_image_only(data: Path, ledger: Ledger, bad: bytes) -> None:
    path = write(data, Shard(0, 1), came(IDS[0]), came(IDS[2]))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], bad, *lines[2:]]))
    assert journals.merge(data, ledger) == 2
    assert ledger.ids(FETCHED) == [IDS[0], IDS[2]]
    assert not path.exists()


def test_a_shard_at_work_is_merged_as_far_as_it_goes_and_keeps_its_journal(
    data: Path, ledger: Ledger
) -> None:
    part = Shard(0, 1)
    folder = journals.folder_of(data, part.name)
    with (
        locks.exclusive(folder / LOCK, what="the shard", doing="fetch"),
        contextlib.closing(Journal(folder, {})) as journal,
    ):
        journal.append([came(IDS[0])])
        with (folder / JOURNAL).open("ab") as file:
            file.write(b'{"image_id":"00000')
        assert journals.waiting(data, ledger) == journals.Waiting(1, 1, 1)
        assert journals.merge(data, ledger) == 1
        assert journals.merge(data, ledger) == 0
        assert (folder / JOURNAL).exists()
    with contextlib.closing(Journal(folder, {})) as journal:
        assert list(journal.entries) == [IDS[0]]
        journal.append([came(IDS[1])])
    assert journals.merge(data, ledger) == 1
    assert ledger.ids(FETCHED) == IDS[:2]


def test_what_the_ledger_learned_in_the_meantime_stands(data: Path, ledger: Ledger) -> None:
    write(data, Shard(0, 1), came(IDS[0]), came(IDS[1]), came(IDS[2]),
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


def test_a_full_disk_leaves_no_half_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = journals.folder_of(data, "x")
    real_write = os.write

    def full(descriptor: int, block: memoryview) -> int:
        if len(block) > 20:
            return real_write(descriptor, block[:20])
        raise OSError(errno.ENOSPC, "full")

    with contextlib.closing(Journal(folder, {})) as journal:
        journal.append([came(IDS[0])])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="full"):
                journal.append([came(IDS[1])])
        journal.append([came(IDS[2])])
    assert list(journals.entries(folder)) == [IDS[0], IDS[2]]
