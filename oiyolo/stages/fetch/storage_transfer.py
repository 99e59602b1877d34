"""fetch --transfer: Google's Storage Transfer Service copies the originals into the user's bucket.

The selection's URL lists are uploaded to the bucket, one job per list copies the files that it
names, and fetch then downloads the images from the bucket. A job's name is derived from its list
and destination, so a job is never created twice, and the next fetch finds the job of a killed one.
The state of the transfers is kept in ``data/transfer.json``.
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

from oiyolo.core import files, records, staleness
from oiyolo.core.errors import OiyoloError, UnavailableError, UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.project.ledger import PENDING, Change
from oiyolo.stages import select as select_stage
from oiyolo.transfer.upload import upload_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.core.progress import Progress
    from oiyolo.net.buckets import BucketFolder
    from oiyolo.net.storage_transfer import Operation, TransferService
    from oiyolo.project.project import Project

_log = logging.getLogger("oiyolo")

_STAGE: Final = "fetch"
_STATE_FILE: Final = "transfer.json"
_LISTS_FOLDER: Final = "url-lists"
_JOB_PREFIX: Final = "transferJobs/oiyolo-"
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_PAUSE_GROWTH: Final = 1.5
_PAUSED: Final = "PAUSED"
_AGENT_ROLES: Final = ("roles/storage.legacyBucketWriter", "roles/storage.objectViewer")
"""https://cloud.google.com/storage-transfer/docs/sink-cloud-storage; the second role is for reading
the URL list."""


@dataclass(frozen=True)
class _UrlList:
    """A URL list of the selection."""

    path: Path
    sha256: str
    images: int

    def recipe(self, destination: BucketFolder) -> dict[str, object]:
        """Return what the transfer of this list depends on."""
        return {"place": str(destination), "sha256": self.sha256}


@dataclass
class _Job:
    """The transfer job of a URL list, and the latest known state of its operation."""

    url_list: _UrlList
    name: str
    operation: Operation


def with_sources(project: Project, sources: Iterable[str]) -> Project:
    """Return a copy of the project with other image sources."""
    images = dataclasses.replace(project.config.images, sources=tuple(sources))
    return dataclasses.replace(project, config=dataclasses.replace(project.config, images=images))


def with_bucket_first(project: Project, destination: BucketFolder) -> Project:
    """Return a copy of the project whose first image source is the bucket."""
    return with_sources(project, dict.fromkeys((str(destination), *project.config.images.sources)))


def planned_actions(
    project: Project, transfer: str, *, again: bool = False, selects: bool = False
) -> list[str]:
    """Return descriptions of what ``run`` would do, without contacting the service.

    Args:
        project: The project.
        transfer: As for ``run``.
        again: As for ``run``.
        selects: Whether select would write other lists first.

    Raises:
        UsageError: As for ``run``, except that the bucket is not checked.
    """
    destination = parse_bucket_url(transfer, where="--transfer")
    lists = [] if selects else _lists_to_transfer(project, destination, again=again)
    names = [f"{lst.path.name} ({pluralize(lst.images, 'image')})" for lst in lists]
    names += ["the new URL lists"] if selects else []
    if not names:
        return []
    _, cloud_project = _identity(project, destination)
    copies = f"let Google's Storage Transfer Service copy its files to {destination}"
    folder = destination.subfolder(_LISTS_FOLDER)
    return [
        action
        for name in names
        for action in (f"upload {name} to {folder}", f"{copies}, in project {cloud_project}")
    ]


def _lists_to_transfer(
    project: Project, destination: BucketFolder, *, again: bool
) -> list[_UrlList]:
    """Return the lists that are still to be transferred; all of them with ``again``."""
    state = _TransferState(project)
    return [
        url_list
        for url_list in _url_lists(project)
        if again or not state.is_complete(url_list, destination)
    ]


def run(project: Project, transfer: str, *, again: bool = False) -> None:
    """Transfer the selected originals to a bucket; the caller holds the dataset lock.

    Skips lists that were transferred before.

    Args:
        project: The project, which has a selection.
        transfer: The destination as ``gs://bucket/prefix``.
        again: Whether to run completed jobs again; existing objects are not copied again.

    Raises:
        UnavailableError: The service does not answer, rejects a request, or a transfer fails.
        UsageError: The credentials, the project or the bucket are missing, or the extra is not
            installed.
    """
    destination = parse_bucket_url(transfer, where="--transfer")
    lists = _lists_to_transfer(project, destination, again=again)
    if not lists:
        _log.info("transfer: already complete")
        return
    state = _TransferState(project)
    service, account = _service(project, destination)
    with _suggest_roles(destination, account):
        jobs = [
            _join_or_start(service, destination, url_list, state, again=again) for url_list in lists
        ]
        _wait(service, destination, state, jobs)
        _record(project, jobs)
        _log_summary(project, jobs, destination)
        for job in jobs:
            _check(job, destination)


class _TransferState:
    """The state of a project's transfers, kept in ``data/transfer.json``."""

    def __init__(self, project: Project) -> None:
        self._path = project.data_folder / _STATE_FILE
        self._by_key = records.find_intact(self._path, dict[str, dict[str, Any]]) or {}

    def is_complete(self, url_list: _UrlList, destination: BucketFolder) -> bool:
        """Return whether a list was transferred completely to this destination."""
        entry = self._by_key.get(staleness.fingerprint(url_list.recipe(destination)))
        return entry is not None and entry.get("went_through") is True

    def write(self, job: _Job, destination: BucketFolder) -> None:
        """Write the state of a job."""
        recipe = job.url_list.recipe(destination)
        facts = dataclasses.asdict(job.operation)
        self._by_key[staleness.fingerprint(recipe)] = {
            **recipe,
            "list": job.url_list.path.name,
            "images": job.url_list.images,
            "job": job.name,
            "operation": facts.pop("name"),
            "went_through": job.operation.is_complete,
            **facts,
        }
        files.write_json(self._path, self._by_key)


