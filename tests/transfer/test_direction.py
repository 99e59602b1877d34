"""Which side is newer: the decisions, as tables."""

from __future__ import annotations

import pytest

from oiyolo.net.buckets import FileFacts
from oiyolo.transfer import direction
from oiyolo.transfer.direction import Direction
from oiyolo.transfer.manifest import Manifest
from oiyolo.transfer.parts import LEDGER, OPTIONS

OLD, NEW, OWN = (FileFacts(size, "AAAAAA==") for size in (1, 2, 3))
SAME, BEHIND, AHEAD, CONFLICT = Direction
LIST = "data/dataset/train.txt"
IMAGE = "data/dataset/obj/0123456789abcdef.jpg"


def pushed(at: str = "2026-01-02", **files: FileFacts) -> Manifest:
    names = {"ledger": LEDGER, "options": OPTIONS, "list": LIST, "image": IMAGE}
    return Manifest("0" * 32, "dataset", at, {names[name]: f for name, f in files.items()})


@pytest.mark.parametrize(
    ("local", "remote", "before", "expected"),
    [
        (OLD, OLD, None, SAME),
        (NEW, NEW, OLD, SAME),
        (None, NEW, None, BEHIND),
        (None, OLD, OLD, BEHIND),
        (OLD, NEW, OLD, BEHIND),
        (OWN, OLD, OLD, AHEAD),
        (OWN, None, None, AHEAD),
        (OWN, NEW, OLD, CONFLICT),
        (OWN, NEW, None, CONFLICT),
    ],
)
def test_a_file_is_compared_as_in_version_control(
    local: FileFacts | None, remote: FileFacts, before: FileFacts | None, expected: Direction
) -> None:
    assert direction.compare(local, remote, before) is expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, CONFLICT),
        ({OWN: "2026-01-01"}, BEHIND),  # pulled from another bucket, where it was older
        ({OWN: "2026-01-03"}, AHEAD),
        ({OWN: ""}, BEHIND),  # only a split of it was transferred
        ({NEW: "2026-01-02"}, AHEAD),  # had that one before, from another bucket
    ],
)
def test_a_ledger_is_recognised_whatever_bucket_it_came_from(
    known: dict[FileFacts, str], expected: Direction
) -> None:
    assert direction.compare_ledgers(OWN, pushed(ledger=NEW), None, known) is expected


@pytest.mark.parametrize(
    ("ledger", "names"),
    [
        (SAME, {IMAGE}),  # damaged; the lists name this machine's paths
        (BEHIND, {IMAGE, LIST}),
        (AHEAD, set()),
        (CONFLICT, set()),
    ],
)
def test_the_ledger_decides_for_the_dataset(ledger: Direction, names: set[str]) -> None:
    before = pushed(image=OLD, list=OLD)
    wanted, conflicts = direction.wanted_names({IMAGE: OWN, LIST: OWN}, before, before, ledger)

    assert set(wanted) == names
    assert conflicts == ([LEDGER] if ledger is CONFLICT else [])


@pytest.mark.parametrize(
    ("local", "before", "wanted", "conflicts"),
    [
        (None, None, [OPTIONS], []),
        (OLD, OLD, [OPTIONS], []),
        (OWN, NEW, [], []),
        (OWN, OLD, [], [OPTIONS]),
        (OWN, None, [], [OPTIONS]),
    ],
)
def test_edited_options_are_never_replaced(
    local: FileFacts | None, before: FileFacts | None, wanted: list[str], conflicts: list[str]
) -> None:
    files = {OPTIONS: local} if local else {}
    last = pushed(options=before) if before else None
    decided = direction.wanted_names(files, pushed(options=NEW), last, BEHIND)

    assert decided == (wanted, conflicts)


def test_a_push_notices_files_that_were_pushed_from_elsewhere() -> None:
    remote = pushed(image=NEW, list=OLD)

    assert direction.unseen_names({IMAGE: OWN}, remote, pushed(image=OLD, list=OLD)) == [IMAGE]
    assert not direction.unseen_names({IMAGE: NEW}, remote, pushed(list=OLD))
