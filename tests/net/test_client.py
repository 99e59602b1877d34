"""The HTTP client for large files, with a server that fails in realistic ways."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import socket
import socketserver
import threading
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.demo_data.server import Server, serve
from oiyolo.net import download as download_module
from oiyolo.net.client import HttpClient
from oiyolo.net.download import PartialDownload, Stream
from oiyolo.net.ranges import FileVersion
from oiyolo.net.retry import (
    USER_AGENT,
    HttpFailureError,
    RetryPolicy,
    StoppedError,
    with_retries,
)
from tests.support.pauses import RecordedPauses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from oiyolo.net.download import Download
    from tests.support.failing_site import FaultySite

CONTENT = bytes(range(256)) * 400
QUICK = RetryPolicy(max_attempts=3, first_pause_s=0.005, connect_timeout_s=2.0, read_timeout_s=0.4)


def response(status: str, body: bytes = b"", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def complete(body: bytes = CONTENT, **headers: object) -> bytes:
    return response("200 OK", body, Content_Length=len(body), **headers)


class FaultyServer(socketserver.ThreadingTCPServer):
    """Sends the prepared responses of a path, one per request, and the last one permanently.

    Attributes:
        responses: Responses by path; an empty one closes the connection.
        request_counts: Number of requests by path.
        request_heads: Heads of all requests, as received.
        ended: Event that ends all responses that are still being sent.
        url: URL of the server.
    """

    daemon_threads = True
    allow_reuse_address = True
    responses: ClassVar[dict[str, list[bytes]]] = {
        "/good": [complete(ETag='"abc"', Content_Type="image/jpeg", Last_Modified="yesterday")],
        "/missing": [response("404 Not Found", Content_Length=0)],
        "/gone": [response("410 Gone", Content_Length=0)],
        "/forbidden": [response("403 Forbidden", Content_Length=0)],
        "/busy-once": [response("503 Service Unavailable", Content_Length=0), complete()],
        "/busy": [response("503 Service Unavailable", Content_Length=0)],
        "/slow-down": [response("429 Slow Down", Content_Length=0, Retry_After=0), complete()],
        "/wait": [response("429 Slow Down", Content_Length=0, Retry_After=30)],
        "/tomorrow": [
            response("503 No", Content_Length=0, Retry_After="Fri, 20 Nov 2026 08:00:00 GMT"),
            complete(),
        ],
        "/closes-once": [b"", complete()],
        "/closes": [b""],
        "/short-once": [
            response("200 OK", CONTENT[:5000], Content_Length=len(CONTENT)),
            complete(),
        ],
        "/short": [response("200 OK", CONTENT[:5000], Content_Length=len(CONTENT))],
        "/no-length": [response("200 OK", CONTENT)],
        "/incomplete-chunk": [response("200 OK", b"5\r\nabc", Transfer_Encoding="chunked")],
        "/empty": [complete(b"")],
        "/moved": [response("302 Found", Location="/good", Content_Length=0)],
        "/loop": [response("302 Found", Location="/loop", Content_Length=0)],
        "/elsewhere": [response("302 Found", Location="file:///etc/passwd", Content_Length=0)],
        "/same": [response("304 Not Modified")],
        "/nonsense": [b"this is no HTTP\r\n\r\n"],
    }

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.request_counts: Counter[str] = Counter()
        self.request_heads: list[bytes] = []
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the tests' clients disconnect on purpose."""


class _Connection(socketserver.StreamRequestHandler):
    server: FaultyServer

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        path = head.split()[1].decode()
        self.server.request_heads.append(head)
        responses = self.server.responses.get(path, [b""])
        responses = responses[min(self.server.request_counts[path], len(responses) - 1) :]
        self.server.request_counts[path] += 1
        if path == "/reset":
            # With the linger time at zero, closing sends a reset.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif path == "/trickle":
            self.wfile.write(response("200 OK", Content_Length=10_000_000))
            with contextlib.suppress(OSError):
                while not self.server.ended.wait(0.02):
                    self.wfile.write(b"x" * 70_000)
        elif path == "/silent":
            self.server.ended.wait(5)
        else:
            self.wfile.write(responses[0])


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def web() -> Iterator[HttpClient]:
    client = HttpClient(QUICK)
    yield client
    client.close()