def _url_lists(project: Project) -> list[_UrlList]:
    """Return the selection's URL lists that name at least one file."""
    lists = []
    for path in sorted(project.selection_folder.glob("url-list-*.tsv")):
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        if lines > 1:  # the first line names the format
            lists.append(_UrlList(path, files.sha256_of(path), lines - 1))
    return lists


def _service(project: Project, destination: BucketFolder) -> tuple[TransferService, str]:
    """Return the service and the service account under which it runs."""
    from oiyolo.net import storage_transfer  # noqa: PLC0415  (large libraries)

    credentials, cloud_project = _identity(project, destination)
    service = storage_transfer.TransferService(credentials, cloud_project)
    account = service.account()
    _log.info("transfer: project %s, service account %s", cloud_project, account)
    return service, account


def _identity(project: Project, destination: BucketFolder) -> tuple[Any, str]:
    """Return the credentials and the Google Cloud project that the transfer belongs to."""
    from oiyolo.net import google_api, storage_transfer  # noqa: PLC0415  (large libraries)

    identity = google_api.identity()
    cloud_project = project.config.images.transfer_project or identity.project
    if identity.is_anonymous and not os.environ.get(storage_transfer.EMULATOR_VARIABLE):
        raise UsageError(
            "--transfer needs Google credentials, and none were found",
            where=str(destination),
            remedy="Log in: `gcloud auth application-default login`",
        )
    if not cloud_project:
        raise UsageError(
            "--transfer needs a Google Cloud project, and the credentials have none",
            where=str(destination),
            remedy="Set it with --transfer-project, [images] transfer_project or "
            "GOOGLE_CLOUD_PROJECT",
        )
    return identity.credentials, cloud_project


def _join_or_start(
    service: TransferService,
    destination: BucketFolder,
    url_list: _UrlList,
    state: _TransferState,
    *,
    again: bool,
) -> _Job:
    """Return a list's job after joining its running operation or starting a new one."""
    name, operation = _find_job(service, destination, url_list)
    if operation is not None and not operation.is_over:
        _log.info("transfer: joining %s, which is already running", name)
    elif operation is None or again or not operation.is_complete:
        operation = _start(service, destination, url_list, name)
    job = _Job(url_list, name, operation)
    state.write(job, destination)
    return job


def _find_job(
    service: TransferService, destination: BucketFolder, url_list: _UrlList
) -> tuple[str, Operation | None]:
    """Return the name of a list's job, existing or not, and its latest operation, if any."""
    from oiyolo.net.storage_transfer import DELETED  # noqa: PLC0415  (google's libraries are large)

    recipe = {**url_list.recipe(destination), "project": service.project}
    base = _JOB_PREFIX + staleness.fingerprint(recipe)
    # A deleted job blocks its name for a month.
    for name in itertools.chain((base,), (f"{base}-{n}" for n in itertools.count(2))):
        job = service.job(name)
        if job is None or job.status != DELETED:
            break
    latest = service.operation(job.operation) if job is not None and job.operation else None
    return name, latest


def _start(
    service: TransferService, destination: BucketFolder, url_list: _UrlList, name: str
) -> Operation:
    """Upload a list, create its job if needed, and start it."""
    from oiyolo.net.storage_transfer import Operation  # noqa: PLC0415  (google's libraries are large)

    # The folder is named by the list's content, so that the list of a running job never changes.
    folder = destination.subfolder(_LISTS_FOLDER, url_list.sha256[:16])
    upload_files({url_list.path.name: url_list.path}, folder, what="upload list")
    list_url = str(folder.subfolder(url_list.path.name))
    service.create(name, list_url, destination, f"oiyolo: {url_list.path.name} to {destination}")
    operation_name = service.start(name)
    _log.info(
        "transfer: %s copies %s to %s", name, pluralize(url_list.images, "image"), destination
    )
    return Operation(operation_name, "QUEUED")


