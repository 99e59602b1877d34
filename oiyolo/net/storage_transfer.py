"""The one door to Google's Storage Transfer Service, which copies listed addresses into a bucket.

Its library is an extra (``oiyolo[gcp]``). It is spoken to over REST, so that proxies and
certificates are those of all other requests. ``STORAGE_TRANSFER_EMULATOR_HOST`` leads to
a stand-in.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    RetryError,
    Unauthorized,
)
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError, TransportError

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net.retry import Patience, may_pass
from oiyolo.net.urls import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.core.errors import OiyoloError
    from oiyolo.net.buckets import BucketPlace

EMULATOR_VARIABLE: Final = "STORAGE_TRANSFER_EMULATOR_HOST"
SUCCESS: Final = "SUCCESS"
FAILED: Final = "FAILED"
_OVER: Final = frozenset({SUCCESS, FAILED, "ABORTED"})
DELETED: Final = "DELETED"
_PATIENCE: Final = Patience(read_s=20.0)
_LONGEST_PAUSE_S: Final = 10.0
_DEADLINE_S: Final = 60.0

_LONGEST_TOLD: Final = 300
_PREFIX: Final = re.compile(r"^[A-Z]+ https?://\S+ ")
"""The client's texts begin with the request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A transfer job.

    Attributes:
        name: ``transferJobs/...``.
        status: ENABLED, DISABLED or DELETED.
        operation: Its latest run; empty if it never ran.
    """

    name: str
    status: str
    operation: str


@dataclass(frozen=True)
class Trouble:
    """Objects that were not copied for one reason.

    Attributes:
        code: As Google names it: NOT_FOUND.
        count: How many.
        examples: Some of them: address, and what was wrong at length.
    """

    code: str
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Operation:
    """One run of a job, as it stands.

    Attributes:
        name: ``transferOperations/...``.
        status: QUEUED, IN_PROGRESS, PAUSED, SUCCESS, FAILED, ABORTED and others.
        found: Objects in the list, as far as it was read.
        copied: Objects that came into the bucket.
        skipped: Objects that lay there already.
        failed: Objects that could not be copied.
        size_bytes: Bytes that came into the bucket.
        troubles: Why objects failed.
        told: What it says about its own failure, if it failed.
    """

    name: str
    status: str
    found: int = 0
    copied: int = 0
    skipped: int = 0
    failed: int = 0
    size_bytes: int = 0
    troubles: tuple[Trouble, ...] = ()
    told: str = ""

    @property
    def is_over(self) -> bool:
        """Nothing more will come of it."""
        return self.status in _OVER

    @property
    def done(self) -> int:
        """Objects whose fate is known."""
        return self.copied + self.skipped + self.failed

    @property
    def went_through(self) -> bool:
        """It is over, and every object of its list was copied or not for a reason of its own.

        Google calls it FAILED where a single object was not copied.
        """
        return self.status == SUCCESS or (self.status == FAILED and 0 < self.found <= self.done)


class TransferService:
    """The service, as one project uses it.

    Args:
        credentials: Of the user, as Google's libraries take them.
        project: The Google Cloud project that the jobs belong to.
        patience: Attempts, pauses and deadlines.

    Raises:
        UsageError: The library is not installed.
    """

    def __init__(self, credentials: object, project: str, patience: Patience | None = None) -> None:
        try:
            import google.cloud.storage_transfer_v1 as library  # noqa: PLC0415  (an extra, and slow)
        except ImportError:
            raise UsageError(
                "--transfer needs Google's library for its Storage Transfer Service, which is not "
                "installed",
                remedy="pip install 'oiyolo[gcp]'",
            ) from None
        self.project = project
        self._library: Any = library
        self._patience = patience or _PATIENCE
        self._client = library.StorageTransferServiceClient(
            transport=_transport(library, credentials)
        )

    def account(self) -> str:
        """Give the account that the service works under; it needs roles on the bucket.

        Raises:
            UnavailableError: No answer, or none for this user.
        """
        given = self._ask(self._client.get_google_service_account, {"project_id": self.project})
        return str(given.account_email)

    def job(self, name: str) -> Job | None:
        """Look a job up; ``None`` if there is none of this name.

        Raises:
            UnavailableError: No answer, or none for this user.
        """
        request = {"job_name": name, "project_id": self.project}
        try:
            return self._job(self._ask(self._client.get_transfer_job, request))
        except _NoneSuchError:
            return None

    def create(self, name: str, list_url: str, sink: BucketPlace, told: str) -> Job:
        """Make a job that copies what a list names; one of this name that is there is given.

        Args:
            name: ``transferJobs/...``. It is ours to choose, so that a job is never made twice.
            list_url: The list of addresses.
            sink: Where the objects go, as ``<host>/<path>`` of their addresses.
            told: What it is, for a person who sees it in Google's console.

        Raises:
            UnavailableError: No answer, or none for this user.
            UsageError: The service does not take the job.
        """
        types = self._library
        job = types.TransferJob(
            name=name,
            description=told,
            project_id=self.project,
            status=types.TransferJob.Status.ENABLED,
            transfer_spec=types.TransferSpec(
                http_data_source=types.HttpData(list_url=list_url),
                gcs_data_sink=types.GcsData(bucket_name=sink.bucket, path=sink.path),
                transfer_options=types.TransferOptions(
                    overwrite_objects_already_existing_in_sink=False
                ),
            ),
        )
        try:
            made = self._ask(self._client.create_transfer_job, {"transfer_job": job})
        except _TakenError:
            made = self._ask(
                self._client.get_transfer_job, {"job_name": name, "project_id": self.project}
            )
        return self._job(made)

    def start(self, name: str) -> str:
        """Run a job; give the name of its operation, or that of the one that runs already.

        Raises:
            UnavailableError: No answer, or none for this user.
            UsageError: The service does not run it.
        """
        request = {"job_name": name, "project_id": self.project}
        try:
            return str(self._ask(self._client.run_transfer_job, request).operation.name)
        except UsageError:  # it runs already, perhaps
            found = self.job(name)
            if found is None or not found.operation:
                raise
            operation = self.operation(found.operation)
            if operation is None or operation.is_over:
                raise
            return operation.name

    def operation(self, name: str) -> Operation | None:
        """Tell how a run stands; ``None`` if nobody knows it any more.

        Raises:
            UnavailableError: No answer, or none for this user.
        """
        try:
            given = self._ask(self._client.get_operation, {"name": name})
        except _NoneSuchError:
            return None
        raw = self._library.TransferOperation.pb()()
        given.metadata.Unpack(raw)
        run = self._library.TransferOperation.wrap(raw)
        counters = run.counters
        status = run.status.name
        if given.done and status not in _OVER:
            status = FAILED if given.HasField("error") else SUCCESS
        return Operation(
            name=name,
            status=status,
            found=counters.objects_found_from_source,
            copied=counters.objects_copied_to_sink,
            skipped=counters.objects_from_source_skipped_by_sync,
            failed=counters.objects_from_source_failed,
            size_bytes=counters.bytes_copied_to_sink,
            troubles=tuple(self._trouble(summary) for summary in run.error_breakdowns),
            told=given.error.message if given.HasField("error") else "",
        )

    @staticmethod
    def _job(given: Any) -> Job:  # noqa: ANN401  (the library has no types)
        return Job(given.name, given.status.name, given.latest_operation_name)

    @staticmethod
    def _trouble(summary: Any) -> Trouble:  # noqa: ANN401  (as above)
        from google.rpc.code_pb2 import Code  # noqa: PLC0415  (comes with the extra)

        code = int(summary.error_code)
        return Trouble(
            code=Code.Name(code) if code in Code.values() else f"code {code}",
            count=summary.error_count,
            examples=tuple(
                (entry.url, "; ".join(entry.error_details)) for entry in summary.error_log_entries
            ),
        )

    def _ask(self, method: Callable[..., T], request: object) -> T:
        patience = self._patience
        failed = 0

        def may(error: Exception) -> bool:
            nonlocal failed
            failed += 1
            return _may_pass(error) and failed < patience.attempts

        retry = Retry(
            predicate=may,
            initial=patience.first_pause_s,
            maximum=_LONGEST_PAUSE_S,
            timeout=_DEADLINE_S,
        )
        try:
            return method(request, retry=retry, timeout=patience.read_s)
        except (GoogleAPICallError, RetryError, GoogleAuthError, OSError) as error:
            raise _complaint(error, self.project) from error


class _NoneSuchError(UnavailableError):
    """The service does not know what it was asked about."""


class _TakenError(UsageError):
    """There is a job of this name already, or it runs already."""


def _may_pass(error: Exception) -> bool:
    if isinstance(error, GoogleAPICallError):
        return may_pass(int(error.code or 0))
    return isinstance(error, (TransportError, OSError))


def _complaint(error: Exception, project: str) -> OiyoloError:
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    said = getattr(error, "message", "") or str(error) or type(error).__name__
    found = _PREFIX.sub("", without_secrets(" ".join(str(said).split())))[:_LONGEST_TOLD]
    kind: type[OiyoloError] = UnavailableError
    what = "Google's Storage Transfer Service did not answer"
    remedy = "Check the network, then give the same command again"
    if isinstance(error, (Forbidden, Unauthorized)):
        what = "Google's Storage Transfer Service refuses"
        remedy = (
            "Its API must be on (`gcloud services enable storagetransfer.googleapis.com --project "
            f"{project}`), and your account needs roles/storagetransfer.user in the project; "
            "docs/buckets.md has all commands"
        )
    elif isinstance(error, NotFound):
        kind, what = _NoneSuchError, "Google's Storage Transfer Service does not know this"
        remedy = "Check the project's id, and look for jobs with `gcloud transfer jobs list`"
    elif isinstance(error, Conflict):
        kind, what = _TakenError, "there is a transfer job of this name already"
        remedy = "Look at it with `gcloud transfer jobs list`"
    elif isinstance(error, BadRequest):
        kind, what = UsageError, "Google's Storage Transfer Service does not take this"
        remedy = "docs/buckets.md tells what the bucket and the project must be like"
    elif isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        what = "Google does not take the credentials"
        remedy = "Log in again: `gcloud auth application-default login`"
    return kind(what, where=f"project {project}", found=found, remedy=remedy)


def _transport(library: Any, credentials: object) -> Any:  # noqa: ANN401  (it has no types)
    """Give the way to the service: Google's, or that of a stand-in, which sees no credentials."""
    make = library.StorageTransferServiceClient.get_transport_class("rest")
    stand_in = os.environ.get(EMULATOR_VARIABLE, "")
    if not stand_in:
        return make(credentials=credentials)
    scheme, _, host = stand_in.rpartition("://")
    anybody: Any = AnonymousCredentials
    return make(host=host, url_scheme=scheme or "http", credentials=anybody())