@dataclass(frozen=True)
class Body:
    """A complete body.

    Attributes:
        content: The body.
        headers: Headers of the response.
        attempts: Number of attempts made.
    """

    content: bytes
    headers: Mapping[str, str]
    attempts: int


def get(web: HttpClient, url: str) -> Body:
    def request(attempt: int) -> Body:
        with web.open(url, {}) as response:
            return Body(b"".join(response.blocks()), response.headers, attempt)

    return with_retries(request, policy=web.retry_policy, stop=web.stop)


def download(web: HttpClient, url: str, part: Path, **options: Any) -> Download:
    return PartialDownload(part, url).download(web, label="x", **options)


def test_a_response_has_its_complete_body_and_headers(
    server: FaultyServer, web: HttpClient
) -> None:
    body = get(web, f"{server.url}/good")
    assert body.content == CONTENT
    assert (body.headers["ETag"], body.headers["Content-Type"]) == ('"abc"', "image/jpeg")
    assert body.attempts == 1
    assert USER_AGENT.encode() in server.request_heads[0]
    assert b"Accept-Encoding: identity" in server.request_heads[0]


@pytest.mark.parametrize(
    ("path", "attempts"),
    [
        ("/busy-once", 2),
        ("/slow-down", 2),
        ("/tomorrow", 2),
        ("/closes-once", 2),
        ("/short-once", 2),
        ("/no-length", 1),
        ("/moved", 1),
    ],
)
def test_a_transient_failure_is_retried_until_the_body_is_complete(
    server: FaultyServer, web: HttpClient, path: str, attempts: int
) -> None:
    body = get(web, server.url + path)
    assert body.content == CONTENT
    assert body.attempts == attempts
    assert server.request_counts[path] == attempts


@pytest.mark.parametrize(
    ("path", "reason", "transient", "reached", "attempts"),
    [
        ("/missing", "HTTP 404", False, True, 1),
        ("/gone", "HTTP 410", False, True, 1),
        ("/forbidden", "HTTP 403", False, True, 1),
        ("/busy", "HTTP 503", True, True, 3),
        ("/closes", "connection failed", True, False, 3),
        ("/reset", "connection failed", True, False, 3),
        ("/silent", "connection failed", True, False, 3),
        ("/nonsense", "connection failed", True, False, 3),
        ("/short", "interrupted", True, True, 3),
        ("/incomplete-chunk", "interrupted", True, True, 3),
        ("/loop", "too many redirects", False, True, 1),
        ("/elsewhere", "not http(s)", False, True, 1),
    ],
)
def test_a_failure_has_its_reason_whether_it_is_transient_and_its_attempts(
    server: FaultyServer, web: HttpClient, path: str, reason: str, attempts: int, *,
    transient: bool, reached: bool,
) -> None:  # fmt: skip
    with pytest.raises(HttpFailureError) as caught:
        get(web, server.url + path)
    failure = caught.value
    assert (failure.reason, failure.transient, failure.reached) == (reason, transient, reached)
    assert failure.attempts == attempts
    if path != "/loop":
        assert server.request_counts[path] == attempts
    assert str(failure) == failure.detail
    assert "object at 0x" not in failure.detail


def test_an_empty_body_is_a_complete_body(server: FaultyServer, web: HttpClient) -> None:
    assert get(web, f"{server.url}/empty").content == b""


def test_a_small_body_is_returned_in_memory(server: FaultyServer, web: HttpClient) -> None:
    url = f"{server.url}/good"
    assert web.get(url, limit_bytes=len(CONTENT)) == (CONTENT, "image/jpeg")
    assert web.get(f"{server.url}/short-once", limit_bytes=1 << 20)[0] == CONTENT


