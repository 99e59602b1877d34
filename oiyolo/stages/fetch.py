"""fetch: every selected image arrives whole and verified, or is excluded with a reason.

Leaves ``data/images/<ImageID>.jpg``, exactly as served, and each image's state in the ledger. What
failed for good (404, a placeholder, a broken file) is excluded; what failed for now (a connection,
a 503) stays pending and is tried again by the next run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo import files
from oiyolo.config import AUTO
from oiyolo.errors import UnavailableError, UsageError
from oiyolo.http import Web
from oiyolo.ledger import EXCLUDED, FETCHED, PENDING, STATES, Change
from oiyolo.progress import progress
from oiyolo.project import open_project
from oiyolo.results import Plan, Result, columns, count
from oiyolo.sources import sources_of
from oiyolo.sources.image import WantedImage
from oiyolo.sources.transfer import fetch_images
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.ledger import Counts, Ledger
    from oiyolo.project import Project, ProjectLike
    from oiyolo.sources.transfer import Outcome

STAGE: Final = "fetch"
RETRIES: Final = ("failed", "all")
_AUTO_JOBS: Final = 16
_RECORD_EVERY_S: Final = 0.1
_UNREACHED_IN_A_ROW: Final = 20
"""So many images in a row for which no source answered mean that the site is not reachable."""
SPARE_BYTES: Final = 200_000_000
"""A fetch stops when less than this is free."""
_NOTE_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class Fetched(Result):
    """What a fetch did, and how the ledger stands after it.

    Attributes:
        folder: Where the images lie.
        new: Images that arrived now.
        failed: Reasons of those that did not, now.
        missing: Images that could not be fetched so far, by reason.
        counts: The ledger's sums.
        seconds: How long it took.
        size_bytes: Bytes that arrived.
    """

    folder: Path
    new: int
    failed: Mapping[str, int]
    missing: Mapping[str, int]
    counts: Counts
    seconds: float
    size_bytes: int

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "fetched": self.new,
            "failed": dict(self.failed),
            "missing": dict(self.missing),
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            **self.counts.as_dict(),
        }

    def __str__(self) -> str:
        have = self.counts.selected - sum(self.missing.values())
        told = [f"fetched: nothing to do; {have:,} of {self.counts.selected:,} images are here"]
        if self.new or self.failed:
            rate = self.new / self.seconds if self.seconds else 0.0
            effort = f"{self.size_bytes / 1e6:.1f} MB in {self.seconds:.1f} s, {rate:.0f} a second"
            sums = f"{have:,} of {self.counts.selected:,} are here"
            told = [f"fetched {count(self.new, 'image')} ({effort}); {sums}"]
        if self.missing:
            told.append(columns([(f"missing: {why}", n) for why, n in self.missing.items()]))
        return "\n".join(told)


@dataclass(frozen=True)
class Effort:
    """What all fetches of a project took together, those that were interrupted too.

    Attributes:
        seconds: Time spent on fetching images.
        images: Images that arrived.
        size_bytes: Their bytes.
        network_bytes: Those of them that came over the network.
    """

    seconds: float = 0.0
    images: int = 0
    size_bytes: int = 0
    network_bytes: int = 0

    @property
    def bandwidth_bytes_s(self) -> float | None:
        """Bytes a second over the network; ``None`` if nothing came so."""
        return self.network_bytes / self.seconds if self.network_bytes and self.seconds else None


def effort(project: Project) -> Effort:
    """Read what the fetches so far took; a fetch at work writes it every few seconds."""
    noted = files.read_json(_effort_path(project))
    known: dict[str, Any] = noted if isinstance(noted, dict) else {}
    names = {declared.name for declared in fields(Effort)}
    usable = known.keys() == names and all(isinstance(n, (int, float)) for n in known.values())
    return Effort(**known) if usable else Effort()


def _effort_path(project: Project) -> Path:
    return project.data_folder / "fetch.json"


def fetch(
    project: ProjectLike = ".",
    *,
    retry: str | None = None,
    dry_run: bool = False,
    **options: object,
) -> Fetched | Plan:
    """Fetch the selected images, selecting first when the selection is stale.

    Args:
        project: An open project or its folder; ``classes`` begins a new one there.
        retry: "failed" tries again what was excluded by a fetch; "all" fetches everything anew.
        dry_run: Only tell what would be done.
        **options: Keys of ``[dataset]``, ``[openimages]`` and ``[images]``.

    Raises:
        UnavailableError: The site is not reachable, the disk is full, or more images are missing
            than ``[images] tolerance`` allows.
        UsageError: An unknown option.
        LockedError: Another run changes the dataset.
    """
    if retry is not None and retry not in RETRIES:
        raise UsageError("wrong --retry", expected=" or ".join(RETRIES), found=retry)
    opened = open_project(project, options, may_create=True, dry_run=dry_run)
    if dry_run:
        return _plan(opened)
    with opened.data_lock(STAGE):
        select_stage.run(opened)
        return run(opened, retry=retry)


def _plan(project: Project) -> Plan:
    if not project.ledger_path.is_file():
        return Plan("fetch", ["select first, then fetch what was selected"])
    with project.ledger(read_only=True) as ledger:
        pending = len(ledger.ids(PENDING))
    where = ", ".join(project.config.images.sources)
    actions = [f"fetch {count(pending, 'image')} from {where}"] if pending else []
    return Plan("fetch", actions, {"pending": pending})


def run(project: Project, *, retry: str | None = None) -> Fetched:
    """Fetch under a lock that the caller holds."""
    selection = select_stage.load_or_complain(project)
    files.remove_parts(project.images_folder)
    started_s = time.monotonic()
    tally = _Tally()
    with project.ledger() as ledger:
        _reopen(project, ledger, retry)
        pending = set(ledger.ids(PENDING))
        if pending:
            wanted = [image for image in _wanted(selection) if image.image_id in pending]
            _fetch_all(project, ledger, wanted, tally)
        counts, missing = ledger.counts(), _missing(ledger)
    done = Fetched(
        folder=project.images_folder,
        new=tally.new,
        failed=dict(tally.failed),
        missing=missing,
        counts=counts,
        seconds=time.monotonic() - started_s,
        size_bytes=tally.size_bytes,
    )
    _check_tolerance(project, done, tally.example)
    return done


class _Tally:
    """What a fetch did so far."""

    def __init__(self) -> None:
        self.new = 0
        self.size_bytes = 0
        self.network_bytes = 0
        self.failed: Counter[str] = Counter()
        self.unreached_in_a_row = 0
        self.example = ""

    def add(self, outcome: Outcome) -> None:
        """Count one image."""
        if outcome.source is None:
            self.failed[outcome.reason] += 1
            self.example = outcome.told
        else:
            self.new += 1
            self.size_bytes += outcome.size_bytes
            # A folder's name is its path; all other sources are on the network.
            if not Path(outcome.source).is_absolute():
                self.network_bytes += outcome.size_bytes
        self.unreached_in_a_row = 0 if outcome.reached else self.unreached_in_a_row + 1


class _Notes:
    """Adds a fetch to the project's effort, every few seconds, so that a kill loses few."""

    def __init__(self, project: Project, tally: _Tally) -> None:
        self._path, self._tally = _effort_path(project), tally
        self._before = effort(project)
        self._began_s = self._noted_s = time.monotonic()

    def note_now_and_then(self) -> None:
        """Write, if some time has passed since."""
        if time.monotonic() - self._noted_s > _NOTE_EVERY_S:
            self.note()

    def note(self) -> None:
        """Write what it is by now."""
        self._noted_s = time.monotonic()
        before, tally = self._before, self._tally
        now = Effort(
            seconds=round(before.seconds + self._noted_s - self._began_s, 3),
            images=before.images + tally.new,
            size_bytes=before.size_bytes + tally.size_bytes,
            network_bytes=before.network_bytes + tally.network_bytes,
        )
        files.write_json(self._path, asdict(now))


