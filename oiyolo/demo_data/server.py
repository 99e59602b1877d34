"""A small HTTP server for the demo mirror on loopback that behaves like the real hosts.

It supports persistent connections and conditional requests, sends S3's MD5 ``ETag``, and responds
with 404, 410 or 302 to dead links.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import socketserver
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

from oiyolo.core import records
from oiyolo.demo_data.writer import (
    DEFAULT_SCENES,
    OVERRIDES_FILE,
    PUBLIC_FOLDERS,
    last_port,
    write_mirror,
)

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from oiyolo.demo_data.writer import DemoMirror

HOST: Final = "127.0.0.1"
_CLOSING_TIMEOUT_S: Final = 5.0
_IDLE_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class ResponseOverride:
    """A response that replaces the file at a path.

    Attributes:
        status: HTTP status.
        location: Target of a redirect, as a path on this server.
        path: File to send with status 200, relative to the served folder; empty for the file at
            the requested path.
    """

    status: int = 200
    location: str = ""
    path: str = ""


class ServedRequest(NamedTuple):
    """A request that the server responded to; tests count these."""

    path: str
    status: int


class Server(ThreadingHTTPServer):
    """A server of a folder on a loopback port.

    Attributes:
        base_url: URL of the server, without a trailing slash.
        overrides: Responses that replace files, by path; may be changed while the server runs.
        requests: All requests so far, in the order in which the server responded.
    """

    # With a short queue, connections of a burst would wait a second for the kernel's retry.
    request_queue_size = 256

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        self.overrides: dict[str, ResponseOverride] = {}
        self.requests: list[ServedRequest] = []
        self._connections: WeakSet[socket.socket] = WeakSet()
        self._digests: dict[tuple[Path, int, int], str] = {}
        super().__init__((HOST, port), _Handler)
        self.base_url = f"http://{HOST}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind the socket without a name lookup of the loopback address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and remember it until it is closed."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def server_close(self) -> None:
        """Close the server and all connections; otherwise they would still be answered."""
        super().server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def load_overrides(self) -> None:
        """Read the mirror's response overrides for dead links and thumbnails from its file."""
        path = self.folder / OVERRIDES_FILE
        remedy = "Delete the folder; the demo draws it again"
        overrides = records.find(path, dict[str, dict[str, Any]], remedy=remedy) or {}
        with records.convert_damage(path, remedy):
            self.overrides = {url: ResponseOverride(**row) for url, row in overrides.items()}

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Print nothing: clients that disconnect during a response are normal."""

    def etag_of(self, path: Path) -> str:
        """Return the hexadecimal MD5 of a file, as in S3's ``ETag``."""
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            self._digests[key] = digest.hexdigest()
        return self._digests[key]

    def file_of(self, url_path: str) -> Path | None:
        """Return the file of a URL path, or ``None`` if it is missing or not in a public folder."""
        parts = PurePosixPath(url_path.lstrip("/")).parts
        if not parts or parts[0] not in PUBLIC_FOLDERS or ".." in parts or "\0" in url_path:
            return None
        path = self.folder.joinpath(*parts).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            return None
        return path


class _Handler(SimpleHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "OpenImagesDemo/1"
    sys_version = ""
    timeout = _IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    # Sends headers and body in as few packets as possible; the base class does not buffer.
    wbufsize = 1 << 16
    _etag = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Print nothing; the request is in ``Server.requests``."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        status = int(code) if isinstance(code, int) else 0
        self.server.requests.append(ServedRequest(self._url_path, status))

    @property
    def _url_path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the status and headers; return the file to send, or ``None`` if there is no body."""
        override = self.server.overrides.get(self._url_path, ResponseOverride())
        file = self.server.file_of(override.path or self._url_path)
        self._etag = ""
        if override.status != HTTPStatus.OK or file is None:
            status = HTTPStatus.NOT_FOUND if override.status == HTTPStatus.OK else override.status
            self.send_response(status)
            if override.location:
                self.send_header("Location", self.server.base_url + override.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self._file = file
        self._etag = f'"{self.server.etag_of(file)}"'
        known_tags = self.headers.get("If-None-Match", "").split(",")
        if self._etag in {tag.strip().removeprefix("W/") for tag in known_tags}:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """End the headers of a response with the file's ``ETag``."""
        if self._etag:
            self.send_header("ETag", self._etag)
        super().end_headers()

    def translate_path(self, path: str) -> str:  # noqa: ARG002  (the base class passes the URL)
        """Return the path of the file to send."""
        return str(self._file)


@contextlib.contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[Server]:
    """Serve a mirror's folder on loopback, in a thread, until the block ends.

    Args:
        folder: Folder of the mirror; ``write_mirror`` may write it until the first request.
        port: Port number; 0 for a free one.

    Yields:
        The running server.

    Raises:
        OSError: The port is in use.
    """
    with Server(folder, port) as server:
        server.load_overrides()
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(_CLOSING_TIMEOUT_S)


@contextlib.contextmanager
def serve_mirror(
    folder: Path, *, seed: int = 0, scenes: int = DEFAULT_SCENES
) -> Iterator[DemoMirror]:
    """Write a mirror unless it exists, and serve it until the block ends.

    The image lists contain the URLs of the originals, so the server reuses the port of the previous
    run. If that port is in use, the lists are rewritten for another one.

    Args:
        folder: Folder of the mirror.
        seed: Seed of the scenes.
        scenes: Number of scenes in the train subset.

    Yields:
        The mirror.
    """
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(serve(folder, last_port(folder)))
        except OSError:
            server = stack.enter_context(serve(folder))
        mirror = write_mirror(folder, base_url=server.base_url, seed=seed, scenes=scenes)
        server.load_overrides()
        yield mirror
