"""Copies of the ledger: the same bytes for the same content, whatever happened to the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.project.ledger import Change, Ledger
from oiyolo.project.ledger_copy import check, install_copy, write_copy

if TYPE_CHECKING:
    from pathlib import Path

TRAIN, TEST, PENDING = (f"{n:016x}" for n in range(3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.reselect(dict.fromkeys((TRAIN, TEST, PENDING), "train"))
        splits = {TRAIN: "train", TEST: "test"}
        changes = [Change(i, s, "assigned", facts={"split": s}) for i, s in splits.items()]
        ledger.record("split", changes)
    return path


def test_an_installed_copy_has_the_same_bytes_again(path: Path, tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("1", "2", "other.sqlite"))
    with Ledger(other) as ledger, Ledger(path) as source:  # both in use
        ledger.reselect({"f" * 16: "test"})
        write_copy(path, first)
        install_copy(first, other)
        assert ledger.counts() == source.counts()
        assert ledger.events(TEST) == source.events(TEST)

        write_copy(other, second)
        assert second.read_bytes() == first.read_bytes()
        ledger.record("split", [Change(TEST, "test", "again")])
    write_copy(other, second)
    assert second.read_bytes() != first.read_bytes()


def test_a_copy_for_a_split_selects_its_images_only(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    write_copy(path, copy, only_splits=["test"])

    with Ledger(copy, read_only=True) as ledger:
        assert ledger.counts().selected == ledger.counts().states["test"] == 1
        assert {row.image_id: row.split for row in ledger.split_records()} == {
            TRAIN: "train",
            TEST: "test",
        }
    with Ledger(path) as ledger:
        assert ledger.counts().selected == len((TRAIN, TEST, PENDING))


def test_something_else_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"SQLite format 3\0 and then nothing")
    with pytest.raises(InputFormError):
        check(tmp_path / "copy")
