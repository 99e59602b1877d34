"""The door to the web, on a server that fails in every way that servers do."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.progress import progress
from oiyolo.demo_data.server import Server, serve
from oiyolo.net.client import USER_AGENT, HttpFailureError, Patience, StoppedError, Web
from oiyolo.net.ranges import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.failing_site import FaultySite

CONTENT = bytes(range(256)) * 400
QUICK = Patience(attempts=3, first_pause_s=0.005, connect_s=2.0, read_s=0.4)


def answer(status: str, body: bytes = b"", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def whole(body: bytes = CONTENT, **headers: object) -> bytes:
    return answer("200 OK", body, Content_Length=len(body), **headers)


class Faulty(socketserver.ThreadingTCPServer):
    """Says what ``says`` has for a path: one answer a request, the last one for ever."""

    daemon_threads = True
    allow_reuse_address = True
    says: ClassVar[dict[str, list[bytes]]] = {
        "/good": [whole(ETag='"abc"', Content_Type="image/jpeg", Last_Modified="yesterday")],
        "/missing": [answer("404 Not Found", Content_Length=0)],
        "/gone": [answer("410 Gone", Content_Length=0)],
        "/forbidden": [answer("403 Forbidden", Content_Length=0)],
        "/busy-once": [answer("503 Service Unavailable", Content_Length=0), whole()],
        "/busy": [answer("503 Service Unavailable", Content_Length=0)],
        "/slow-down": [answer("429 Slow Down", Content_Length=0, Retry_After=0), whole()],
        "/wait": [answer("429 Slow Down", Content_Length=0, Retry_After=30)],
        "/tomorrow": [
            answer("503 No", Content_Length=0, Retry_After="Fri, 20 Nov 2026 08:00:00 GMT"),
            whole(),
        ],
        "/closes-once": [b"", whole()],
        "/closes": [b""],
        "/short-once": [answer("200 OK", CONTENT[:5000], Content_Length=len(CONTENT)), whole()],
        "/short": [answer("200 OK", CONTENT[:5000], Content_Length=len(CONTENT))],
        "/no-length": [answer("200 OK", CONTENT)],
        "/torn-chunks": [answer("200 OK", b"5\r\nabc", Transfer_Encoding="chunked")],
        "/empty": [whole(b"")],
        "/moved": [answer("302 Found", Location="/good", Content_Length=0)],
        "/loop": [answer("302 Found", Location="/loop", Content_Length=0)],
        "/elsewhere": [answer("302 Found", Location="file:///etc/passwd", Content_Length=0)],
        "/same": [answer("304 Not Modified")],
        "/nonsense": [b"this is no HTTP\r\n\r\n"],
    }

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.asked: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is what is tried here."""


class _Connection(socketserver.StreamRequestHandler):
    server: Faulty

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        path = head.split()[1].decode()
        self.server.heads.append(head)
        said = self.server.says.get(path, [b""])
        said = said[min(self.server.asked[path], len(said) - 1) :]
        self.server.asked[path] += 1
        if path == "/reset":
            # With the linger time at zero, closing sends a reset.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif path == "/trickle":
            self.wfile.write(answer("200 OK", Content_Length=10_000_000))
            with contextlib.suppress(OSError):
                while not self.server.ended.wait(0.02):
                    self.wfile.write(b"x" * 70_000)
        elif path == "/silent":
            self.server.ended.wait(5)
        else:
            self.wfile.write(said[0])


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Faulty() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.ended.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web(QUICK)
    yield made
    made.close()


@dataclass(frozen=True)
class Got:
    """A whole body.

    Attributes:
        content: It.
        headers: What the server said of it.
        attempts: How often it was asked for.
    """

    content: bytes
    headers: Mapping[str, str]
    attempts: int


def get(web: Web, url: str) -> Got:
    def once(attempt: int) -> Got:
        with web.opened(url, {}) as answer:
            return Got(b"".join(answer.blocks()), answer.headers, attempt)

    return web.patiently(url, once)


def test_a_body_comes_whole_with_what_the_server_says_of_it(server: Faulty, web: Web) -> None:
    body = get(web, f"{server.url}/good")
    assert body.content == CONTENT
    assert (body.headers["ETag"], body.headers["Content-Type"]) == ('"abc"', "image/jpeg")
    assert body.attempts == 1
    assert USER_AGENT.encode() in server.heads[0]
    assert b"Accept-Encoding: identity" in server.heads[0]


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
def test_what_fails_for_now_is_tried_again_until_it_is_whole(
    server: Faulty, web: Web, path: str, attempts: int
) -> None:
    body = get(web, server.url + path)
    assert body.content == CONTENT
    assert body.attempts == attempts
    assert server.asked[path] == attempts


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
        ("/short", "broken off", True, True, 3),
        ("/torn-chunks", "broken off", True, True, 3),
        ("/loop", "unusable address", False, True, 1),
        ("/elsewhere", "unusable address", False, True, 1),
    ],
)
def test_a_failure_is_told_by_reason_whether_it_may_pass_and_after_how_many_attempts(
    server: Faulty, web: Web, path: str, reason: str, attempts: int, *, transient: bool,
    reached: bool,
) -> None:  # fmt: skip
    with pytest.raises(HttpFailureError) as caught:
        get(web, server.url + path)
    failure = caught.value
    assert (failure.reason, failure.transient, failure.reached) == (reason, transient, reached)
    assert failure.attempts == attempts
    if path != "/loop":
        assert server.asked[path] == attempts
    assert str(failure) == failure.detail
    assert "object at 0x" not in failure.detail