@pytest.mark.parametrize(
    ("path", "limit_bytes", "total_timeout_s", "reason"),
    [
        ("/good", len(CONTENT) - 1, 9.0, "too large"),
        ("/no-length", len(CONTENT) - 1, 9.0, "too large"),
        ("/no-length", len(CONTENT), -1.0, "too slow"),
        ("/short", len(CONTENT), 9.0, "interrupted"),
        ("/missing", len(CONTENT), 9.0, "HTTP 404"),
    ],
)
def test_a_small_body_that_is_too_large_too_slow_or_incomplete_is_a_failure(
    server: FaultyServer, path: str, limit_bytes: int, total_timeout_s: float, reason: str
) -> None:
    web = HttpClient(replace(QUICK, total_timeout_s=total_timeout_s))
    with contextlib.closing(web), pytest.raises(HttpFailureError) as failure:
        web.get(f"{server.url}{path}", limit_bytes=limit_bytes)
    assert failure.value.reason == reason


def test_a_port_without_a_listener_was_not_reached(web: HttpClient) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but nothing listens
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/a"
        with pytest.raises(HttpFailureError) as caught:
            get(web, url)
    assert caught.value.reason == "connection failed"
    assert caught.value.attempts == 3
    assert not caught.value.reached
    assert "refused" in caught.value.detail


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a", "gs://bucket/a", "a.jpg", "", "/etc/passwd"]
)
def test_only_http_and_https_urls_are_accepted(web: HttpClient, url: str) -> None:
    with pytest.raises(HttpFailureError) as caught:
        get(web, url)
    assert caught.value.reason == "not http(s)"
    assert not caught.value.transient


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a", "http://[::1/a", "http://host:port/", f"http://{'a' * 70}.com/"],
)
def test_an_invalid_url_is_not_retried(web: HttpClient, url: str) -> None:
    with pytest.raises(HttpFailureError) as caught:
        get(web, url)
    assert not caught.value.transient
    assert caught.value.attempts == 1


@pytest.mark.parametrize(("path", "low_s", "high_s"), [("/wait", 30.0, 30.0), ("/busy", 0.25, 0.5)])
def test_a_retry_waits_as_the_server_asks_or_as_the_policy_says(
    server: FaultyServer, path: str, low_s: float, high_s: float
) -> None:
    stop = RecordedPauses()
    web = HttpClient(RetryPolicy(max_attempts=2))
    web.stop = stop
    with contextlib.closing(web), pytest.raises(HttpFailureError):
        get(web, server.url + path)
    (pause_s,) = stop.pauses_s
    assert low_s <= pause_s <= high_s


def test_the_stop_event_ends_a_pause(server: FaultyServer) -> None:
    stop = RecordedPauses(stops_in_pause=True)
    web = HttpClient(RetryPolicy(max_attempts=2))
    web.stop = stop
    with contextlib.closing(web), pytest.raises(StoppedError):
        get(web, f"{server.url}/wait")
    assert stop.pauses_s == [30.0]
    assert server.request_counts["/wait"] == 1


def test_the_stop_event_ends_a_download_in_progress(server: FaultyServer, web: HttpClient) -> None:
    with web.open(f"{server.url}/trickle", {}) as response:
        blocks = response.blocks()
        assert next(blocks)
        web.stop.set()
        with pytest.raises(StoppedError):
            next(blocks)


@pytest.mark.parametrize("path", ["/missing", "/loop", "/elsewhere", "/closes"])
def test_no_error_contains_the_secrets_of_a_url(
    server: FaultyServer, web: HttpClient, tmp_path: Path, path: str
) -> None:
    url = server.url.replace("://", "://me:s3cr3t@") + path + "?signature=s3cr3t"
    server.responses[f"{path}?signature=s3cr3t"] = server.responses[path]
    with pytest.raises(UnavailableError) as caught:
        download(web, url, tmp_path / "part")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.where == server.url + path


