"""Where the files for cloud machines and clusters are, and a stand-in for Google's metadata."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Metadata(http.server.ThreadingHTTPServer):
    """A metadata server on loopback.

    Attributes:
        host: Its host and port.
        attributes: The VM's own metadata.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MetadataHandler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.attributes: dict[str, str] = {}


class _MetadataHandler(http.server.BaseHTTPRequestHandler):
    server: Metadata

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Log nothing."""

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        is_known = folder == "/computeMetadata/v1/instance/attributes"
        value = self.server.attributes.get(name) if is_known else None
        if self.headers["Metadata-Flavor"] != "Google":
            self.send_error(403)
        elif value is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(value.encode())


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """A metadata server that scripts find as Google's own libraries do."""
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("GCE_METADATA_HOST", server.host)
        yield server
        server.shutdown()
        thread.join()
