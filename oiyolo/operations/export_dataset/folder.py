"""The folder of an export: written whole or not at all, and never over files of others.

The list of its files, with their sizes and times, is stored in it. A folder without one is never
touched, and a folder whose files were changed or joined by others is never replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, locks, records, staleness
from oiyolo.core.errors import UsageError
from oiyolo.core.results import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    FileState = tuple[int, int]
    """Size in bytes, and time of the last change in nanoseconds."""

RECORD: Final = ".oiyolo-export.json"
"""What the export was made from, its result and its files."""
_LOCK: Final = ".lock"
_CACHE_SUFFIX: Final = ".cache"
"""Files that ultralytics adds; it notices itself when they are stale."""
_OTHER_FOLDER: Final = "Choose another folder with --out, or move this one away"


class _Record(TypedDict):
    result: dict[str, Any]
    files: dict[str, list[int]]


def find_result(folder: Path, recipe: Mapping[str, object]) -> dict[str, Any] | str:
    """Return the stored result of an export that is up to date, or why it must be written.

    Raises:
        UsageError: The folder exists and must not be replaced.
    """
    if not _exists(folder):
        return "it does not exist yet"
    record = records.find_intact(folder / RECORD, _Record)
    if record is None:
        if any(folder.iterdir()):
            raise UsageError(
                "the folder was not written by `oiyolo export`",
                where=str(folder),
                expected="an empty folder, or none",
                remedy=_OTHER_FOLDER,
            )
        return "the folder is empty"
    reason = staleness.stale_reason(folder / RECORD, recipe)
    found = _states(folder)
    if reason is None:
        sizes = {name: state[0] for name, state in found.items()}
        lost = sum(sizes.get(name) != state[0] for name, state in record["files"].items())
        if not lost:
            result: dict[str, Any] = record["result"]
            return result
        reason = f"{pluralize(lost, 'file')} missing or of another size"
    _check_unchanged(folder, record["files"], found)
    return reason


def _exists(folder: Path) -> bool:
    """Return whether there is a folder; raise UsageError if there is something else."""
    try:
        mode = os.lstat(folder).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise UsageError(
            "cannot export to this path",
            where=str(folder),
            expected="a folder, or nothing",
            found="a link" if stat.S_ISLNK(mode) else "a file",
            remedy="Choose another folder with --out",
        )
    return True


def _states(folder: Path) -> dict[str, FileState]:
    """Return the size and time of each file below a folder but the record, by its path in it."""
    states = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            facts = os.lstat(f"{parent}/{name}")
            states[os.path.relpath(f"{parent}/{name}", folder)] = facts.st_size, facts.st_mtime_ns
    states.pop(RECORD, None)
    return states


def _check_unchanged(
    folder: Path, written: Mapping[str, list[int]], found: Mapping[str, FileState]
) -> None:
    """Raise UsageError if files were changed or added, which a new export would delete."""
    for name, state in found.items():
        if list(state) != written.get(name) and not name.endswith(_CACHE_SUFFIX):
            what = "added" if name not in written else "changed"
            raise UsageError(
                "the folder is out of date, but has files that `oiyolo export` did not write",
                where=str(folder),
                found=f"{name} was {what} afterwards",
                remedy=_OTHER_FOLDER,
            )


@contextlib.contextmanager
def replace(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write to; it takes the place of ``folder`` unless the block raises.

    An earlier folder is removed only then. What a killed process left is removed first.

    Raises:
        LockedError: Another process is writing the same folder.
    """
    part = folder.with_name(f".{folder.name}{files.PART_SUFFIX}")
    _exists(part)
    part.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(part / _LOCK, what="the folder", operation="export"):
        try:
            content = part / "content"
            shutil.rmtree(content, ignore_errors=True)
            content.mkdir()
            yield content
            if folder.exists():
                shutil.rmtree(part / "old", ignore_errors=True)
                folder.rename(part / "old")
            content.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_record(folder: Path, recipe: Mapping[str, object], result: Mapping[str, object]) -> None:
    """Write the record of a complete export into its folder."""
    own = {"result": dict(result), "files": _states(folder), "version": __version__}
    files.write_json(folder / RECORD, {**recipe, **own})