def test_a_download_writes_the_file_and_returns_its_digest(
    server: FaultyServer, web: HttpClient, tmp_path: Path
) -> None:
    done = download(web, f"{server.url}/good", tmp_path / "part", headers={"X-A": "b"})
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert done.changed
    assert done.md5 == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert (done.size_bytes, done.etag, done.last_modified) == (
        len(CONTENT),
        '"abc"',
        "yesterday",
    )
    assert b"X-A: b" in server.request_heads[0]


def test_a_download_is_complete_after_an_interruption(
    server: FaultyServer, web: HttpClient, tmp_path: Path
) -> None:
    done = download(web, f"{server.url}/short-once", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert done.size_bytes == len(CONTENT)


def test_a_file_that_has_not_changed_is_not_written(
    server: FaultyServer, web: HttpClient, tmp_path: Path
) -> None:
    assert not download(web, f"{server.url}/same", tmp_path / "part").changed
    assert not (tmp_path / "part").exists()


def test_the_error_of_a_failed_download_names_the_url_and_the_attempts(
    server: FaultyServer, web: HttpClient, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError) as caught:
        download(web, f"{server.url}/busy", tmp_path / "part")
    assert "attempts: 3" in caught.value.what
    assert caught.value.where == f"{server.url}/busy"
    assert caught.value.found == "HTTP 503 Service Unavailable"
    assert caught.value.exit_code == 4


def test_threads_share_a_client(server: FaultyServer, web: HttpClient) -> None:
    contents: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: contents.append(get(web, f"{server.url}/good").content))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [CONTENT] * 8


@pytest.mark.parametrize(
    ("attempt", "retry_after_s", "low", "high"),
    [(1, None, 0.25, 0.5), (2, None, 0.5, 1.0), (4, None, 2.0, 4.0), (30, None, 30.0, 60.0),
     (1, 7.0, 7.0, 7.0), (1, 0.0, 0.0, 0.0), (1, 9999.0, 60.0, 60.0)],
)  # fmt: skip
def test_pauses_double_with_jitter_up_to_a_minute_or_are_what_the_server_asks_for(
    attempt: int, retry_after_s: float | None, low: float, high: float
) -> None:
    for _ in range(20):
        assert low <= RetryPolicy().pause_s(attempt, retry_after_s) <= high