def test_an_empty_body_is_a_body(server: Faulty, web: Web) -> None:
    assert get(web, f"{server.url}/empty").content == b""


def test_a_port_where_nobody_listens_was_not_reached(web: Web) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a"
        with pytest.raises(HttpFailureError) as caught:
            get(web, url)
    assert caught.value.reason == "connection failed"
    assert caught.value.attempts == 3
    assert not caught.value.reached
    assert "refused" in caught.value.detail


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a", "gs://bucket/a", "a.jpg", "", "/etc/passwd"]
)
def test_only_http_and_https_pass(web: Web, url: str) -> None:
    with pytest.raises(HttpFailureError) as caught:
        get(web, url)
    assert caught.value.reason == "not http(s)"
    assert not caught.value.transient


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a", "http://[::1/a", "http://host:port/", f"http://{'a' * 70}.com/"],
)
def test_an_address_that_is_none_is_not_tried_again(web: Web, url: str) -> None:
    with pytest.raises(HttpFailureError) as caught:
        get(web, url)
    assert not caught.value.transient
    assert caught.value.attempts == 1


def test_the_stop_event_ends_a_pause_at_once(server: Faulty) -> None:
    stop = threading.Event()
    web = Web(Patience(attempts=2), stop)
    threading.Timer(0.1, stop.set).start()
    started_s = time.monotonic()
    with pytest.raises(StoppedError):
        get(web, f"{server.url}/wait")
    assert time.monotonic() - started_s < 2
    assert server.asked["/wait"] == 1
    web.close()


def test_the_stop_event_ends_a_body_that_is_still_coming(server: Faulty) -> None:
    stop = threading.Event()
    web = Web(QUICK, stop)
    threading.Timer(0.1, stop.set).start()
    started_s = time.monotonic()
    with pytest.raises(StoppedError):
        get(web, f"{server.url}/trickle")
    assert time.monotonic() - started_s < 2
    web.close()


def test_a_download_is_written_with_its_digest(server: Faulty, web: Web, tmp_path: Path) -> None:
    with progress("x", unit="B") as told:
        got = web.download(f"{server.url}/good", tmp_path / "part", headers={"X-A": "b"}, told=told)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert got.changed
    assert got.md5 == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert (got.size_bytes, got.etag, got.last_modified) == (len(CONTENT), '"abc"', "yesterday")
    assert b"X-A: b" in server.heads[0]


def test_a_download_begins_anew_after_a_break(server: Faulty, web: Web, tmp_path: Path) -> None:
    with progress("x", unit="B") as told:
        got = web.download(f"{server.url}/short-once", tmp_path / "part", headers={}, told=told)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert got.size_bytes == len(CONTENT)


def test_what_did_not_change_is_not_written(server: Faulty, web: Web, tmp_path: Path) -> None:
    with progress("x", unit="B") as told:
        got = web.download(f"{server.url}/same", tmp_path / "part", headers={}, told=told)
    assert not got.changed
    assert not (tmp_path / "part").exists()


def test_a_download_that_fails_names_address_and_attempts(
    server: Faulty, web: Web, tmp_path: Path
) -> None:
    with progress("x") as told, pytest.raises(UnavailableError, match=r"attempts: 3") as caught:
        web.download(f"{server.url}/busy", tmp_path / "part", headers={}, told=told)
    assert caught.value.where == f"{server.url}/busy"
    assert caught.value.found == "HTTP 503 Service Unavailable"
    assert caught.value.exit_code == 4


def test_threads_share_a_web(server: Faulty, web: Web) -> None:
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(get(web, f"{server.url}/good").content))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [CONTENT] * 8


@pytest.mark.parametrize(
    ("attempt", "asked", "low", "high"),
    [(1, None, 0.25, 0.5), (2, None, 0.5, 1.0), (4, None, 2.0, 4.0), (30, None, 30.0, 60.0),
     (1, 7.0, 7.0, 7.0), (1, 0.0, 0.0, 0.0), (1, 9999.0, 60.0, 60.0)],
)  # fmt: skip
def test_pauses_double_with_jitter_up_to_a_minute_or_are_what_the_server_asks_for(
    attempt: int, asked: float | None, low: float, high: float
) -> None:
    for _ in range(20):
        assert low <= Patience().pause_s(attempt, asked) <= high


