"""Which side is newer, of a file that differs between a project and a bucket."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from oiyolo.transfer.parts import LEDGER, OBJECTS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.net.buckets import FileFacts
    from oiyolo.transfer.manifest import Manifest

    Facts = Mapping[str, FileFacts]


class Direction(Enum):
    """The state of a file in a project, compared with that in a bucket."""

    SAME = "the same on both sides"
    BEHIND = "not changed here since the last transfer, or missing here"
    AHEAD = "changed here only"
    CONFLICT = "changed on both sides, or never transferred"


def compare(
    local: FileFacts | None, remote: FileFacts | None, before: FileFacts | None
) -> Direction:
    """Return the state of a file, as of a file in version control.

    Args:
        local: The file in the project; ``None`` if it is missing.
        remote: The file in the bucket; ``None`` if it is missing.
        before: The file when it was last transferred between the two; ``None`` if it never was.
    """
    if local == remote:
        return Direction.SAME
    if local is None or local == before:
        return Direction.BEHIND
    return Direction.AHEAD if remote in {None, before} else Direction.CONFLICT


def compare_ledgers(
    local: FileFacts | None,
    remote: Manifest,
    before: Manifest | None,
    known: Mapping[FileFacts, str],
) -> Direction:
    """Return the state of a project's ledger, compared with that in a bucket.

    Args:
        local: The ledger in the project; ``None`` if there is none.
        remote: The manifest in the bucket.
        before: The manifest of the last transfer between the two; ``None`` if there was none.
        known: The ledgers of all transfers, with any bucket, and when each was pushed as this
            part; empty for another part, which says nothing about the order.
    """
    theirs = remote.files.get(LEDGER)
    state = compare(local, theirs, before.files.get(LEDGER) if before else None)
    if state is not Direction.CONFLICT:
        return state
    if local is not None and local in known:  # it was not changed here since it was transferred
        return Direction.BEHIND if known[local] <= remote.pushed_at else Direction.AHEAD
    return Direction.AHEAD if theirs in known else Direction.CONFLICT


def wanted_names(
    local: Facts, remote: Manifest, before: Manifest | None, ledger: Direction
) -> tuple[list[str], list[str]]:
    """Return which files of a dataset to take from the bucket, and which are in conflict.

    The ledger decides for all files but the options: the other files follow from it. If it is the
    same, files that are missing or damaged are replaced, and lists that name this machine's paths
    are kept.

    Args:
        local: The files in the project.
        remote: The manifest in the bucket.
        before: The manifest of the last transfer between the two; ``None`` if there was none.
        ledger: The state of the project's ledger.
    """
    states = file_states(local, remote, before)
    options = states.pop(OPTIONS, Direction.SAME)
    conflicts = [OPTIONS] if options is Direction.CONFLICT else []
    if ledger is Direction.CONFLICT:
        return [], [LEDGER, *conflicts]
    names = [OPTIONS] if options is Direction.BEHIND else []
    if ledger is not Direction.AHEAD:
        names += [
            name
            for name, state in states.items()
            if state is Direction.BEHIND
            or (
                state is not Direction.SAME
                and (ledger is Direction.BEHIND or name.startswith(f"{OBJECTS}/"))
            )
        ]
    return names, conflicts


def wanted_run_names(
    local: Facts, remote: Manifest, before: Manifest | None
) -> tuple[list[str], list[str]]:
    """Return which files of a run to take from the bucket, and which are in conflict."""
    states = file_states(local, remote, before)
    names = [name for name, state in states.items() if state is Direction.BEHIND]
    return names, [name for name, state in states.items() if state is Direction.CONFLICT]


def unseen_names(local: Facts, remote: Manifest, before: Manifest | None) -> list[str]:
    """Return the files that changed in the bucket since the last transfer, and differ from ours."""
    files_before: Facts = before.files if before else {}
    return [
        name
        for name, facts in remote.files.items()
        if facts not in {files_before.get(name), local.get(name)}
    ]


def file_states(local: Facts, remote: Manifest, before: Manifest | None) -> dict[str, Direction]:
    """Return the state of each file that the bucket has."""
    files_before: Facts = before.files if before else {}
    return {
        name: compare(local.get(name), facts, files_before.get(name))
        for name, facts in remote.files.items()
    }
