"""fetch --transfer: Google's Storage Transfer Service copies the originals into the user's bucket.

The URL lists of the selection go into the bucket, one job each copies what they name, and fetch
then takes the images from there. A job's name is made from what it copies and where to: so it is
never made twice, and a run that was killed finds it again, wherever that happened. What was found
stands in ``data/transfer.json``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, staleness
from oiyolo.core.errors import OiyoloError, UnavailableError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import count
from oiyolo.net.buckets import bucket_place
from oiyolo.project.ledger import PENDING, Change
from oiyolo.stages import select as select_stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.net.buckets import BucketPlace
    from oiyolo.net.storage_transfer import Operation, TransferService
    from oiyolo.project.project import Project

_log = logging.getLogger("oiyolo")

_STAGE: Final = "fetch"
_NOTES: Final = "transfer.json"
_LISTS_FOLDER: Final = "url-lists"
_JOB_PREFIX: Final = "transferJobs/oiyolo-"
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_SLOWER: Final = 1.5
_PAUSED: Final = "PAUSED"
_AGENT_ROLES: Final = ("roles/storage.legacyBucketWriter", "roles/storage.objectViewer")
"""https://cloud.google.com/storage-transfer/docs/sink-cloud-storage; the second reads the list."""


@dataclass(frozen=True)
class _List:
    """A URL list that is to be transferred."""

    path: Path
    sha256: str
    images: int

    def made_from(self, place: BucketPlace) -> dict[str, object]:
        """Tell what its transfer depends on."""
        return {"place": str(place), "sha256": self.sha256}


@dataclass(frozen=True)
class _Running:
    """A list's job, and the run of it that counts."""

    of: _List
    job: str
    operation: str


@dataclass(frozen=True)
class _Ended:
    """What became of it."""

    running: _Running
    operation: Operation


def with_bucket_first(project: Project, place: BucketPlace) -> Project:
    """Give the project as one that asks the bucket before all other sources."""
    name = str(place)
    images = project.config.images
    sources = (name, *(source for source in images.sources if source != name))
    config = dataclasses.replace(
        project.config, images=dataclasses.replace(images, sources=sources)
    )
    return dataclasses.replace(project, config=config)


def planned(project: Project, transfer: str) -> list[str]:
    """Tell what would be done, in words; asks nobody.

    Raises:
        UsageError: ``transfer`` is no place in a bucket.
    """
    place = bucket_place(transfer, where="--transfer")
    whose = project.config.images.transfer_project or os.environ.get("GOOGLE_CLOUD_PROJECT")
    where = f"project {whose}" if whose else "the credentials' own project"
    noted = _Notes(project)
    actions = []
    for listed in _lists(project):
        if noted.went_through(listed, place):
            continue
        what = f"{listed.path.name} ({count(listed.images, 'image')})"
        actions += [
            f"upload {what} to {place.below(_LISTS_FOLDER)}",
            f"let Google's Storage Transfer Service copy what it names to {place}, in {where}",
        ]
    return actions


def run(project: Project, transfer: str, *, again: bool = False) -> None:
    """Transfer what is selected, under the dataset lock that the caller holds.

    Nothing is done where no image is wanted any more, and none of what went through before.

    Args:
        project: The project; something is selected.
        transfer: ``gs://bucket/prefix``.
        again: Run jobs that went through once more; what the bucket has is not copied again.

    Raises:
        UnavailableError: The service does not answer, refuses, or gives up.
        UsageError: No credentials, no project, no such bucket, or the extra is not installed.
    """
    place = bucket_place(transfer, where="--transfer")
    with project.ledger() as ledger:
        if not again and not ledger.counts().states[PENDING]:
            return
    notes = _Notes(project)
    lists = [of for of in _lists(project) if again or not notes.went_through(of, place)]
    if not lists:
        _log.info("transfer: it was done before")
        return
    service, account = _service(project, place)
    with _telling_roles(place, account):
        running = [_joined(service, place, of, notes, again=again) for of in lists]
        ended = _Watch(service, place, notes).follow(running)
        _record(project, ended)
        _tell(project, ended, place)
        _check(ended, place)


