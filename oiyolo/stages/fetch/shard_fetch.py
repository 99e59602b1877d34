"""fetch --shard i/n: one machine's part of the images, without the dataset's lock.

Each shard has a lock, a journal and a done marker of its own below ``data/shards/``; the ledger is
only read. Images go into the project's folder, which all machines share. The next command that
takes the dataset's lock merges the journals into the ledger (``journals``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, locks
from oiyolo.core.errors import LockedError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, Result, columns, count
from oiyolo.project import journals
from oiyolo.project.journals import DONE, LOCK, Journal
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, STATES, now
from oiyolo.project.shards import shard
from oiyolo.sources.store import FolderStore
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch.downloader import Tally, fetch_many
from oiyolo.stages.fetch.outcomes import NOT_TRIED, change_of, check_tolerance
from oiyolo.stages.fetch.pending import wanted_images

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Change, Ledger
    from oiyolo.project.project import Project
    from oiyolo.project.shards import Shard
    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.store import Store
    from oiyolo.stages.select import Selection

_LOCK_WAIT_S: Final = 2.0
"""Whoever looks whether a shard is at work holds its lock for a moment."""
_MARK: Final = "shard-"


@dataclass(frozen=True)
class FetchedShard(Result):
    """What the fetch of one shard did.

    Attributes:
        shard: The shard, as ``i/n``.
        images: Selected images in it.
        new: Images that came now.
        failed: Reasons of those that did not, now.
        missing: Images of the shard that could not be fetched so far, by reason.
        seconds: How long it took.
        size_bytes: Bytes that came.
        by_source: How many of the new images came from where.
        example: What was told of one that failed.
    """

    shard: str
    images: int
    new: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    size_bytes: int = 0
    by_source: Mapping[str, int] = field(default_factory=dict)
    example: str = ""

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "shard": self.shard,
            "images": self.images,
            "fetched": self.new,
            "failed": dict(self.failed),
            "missing": dict(self.missing),
            "sources": dict(self.by_source),
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        have = f"{self.images - sum(self.missing.values()):,} of its {self.images:,} images"
        told = [f"shard {self.shard}: nothing to do; {have} are fetched"]
        if self.new or self.failed:
            effort = f"{self.size_bytes / 1e6:.1f} MB in {self.seconds:.1f} s"
            told = [f"shard {self.shard}: {count(self.new, 'image')} ({effort}); {have} fetched"]
        if self.missing:
            told.append(columns([(f"missing: {why}", n) for why, n in self.missing.items()]))
        return "\n".join(told)


@dataclass(frozen=True)
class _Share:
    """What the ledger says of a shard's images.

    Attributes:
        images: How many are selected.
        pending: Those that are to be fetched, in order of their ids.
        lost: Those that an earlier fetch excluded, by reason.
    """

    images: int
    pending: Sequence[str]
    lost: Mapping[str, int]


def shard_alone(text: str, **others: object) -> Shard:
    """Read ``--shard``, beside which no other way to fetch may be asked for.

    Raises:
        UsageError: It is no shard, or one of ``others`` is given.
    """
    part = shard(text)
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if given:
        raise UsageError(
            f"--shard and {given[0]} do not go together",
            remedy="A shard only reads the ledger: run `oiyolo fetch` without --shard for what "
            "changes it",
        )
    return part


def plan_shard(project: Project, part: Shard) -> Plan:
    """Tell what ``fetch_shard`` would do.

    Raises:
        UsageError: The selection is not up to date.
    """
    selection = select_stage.load_current(project)
    folder = journals.folder_of(project.data_folder, part.name)
    found = _done(folder, selection)
    todo: Sequence[str] = ()
    if found is None:
        with project.ledger(read_only=True) as ledger:
            todo = _todo(_share(ledger, part), journals.entries(folder))
    where = ", ".join(project.config.images.sources)
    actions = [f"fetch {count(len(todo), 'image')} of shard {part} from {where}"] if todo else []
    return Plan("fetch", actions, {"shard": str(part), "pending": len(todo)})


def fetch_shard(project: Project, part: Shard) -> FetchedShard:
    """Fetch one shard of the selected images; several may run at once, on any machines.

    Args:
        project: Its folder is shared by all who fetch a shard of it.
        part: The shard.

    Raises:
        UnavailableError: The site is not reachable, the disk is full, or more of the shard's
            images are missing than ``[images] tolerance`` allows.
        UsageError: The selection is not up to date.
        LockedError: Another process fetches this shard.
    """
    done = work_on(project, part)
    check_tolerance(project, done.missing, done.images, done.example, f" of shard {part}")
    return done


def work_on(
    project: Project,
    part: Shard,
    *,
    stop: threading.Event | None = None,
    wait_s: float = _LOCK_WAIT_S,
) -> FetchedShard:
    """Do the work of ``fetch_shard``, without judging whether enough came.

    Args:
        project: See ``fetch_shard``.
        part: See ``fetch_shard``.
        stop: When this event is set, ``StoppedError`` is raised.
        wait_s: How long another process may hold the shard before it is given up.
    """
    selection = select_stage.load_current(project)
    folder = journals.folder_of(project.data_folder, part.name)
    began_before = (folder / LOCK).exists()
    with _held(folder, part, wait_s):
        found = _done(folder, selection)
        if found is not None:
            return FetchedShard(str(part), found["images"], missing=found["missing"])
        (folder / DONE).unlink(missing_ok=True)
        about = {"shard": str(part), "began_at": now(), "host": platform.node()}
        with (
            contextlib.closing(Journal(folder, about)) as journal,
            project.ledger(read_only=True) as ledger,
        ):
            store = FolderStore(project.images_folder, mark=_MARK + part.name)
            if began_before:
                store.recover(lambda image_id: _recorded_bytes(journal.entries, ledger, image_id))
            share = _share(ledger, part)
            done = _fetch(
                project, part, selection, share=share, journal=journal, store=store, stop=stop
            )
            if not _todo(share, journal.entries):
                marker = {
                    "shard": str(part),
                    "selection": selection.fingerprint,
                    "journal": journal.name,
                    "journal_bytes": journal.size_bytes,
                    "images": done.images,
                    "missing": dict(done.missing),
                }
                files.write_json(folder / DONE, marker)
        return done


def take_up(project: Project, ledger: Ledger) -> None:
    """Give their names to images of shards that were killed between recording and naming them.

    The caller holds the dataset's lock, so the journals are merged. A shard that is at work does
    this itself.
    """
    if not (project.shards_folder.is_dir() and project.images_folder.is_dir()):
        return
    begins, ends = f".jpg.{_MARK}", files.PART_SUFFIX
    with os.scandir(project.images_folder) as entries:
        names = [e.name for e in entries if e.name.endswith(ends) and begins in e.name]
    for name in sorted({part.partition(begins)[2].removesuffix(ends) for part in names}):
        lock = project.shards_folder / name / LOCK
        with (
            contextlib.suppress(LockedError),
            locks.exclusive(lock, what=f"the shard {name}", doing="fetch"),
        ):
            store = FolderStore(project.images_folder, mark=_MARK + name)
            store.recover(lambda image_id: _recorded_bytes({}, ledger, image_id))


@contextlib.contextmanager
def _held(folder: Path, part: Shard, wait_s: float) -> Iterator[None]:
    """Hold a shard's lock."""
    end_s = time.monotonic() + wait_s
    with contextlib.ExitStack() as held:
        while True:
            doing = f"fetch --shard {part} on {platform.node()}"
            try:
                held.enter_context(
                    locks.exclusive(folder / LOCK, what=f"the shard {part}", doing=doing)
                )
                break
            except LockedError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.1)
        yield


