"""A server on this machine that saves decisions about suspected label errors.

It listens on the loopback address only. Every request needs a token that is in the address it
prints, and a host header with that address, so that no other page in the browser can use it.
"""

from __future__ import annotations

import json
import re
import secrets
import socketserver
import threading
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from oiyolo.core import files
from oiyolo.core.errors import OiyoloError, UnavailableError
from oiyolo.label_errors import decisions
from oiyolo.operations.review import page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.label_errors.summary import Searched
    from oiyolo.operations.review.listing import Shape
    from oiyolo.project.project import Project

_HOST: Final = "127.0.0.1"
_IMAGE: Final = re.compile(r"/obj/([0-9a-f]{16})\.jpg")
_MAX_BODY_BYTES: Final = 1_000
_TIMEOUT_S: Final = 30.0


class ReviewServer(ThreadingHTTPServer):
    """A server of the page, of its images, and of the file of decisions.

    Args:
        project: The project.
        searched: Which images were searched, and who judged them.
        shown: The rows on the page, and where the errors are.
        port: The port; 0 for a free one.

    Raises:
        UnavailableError: The port is in use.
    """

    daemon_threads = True

    def __init__(
        self,
        project: Project,
        searched: Sequence[Searched],
        shown: Sequence[tuple[ReviewRow, Shape]],
        port: int,
    ) -> None:
        self.project, self.searched = project, searched
        self.rows, self.shapes = [row for row, _ in shown], [shape for _, shape in shown]
        self.token = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise UnavailableError(
                "cannot listen on the port",
                where=f"{_HOST}:{port}",
                found=error.strerror or str(error),
                remedy="Choose another one with --port",
            ) from None
        self.address = f"{_HOST}:{self.server_port}"
        self.url = f"http://{self.address}/?token={self.token}"

    def server_bind(self) -> None:
        """Bind the socket without a name lookup of the loopback address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, int(self.server_address[1])

    def page(self) -> str:
        """Return the page with the decisions so far."""
        with self._lock:
            shown = list(zip(self.rows, self.shapes, strict=True))
        items = page.pictures(self.project, shown, token=self.token)
        return page.render(self.searched, items, [row for row, _ in shown], token=self.token)

    def decide(self, number: int, decision: str) -> None:
        """Save a decision about a row of the page; rows that others added to the file stay.

        Raises:
            ValueError: There is no such row, or the decision is not possible.
            OiyoloError: Another process is changing the dataset, or the file is damaged.
        """
        with self._lock:
            row = self.rows[number] if 0 <= number < len(self.rows) else None
            if row is None or (decision and decision not in page.choices(row)):
                raise ValueError("no such decision")
            decided = replace(row, decision=decision)
            with self.project.data_lock("review"):
                saved = decisions.read(self.project.review_path)
                at = decisions.find_row(saved, row)
                if at is None:  # it was deleted from the file
                    saved.append(decided)
                else:
                    saved[at] = decided
                decisions.write(self.project.review_path, saved)
            self.rows[number] = decided


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page."""

    server: ReviewServer
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Send the page or an image."""
        parts = urlsplit(self.path)
        if not self._is_own(parse_qs(parts.query).get("token", [""])[0]):
            return
        if parts.path == "/":
            self._send(self.server.page().encode(), "text/html; charset=utf-8")
            return
        match = _IMAGE.fullmatch(parts.path)
        try:
            if match is None:
                raise FileNotFoundError(parts.path)
            content = files.read_bytes(self.server.project.objects_folder / f"{match[1]}.jpg")
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        self._send(content, "image/jpeg")

    def do_POST(self) -> None:
        """Save a decision."""
        if not self._is_own(self.headers.get("X-Token", "")):
            return
        try:
            body = self._read_body()
            self.server.decide(int(body["row"]), str(body["decision"]))
        except (ValueError, KeyError, TypeError):
            self._refuse(HTTPStatus.BAD_REQUEST, "Not saved: this is no decision")
        except OiyoloError as error:
            self._refuse(HTTPStatus.CONFLICT, f"Not saved: {error}")
        else:
            self._send(b"saved", "text/plain; charset=utf-8")

    def _read_body(self) -> Any:  # noqa: ANN401  (any JSON)
        """Return the JSON that was sent.

        Raises:
            ValueError: It is not to be saved here, too long, or no JSON.
        """
        size_bytes = int(self.headers.get("Content-Length", ""))
        if self.path != "/decision" or not 0 < size_bytes <= _MAX_BODY_BYTES:
            raise ValueError(self.path)
        return json.loads(self.rfile.read(size_bytes))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (as inherited)
        """Print nothing."""

    def _is_own(self, token: str) -> bool:
        """Return whether a request comes from the page; refuse it if not."""
        origin = self.headers.get("Origin")
        is_own = (
            self.headers.get("Host") == self.server.address
            and origin in {None, f"http://{self.server.address}"}
            and secrets.compare_digest(token.encode(), self.server.token.encode())
        )
        if not is_own:
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that `oiyolo review` printed")
        return is_own

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(message.encode(), "text/plain; charset=utf-8", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)