class _Notes:
    """What is known of a project's transfers, in ``data/transfer.json``."""

    def __init__(self, project: Project) -> None:
        self._path = project.data_folder / _NOTES
        noted = files.read_json(self._path)
        self._by_key: dict[str, Any] = noted if isinstance(noted, dict) else {}

    def went_through(self, of: _List, place: BucketPlace) -> bool:
        """Tell whether a list was transferred to this place to its end."""
        noted = self._by_key.get(staleness.fingerprint(of.made_from(place)))
        return isinstance(noted, dict) and noted.get("went_through") is True

    def note(self, running: _Running, place: BucketPlace, operation: Operation | None) -> None:
        """Write how a transfer stands."""
        made_from = running.of.made_from(place)
        facts = dataclasses.asdict(operation) if operation else {}
        self._by_key[staleness.fingerprint(made_from)] = {
            **made_from,
            "list": running.of.path.name,
            "images": running.of.images,
            "job": running.job,
            "operation": running.operation,
            "went_through": operation is not None and operation.went_through,
            **{name: value for name, value in facts.items() if name != "name"},
        }
        files.write_json(self._path, self._by_key)


def _lists(project: Project) -> list[_List]:
    """Give the selection's URL lists that name anything."""
    found = []
    for path in sorted(project.selection_folder.glob("url-list-*.tsv")):
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        if lines > 1:  # the first says what form it has
            found.append(_List(path, files.sha256_of(path), lines - 1))
    return found


def _service(project: Project, place: BucketPlace) -> tuple[TransferService, str]:
    """Give the service, and the account that it works under."""
    from oiyolo.net import gcs, storage_transfer  # noqa: PLC0415  (google's libraries are large)

    asking = gcs.identity()
    whose = project.config.images.transfer_project or asking.project
    if asking.is_anonymous and not os.environ.get(storage_transfer.EMULATOR_VARIABLE):
        raise UsageError(
            "--transfer needs Google credentials, and there are none",
            where=str(place),
            remedy="Log in: `gcloud auth application-default login`",
        )
    if not whose:
        raise UsageError(
            "--transfer needs a Google Cloud project, and the credentials name none",
            where=str(place),
            remedy="Name it with --transfer-project, [images] transfer_project or "
            "GOOGLE_CLOUD_PROJECT",
        )
    service = storage_transfer.TransferService(asking.credentials, whose)
    account = service.account()
    _log.info("transfer: project %s, working as %s", whose, account)
    return service, account


def _joined(
    service: TransferService, place: BucketPlace, of: _List, notes: _Notes, *, again: bool
) -> _Running:
    """Give a list's running job: found again, or made and started."""
    name, operation = _found(service, place, of)
    if operation is not None and not operation.is_over:
        _log.info("transfer: joining %s, which runs already", name)
    elif operation is None or again or not operation.went_through:
        operation = _started(service, place, of, name)
    running = _Running(of, name, operation.name)
    notes.note(running, place, operation)
    return running


def _found(service: TransferService, place: BucketPlace, of: _List) -> tuple[str, Operation | None]:
    """Give the name of a list's job, whether it was made or not, and its latest run."""
    from oiyolo.net.storage_transfer import DELETED  # noqa: PLC0415  (google's libraries are large)

    made_from = {**of.made_from(place), "project": service.project}
    base = _JOB_PREFIX + staleness.fingerprint(made_from)
    # A deleted job keeps its name for a month.
    for name in itertools.chain((base,), (f"{base}-{n}" for n in itertools.count(2))):
        job = service.job(name)
        if job is None or job.status != DELETED:
            break
    latest = service.operation(job.operation) if job is not None and job.operation else None
    return name, latest


def _started(service: TransferService, place: BucketPlace, of: _List, name: str) -> Operation:
    from oiyolo.net import gcs  # noqa: PLC0415  (google's libraries are large)
    from oiyolo.net.storage_transfer import Operation  # noqa: PLC0415  (the same)

    # By its content, so that nothing changes under a job that runs.
    folder = place.below(_LISTS_FOLDER, of.sha256[:16])
    gcs.upload([of.path], str(folder), what="upload list")
    list_url = str(folder.below(of.path.name))
    service.create(name, list_url, place, f"oiyolo: {of.path.name} to {place}")
    started = service.start(name)
    _log.info("transfer: %s copies %s to %s", name, count(of.images, "image"), place)
    return Operation(started, "QUEUED")