def test_a_download_leaves_its_connection_to_the_next(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[object] = []
    accept = Server.get_request

    def counted(server: Server) -> tuple[socket.socket, Any]:
        accepted.append(server)
        return accept(server)

    monkeypatch.setattr(Server, "get_request", counted)
    path = tmp_path / "openimages" / "a.csv"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    with serve(tmp_path) as site:
        for _ in range(3):
            url = f"{site.base_url}/openimages/a.csv"
            with progress("x", unit="B") as told:
                web.download(url, tmp_path / "part", headers={}, told=told)
        assert len(site.served) == 3
        web.close()
    assert len(accepted) == 1


class Told:
    """Counts what a download tells, from where its bar begins."""

    def __init__(self, done: int = 0) -> None:
        self.done = done
        self.lowest = done

    def advance(self, count: int = 1) -> None:
        self.done += count
        self.lowest = min(self.lowest, self.done)

    def tell(self, **figures: object) -> None:
        raise AssertionError(figures)


def test_the_bar_of_a_resumed_download_begins_where_it_stands(
    faulty_site: FaultySite, web: Web, tmp_path: Path
) -> None:
    content = faulty_site.ways.content
    (tmp_path / "part").write_bytes(content[:100_000])
    told = Told(100_000)
    begun = []
    got = web.download(
        f"{faulty_site.url}/a", tmp_path / "part", headers={}, told=told,
        held=Version('"one"', "", len(content)), begin=lambda *now: begun.append(now),
    )  # fmt: skip
    assert (tmp_path / "part").read_bytes() == content
    assert (told.lowest, told.done) == (100_000, len(content))
    assert [done for _, done in begun] == [100_000]
    assert (got.resumed, got.came_bytes, got.size_bytes) == (True, 200_000, len(content))


def test_the_bar_goes_back_where_a_download_begins_anew(
    faulty_site: FaultySite, web: Web, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(b"?" * 100_000)
    told = Told(100_000)
    web.download(
        f"{faulty_site.url}/a", tmp_path / "part", headers={}, told=told,
        held=Version('"another"', "", 400_000),
    )  # fmt: skip
    assert (tmp_path / "part").read_bytes() == faulty_site.ways.content
    assert (told.lowest, told.done) == (0, len(faulty_site.ways.content))


def test_a_refusal_at_the_beginning_ends_a_download_with_nothing_written(
    faulty_site: FaultySite, web: Web, tmp_path: Path
) -> None:
    def refuse(version: Version, done: int) -> None:
        raise UsageError(f"{version.size_bytes} and {done}")

    with progress("x", unit="B") as told, pytest.raises(UsageError, match="300000 and 0"):
        web.download(f"{faulty_site.url}/a", tmp_path / "part", headers={}, told=told, begin=refuse)
    assert (tmp_path / "part").read_bytes() == b""


@pytest.mark.parametrize("path", ["/no-length", "/good", "/short-once", "/moved", "/empty"])
def test_a_stream_is_what_a_download_is(server: Faulty, web: Web, path: str) -> None:
    stream = web.stream(server.url + path)
    blocks = list(stream.blocks(10_000))
    content = b"" if path == "/empty" else CONTENT
    assert b"".join(blocks) == content
    assert all(len(block) >= 10_000 for block in blocks[:-1])
    assert stream.got is not None
    assert stream.got.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("path", ["/torn-chunks", "/missing", "/silent", "/nonsense", "/elsewhere"])
def test_a_stream_of_nothing_says_so(server: Faulty, web: Web, path: str) -> None:
    with pytest.raises(UnavailableError, match="attempts"):
        list(web.stream(server.url + path).blocks(1 << 20))


def test_a_page_in_another_encoding_is_decoded_and_not_resumed(
    server: Faulty, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(CONTENT)
    said = {"ETag": '"z"', "Content_Encoding": "gzip", "Content_Length": len(packed)}
    torn = answer("200 OK", packed[:500], **said)
    monkeypatch.setitem(server.says, "/packed", [torn, answer("200 OK", packed, **said)])
    with progress("x", unit="B") as told:
        got = web.download(f"{server.url}/packed", tmp_path / "part", headers={}, told=told)
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert (got.size_bytes, got.resumed) == (len(CONTENT), False)
    assert not any(b"Range" in head for head in server.heads)


def test_whether_something_is_newer_is_asked_without_reading_it(
    faulty_site: FaultySite, web: Web
) -> None:
    faulty_site.ways.content = bytes(50_000_000)
    url = f"{faulty_site.url}/a"
    assert web.newer_version(url, {"If-None-Match": '"one"'}) is None
    newer = web.newer_version(url, {"If-None-Match": '"zero"'})
    assert newer is not None
    assert (newer.etag, newer.size_bytes) == ('"one"', 50_000_000)
    assert faulty_site.statuses == [304, 200]
    assert faulty_site.sent_bytes < 50_000_000
