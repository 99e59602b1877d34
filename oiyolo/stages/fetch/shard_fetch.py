"""fetch --shard i/n: download one machine's part of the images without taking the dataset lock.

Each shard has its own lock, journal and done marker below ``data/shards/``, and only reads the
ledger. Images go into the project's folder, which all machines share. The next command that takes
the dataset lock merges the journals into the ledger (``project.journals``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import files, locks, records
from oiyolo.core.clock import utc_now
from oiyolo.core.errors import LockedError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, pluralize
from oiyolo.project import journals
from oiyolo.project.journals import DONE, LOCK, Journal
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, STATES
from oiyolo.project.shards import parse_shard
from oiyolo.sources.store import FolderStore
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch.downloader import Tally, Trust, download_images
from oiyolo.stages.fetch.outcomes import (
    NOT_TRIED,
    FetchResult,
    change_of,
    check_tolerance,
    recorded_bytes,
)
from oiyolo.stages.fetch.pending import pending_images
from oiyolo.stages.fetch.source_monitor import known_sources

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Change, Ledger
    from oiyolo.project.project import Project
    from oiyolo.project.shards import Shard
    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.image import ImageRequest
    from oiyolo.stages.select import Selection

_LOCK_WAIT_S: Final = 2.0
"""``oiyolo status`` briefly holds a shard's lock to find out whether the shard is being fetched."""
_TAG_PREFIX: Final = "shard-"


@dataclass(frozen=True, kw_only=True)
class FetchedShard(FetchResult):
    """The outcome of fetching one shard.

    Attributes:
        shard: The shard, as ``i/n``.
        images: Number of selected images in the shard.
        example: The message of one failed image.
        kept: Number of good images that could not be fetched again, by reason.
    """

    shard: str
    images: int
    example: str = ""
    kept: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"shard": self.shard, "images": self.images, **super().as_dict()}

    def __str__(self) -> str:
        have = f"{self.images - sum(self.missing.values()):,} of its {self.images:,} images"
        line = f"shard {self.shard}: nothing to do; {have} are fetched"
        if self.new or self.failed:
            images = pluralize(self.new, "image")
            line = f"shard {self.shard}: {images} ({self._size_and_time}); {have} fetched"
        return self._with_missing([line])


@dataclass(frozen=True)
class RetriedImages:
    """Images that are fetched whatever their state.

    Attributes:
        ids: Their ids, in ascending order.
        good: Ids of those that have a file.
        trust: As for ``download_images``.
    """

    ids: Sequence[str]
    good: frozenset[str]
    trust: Trust

    def of(self, part: Shard) -> RetriedImages:
        """Return those of a shard."""
        ids = [image_id for image_id in self.ids if part.contains(image_id)]
        return RetriedImages(ids, self.good.intersection(ids), self.trust)


def parse_shard_option(text: str, **others: object) -> Shard:
    """Parse the value of ``--shard`` and reject options that cannot be combined with it.

    Args:
        text: The shard as ``i/n``.
        **others: Values of the other options by name; ``None`` where an option was not passed.

    Raises:
        UsageError: ``text`` is not a shard, or one of ``others`` was passed.
    """
    part = parse_shard(text)
    conflicts = [f"--{name}" for name, value in others.items() if value is not None]
    if conflicts:
        raise UsageError(
            f"--shard and {conflicts[0]} cannot be combined",
            remedy="A shard only reads the ledger; for options that change it, run `oiyolo fetch` "
            "without --shard",
        )
    return part


def plan_shard(project: Project, part: Shard) -> Plan:
    """Return what ``fetch_shard`` would do.

    Raises:
        UsageError: The selection is not up to date.
    """
    selection = select_stage.load_current(project)
    folder = journals.shard_folder(project.data_folder, part.name)
    count = 0
    if _read_done_marker(folder, selection) is None:
        with project.ledger(read_only=True) as ledger:
            pending = _pending_ids(ledger, part)
            count = len(_ids_to_fetch(pending, journals.read_entries(folder)))
    where = ", ".join(project.config.images.sources)
    action = f"fetch {pluralize(count, 'image')} of shard {part} from {where}"
    return Plan("fetch", [action] if count else [], {"shard": str(part), "pending": count})


def fetch_shard(project: Project, part: Shard) -> FetchedShard:
    """Download one shard of the selected images; several shards may run at once, on any machines.

    Args:
        project: The project, whose folder all machines share.
        part: The shard.

    Raises:
        UnavailableError: The site is unreachable, the disk is full, or more of the shard's images
            are missing than ``[images] tolerance`` allows.
        UsageError: The selection is not up to date.
        LockedError: Another process is fetching this shard.
    """
    done = fetch_shard_unchecked(project, part)
    check_tolerance(project, done.missing, done.images, done.example, f" of shard {part}")
    return done