def test_the_next_download_reuses_the_connection(
    tmp_path: Path, web: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[object] = []
    accept = Server.get_request

    def count(server: Server) -> tuple[socket.socket, Any]:
        connections.append(server)
        return accept(server)

    monkeypatch.setattr(Server, "get_request", count)
    path = tmp_path / "openimages" / "a.csv"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    with serve(tmp_path) as site:
        for _ in range(3):
            url = f"{site.base_url}/openimages/a.csv"
            download(web, url, tmp_path / "part")
        assert len(site.requests) == 3
        web.close()
    assert len(connections) == 1


class Bar:
    """A progress bar that records its lowest position."""

    def __init__(self) -> None:
        self.done = self.lowest = 0

    @contextlib.contextmanager
    def start(self, _: str, *, initial: int, **__: object) -> Iterator[Bar]:
        self.done = self.lowest = initial
        yield self

    def advance(self, count: int = 1) -> None:
        self.done += count
        self.lowest = min(self.lowest, self.done)


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Bar:
    bar = Bar()
    monkeypatch.setattr(download_module, "progress", bar.start)
    return bar


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


def interrupt(part: Path, url: str, version: FileVersion, beginning: bytes) -> None:
    """Leave what an interrupted download leaves."""
    part.write_bytes(beginning)
    record = {"url": url, "version": asdict(version)}
    part.with_name("part.json").write_text(json.dumps(record))


def test_the_bar_of_a_resumed_download_starts_at_the_size_of_the_part(
    faulty_site: FaultySite, web: HttpClient, part: Path, bar: Bar
) -> None:
    content, url = faulty_site.settings.content, f"{faulty_site.url}/a"
    interrupt(part, url, FileVersion('"one"', "", len(content)), content[:100_000])
    done = download(web, url, part)
    assert part.read_bytes() == content
    assert (bar.lowest, bar.done) == (100_000, len(content))
    assert faulty_site.ranges == ["bytes=100000-"]
    assert (done.resumed, done.received_bytes, done.size_bytes) == (True, 200_000, len(content))


def test_the_bar_goes_back_if_a_download_restarts(
    faulty_site: FaultySite, web: HttpClient, part: Path, bar: Bar
) -> None:
    url = f"{faulty_site.url}/a"
    interrupt(part, url, FileVersion('"another"', "", 400_000), b"?" * 100_000)
    download(web, url, part)
    assert part.read_bytes() == faulty_site.settings.content
    assert (bar.lowest, bar.done) == (0, len(faulty_site.settings.content))


def test_a_file_of_the_wrong_size_is_rejected_before_anything_is_written(
    faulty_site: FaultySite, web: HttpClient, part: Path
) -> None:
    sizes = []

    def reject(size_bytes: int) -> None:
        sizes.append(size_bytes)
        raise InputFormError("the wrong size")

    with pytest.raises(InputFormError):
        download(web, f"{faulty_site.url}/a", part, check_size=reject)
    assert sizes == [300_000]
    assert not part.exists()


def test_an_error_that_is_no_verdict_on_the_file_keeps_the_part(
    faulty_site: FaultySite, web: HttpClient, part: Path
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(web, f"{faulty_site.url}/a", part, check_file=interrupted)
    assert part.stat().st_size == 300_000
    assert PartialDownload(part, f"{faulty_site.url}/a").find()[1] == 300_000


@pytest.mark.parametrize("path", ["/no-length", "/good", "/short-once", "/moved", "/empty"])
def test_a_stream_has_the_same_content_as_a_download(
    server: FaultyServer, web: HttpClient, path: str
) -> None:
    stream = Stream(web, server.url + path)
    blocks = list(stream.blocks(10_000))
    content = b"" if path == "/empty" else CONTENT
    assert b"".join(blocks) == content
    assert all(len(block) >= 10_000 for block in blocks[:-1])
    assert stream.result is not None
    assert stream.result.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    "path", ["/incomplete-chunk", "/missing", "/silent", "/nonsense", "/elsewhere"]
)
def test_a_stream_without_a_usable_response_raises(
    server: FaultyServer, web: HttpClient, path: str
) -> None:
    with pytest.raises(UnavailableError) as caught:
        list(Stream(web, server.url + path).blocks(1 << 20))
    assert caught.value.where == server.url + path


def test_an_encoded_body_is_decoded_and_not_resumed(
    server: FaultyServer, web: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(CONTENT)
    headers = {"ETag": '"z"', "Content_Encoding": "gzip", "Content_Length": len(packed)}
    short = response("200 OK", packed[:500], **headers)
    monkeypatch.setitem(server.responses, "/packed", [short, response("200 OK", packed, **headers)])
    done = download(web, f"{server.url}/packed", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert (done.size_bytes, done.resumed) == (len(CONTENT), False)
    assert not any(b"Range" in head for head in server.request_heads)


def test_a_newer_version_is_detected_without_reading_the_body(
    faulty_site: FaultySite, web: HttpClient
) -> None:
    faulty_site.settings.content = bytes(50_000_000)
    url = f"{faulty_site.url}/a"
    assert web.newer_version(url, {"If-None-Match": '"one"'}) is None
    newer = web.newer_version(url, {"If-None-Match": '"zero"'})
    assert newer is not None
    assert (newer.etag, newer.size_bytes) == ('"one"', 50_000_000)
    assert faulty_site.statuses == [304, 200]
    assert faulty_site.sent_bytes < 50_000_000