def _reopen(project: Project, ledger: Ledger, retry: str | None) -> None:
    """Make pending again what was asked for, and what the disk no longer has."""
    folder = project.images_folder
    here = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    gone = [i for i in ledger.ids(FETCHED) if f"{i}.jpg" not in here]
    again: dict[str, str] = dict.fromkeys(gone, "its file is gone")
    if retry == "failed":
        for stage in (STAGE, "prepare"):
            again |= dict.fromkeys(ledger.ids(EXCLUDED, stage=stage), "to be tried again")
    elif retry == "all":
        again = dict.fromkeys(ledger.ids(*STATES, EXCLUDED), "to be fetched anew")
    if again:
        ledger.record(STAGE, [Change(i, PENDING, told) for i, told in again.items()])


def _wanted(selection: select_stage.Selection) -> Iterator[WantedImage]:
    names = ("ImageID", "Subset", "OriginalURL", "OriginalSize", "OriginalMD5")
    columns_of = (selection.images[name] for name in names)
    for image_id, subset, url, size, md5 in zip(*columns_of, strict=True):
        yield WantedImage(image_id, subset, url, int(size) if size.isdigit() else None, md5)


def _fetch_all(
    project: Project, ledger: Ledger, wanted: Sequence[WantedImage], tally: _Tally
) -> None:
    """Fetch in threads; only this thread writes to the ledger."""
    options = project.config.images
    jobs = _AUTO_JOBS if options.jobs == AUTO else int(options.jobs)
    stop = threading.Event()
    web = Web(stop=stop)
    sources = sources_of(
        options.sources, mirror_url=options.mirror_url, base=project.folder, web=web
    )
    changes: list[Change] = []
    notes = _Notes(project, tally)
    recorded_s = time.monotonic()
    try:
        with progress("fetch", total=len(wanted), unit="img") as told:
            for outcome in fetch_images(wanted, sources, project.images_folder, jobs, stop):
                tally.add(outcome)
                changes.append(_change(outcome))
                told.tell(MB=f"{tally.size_bytes / 1e6:.0f}", failed=sum(tally.failed.values()))
                told.advance()
                if time.monotonic() - recorded_s > _RECORD_EVERY_S:
                    ledger.record(STAGE, changes)
                    changes.clear()
                    recorded_s = time.monotonic()
                    notes.note_now_and_then()
                    _check_disk(project.images_folder)
                if tally.unreached_in_a_row >= max(_UNREACHED_IN_A_ROW, jobs):
                    _complain_unreachable(tally)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(project.images_folder) from error
        raise
    finally:
        ledger.record(STAGE, changes)
        web.close()
        with contextlib.suppress(OSError):  # a full disk has been told of already
            notes.note()


