"""The demo mirror on loopback: a small HTTP server with what the real hosts do.

It keeps connections, answers ``HEAD``, conditional and range requests, gives S3's MD5 ``ETag``, and
says 404, 410 or 302 where a link is dead.
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
from oiyolo.demo_data.writer import ANSWERS_FILE, PUBLIC_FOLDERS, SCENES, last_port, write_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.demo_data.writer import Mirror

HOST: Final = "127.0.0.1"
_CLOSING_TIMEOUT_S: Final = 5.0
_IDLE_TIMEOUT_S: Final = 120.0
_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".csv": "text/csv",
    ".json": "application/json",
}
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True)
class Answer:
    """What the server says for one path instead of a file.

    Attributes:
        status: The HTTP status.
        location: Where a redirect leads, as a path on this server.
        path: The file, below the served folder, that is given under this path.
    """

    status: int = 200
    location: str = ""
    path: str = ""


@dataclass(frozen=True)
class Served:
    """One request that was answered: for tests that count them."""

    method: str
    path: str
    status: int


class Server(ThreadingHTTPServer):
    """A folder on a loopback port.

    Attributes:
        base_url: Its address, without a slash at the end.
        answers: What is said instead of a file, by path; may be changed while it serves.
        served: Every request so far, in the order in which they were answered.
    """

    daemon_threads = True
    # A burst of connections must not wait for the kernel's second try (one second each).
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        self.answers: dict[str, Answer] = {}
        self.served: list[Served] = []
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._digests: dict[tuple[Path, int, int], str] = {}
        super().__init__((HOST, port), _Handler)
        self.base_url = f"http://{HOST}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without asking any name service what loopback is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def read_answers(self) -> None:
        """Take over what the mirror's own file says about dead links and thumbnails."""
        known = files.read_json(self.folder / ANSWERS_FILE) or {}
        self.answers = {path: Answer(**answer) for path, answer in known.items()}

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and remember it, so that closing can end it."""
        connection, address = super().get_request()
        with self._changed:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  (as the base class has it)
        """Close a connection that has ended."""
        super().shutdown_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing: a client that went away in the middle is no news."""

    def end_connections(self, timeout_s: float) -> bool:
        """End the connections that clients keep; tell whether all are closed in time."""
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            return self._changed.wait_for(lambda: not self._connections, timeout_s)

    def etag_of(self, path: Path) -> str:
        """Give the MD5 of a file in hexadecimal, as S3 has it in ``ETag``."""
        facts = path.stat()
        key = (path, facts.st_mtime_ns, facts.st_size)
        if key not in self._digests:
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            self._digests[key] = digest.hexdigest()
        return self._digests[key]

    def file_of(self, url_path: str) -> Path | None:
        """Give the file that a URL's path names, or ``None``: only the public folders are seen."""
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
    # Head and body leave in as few packets as they fit in; the base class flushes after each.
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Say nothing on the terminal; ``Server.served`` has it."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        status = int(code) if isinstance(code, int) else 0
        self.server.served.append(Served(self.command, unquote(urlsplit(self.path).path), status))

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url_path = unquote(urlsplit(self.path).path)
        said = self.server.answers.get(url_path, Answer())
        if said.status != HTTPStatus.OK:
            self._refuse(said.status, location=said.location)
            return
        path = self.server.file_of(said.path or url_path)
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self._give(path)

    def _refuse(self, status: int, *, location: str = "", length: int | None = None) -> None:
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

    def _give(self, path: Path) -> None:
        size, modified_s = path.stat().st_size, int(path.stat().st_mtime)
        etag = f'"{self.server.etag_of(path)}"'
        if self._is_known(etag, modified_s):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        if self.headers.get("If-Range", etag) != etag:
            asked = ""
        span = _span(asked, size)
        if span is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, length=size)
            return
        first, end = span
        partial = bool(_RANGE.match(asked))
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(modified_s, usegmt=True))
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            left = end - first
            while left and (block := file.read(min(left, 1 << 18))):
                self.wfile.write(block)
                left -= len(block)

    def _is_known(self, etag: str, modified_s: int) -> bool:
        """Tell whether the client already has this content; an ETag goes before a date."""
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


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Give the first byte and the end of what is asked for; ``None`` where there is nothing.

    Args:
        asked: The ``Range`` header. What is not one plain range of bytes asks for everything.
        size: The file's size in bytes.
    """
    found = _RANGE.match(asked)
    if found is None:
        return 0, size
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last and int(last) and size else None
    end = min(size, int(last) + 1) if last else size
    return (int(first), end) if int(first) < end else None


@contextlib.contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[Server]:
    """Serve a mirror's folder on loopback, in a thread, for as long as the block lasts.

    Args:
        folder: What ``write_mirror`` wrote, or will have written before the first request.
        port: The port; 0 takes a free one.

    Raises:
        OSError: The port is taken.
    """
    server = Server(folder, port)
    server.read_answers()
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
        server.end_connections(_CLOSING_TIMEOUT_S)


@contextlib.contextmanager
def serve_mirror(folder: Path, *, seed: int = 0, scenes: int = SCENES) -> Iterator[Mirror]:
    """Write a mirror where there is none yet, and serve it for as long as the block lasts.

    The addresses of the originals stand in its image lists, so it keeps the port that it had the
    last time; only where that is taken, those lists are written again for another one.

    Args:
        folder: Where the mirror lies or shall lie.
        seed: Which scenes.
        scenes: How many of them are in the train subset.
    """
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(serve(folder, last_port(folder)))
        except OSError:
            server = stack.enter_context(serve(folder))
        mirror = write_mirror(folder, base_url=server.base_url, seed=seed, scenes=scenes)
        server.read_answers()
        yield mirror
