"""An emulator of Google Cloud Storage in its own process, and stand-ins for what it cannot do."""

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
import threading
from gcp_storage_emulator.server import create_server
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
    """Where it listens."""

    url: str

    def client(self) -> Any:
        """Give Google's own client, as it comes."""
        import google.cloud.storage  # noqa: PLC0415  (every session of tests loads this plugin)

        return google.cloud.storage.Client(
            project="p",
            client_options={"api_endpoint": self.url},
            use_auth_w_custom_endpoint=False,
        )

    def make_bucket(self, objects: dict[str, bytes] | None = None) -> Any:
        """Make a bucket with objects in it."""
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
    """The door leads to it, and there are nobody's credentials."""
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


class Quiet(BaseHTTPRequestHandler):
    """Writes no log, and answers whole."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        """Say nothing."""

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Faults(ThreadingHTTPServer):
    """A bucket that says what it is told to, each answer once, the last one for ever.

    Attributes:
        answers: By an object's name, or "" for a listing: status, body, headers.
        asked: The names that were asked for.
        taken: What was sent so far.
        failures_of_second: So often a part that is not the first is refused.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FaultsHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, list[tuple[int, bytes, dict[str, str]]]] = {
            "": [(200, b"{}", {"Content-Type": "application/json"})]
        }
        self.asked: list[str] = []
        self.taken = b""
        self.failures_of_second = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class _FaultsHandler(Quiet):
    """Gives objects, and takes one in parts, of which the second fails at first."""

    server: Faults

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.say(200, b"", {"Location": f"{self.server.url}/upload?upload_id=SECRET"})

    def do_PUT(self) -> None:
        part = self.rfile.read(int(self.headers["Content-Length"]))
        came, size = self.headers["Content-Range"].removeprefix("bytes ").split("/")
        if self.server.failures_of_second and not came.startswith("0-"):
            self.server.failures_of_second -= 1
            self.say(503, b"later")
            return
        self.server.taken += part
        if len(self.server.taken) < int(size):
            last = len(self.server.taken) - 1
            self.say(308, b"", {"Range": f"bytes=0-{last}"})
            return
        told = {"name": "x", "crc32c": checksum(self.server.taken).partition("=")[2]}
        self.say(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path.partition("/o/")[2])
        self.server.asked.append(name)
        answers = self.server.answers.get(name, [(404, b"No such object", {})])
        self.say(*(answers.pop(0) if len(answers) > 1 else answers[0]))


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    server = Faults()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    with serving(server):
        yield server


def checksum(content: bytes) -> str:
    """Give an object's CRC32C as its header has it."""
    import google_crc32c  # noqa: PLC0415  (only some tests)

    crc: Any = google_crc32c
    return f"crc32c={base64.b64encode(crc.Checksum(content).digest()).decode()}"


