"""A small HTTP server for the demo mirror on loopback that behaves like the real hosts.

It supports persistent connections and ``HEAD``, conditional and range requests, sends S3's MD5
``ETag``, and responds with 404, 410 or 302 to dead links.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import socketserver
import threading
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from oiyolo.core import files
from oiyolo.demo_data.writer import (
    DEFAULT_SCENES,
    OVERRIDES_FILE,
    PUBLIC_FOLDERS,
    last_port,
    write_mirror,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.demo_data.writer import DemoMirror

HOST: Final = "127.0.0.1"
_CLOSING_TIMEOUT_S: Final = 5.0
_IDLE_TIMEOUT_S: Final = 120.0
_CONTENT_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".csv": "text/csv",
    ".json": "application/json",
}
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)$")


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


@dataclass(frozen=True)
class ServedRequest:
    """A request that the server responded to; tests count these."""

    method: str
    path: str
    status: int


class Server(ThreadingHTTPServer):
    """A server of a folder on a loopback port.

    Attributes:
        base_url: URL of the server, without a trailing slash.
        overrides: Responses that replace files, by path; may be changed while the server runs.
        requests: All requests so far, in the order in which the server responded.
    """

    daemon_threads = True
    # With a short queue, connections of a burst would wait a second for the kernel's retry.
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        self.overrides: dict[str, ResponseOverride] = {}
        self.requests: list[ServedRequest] = []
        self._connections: set[socket.socket] = set()
        self._connections_changed = threading.Condition()
        self._digests: dict[tuple[Path, int, int], str] = {}
        super().__init__((HOST, port), _Handler)
        self.base_url = f"http://{HOST}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind the socket without a name lookup of the loopback address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def load_overrides(self) -> None:
        """Read the mirror's response overrides for dead links and thumbnails from its file."""
        overrides = files.read_json(self.folder / OVERRIDES_FILE) or {}
        self.overrides = {path: ResponseOverride(**fields) for path, fields in overrides.items()}

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and remember it for ``close_connections``."""
        connection, address = super().get_request()
        with self._connections_changed:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  (as in the base class)
        """Close a connection that has ended, and forget it."""
        super().shutdown_request(request)
        with self._connections_changed:
            self._connections.discard(request)
            self._connections_changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Print nothing: clients that disconnect during a response are normal."""

    def close_connections(self, timeout_s: float) -> bool:
        """Shut down all connections; return whether they are closed before the timeout."""
        with self._connections_changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return self._connections_changed.wait_for(lambda: not self._connections, timeout_s)

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


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "OpenImagesDemo/1"
    sys_version = ""
    timeout = _IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    # Sends headers and body in as few packets as possible; the base class does not buffer.
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Print nothing; the request is in ``Server.requests``."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        status = int(code) if isinstance(code, int) else 0
        self.server.requests.append(
            ServedRequest(self.command, unquote(urlsplit(self.path).path), status)
        )

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def _respond(self) -> None:
        url_path = unquote(urlsplit(self.path).path)
        override = self.server.overrides.get(url_path, ResponseOverride())
        if override.status != HTTPStatus.OK:
            self._send_status(override.status, location=override.location)
            return
        path = self.server.file_of(override.path or url_path)
        if path is None:
            self._send_status(HTTPStatus.NOT_FOUND)
            return
        self._send_file(path)

    def _send_status(self, status: int, *, location: str = "", length: int | None = None) -> None:
        body = (
            f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{status}</Code></Error>"
        ).encode()
        self.send_response(status)
        if location:
            self.send_header("Location", self.server.base_url + location)
        if length is not None:
            self.send_header("Content-Range", f"bytes */{length}")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        size, modified_s = path.stat().st_size, int(path.stat().st_mtime)
        etag = f'"{self.server.etag_of(path)}"'
        if self._is_cached_by_client(etag, modified_s):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        range_header = self.headers.get("Range", "")
        if self.headers.get("If-Range", etag) != etag:
            range_header = ""
        byte_range = _parse_range(range_header, size)
        if byte_range is None:
            self._send_status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, length=size)
            return
        first, end = byte_range
        partial = bool(_RANGE.match(range_header))
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.send_header(
            "Content-Type", _CONTENT_TYPES.get(path.suffix, "application/octet-stream")
        )
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(modified_s, usegmt=True))
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            remaining = end - first
            while remaining and (block := file.read(min(remaining, 1 << 18))):
                self.wfile.write(block)
                remaining -= len(block)

    def _is_cached_by_client(self, etag: str, modified_s: int) -> bool:
        """Return whether the client has this version; an ETag takes precedence over a date."""
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return tags.strip() == "*" or etag in {
                tag.strip().removeprefix("W/") for tag in tags.split(",")
            }
        since = self.headers.get("If-Modified-Since")
        if since is None:
            return False
        try:
            return modified_s <= parsedate_to_datetime(since).timestamp()
        except ValueError:
            return False


def _parse_range(range_header: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the end (exclusive) of a range; ``None`` if it is unsatisfiable.

    Args:
        range_header: ``Range`` header. Anything but a single range of bytes means the whole file.
        size: Size of the file in bytes.
    """
    match = _RANGE.match(range_header)
    if match is None:
        return 0, size
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if last and int(last) and size else None
    end = min(size, int(last) + 1) if last else size
    return (int(first), end) if int(first) < end else None


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
    server = Server(folder, port)
    server.load_overrides()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-mirror", daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(_CLOSING_TIMEOUT_S)
        server.server_close()
        server.close_connections(_CLOSING_TIMEOUT_S)


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