def _change(outcome: Outcome) -> Change:
    if outcome.source is None:
        return Change(
            outcome.image_id,
            PENDING if outcome.transient else EXCLUDED,
            outcome.told,
            reason=outcome.reason,
            attempts=outcome.attempts,
        )
    facts = {"source": outcome.source, "bytes": outcome.size_bytes, "md5": outcome.md5}
    return Change(outcome.image_id, FETCHED, outcome.told, facts=facts, attempts=outcome.attempts)


def _missing(ledger: Ledger) -> dict[str, int]:
    """Count what could not be fetched so far, by reason."""
    reason_of = ledger.facts("reason", PENDING, EXCLUDED)
    ids = [*ledger.ids(PENDING), *ledger.ids(EXCLUDED, stage=STAGE)]
    counted = Counter(str(reason_of[i]) or "not tried yet" for i in ids)
    return dict(counted.most_common())


def _check_tolerance(project: Project, done: Fetched, example: str) -> None:
    missing = sum(done.missing.values())
    allowed = int(project.config.images.tolerance * done.counts.selected)
    if missing <= allowed:
        return
    reasons = "; ".join(f"{n:,} {why}" for why, n in done.missing.items())
    raise UnavailableError(
        f"{missing:,} of {done.counts.selected:,} images could not be fetched: {reasons}",
        expected=f"at most {allowed:,} missing ([images] tolerance = "
        f"{project.config.images.tolerance:g})",
        found=f"for example {example}" if example else "",
        remedy="`oiyolo fetch --retry failed` tries them again; a higher tolerance goes on "
        "without them",
    )


def _complain_unreachable(tally: _Tally) -> None:
    raise UnavailableError(
        f"no source answered for {tally.unreached_in_a_row} images in a row",
        found=tally.example,
        remedy="Check the network and [images] mirror_url, then give the same command again",
    )


def _check_disk(folder: Path) -> None:
    if shutil.disk_usage(folder).free < SPARE_BYTES:
        raise _disk_full(folder)


def _disk_full(folder: Path) -> UnavailableError:
    free = shutil.disk_usage(folder).free
    return UnavailableError(
        "the disk is nearly full, so fetching stopped",
        where=str(folder),
        expected=f"{SPARE_BYTES / 1e6:.0f} MB left free",
        found=f"{free / 1e6:.0f} MB",
        remedy="Free some space, then give the same command again; what is here stays",
    )