def fetch_shard_unchecked(
    project: Project,
    part: Shard,
    *,
    stop: threading.Event | None = None,
    wait_s: float = _LOCK_WAIT_S,
) -> FetchedShard:
    """Download one shard without checking how many of its images are missing in the end.

    Args:
        project: The project, whose folder all machines share.
        part: The shard.
        stop: Event that stops the download, which then raises ``StoppedError``.
        wait_s: Time to wait for another process that holds the shard's lock.

    Raises:
        StoppedError: ``stop`` was set.
        UnavailableError: The site is unreachable, or the disk is full.
        UsageError: The selection is not up to date.
        LockedError: Another process still holds the shard's lock after ``wait_s``.
    """
    selection = select_stage.load_current(project)
    folder = journals.shard_folder(project.data_folder, part.name)
    started_before = (folder / LOCK).exists()
    with _shard_lock(folder, part, wait_s):
        finished = _read_done_marker(folder, selection)
        if finished is not None:
            return FetchedShard(
                shard=str(part), images=finished["images"], missing=finished["missing"]
            )
        with _open(project, folder, part, recover=started_before) as shard:
            journal, ledger = shard.journal, shard.ledger
            pending = _pending_ids(ledger, part)
            others = sum(map(part.contains, ledger.iter_ids(*STATES[1:], EXCLUDED)))
            missing = _excluded_reasons(ledger, part)
            started_s, tally = time.monotonic(), Tally()
            shard.download(
                pending_images(selection, _ids_to_fetch(pending, journal.entries)),
                lambda outcomes: _record(journal, outcomes),
                tally,
                stop,
            )
            missing.update(_missing_reasons(pending, journal.entries))
            done = FetchedShard(
                shard=str(part),
                images=len(pending) + others,
                missing=dict(missing.most_common()),
                seconds=time.monotonic() - started_s,
                example=tally.example,
                **tally.as_fields(),
            )
            if not _ids_to_fetch(pending, journal.entries):
                marker = {
                    "shard": str(part),
                    "selection": selection.fingerprint,
                    "journal": journal.name,
                    "journal_bytes": journal.size_bytes,
                    "images": done.images,
                    "missing": done.missing,
                }
                files.write_json(folder / DONE, marker)
        return done


def retry_shard(
    project: Project,
    part: Shard,
    retried: RetriedImages,
    *,
    stop: threading.Event | None = None,
    wait_s: float = _LOCK_WAIT_S,
) -> FetchedShard:
    """Download images of a shard, whatever their states, which stay as they are until the merge.

    Args:
        project: The project, whose folder all machines share.
        part: The shard.
        retried: Its images.
        stop: As for ``fetch_shard_unchecked``.
        wait_s: As for ``fetch_shard_unchecked``.

    Raises:
        OiyoloError: As for ``fetch_shard_unchecked``.
    """
    selection = select_stage.load_current(project)
    folder = journals.shard_folder(project.data_folder, part.name)
    started_before = (folder / LOCK).exists()
    kept: Counter[str] = Counter()
    with (
        _shard_lock(folder, part, wait_s),
        _open(project, folder, part, recover=started_before) as shard,
    ):
        (folder / DONE).unlink(missing_ok=True)
        entries = {i: entry for i, entry in shard.journal.entries.items() if entry.retried}

        def record(outcomes: Sequence[Outcome]) -> None:
            _record(shard.journal, outcomes, retried=True)
            failed = [outcome for outcome in outcomes if outcome.source is None]
            kept.update(outcome.reason for outcome in failed if outcome.image_id in retried.good)

        started_s, tally = time.monotonic(), Tally()
        images = pending_images(selection, _ids_to_fetch(retried.ids, entries))
        shard.download(images, record, tally, stop, retried.trust)
    return FetchedShard(
        shard=str(part),
        images=len(retried.ids),
        seconds=time.monotonic() - started_s,
        example=tally.example,
        kept=kept,
        **tally.as_fields(),
    )


@dataclass(frozen=True)
class _OpenShard:
    """A shard whose lock this process holds."""

    project: Project
    part: Shard
    journal: Journal
    ledger: Ledger
    store: FolderStore

    def download(
        self,
        images: Iterable[ImageRequest],
        on_outcomes: Callable[[Sequence[Outcome]], None],
        tally: Tally,
        stop: threading.Event | None,
        trust: Trust = Trust.SOME,
    ) -> None:
        """Download images, if there are any; arguments as for ``download_images``."""
        requests = list(images)
        if not requests:
            return
        recorded = {entry.facts.get("source", "") for entry in self.journal.entries.values()}
        with progress(f"fetch {self.part}", total=len(requests), unit="img") as bar:
            download_images(
                self.project,
                requests,
                on_outcomes=on_outcomes,
                progress=bar,
                store=self.store,
                tally=tally,
                stop=stop,
                trust=trust,
                known=known_sources(self.project, self.ledger, recorded),
            )