def _done(folder: Path, selection: Selection) -> dict[str, Any] | None:
    """Give a shard's done marker, if nothing happened since it was written.

    A journal that was merged is gone, and the ledger knows better.
    """
    marker = files.read_json(folder / DONE)
    if not isinstance(marker, dict) or marker.get("selection") != selection.fingerprint:
        return None
    same = journals.name_and_size(folder) == (marker.get("journal"), marker.get("journal_bytes"))
    return marker if same else None


def _share(ledger: Ledger, part: Shard) -> _Share:
    pending = [image_id for image_id in ledger.each(PENDING) if part.holds(image_id)]
    others = sum(part.holds(image_id) for image_id in ledger.each(*STATES[1:], EXCLUDED))
    lost = [i for i in ledger.ids(EXCLUDED, stage=journals.STAGE) if part.holds(i)]
    reason_of = ledger.facts("reason", EXCLUDED) if lost else {}
    return _Share(
        len(pending) + others, pending, Counter(str(reason_of.get(i) or NOT_TRIED) for i in lost)
    )


def _todo(share: _Share, entries: Mapping[str, Change]) -> list[str]:
    """Give the images that are to be fetched, or to be tried again."""
    return [i for i in share.pending if i not in entries or entries[i].state == PENDING]


def _missing(share: _Share, entries: Mapping[str, Change]) -> dict[str, int]:
    missing = Counter(share.lost)
    for image_id in share.pending:
        entry = entries.get(image_id)
        if entry is None or entry.state != FETCHED:
            missing[NOT_TRIED if entry is None else entry.reason] += 1
    return dict(missing.most_common())


def _fetch(
    project: Project,
    part: Shard,
    selection: Selection,
    *,
    share: _Share,
    journal: Journal,
    store: Store,
    stop: threading.Event | None,
) -> FetchedShard:
    began_s = time.monotonic()
    tally = Tally()

    def record(outcomes: Sequence[Outcome]) -> None:
        at = now()
        journal.append([dataclasses.replace(change_of(outcome), at=at) for outcome in outcomes])

    todo = _todo(share, journal.entries)
    if todo:
        with progress(f"fetch {part}", total=len(todo), unit="img") as told:
            fetch_many(
                project,
                wanted_images(selection, todo),
                on_outcomes=record,
                told=told,
                store=store,
                tally=tally,
                stop=stop,
            )
    return FetchedShard(
        shard=str(part),
        images=share.images,
        new=tally.new,
        failed=dict(tally.failed),
        missing=_missing(share, journal.entries),
        seconds=time.monotonic() - began_s,
        size_bytes=tally.size_bytes,
        by_source=dict(tally.by_source.most_common()),
        example=tally.example,
    )


def _recorded_bytes(entries: Mapping[str, Change], ledger: Ledger, image_id: str) -> int | None:
    """Give the size of an image that is recorded as fetched, in a journal or in the ledger."""
    entry = entries.get(image_id)
    row = ledger.row(image_id) or {}
    state = entry.state if entry else row.get("state")
    size_bytes = entry.facts.get("bytes") if entry else row.get("bytes")
    return size_bytes if state == FETCHED and isinstance(size_bytes, int) else None
