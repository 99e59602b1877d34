"""Client for Google's Storage Transfer Service, which copies the files of a URL list into a bucket.

Its library is an extra (``oiyolo[gcp]``). The client uses REST, so that proxies and certificates
are those of all other requests. ``STORAGE_TRANSFER_EMULATOR_HOST`` selects an emulator.
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
from oiyolo.net.retry import RetryPolicy, is_retryable
from oiyolo.net.urls import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.core.errors import OiyoloError
    from oiyolo.net.buckets import BucketFolder

EMULATOR_VARIABLE: Final = "STORAGE_TRANSFER_EMULATOR_HOST"
SUCCESS: Final = "SUCCESS"
FAILED: Final = "FAILED"
_FINAL_STATUSES: Final = frozenset({SUCCESS, FAILED, "ABORTED"})
DELETED: Final = "DELETED"
_RETRY_POLICY: Final = RetryPolicy(read_timeout_s=20.0)
_MAX_PAUSE_S: Final = 10.0
_DEADLINE_S: Final = 60.0

_MAX_MESSAGE_CHARACTERS: Final = 300
_REQUEST_PREFIX: Final = re.compile(r"^[A-Z]+ https?://\S+ ")
"""The messages of Google's library begin with the request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A transfer job.

    Attributes:
        name: ``transferJobs/...``.
        status: ENABLED, DISABLED or DELETED.
        operation: Name of its latest run; empty if it has never run.
    """

    name: str
    status: str
    operation: str


@dataclass(frozen=True)
class Trouble:
    """Objects that were not copied, all for the same reason.

    Attributes:
        code: Google's error code, such as NOT_FOUND.
        count: Number of objects.
        examples: Some of them, as URL and error message.
    """

    code: str
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Operation:
    """The current state of one run of a job.

    Attributes:
        name: ``transferOperations/...``.
        status: QUEUED, IN_PROGRESS, PAUSED, SUCCESS, FAILED, ABORTED and others.
        found: Number of objects in the list, as far as the service has read it.
        copied: Number of objects copied into the bucket.
        skipped: Number of objects that the bucket already had.
        failed: Number of objects that could not be copied.
        size_bytes: Bytes copied into the bucket.
        troubles: Why objects failed.
        message: The service's error message if the run failed.
    """

    name: str
    status: str
    found: int = 0
    copied: int = 0
    skipped: int = 0
    failed: int = 0
    size_bytes: int = 0
    troubles: tuple[Trouble, ...] = ()
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.status in _FINAL_STATUSES

    @property
    def done(self) -> int:
        """Number of objects that were copied, skipped or failed."""
        return self.copied + self.skipped + self.failed

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended and has processed every object of its list.

        Some objects may have failed for reasons of their own: Google calls a run FAILED if a
        single object was not copied.
        """
        return self.status == SUCCESS or (self.status == FAILED and 0 < self.found <= self.done)