@contextlib.contextmanager
def _open(project: Project, folder: Path, part: Shard, *, recover: bool) -> Iterator[_OpenShard]:
    """Open a shard's journal and the ledger; with ``recover``, clean up after a kill first."""
    header = {"shard": str(part), "began_at": utc_now(), "host": platform.node()}
    with (
        contextlib.closing(Journal(folder, header)) as journal,
        project.ledger(read_only=True) as ledger,
    ):
        store = FolderStore(project.images_folder, tag=_TAG_PREFIX + part.name)
        if recover:
            store.recover(lambda image_id: recorded_bytes(image_id, ledger, journal.entries))
        yield _OpenShard(project, part, journal, ledger, store)


def recover_files(project: Project, ledger: Ledger) -> None:
    """Finalize files of shards that were killed after recording images and before renaming them.

    The caller holds the dataset lock, so the journals are merged. Shards that are being fetched are
    skipped; they do this themselves.
    """
    if not (project.shards_folder.is_dir() and project.images_folder.is_dir()):
        return
    infix, suffix = f".jpg.{_TAG_PREFIX}", files.PART_SUFFIX
    with os.scandir(project.images_folder) as entries:
        names = [e.name for e in entries if e.name.endswith(suffix) and infix in e.name]
    for name in sorted({part.partition(infix)[2].removesuffix(suffix) for part in names}):
        lock = project.shards_folder / name / LOCK
        with (
            contextlib.suppress(LockedError),
            locks.exclusive(lock, what=f"the shard {name}", operation="fetch"),
        ):
            store = FolderStore(project.images_folder, tag=_TAG_PREFIX + name)
            store.recover(lambda image_id: recorded_bytes(image_id, ledger))


@contextlib.contextmanager
def _shard_lock(folder: Path, part: Shard, wait_s: float) -> Iterator[None]:
    """Hold a shard's lock, waiting up to ``wait_s`` for another process to release it."""
    deadline_s = time.monotonic() + wait_s
    with contextlib.ExitStack() as stack:
        while True:
            operation = f"fetch --shard {part} on {platform.node()}"
            try:
                stack.enter_context(
                    locks.exclusive(folder / LOCK, what=f"the shard {part}", operation=operation)
                )
                break
            except LockedError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
        yield


class _DoneMarker(TypedDict):
    selection: str
    journal: str
    journal_bytes: int
    images: int
    missing: dict[str, int]


def _read_done_marker(folder: Path, selection: Selection) -> dict[str, Any] | None:
    """Return a shard's done marker; ``None`` if it is missing or no longer valid.

    It is valid for one selection and one state of the journal. Once the journal is merged, only the
    ledger counts.
    """
    marker = records.find_intact(folder / DONE, _DoneMarker)
    if marker is None or marker["selection"] != selection.fingerprint:
        return None
    same = journals.name_and_size(folder) == (marker["journal"], marker["journal_bytes"])
    return marker if same else None


def _pending_ids(ledger: Ledger, part: Shard) -> list[str]:
    """Return the ids of a shard's pending images, in ascending order."""
    return [image_id for image_id in ledger.iter_ids(PENDING) if part.contains(image_id)]


def _ids_to_fetch(pending: Sequence[str], entries: Mapping[str, Change]) -> list[str]:
    """Return the pending images that are still to be fetched or retried, given the journal."""
    return [i for i in pending if i not in entries or entries[i].state == PENDING]


def _excluded_reasons(ledger: Ledger, part: Shard) -> Counter[str]:
    """Return the number of images that an earlier fetch excluded, by reason."""
    excluded = [i for i in ledger.ids(EXCLUDED, stage=journals.STAGE) if part.contains(i)]
    reason_of = ledger.column("reason", EXCLUDED) if excluded else {}
    return Counter(str(reason_of.get(image_id) or NOT_TRIED) for image_id in excluded)


def _missing_reasons(pending: Sequence[str], entries: Mapping[str, Change]) -> Iterator[str]:
    """Yield why each pending image is not fetched, given the journal."""
    for image_id in pending:
        entry = entries.get(image_id)
        if entry is None:
            yield NOT_TRIED
        elif entry.state != FETCHED:
            yield entry.reason


def _record(journal: Journal, outcomes: Sequence[Outcome], *, retried: bool = False) -> None:
    at = utc_now()
    changes = map(change_of, outcomes)
    journal.append([dataclasses.replace(change, at=at, retried=retried) for change in changes])
