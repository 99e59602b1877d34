"""A site with realistic failures, for tests of clients that download large files."""

from __future__ import annotations

import contextlib
import random
import re
import socketserver
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEND_BYTES = 1 << 14


@dataclass
class ReceivedRequest:
    """A request, and what was sent in response.

    Attributes:
        headers: Request headers, by name in lower case.
        status: Status of the response.
        sent_bytes: Bytes of the body that were sent.
    """

    headers: dict[str, str]
    status: int = 0
    sent_bytes: int = 0


@dataclass
class SiteSettings:
    """How the site responds; may be changed at any time.

    Attributes:
        content: Body of every path.
        etag: ETag of the content; empty to send none.
        last_modified: Last-Modified of the content; empty to send none.
        md5: MD5 for Google's hash header; empty to send none.
        ranges: Whether range requests are honoured.
        conditions: Whether conditional requests are answered with 304.
        length: Whether Content-Length is sent.
        breaks: For each request, after how many bytes of the body the connection breaks.
        extra: Bytes sent after the body.
        repeats: How often the body is sent in one response.
        responses: For each request, a whole response to send instead; an empty one closes the
            connection.
        pause_s: Pause after every 16 kB.
        stall_after_bytes: Bytes of a body after which nothing is sent until ``resume`` is set.
    """

    content: bytes = b""
    etag: str = '"one"'
    last_modified: str = "Wed, 21 Oct 2015 07:28:00 GMT"
    md5: str = ""
    ranges: bool = True
    conditions: bool = True
    length: bool = True
    breaks: list[int | None] = field(default_factory=list)
    extra: bytes = b""
    repeats: int = 1
    responses: list[bytes | None] = field(default_factory=list)
    pause_s: float = 0.0
    stall_after_bytes: int | None = None


class FaultySite(socketserver.ThreadingTCPServer):
    """Serves ``settings.content`` at every path, with the faults of ``settings``.

    Attributes:
        url: URL of the site.
        settings: How it responds.
        requests: All requests, in order.
        resume: Event that ends a stall.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.settings = SiteSettings()
        self.requests: list[ReceivedRequest] = []
        self.resume = threading.Event()

    @property
    def ranges(self) -> list[str]:
        """The Range header of every request, in order; empty if it had none."""
        return [request.headers.get("range", "") for request in self.requests]

    @property
    def statuses(self) -> list[int]:
        """The statuses of all responses, in order."""
        return [request.status for request in self.requests]

    @property
    def sent_bytes(self) -> int:
        """Bytes of all bodies that were sent."""
        return sum(request.sent_bytes for request in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the tests' clients disconnect on purpose."""


class _Connection(socketserver.StreamRequestHandler):
    server: FaultySite

    def handle(self) -> None:
        headers = {}
        if not self.rfile.readline():
            return
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        request = ReceivedRequest(headers)
        settings = self.server.settings
        self.server.requests.append(request)
        response = settings.responses.pop(0) if settings.responses else None
        if response is not None:
            request.status = int(response.split()[1]) if response else 0
            self.wfile.write(response)
            return
        with contextlib.suppress(OSError):
            self._respond(request, settings)

    def _respond(self, request: ReceivedRequest, settings: SiteSettings) -> None:
        size = len(settings.content)
        validators = {settings.etag, settings.last_modified} - {""}
        headers = {"ETag": settings.etag, "Last-Modified": settings.last_modified}
        if settings.md5:
            headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={settings.md5}"
        condition = request.headers.get("if-none-match") or request.headers.get("if-modified-since")
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        first, status = 0, 200
        if settings.conditions and condition in validators:
            status = 304
        elif settings.ranges and match and request.headers.get("if-range") in {None, *validators}:
            first, status = int(match[1]), 206 if int(match[1]) < size else 416
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            if status == 416:
                headers["Content-Range"] = f"bytes */{size}"
        body = settings.content[first:] if status in {200, 206} else b""
        if settings.length and status != 304:
            headers["Content-Length"] = str(len(body))
        request.status = status
        head = [f"HTTP/1.1 {status} So", "Connection: close"]
        head += [f"{name}: {value}" for name, value in headers.items() if value]
        self.wfile.write("\r\n".join([*head, "", ""]).encode())
        end = settings.breaks.pop(0) if settings.breaks else None
        for _ in range(settings.repeats):
            self._send(request, body[:end], settings)
        if end is None:
            self.wfile.write(settings.extra)

    def _send(self, request: ReceivedRequest, body: bytes, settings: SiteSettings) -> None:
        view = memoryview(body)
        for start in range(0, len(view), _SEND_BYTES):
            if settings.stall_after_bytes is not None and start >= settings.stall_after_bytes:
                self.server.resume.wait(30)
            piece = view[start : start + _SEND_BYTES]
            self.wfile.write(piece)
            request.sent_bytes += len(piece)
            if settings.pause_s:
                time.sleep(settings.pause_s)


@pytest.fixture
def faulty_site() -> Iterator[FaultySite]:
    """A site with 300 kB that works until its settings are changed."""
    with FaultySite() as site:
        site.settings.content = random.Random(1).randbytes(300_000)
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        site.resume.set()
        site.shutdown()
        thread.join()