@dataclass
class Run:
    """One operation of the stand-in."""

    name: str
    job: str
    rows: list[list[str]]
    at: int = 0
    copied: int = 0
    skipped: int = 0
    size_bytes: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    aborted_for: str = ""

    @property
    def is_over(self) -> bool:
        return bool(self.aborted_for) or self.at == len(self.rows)

    def as_json(self) -> dict[str, Any]:
        failed = bool(self.aborted_for or self.failures)
        status = (FAILED if failed else SUCCESS) if self.is_over else IN_PROGRESS
        # Numbers of 64 bits are texts, and enumerations whole numbers, as Google writes them here.
        metadata: dict[str, Any] = {
            "@type": OPERATION_TYPE,
            "name": self.name,
            "transferJobName": self.job,
            "status": status,
            "counters": {
                "objectsFoundFromSource": str(self.at if self.aborted_for else len(self.rows)),
                "objectsCopiedToSink": str(self.copied),
                "objectsFromSourceSkippedBySync": str(self.skipped),
                "objectsFromSourceFailed": str(len(self.failures)),
                "bytesCopiedToSink": str(self.size_bytes),
            },
        }
        if self.failures:
            entries = [{"url": url, "errorDetails": [told]} for url, told in self.failures]
            metadata["errorBreakdowns"] = [
                {
                    "errorCode": NOT_FOUND,
                    "errorCount": str(len(self.failures)),
                    "errorLogEntries": entries[:5],
                }
            ]
        answer: dict[str, Any] = {"name": self.name, "metadata": metadata, "done": self.is_over}
        if self.aborted_for:
            answer["error"] = {"code": 7, "message": self.aborted_for}
        elif self.is_over:
            answer["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return answer


class Transfers(ThreadingHTTPServer):
    """Storage Transfer over REST: it really copies, a few objects each time that it is asked.

    Attributes:
        jobs: The jobs by name, as they were sent.
        runs: The operations by name.
        asked: Method and path of all requests.
        refused: Statuses and texts for requests whose method and path hold the key, one each.
        held: While it is set, nothing is copied.
        aborts_with: Where it is set, runs fail at once and say this.
        rows_at_once: So many objects are copied each time.
    """

    daemon_threads = True
    account = "project-7@storage-transfer-service.iam.gserviceaccount.com"

    def __init__(self, client: Any) -> None:
        super().__init__(("127.0.0.1", 0), _TransfersHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.client = client
        self.jobs: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, Run] = {}
        self.asked: list[str] = []
        self.refused: dict[str, list[tuple[int, str]]] = {}
        self.held = threading.Event()
        self.aborts_with = ""
        self.rows_at_once = 20
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a test has killed who asked."""

    def count(self, method: str, ending: str) -> int:
        return sum(a.startswith(method) and a.endswith(ending) for a in self.asked)

    def step(self, run: Run) -> None:
        """Copy some more."""
        if run.is_over or self.held.is_set():
            return
        if self.aborts_with:
            run.aborted_for = self.aborts_with
            return
        sink = self.jobs[run.job]["transferSpec"]["gcsDataSink"]
        bucket = self.client.bucket(sink["bucketName"])
        for url, size, md5 in run.rows[run.at : run.at + self.rows_at_once]:
            parts = urlsplit(url)
            blob = bucket.blob(f"{sink.get('path', '')}{parts.hostname}{parts.path}")
            run.at += 1
            if blob.exists():
                run.skipped += 1
                continue
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (loopback)
                    content = answer.read()
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
        """Read a job's list as the service does, and refuse what it would refuse."""
        list_url = job["transferSpec"]["httpDataSource"]["listUrl"]
        bucket, _, name = list_url.removeprefix("gs://").partition("/")
        text = self.client.bucket(bucket).blob(name).download_as_bytes().decode()
        head, *lines = text.splitlines()
        assert head == "TsvHttpData-1.0"
        assert lines == sorted(lines, key=str.encode)
        return [line.split("\t") for line in lines]


class _TransfersHandler(Quiet):
    server: Transfers

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def answer(self, method: str) -> None:
        path = urlsplit(self.path).path
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        with self.server.lock:
            self.server.asked.append(f"{method} {path}")
            status, answer = self.decide(method, path, sent)
        body = json.dumps(answer).encode()
        self.say(status, body, {"Content-Type": "application/json"})

    def decide(self, method: str, path: str, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server = self.server
        for part, answers in server.refused.items():
            if part in f"{method} {path}" and answers:
                return wrong(*answers.pop(0))
        name = path.removeprefix("/v1/")
        if method == "POST":
            return (
                self.run(name.removesuffix(":run")) if sent.get("name") is None else self.make(sent)
            )
        if name in server.runs:
            server.step(server.runs[name])
            return 200, server.runs[name].as_json()
        account = {f"googleServiceAccounts/{PROJECT}": {"accountEmail": server.account}}
        found = {**account, **server.jobs}.get(name)
        return (200, found) if found else wrong(404, "Requested entity was not found")

    def make(self, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if sent["name"] in self.server.jobs:
            return wrong(409, "Requested entity already exists")
        self.server.jobs[sent["name"]] = sent
        return 200, sent

    def run(self, job: str) -> tuple[int, dict[str, Any]]:
        server = self.server
        latest = server.runs.get(server.jobs[job].get("latestOperationName", ""))
        if latest is not None and not latest.is_over:
            return wrong(400, "There is an active operation of this job")
        made = Run(
            f"transferOperations/run-{next(_numbers)}", job, server.rows_of(server.jobs[job])
        )
        server.runs[made.name] = made
        server.jobs[job]["latestOperationName"] = made.name
        return 200, made.as_json()


def wrong(status: int, text: str) -> tuple[int, dict[str, Any]]:
    """Give an error as Google's services write it."""
    return status, {"error": {"code": status, "message": text, "status": "WRONG"}}


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
