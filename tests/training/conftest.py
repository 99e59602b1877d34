from __future__ import annotations

import contextlib
import http.server
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet.forks import LINES
from oiyolo.darknet.program import Darknet
from oiyolo.project.keys import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.networks.lint import DarknetLine


@dataclass
class Page:
    """What an address answers.

    Attributes:
        body: The content.
        status: The answer's status; a range that is asked for makes 206 of 200.
        etag: By which the version is told.
        length: Whether the length is told.
        breaks: After how many bytes of the body the connection ends, by request; then never.
    """

    body: bytes = b""
    status: int = 200
    etag: str = '"1"'
    length: bool = True
    breaks: list[int] = field(default_factory=list)


class Site(http.server.ThreadingHTTPServer):
    """Pages by their paths, on loopback; an address without a page answers 404."""

    page_type = Page

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str]] = []
        """Path and range of each request."""

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that go away are what is tried here."""


class _Connection(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        page = self.server.pages.get(self.path, Page(status=404))
        first, status = 0, page.status
        if status == 200 and asked and self.headers.get("If-Range") == page.etag:
            first, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        self.send_header("ETag", page.etag)
        self.send_header("Connection", "close")
        if status == 206:
            whole = len(page.body)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        body = page.body[first:]
        if page.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = page.breaks.pop(0) if page.breaks else None
        with contextlib.suppress(OSError):
            self.wfile.write(body[:end])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def darknet() -> Callable[..., Darknet]:
    def make(line: DarknetLine = "pjreddie", *, gpu: bool = False, cudnn: bool = False) -> Darknet:
        return Darknet(Path("/opt/darknet"), LINES[line], gpu, "made up", cudnn)

    return make


@pytest.fixture
def options() -> Callable[..., TrainOptions]:
    return TrainOptions
