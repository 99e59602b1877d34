"""A site that fails as sites do, for whoever fetches large files from it."""

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

_SENT_BYTES = 1 << 14


@dataclass
class Asked:
    """A request and what was sent for it."""

    headers: dict[str, str]
    status: int = 0
    sent_bytes: int = 0


@dataclass
class Ways:
    """How the site behaves; may be changed at any time.

    Attributes:
        content: What every path has.
        etag: Its ETag; none where empty.
        last_modified: The header; none where empty.
        md5: The MD5 that Google's header tells; none where empty.
        ranges: Ranges are answered.
        length: The length is told.
        breaks: After how many bytes of the body the connection breaks, by request.
        extra: What is sent after the body.
        answers: Whole answers to send instead, by request; empty ones close at once.
        pause_s: The pause after every 16 kB.
        hold_bytes: After so many bytes of a body nothing comes until ``go_on``.
    """

    content: bytes = b""
    etag: str = '"one"'
    last_modified: str = "Wed, 21 Oct 2015 07:28:00 GMT"
    md5: str = ""
    ranges: bool = True
    length: bool = True
    breaks: list[int | None] = field(default_factory=list)
    extra: bytes = b""
    answers: list[bytes | None] = field(default_factory=list)
    pause_s: float = 0.0
    hold_bytes: int | None = None


class FaultySite(socketserver.ThreadingTCPServer):
    """Gives ``ways.content`` for every path, with the faults of ``ways``."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.ways = Ways()
        self.asked: list[Asked] = []
        self.go_on = threading.Event()

    @property
    def ranges(self) -> list[str]:
        """The range of every request, in order; empty where there was none."""
        return [asked.headers.get("range", "") for asked in self.asked]

    @property
    def statuses(self) -> list[int]:
        """What was answered."""
        return [asked.status for asked in self.asked]

    @property
    def sent_bytes(self) -> int:
        """How much of bodies was sent in all."""
        return sum(asked.sent_bytes for asked in self.asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what is tried here."""


class _Connection(socketserver.StreamRequestHandler):
    server: FaultySite

    def handle(self) -> None:
        headers = {}
        if not self.rfile.readline():
            return
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        asked = Asked(headers)
        ways = self.server.ways
        self.server.asked.append(asked)
        own = ways.answers.pop(0) if ways.answers else None
        if own is not None:
            asked.status = int(own.split()[1]) if own else 0
            self.wfile.write(own)
            return
        with contextlib.suppress(OSError):
            self._answer(asked, ways)

    def _answer(self, asked: Asked, ways: Ways) -> None:
        size = len(ways.content)
        validators = {ways.etag, ways.last_modified} - {""}
        said = {"ETag": ways.etag, "Last-Modified": ways.last_modified}
        if ways.md5:
            said["x-goog-hash"] = f"crc32c=AAAAAA==,md5={ways.md5}"
        known = asked.headers.get("if-none-match") or asked.headers.get("if-modified-since")
        found = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        first, status = 0, 200
        if known in validators:
            status = 304
        elif ways.ranges and found and asked.headers.get("if-range") in {None, *validators}:
            first, status = int(found[1]), 206 if int(found[1]) < size else 416
            said["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            if status == 416:
                said["Content-Range"] = f"bytes */{size}"
        body = ways.content[first:] if status in {200, 206} else b""
        if ways.length and status != 304:
            said["Content-Length"] = str(len(body))
        asked.status = status
        head = [f"HTTP/1.1 {status} So", "Connection: close"]
        head += [f"{name}: {value}" for name, value in said.items() if value]
        self.wfile.write("\r\n".join([*head, "", ""]).encode())
        end = ways.breaks.pop(0) if ways.breaks else None
        self._send(asked, body[:end], ways)
        if end is None:
            self.wfile.write(ways.extra)

    def _send(self, asked: Asked, body: bytes, ways: Ways) -> None:
        view = memoryview(body)
        for start in range(0, len(view), _SENT_BYTES):
            if ways.hold_bytes is not None and start >= ways.hold_bytes:
                self.server.go_on.wait(30)
            piece = view[start : start + _SENT_BYTES]
            self.wfile.write(piece)
            asked.sent_bytes += len(piece)
            if ways.pause_s:
                time.sleep(ways.pause_s)


@pytest.fixture
def faulty_site() -> Iterator[FaultySite]:
    """A site of 300 kB that is sound until its ways are changed."""
    with FaultySite() as made:
        made.ways.content = random.Random(1).randbytes(300_000)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.go_on.set()
        made.shutdown()
        thread.join()