class TransferService:
    """The service, as one project uses it.

    Args:
        credentials: The user's credentials, as Google's libraries take them.
        project: Google Cloud project that the jobs belong to.
        retry_policy: Attempts, pauses and timeouts.

    Raises:
        UsageError: The library is not installed.
    """

    def __init__(
        self, credentials: object, project: str, retry_policy: RetryPolicy | None = None
    ) -> None:
        try:
            import google.cloud.storage_transfer_v1 as library  # noqa: PLC0415  (an extra, and slow)
        except ImportError:
            raise UsageError(
                "--transfer needs Google's Storage Transfer library, which is not installed",
                remedy="Install it: pip install 'oiyolo[gcp]'",
            ) from None
        self.project = project
        self._library: Any = library
        self._retry_policy = retry_policy or _RETRY_POLICY
        self._client = library.StorageTransferServiceClient(
            transport=_transport(library, credentials)
        )

    def account(self) -> str:
        """Return the account that the service works under; it needs roles on the bucket.

        Raises:
            UnavailableError: The service does not respond, or refuses this user.
        """
        account = self._call(self._client.get_google_service_account, {"project_id": self.project})
        return str(account.account_email)

    def job(self, name: str) -> Job | None:
        """Return the job of this name; ``None`` if there is none.

        Raises:
            UnavailableError: The service does not respond, or refuses this user.
        """
        request = {"job_name": name, "project_id": self.project}
        try:
            return self._job(self._call(self._client.get_transfer_job, request))
        except _NotFoundError:
            return None

    def create(self, name: str, list_url: str, sink: BucketFolder, description: str) -> Job:
        """Create a job that copies the files of a URL list; return an existing one of this name.

        Args:
            name: ``transferJobs/...``. The caller chooses it, so no job is created twice.
            list_url: URL of the list.
            sink: Folder for the objects, whose names in it are ``<host>/<path>`` of their URLs.
            description: What the job is for, shown in Google's console.

        Raises:
            UnavailableError: The service does not respond, or refuses this user.
            UsageError: The service rejects the job.
        """
        types = self._library
        job = types.TransferJob(
            name=name,
            description=description,
            project_id=self.project,
            status=types.TransferJob.Status.ENABLED,
            transfer_spec=types.TransferSpec(
                http_data_source=types.HttpData(list_url=list_url),
                gcs_data_sink=types.GcsData(bucket_name=sink.bucket, path=sink.name_prefix),
                transfer_options=types.TransferOptions(
                    overwrite_objects_already_existing_in_sink=False
                ),
            ),
        )
        try:
            created = self._call(self._client.create_transfer_job, {"transfer_job": job})
        except _ConflictError:
            created = self._call(
                self._client.get_transfer_job, {"job_name": name, "project_id": self.project}
            )
        return self._job(created)

    def start(self, name: str) -> str:
        """Run a job; return the name of the new operation, or of the one that is running already.

        Raises:
            UnavailableError: The service does not respond, or refuses this user.
            UsageError: The service refuses to run the job.
        """
        request = {"job_name": name, "project_id": self.project}
        try:
            return str(self._call(self._client.run_transfer_job, request).operation.name)
        except UsageError:  # the job may be running already
            job = self.job(name)
            if job is None or not job.operation:
                raise
            operation = self.operation(job.operation)
            if operation is None or operation.is_over:
                raise
            return operation.name

    def operation(self, name: str) -> Operation | None:
        """Return the state of a run; ``None`` if the service no longer knows it.

        Raises:
            UnavailableError: The service does not respond, or refuses this user.
        """
        try:
            response = self._call(self._client.get_operation, {"name": name})
        except _NotFoundError:
            return None
        raw = self._library.TransferOperation.pb()()
        response.metadata.Unpack(raw)
        run = self._library.TransferOperation.wrap(raw)
        counters = run.counters
        status = run.status.name
        if response.done and status not in _FINAL_STATUSES:
            status = FAILED if response.HasField("error") else SUCCESS
        return Operation(
            name=name,
            status=status,
            found=counters.objects_found_from_source,
            copied=counters.objects_copied_to_sink,
            skipped=counters.objects_from_source_skipped_by_sync,
            failed=counters.objects_from_source_failed,
            size_bytes=counters.bytes_copied_to_sink,
            troubles=tuple(self._trouble(summary) for summary in run.error_breakdowns),
            message=response.error.message if response.HasField("error") else "",
        )

    @staticmethod
    def _job(job: Any) -> Job:  # noqa: ANN401  (the library has no types)
        return Job(job.name, job.status.name, job.latest_operation_name)

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

    def _call(self, method: Callable[..., T], request: object) -> T:
        policy = self._retry_policy
        failures = 0

        def should_retry(error: Exception) -> bool:
            nonlocal failures
            failures += 1
            return _is_transient(error) and failures < policy.max_attempts

        retry = Retry(
            predicate=should_retry,
            initial=policy.first_pause_s,
            maximum=_MAX_PAUSE_S,
            timeout=_DEADLINE_S,
        )
        try:
            return method(request, retry=retry, timeout=policy.read_timeout_s)
        except (GoogleAPICallError, RetryError, GoogleAuthError, OSError) as error:
            raise _user_error(error, self.project) from error


class _NotFoundError(UnavailableError):
    """The service does not know the job or the operation."""


class _ConflictError(UsageError):
    """A job of this name exists already, or is running already."""


def _is_transient(error: Exception) -> bool:
    if isinstance(error, GoogleAPICallError):
        return is_retryable(int(error.code or 0))
    return isinstance(error, (TransportError, OSError))


def _user_error(error: Exception, project: str) -> OiyoloError:
    """Return the error that says what the user can do."""
    if isinstance(error, RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    message = getattr(error, "message", "") or str(error) or type(error).__name__
    found = _REQUEST_PREFIX.sub("", without_secrets(" ".join(str(message).split())))[
        :_MAX_MESSAGE_CHARACTERS
    ]
    kind: type[OiyoloError] = UnavailableError
    what = "Google's Storage Transfer Service does not respond"
    remedy = "Check the network, then run the same command again"
    if isinstance(error, (Forbidden, Unauthorized)):
        what = "Google's Storage Transfer Service denies access"
        remedy = (
            "Its API must be on (`gcloud services enable storagetransfer.googleapis.com --project "
            f"{project}`), and your account needs roles/storagetransfer.user in the project; "
            "docs/buckets.md has all commands"
        )
    elif isinstance(error, NotFound):
        kind, what = _NotFoundError, "Google's Storage Transfer Service does not know this job"
        remedy = "Check the project's id, and list the jobs with `gcloud transfer jobs list`"
    elif isinstance(error, Conflict):
        kind, what = _ConflictError, "a transfer job of this name exists already"
        remedy = "List the jobs with `gcloud transfer jobs list`"
    elif isinstance(error, BadRequest):
        kind, what = UsageError, "Google's Storage Transfer Service rejects the request"
        remedy = "docs/buckets.md says what the bucket and the project need"
    elif isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        what = "Google rejects the credentials"
        remedy = "Log in again: `gcloud auth application-default login`"
    return kind(what, where=f"project {project}", found=found, remedy=remedy)


def _transport(library: Any, credentials: object) -> Any:  # noqa: ANN401  (it has no types)
    """Return the transport to the service, or to an emulator, which receives no credentials."""
    transport_class = library.StorageTransferServiceClient.get_transport_class("rest")
    emulator = os.environ.get(EMULATOR_VARIABLE, "")
    if not emulator:
        return transport_class(credentials=credentials)
    scheme, _, host = emulator.rpartition("://")
    anonymous: Any = AnonymousCredentials
    return transport_class(host=host, url_scheme=scheme or "http", credentials=anonymous())