class _Watch:
    """Looks at the runs from time to time until all are over, and shows how they go."""

    def __init__(self, service: TransferService, place: BucketPlace, notes: _Notes) -> None:
        self._service, self._place, self._notes = service, place, notes
        self._latest: dict[str, Operation] = {}
        self._told = 0

    def follow(self, running: Sequence[_Running]) -> list[_Ended]:
        """Wait for these; where somebody interrupts, they go on at Google."""
        total = sum(each.of.images for each in running)
        pause_s = _FIRST_PAUSE_S
        try:
            with progress("transfer", total=total, unit="img") as told:
                while self._any_runs(running, told):
                    time.sleep(pause_s)
                    pause_s = min(pause_s * _SLOWER, _LONGEST_PAUSE_S)
        except KeyboardInterrupt:
            for each in running:
                _log.warning(
                    "the transfer goes on at Google. The same command joins it again; "
                    "`gcloud transfer operations cancel %s` ends it",
                    each.operation,
                )
            raise
        return [_Ended(each, self._latest[each.operation]) for each in running]

    def _any_runs(self, running: Sequence[_Running], told: Progress) -> bool:
        for each in running:
            self._look(each)
        now = list(self._latest.values())
        done = sum(operation.done for operation in now)
        told.tell(
            found=sum(operation.found for operation in now),
            copied=sum(operation.copied for operation in now),
            failed=sum(operation.failed for operation in now),
            MB=f"{sum(operation.size_bytes for operation in now) / 1e6:.0f}",
        )
        told.advance(max(0, done - self._told))
        self._told = max(done, self._told)
        return not all(operation.is_over for operation in now)

    def _look(self, each: _Running) -> None:
        before = self._latest.get(each.operation)
        if before is not None and before.is_over:
            return
        now = self._service.operation(each.operation)
        if now is None:
            raise UnavailableError(
                "Google's Storage Transfer Service does not know this run any more",
                where=each.operation,
                remedy="Give the same command again, which runs the job anew",
            )
        self._latest[each.operation] = now
        if now != before:
            self._notes.note(each, self._place, now)
        if now.status == _PAUSED and (before is None or before.status != _PAUSED):
            _log.warning(
                "the transfer is paused at Google; `gcloud transfer operations resume %s` goes on",
                each.operation,
            )


def _record(project: Project, ended: Sequence[_Ended]) -> None:
    """Enter in the ledger what is known of single images that were not copied."""
    wrong_by_url = {
        url: (trouble.code, told)
        for each in ended
        for trouble in each.operation.troubles
        for url, told in trouble.examples
    }
    if not wrong_by_url:
        return
    images = select_stage.load_or_complain(project).images
    known = images[images["OriginalURL"].isin(list(wrong_by_url))]
    with project.ledger() as ledger:
        pending = set(ledger.ids(PENDING))
        changes = []
        for image_id, url in zip(known["ImageID"], known["OriginalURL"], strict=True):
            code, told = wrong_by_url[url]
            if image_id in pending:
                text = f"Storage Transfer could not copy it: {code}" + (f", {told}" if told else "")
                changes.append(Change(image_id, PENDING, text, reason=f"transfer: {code}"))
        ledger.record(_STAGE, changes)


def _tell(project: Project, ended: Sequence[_Ended], place: BucketPlace) -> None:
    runs = [each.operation for each in ended]
    have = sum(run.copied + run.skipped for run in runs)
    size_bytes = sum(run.size_bytes for run in runs)
    _log.info(
        "transfer: %s in %s, %.1f MB copied now", count(have, "image"), place, size_bytes / 1e6
    )
    if reasons := _reasons(runs):
        where = project.data_folder / _NOTES
        _log.info("transfer: not copied: %s; examples in %s", reasons, where)


def _reasons(runs: Iterable[Operation]) -> str:
    counted: Counter[str] = Counter()
    for run in runs:
        for trouble in run.troubles:
            counted[trouble.code] += trouble.count
        counted["for no told reason"] += max(0, run.failed - sum(t.count for t in run.troubles))
    return ", ".join(f"{n:,} {code}" for code, n in counted.most_common() if n)


def _check(ended: Sequence[_Ended], place: BucketPlace) -> None:
    for each in ended:
        run = each.operation
        if not run.went_through:
            raise UnavailableError(
                "the transfer did not go through",
                where=f"{each.running.of.path.name} to {place}",
                expected=f"{each.running.of.images:,} images copied, or not for a reason",
                found="; ".join(
                    part
                    for part in (
                        f"{run.status} after {run.copied + run.skipped:,} of them",
                        run.told,
                        _reasons([run]),
                    )
                    if part
                ),
                remedy="The same command runs the job again, which passes over what was copied",
            )


@contextlib.contextmanager
def _telling_roles(place: BucketPlace, account: str) -> Iterator[None]:
    """Say what to type where the service may not do with the bucket what it must."""
    try:
        yield
    except OiyoloError as error:
        if "permission" not in f"{error.what} {error.found}".lower():
            raise
        error.remedy = _roles(place, account)
        raise


def _roles(place: BucketPlace, account: str) -> str:
    commands = "; ".join(
        f"`gcloud storage buckets add-iam-policy-binding gs://{place.bucket} "
        f"--member=serviceAccount:{account} --role={role}`"
        for role in _AGENT_ROLES
    )
    return (
        f"The service works as {account}, which must be allowed to write to the bucket: "
        f"{commands}. Your own account needs roles/storagetransfer.user in the project"
    )
