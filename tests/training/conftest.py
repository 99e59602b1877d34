from __future__ import annotations

import contextlib
import http.server
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet.forks import FORKS
from oiyolo.darknet.program import Darknet
from oiyolo.project.keys import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.darknet.program import Engine
    from oiyolo.networks.lint import ForkName


@dataclass
class Page:
    """The response of a URL.

    Attributes:
        body: The content.
        status: The status of the response; a range request turns 200 into 206.
        etag: The ETag, which identifies the version.
        length: Whether the response has a Content-Length.
        breaks: After how many bytes of the body the connection ends, one entry per request; later
            requests are complete.
    """

    body: bytes = b""
    status: int = 200
    etag: str = '"1"'
    length: bool = True
    breaks: list[int] = field(default_factory=list)


class WeightsSite(http.server.ThreadingHTTPServer):
    """Pages by their paths, on loopback; a URL without a page returns 404."""

    page_type = Page

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str]] = []
        """Path and range of each request."""

    def handle_error(self, *_: object) -> None:
        """Do nothing: tests close connections on purpose."""


class _Connection(http.server.BaseHTTPRequestHandler):
    server: WeightsSite

    def do_GET(self) -> None:
        requested = self.headers.get("Range", "")
        self.server.requests.append((self.path, requested))
        page = self.server.pages.get(self.path, Page(status=404))
        first, status = 0, page.status
        if status == 200 and requested and self.headers.get("If-Range") == page.etag:
            first, status = int(requested.removeprefix("bytes=").rstrip("-")), 206
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
        """Do nothing."""


@pytest.fixture
def weights_site() -> Iterator[WeightsSite]:
    with WeightsSite() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def make_darknet() -> Callable[..., Darknet]:
    def make(
        fork: ForkName = "pjreddie",
        *,
        gpu: bool = False,
        cudnn: bool = False,
        engine: Engine = "darknet",
    ) -> Darknet:
        return Darknet(Path("/opt/darknet"), FORKS[fork], gpu, "invented", cudnn, engine)

    return make


@pytest.fixture
def options() -> Callable[..., TrainOptions]:
    return TrainOptions
