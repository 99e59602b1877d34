"""Client for Google's Storage Transfer Service, which copies the files of a URL list into a bucket.

Its library is an extra (``oiyolo[gcp]``). The client uses REST, so that proxies and certificates
are those of all other requests. ``STORAGE_TRANSFER_EMULATOR_HOST`` selects an emulator.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import extras
from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net import google_api
from oiyolo.net.google_api import NOT_FOUND
from oiyolo.net.retry import HttpFailureError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.net.buckets import BucketFolder

EMULATOR_VARIABLE: Final = "STORAGE_TRANSFER_EMULATOR_HOST"
SUCCESS: Final = "SUCCESS"
FAILED: Final = "FAILED"
_FINAL_STATUSES: Final = frozenset({SUCCESS, FAILED, "ABORTED"})
DELETED: Final = "DELETED"
_RETRY_POLICY: Final = RetryPolicy(read_timeout_s=20.0)
_CONFLICT: Final = "HTTP 409"
_SERVICE: Final = "Google's Storage Transfer Service"


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

    Raises:
        UsageError: The library is not installed.
    """

    def __init__(self, credentials: object, project: str) -> None:
        with extras.required("gcp", library="Google's Storage Transfer library", by="--transfer"):
            import google.cloud.storage_transfer_v1 as library  # noqa: PLC0415  (an extra, and slow)
        self.project = project
        self._stop = threading.Event()
        self._library: Any = library
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
        job = self._call(self._client.get_transfer_job, request, accept=NOT_FOUND)
        return None if job is None else Job(job.name, job.status.name, job.latest_operation_name)

    def create(self, name: str, list_url: str, sink: BucketFolder, description: str) -> None:
        """Create a job that copies the files of a URL list, unless a job of this name exists.

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
        self._call(self._client.create_transfer_job, {"transfer_job": job}, accept=_CONFLICT)

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
        response = self._call(self._client.get_operation, {"name": name}, accept=NOT_FOUND)
        if response is None:
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
    def _trouble(summary: Any) -> Trouble:  # noqa: ANN401  (the library has no types)
        from google.rpc.code_pb2 import Code  # noqa: PLC0415  (comes with the extra)

        code = int(summary.error_code)
        return Trouble(
            code=Code.Name(code) if code in Code.values() else f"code {code}",
            count=summary.error_count,
            examples=tuple(
                (entry.url, "; ".join(entry.error_details)) for entry in summary.error_log_entries
            ),
        )

    def _call(self, method: Callable[..., Any], request: object, *, accept: str = "") -> Any:  # noqa: ANN401
        """Return the response to a request; ``None`` if it failed for the reason ``accept``."""
        try:
            return google_api.call(
                lambda _: method(request, retry=None, timeout=_RETRY_POLICY.read_timeout_s),
                policy=_RETRY_POLICY,
                stop=self._stop,
            )
        except HttpFailureError as failure:
            if failure.reason == accept:
                return None
            raise google_api.user_error(
                failure,
                f"{_SERVICE} does not respond",
                where=f"project {self.project}",
                known=_known_errors(self.project),
            ) from failure


def _known_errors(project: str) -> dict[str, google_api.ErrorText]:
    access = (
        "Its API must be on (`gcloud services enable storagetransfer.googleapis.com --project "
        f"{project}`), and your account needs roles/storagetransfer.user in the project; "
        "docs/buckets.md has all commands"
    )
    denied: google_api.ErrorText = (UnavailableError, f"{_SERVICE} denies access", access)
    return {
        "HTTP 400": (
            UsageError,
            f"{_SERVICE} rejects the request",
            "docs/buckets.md says what the bucket and the project need",
        ),
        "HTTP 401": denied,
        "HTTP 403": denied,
        NOT_FOUND: (
            UnavailableError,
            f"{_SERVICE} does not know this job",
            "Check the project's id, and list the jobs with `gcloud transfer jobs list`",
        ),
        _CONFLICT: (
            UsageError,
            "the transfer job is running already",
            "List the jobs with `gcloud transfer jobs list`",
        ),
    }


def _transport(library: Any, credentials: object) -> Any:  # noqa: ANN401  (it has no types)
    """Return the transport to the service, or to an emulator, which receives no credentials."""
    transport_class = library.StorageTransferServiceClient.get_transport_class("rest")
    emulator = os.environ.get(EMULATOR_VARIABLE, "")
    if not emulator:
        return transport_class(credentials=credentials)
    scheme, _, host = emulator.rpartition("://")
    anonymous = google_api.auth.credentials.AnonymousCredentials()
    return transport_class(host=host, url_scheme=scheme or "http", credentials=anonymous)