def _wait(
    service: TransferService,
    destination: BucketFolder,
    state: _TransferState,
    jobs: Sequence[_Job],
) -> None:
    """Poll the jobs' operations until all have ended; after Ctrl-C they continue at Google."""
    pause_s, shown = _FIRST_PAUSE_S, 0
    try:
        with progress("transfer", total=sum(j.url_list.images for j in jobs), unit="img") as bar:
            while True:
                for job in jobs:
                    if not job.operation.is_over and _poll(service, job):
                        state.write(job, destination)
                shown = _show(bar, [job.operation for job in jobs], shown)
                if all(job.operation.is_over for job in jobs):
                    return
                time.sleep(pause_s)
                pause_s = min(pause_s * _PAUSE_GROWTH, _LONGEST_PAUSE_S)
    except KeyboardInterrupt:
        for job in jobs:
            _log.warning(
                "the transfer continues at Google. Run the same command to join it again, or "
                "`gcloud transfer operations cancel %s` to cancel it",
                job.operation.name,
            )
        raise


def _poll(service: TransferService, job: _Job) -> bool:
    """Update the state of a job's operation; return whether it has changed."""
    before = job.operation
    now = service.operation(before.name)
    if now is None:
        raise UnavailableError(
            "Google's Storage Transfer Service no longer knows this operation",
            where=before.name,
            remedy="Run the same command again to restart the job",
        )
    job.operation = now
    if now.status == _PAUSED != before.status:
        _log.warning(
            "the transfer is paused at Google; `gcloud transfer operations resume %s` resumes it",
            now.name,
        )
    return now != before


def _show(bar: Progress, operations: Sequence[Operation], shown: int) -> int:
    """Advance the bar to the number of objects that are done; return that number."""
    bar.set_postfix(
        found=sum(operation.found for operation in operations),
        copied=sum(operation.copied for operation in operations),
        failed=sum(operation.failed for operation in operations),
        MB=f"{sum(operation.size_bytes for operation in operations) / 1e6:.0f}",
    )
    done = max(shown, sum(operation.done for operation in operations))
    bar.advance(done - shown)
    return done


def _record(project: Project, jobs: Sequence[_Job]) -> None:
    """Record in the ledger why individual images were not copied, where the service says so."""
    failure_by_url = {
        url: (trouble.code, message)
        for job in jobs
        for trouble in job.operation.troubles
        for url, message in trouble.examples
    }
    if not failure_by_url:
        return
    images = select_stage.load(project).images
    failed = images[images["OriginalURL"].isin(list(failure_by_url))]
    with project.ledger() as ledger:
        pending = set(ledger.ids(PENDING))
        changes = []
        for image_id, url in zip(failed["ImageID"], failed["OriginalURL"], strict=True):
            code, message = failure_by_url[url]
            if image_id in pending:
                why = f"{code}, {message}" if message else code
                text = f"Storage Transfer could not copy it: {why}"
                changes.append(Change(image_id, PENDING, text, reason=f"transfer: {code}"))
        ledger.record(_STAGE, changes)


def _log_summary(project: Project, jobs: Sequence[_Job], destination: BucketFolder) -> None:
    operations = [job.operation for job in jobs]
    present = sum(operation.copied + operation.skipped for operation in operations)
    size_bytes = sum(operation.size_bytes for operation in operations)
    _log.info(
        "transfer: %s in %s, %s copied by this fetch",
        pluralize(present, "image"),
        destination,
        format_bytes(size_bytes),
    )
    if reasons := _reasons(operations):
        where = project.data_folder / _STATE_FILE
        _log.info("transfer: not copied: %s; examples in %s", reasons, where)


def _reasons(operations: Iterable[Operation]) -> str:
    counted: Counter[str] = Counter()
    for operation in operations:
        for trouble in operation.troubles:
            counted[trouble.code] += trouble.count
        counted["without a stated reason"] += max(
            0, operation.failed - sum(t.count for t in operation.troubles)
        )
    return ", ".join(f"{n:,} {code}" for code, n in counted.most_common() if n)


def _check(job: _Job, destination: BucketFolder) -> None:
    """Raise if a job's operation did not complete."""
    operation = job.operation
    if operation.is_complete:
        return
    status = f"{operation.status} after {operation.copied + operation.skipped:,} images"
    parts = (status, operation.message, _reasons([operation]))
    raise UnavailableError(
        "the transfer did not complete",
        where=f"{job.url_list.path.name} to {destination}",
        expected=f"{job.url_list.images:,} images copied or skipped with a reason",
        found="; ".join(part for part in parts if part),
        remedy="Run the same command again; objects that were copied are skipped",
    )


@contextlib.contextmanager
def _suggest_roles(destination: BucketFolder, account: str) -> Iterator[None]:
    """Add the commands that grant the needed roles to an error about missing permissions."""
    try:
        yield
    except OiyoloError as error:
        if "permission" not in f"{error.what} {error.found}".lower():
            raise
        commands = "; ".join(
            f"`gcloud storage buckets add-iam-policy-binding gs://{destination.bucket} "
            f"--member=serviceAccount:{account} --role={role}`"
            for role in _AGENT_ROLES
        )
        error.remedy = (
            f"The service runs as {account}, which must be allowed to write to the bucket: "
            f"{commands}. Your own account needs roles/storagetransfer.user in the project"
        )
        raise
