"""An emulator of Google Cloud Storage in its own process, and servers for what it cannot do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMULATOR = """\
import logging
import socketserver
import threading
from gcp_storage_emulator.server import create_server
socketserver.TCPServer.request_queue_size = 128
logging.getLogger().setLevel(logging.CRITICAL + 1)
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_address[1], flush=True)
threading.Event().wait()
"""
PROJECT = "boats-123"
OPERATION_TYPE = "type.googleapis.com/google.storagetransfer.v1.TransferOperation"
IN_PROGRESS, SUCCESS, FAILED = 1, 3, 4
NOT_FOUND = 5
ENABLED = 1

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Emulator:
    """The running emulator.

    Attributes:
        url: URL of its API.
    """

    url: str

    def client(self) -> Any:
        """Return Google's own client for the emulator."""
        import google.cloud.storage  # noqa: PLC0415  (every session of tests loads this plugin)

        return google.cloud.storage.Client(
            project="p",
            client_options={"api_endpoint": self.url},
            use_auth_w_custom_endpoint=False,
        )

    def make_bucket(self, objects: dict[str, bytes] | None = None) -> Any:
        """Create a bucket with these objects, and return it."""
        bucket = self.client().create_bucket(f"photos-{next(_numbers)}")
        for name, content in (objects or {}).items():
            bucket.blob(name).upload_from_string(content)
        return bucket


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[Emulator]:
    process = subprocess.Popen(
        [sys.executable, "-c", EMULATOR],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout
        yield Emulator(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        process.kill()


@pytest.fixture
def emulator(emulator_process: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator that oiyolo uses, without any credentials."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator_process.url)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    return emulator_process


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that writes no log, and sends complete responses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        """Log nothing."""

    def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class FaultyBucket(ThreadingHTTPServer):
    """A bucket that sends prepared responses, each once and the last one permanently.

    Attributes:
        url: URL of its API.
        responses: Status, body and headers, by name of an object, or "" for a listing.
        requested_names: Names of all requested objects, in order.
        uploaded: Bytes of the upload received so far.
        chunk_failures: Number of times that a chunk other than the first is rejected.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FaultyBucketHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.responses: dict[str, list[tuple[int, bytes, dict[str, str]]]] = {
            "": [(200, b"{}", {"Content-Type": "application/json"})]
        }
        self.requested_names: list[str] = []
        self.uploaded = b""
        self.chunk_failures = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing."""


class _FaultyBucketHandler(QuietHandler):
    """Sends objects, and receives an upload in chunks, the second of which may fail."""

    server: FaultyBucket

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body, headers = self.server.responses[""][0]
        if status in {401, 403}:  # who may not list may not write
            self.respond(status, body, headers)
            return
        self.respond(200, b"", {"Location": f"{self.server.url}/upload?upload_id=SECRET"})

    def do_PUT(self) -> None:
        chunk = self.rfile.read(int(self.headers["Content-Length"]))
        chunk_range, size = self.headers["Content-Range"].removeprefix("bytes ").split("/")
        if self.server.chunk_failures and not chunk_range.startswith("0-"):
            self.server.chunk_failures -= 1
            self.respond(503, b"later")
            return
        self.server.uploaded += chunk
        if len(self.server.uploaded) < int(size):
            last = len(self.server.uploaded) - 1
            self.respond(308, b"", {"Range": f"bytes=0-{last}"})
            return
        metadata = {"name": "x", "crc32c": checksum(self.server.uploaded).partition("=")[2]}
        self.respond(200, json.dumps(metadata).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path.partition("/o/")[2])
        self.server.requested_names.append(name)
        responses = self.server.responses.get(name, [(404, b"No such object", {})])
        self.respond(*(responses.pop(0) if len(responses) > 1 else responses[0]))


@pytest.fixture
def faulty_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBucket]:
    server = FaultyBucket()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    with serving(server):
        yield server


def checksum(content: bytes) -> str:
    """Return an object's CRC32C as in its ``x-goog-hash`` header."""
    import google_crc32c  # noqa: PLC0415  (only some tests)

    crc: Any = google_crc32c
    return f"crc32c={base64.b64encode(crc.Checksum(content).digest()).decode()}"


@dataclass
class Run:
    """One operation of the transfer service.

    Attributes:
        name: ``transferOperations/...``.
        job: Name of the job.
        rows: Rows of the URL list: URL, size, MD5.
        position: Number of rows processed.
        copied: Number of objects copied.
        skipped: Number of objects that the bucket already had.
        size_bytes: Bytes copied.
        failures: URL and reason of each object that failed.
        abort_message: Why the run was aborted; empty if it was not.
    """

    name: str
    job: str
    rows: list[list[str]]
    position: int = 0
    copied: int = 0
    skipped: int = 0
    size_bytes: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    abort_message: str = ""

    @property
    def is_over(self) -> bool:
        return bool(self.abort_message) or self.position == len(self.rows)

    def as_json(self) -> dict[str, Any]:
        failed = bool(self.abort_message or self.failures)
        status = (FAILED if failed else SUCCESS) if self.is_over else IN_PROGRESS
        # As in Google's JSON: 64-bit integers are strings, and enumerations are integers.
        metadata: dict[str, Any] = {
            "@type": OPERATION_TYPE,
            "name": self.name,
            "transferJobName": self.job,
            "status": status,
            "counters": {
                "objectsFoundFromSource": str(
                    self.position if self.abort_message else len(self.rows)
                ),
                "objectsCopiedToSink": str(self.copied),
                "objectsFromSourceSkippedBySync": str(self.skipped),
                "objectsFromSourceFailed": str(len(self.failures)),
                "bytesCopiedToSink": str(self.size_bytes),
            },
        }
        if self.failures:
            entries = [{"url": url, "errorDetails": [reason]} for url, reason in self.failures]
            metadata["errorBreakdowns"] = [
                {
                    "errorCode": NOT_FOUND,
                    "errorCount": str(len(self.failures)),
                    "errorLogEntries": entries[:5],
                }
            ]
        response: dict[str, Any] = {"name": self.name, "metadata": metadata, "done": self.is_over}
        if self.abort_message:
            response["error"] = {"code": 7, "message": self.abort_message}
        elif self.is_over:
            response["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return response


class Transfers(ThreadingHTTPServer):
    """Storage Transfer over REST; each poll of an operation copies a few objects.

    Attributes:
        url: URL of its API.
        client: Client for the buckets.
        jobs: The jobs as they were created, by name.
        runs: The operations, by name.
        requests: Method and path of all requests, in order.
        error_responses: Status and message pairs for requests whose method and path contain the
            key; each pair is sent once.
        paused: Event; nothing is copied while it is set.
        abort_message: Message with which runs fail at once; empty to let them run.
        rows_per_step: Number of objects copied by each poll.
    """

    daemon_threads = True
    account = "project-7@storage-transfer-service.iam.gserviceaccount.com"

    def __init__(self, client: Any) -> None:
        super().__init__(("127.0.0.1", 0), _TransfersHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.client = client
        self.jobs: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, Run] = {}
        self.requests: list[str] = []
        self.error_responses: dict[str, list[tuple[int, str]]] = {}
        self.paused = threading.Event()
        self.abort_message = ""
        self.rows_per_step = 20
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a test has killed the client."""

    def count(self, method: str, ending: str) -> int:
        return sum(r.startswith(method) and r.endswith(ending) for r in self.requests)

    def step(self, run: Run) -> None:
        """Copy the next few objects of a run."""
        if run.is_over or self.paused.is_set():
            return
        if self.abort_message:
            run.abort_message = self.abort_message
            return
        sink = self.jobs[run.job]["transferSpec"]["gcsDataSink"]
        bucket = self.client.bucket(sink["bucketName"])
        for url, size, md5 in run.rows[run.position : run.position + self.rows_per_step]:
            parts = urlsplit(url)
            blob = bucket.blob(f"{sink.get('path', '')}{parts.hostname}{parts.path}")
            run.position += 1
            if blob.exists():
                run.skipped += 1
                continue
            try:
                with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  (loopback)
                    content = response.read()
            except urllib.error.HTTPError as error:
                run.failures.append((url, f"HTTP {error.code}"))
                continue
            digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
            if (str(len(content)), digest) != (size, md5):
                run.failures.append((url, "size or MD5 mismatch"))
                continue
            blob.upload_from_string(content)
            run.copied += 1
            run.size_bytes += len(content)

    def rows_of(self, job: dict[str, Any]) -> list[list[str]]:
        """Return the rows of a job's URL list; fail on a list that the service would reject."""
        list_url = job["transferSpec"]["httpDataSource"]["listUrl"]
        bucket, _, name = list_url.removeprefix("gs://").partition("/")
        text = self.client.bucket(bucket).blob(name).download_as_bytes().decode()
        head, *lines = text.splitlines()
        assert head == "TsvHttpData-1.0"
        assert lines == sorted(lines, key=str.encode)
        return [line.split("\t") for line in lines]


class _TransfersHandler(QuietHandler):
    server: Transfers

    def do_GET(self) -> None:
        self.handle_request("GET")

    def do_POST(self) -> None:
        self.handle_request("POST")

    def handle_request(self, method: str) -> None:
        path = urlsplit(self.path).path
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        with self.server.lock:
            self.server.requests.append(f"{method} {path}")
            status, response = self.decide(method, path, sent)
        body = json.dumps(response).encode()
        self.respond(status, body, {"Content-Type": "application/json"})

    def decide(self, method: str, path: str, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server = self.server
        for part, errors in server.error_responses.items():
            if part in f"{method} {path}" and errors:
                return error(*errors.pop(0))
        name = path.removeprefix("/v1/")
        if method == "POST":
            return (
                self.run(name.removesuffix(":run"))
                if sent.get("name") is None
                else self.create(sent)
            )
        if name in server.runs:
            server.step(server.runs[name])
            return 200, server.runs[name].as_json()
        account = {f"googleServiceAccounts/{PROJECT}": {"accountEmail": server.account}}
        resource = {**account, **server.jobs}.get(name)
        return (200, resource) if resource else error(404, "Requested entity was not found")

    def create(self, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if sent["name"] in self.server.jobs:
            return error(409, "Requested entity already exists")
        self.server.jobs[sent["name"]] = sent
        return 200, sent

    def run(self, job: str) -> tuple[int, dict[str, Any]]:
        server = self.server
        latest = server.runs.get(server.jobs[job].get("latestOperationName", ""))
        if latest is not None and not latest.is_over:
            return error(400, "There is an active operation of this job")
        run = Run(f"transferOperations/run-{next(_numbers)}", job, server.rows_of(server.jobs[job]))
        server.runs[run.name] = run
        server.jobs[job]["latestOperationName"] = run.name
        return 200, run.as_json()


def error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    """Return an error response of Google's services."""
    return status, {"error": {"code": status, "message": message, "status": "WRONG"}}


@pytest.fixture
def transfers(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transfers]:
    server = Transfers(emulator.client())
    monkeypatch.setenv("STORAGE_TRANSFER_EMULATOR_HOST", server.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    with serving(server):
        yield server


@pytest.fixture(scope="session")
def crc32c() -> Callable[[bytes], str]:
    return checksum
