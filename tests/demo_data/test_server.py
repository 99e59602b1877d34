"""The demo server behaves like the real hosts."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pandas as pd
import pytest

from oiyolo.demo_data import writer
from oiyolo.demo_data.server import ResponseOverride, serve, serve_mirror
from tests.demo_data.conftest import SCENES, SEED
from tests.support.mirror_facts import fates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.demo_data.server import Server
    from oiyolo.demo_data.writer import DemoMirror

CLASSES = "/openimages/v7/oidv7-class-descriptions-boxable.csv"


@pytest.fixture
def server(mirror: DemoMirror) -> Iterator[Server]:
    with serve(mirror.folder) as running:
        yield running


@pytest.fixture
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as opened:
        yield opened


def _request(
    connection: http.client.HTTPConnection, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def test_a_file_is_sent_completely_with_its_type_etag_and_date(
    connection: http.client.HTTPConnection, mirror: DemoMirror
) -> None:
    image = next((mirror.folder / "open-images-dataset" / "test").iterdir())
    status, headers, body = _request(connection, f"/open-images-dataset/test/{image.name}")
    assert status == 200
    assert body == image.read_bytes()
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    assert headers["Last-Modified"].endswith("GMT")


def test_a_connection_is_reused_for_many_requests(
    connection: http.client.HTTPConnection, server: Server
) -> None:
    _request(connection, CLASSES)
    socket_in_use = connection.sock
    for path in ("/nothing", CLASSES, "/openimages/", CLASSES):
        _request(connection, path)
        assert connection.sock is socket_in_use
    assert [request.status for request in server.requests] == [200, 404, 200, 404, 200]
    assert server.requests[1].path == "/nothing"


def test_a_head_request_returns_headers_only(connection: http.client.HTTPConnection) -> None:
    status, headers, body = _request(connection, CLASSES, method="HEAD")
    assert (status, body) == (200, b"")
    _, _, whole = _request(connection, CLASSES)
    assert int(headers["Content-Length"]) == len(whole)
    assert _request(connection, "/nothing", method="HEAD")[0] == 404
    assert _request(connection, CLASSES)[0] == 200


def test_an_unchanged_file_is_not_sent_again(
    connection: http.client.HTTPConnection,
) -> None:
    _, headers, _ = _request(connection, CLASSES)
    for validators in (
        {"If_None_Match": headers["ETag"]},
        {"If_None_Match": f'"other", W/{headers["ETag"]}'},
        {"If_Modified_Since": headers["Last-Modified"]},
    ):
        status, again, body = _request(connection, CLASSES, **validators)
        assert (status, body) == (304, b"")
        assert again["ETag"] == headers["ETag"]
    for other in (
        {"If_None_Match": '"other"', "If_Modified_Since": headers["Last-Modified"]},
        {"If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If_Modified_Since": "yesterday"},
    ):
        assert _request(connection, CLASSES, **other)[0] == 200


def test_dead_links_fail_like_the_real_ones(
    connection: http.client.HTTPConnection, mirror: DemoMirror
) -> None:
    images = pd.read_csv(
        mirror.folder / "openimages" / writer.IMAGE_FILES["train"], keep_default_na=False
    ).set_index("ImageID")
    image_ids = fates(SEED, SCENES)

    def original(fate: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        (image_id,) = image_ids[fate]
        return _request(connection, urlsplit(images.OriginalURL[image_id]).path)

    assert original("gone-404")[0] == 404
    assert original("gone-410")[0] == 410
    status, headers, _ = original("moved-to-placeholder")
    assert status == 302
    status, headers, body = _request(connection, urlsplit(headers["Location"]).path)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    assert original("corrupt")[0] == 404
    available = image_ids["original-only"][0]
    status, headers, body = _request(connection, urlsplit(images.OriginalURL[available]).path)
    assert (status, len(body)) == (200, images.OriginalSize[available])
    assert _request(connection, f"/open-images-dataset/train/{available}.jpg")[0] == 404


def test_thumbnail_urls_return_images(
    connection: http.client.HTTPConnection, mirror: DemoMirror
) -> None:
    images = pd.read_csv(mirror.folder / "openimages" / writer.IMAGE_FILES["validation"])
    url = urlsplit(images.Thumbnail300KURL.dropna().iloc[0])
    status, headers, body = _request(connection, f"{url.path}?{url.query}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "path",
    [
        "/mirror.json",
        "/answers.json",
        "/url-lists/train.csv",
        "/openimages/../mirror.json",
        "/openimages/%2e%2e/mirror.json",
        "/../../etc/passwd",
        "//etc/passwd",
        "/openimages/%00",
        "/",
        "/openimages",
    ],
)
def test_only_the_public_folders_are_served(
    connection: http.client.HTTPConnection, path: str
) -> None:
    assert _request(connection, path)[0] == 404


def test_a_response_can_be_overridden_while_the_server_runs(
    server: Server, connection: http.client.HTTPConnection
) -> None:
    server.overrides[CLASSES] = ResponseOverride(status=503)
    assert _request(connection, CLASSES)[0] == 503
    del server.overrides[CLASSES]
    assert _request(connection, CLASSES)[0] == 200


def test_many_connections_can_be_open_at_once(server: Server) -> None:
    def request_once(_: int) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as own:
            return _request(own, CLASSES)[0]

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(request_once, range(96))) == {200}


def test_closing_the_server_closes_open_connections_and_frees_the_port(mirror: DemoMirror) -> None:
    with serve(mirror.folder) as first:
        port = first.server_port
        connection = http.client.HTTPConnection("127.0.0.1", port)
        _request(connection, CLASSES)
        assert connection.sock is not None
        connection.sock.settimeout(10)
    with contextlib.closing(connection):
        assert connection.sock.recv(1) == b""
        with serve(mirror.folder, port) as second:
            assert second.server_port == port


def test_a_served_mirror_keeps_its_port_unless_the_port_is_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    with serve_mirror(folder, seed=2, scenes=20) as first:
        assert first.openimages_url == f"{first.base_url}/openimages"
        assert first.images_url == f"{first.base_url}/open-images-dataset"
        _check_originals(first)
    with serve_mirror(folder, seed=2, scenes=20) as second:
        assert second == first
    with (
        socket.create_server(("127.0.0.1", urlsplit(first.base_url).port or 0)),
        serve_mirror(folder, seed=2, scenes=20) as third,
    ):
        assert third.base_url != first.base_url
        _check_originals(third)


def _check_originals(mirror: DemoMirror) -> None:
    images = pd.read_csv(mirror.folder / "openimages" / writer.IMAGE_FILES["test"])
    url = urlsplit(images.OriginalURL[0])
    assert f"http://{url.netloc}" == mirror.base_url
    with contextlib.closing(http.client.HTTPConnection(url.netloc)) as connection:
        assert len(_request(connection, url.path)[2]) == images.OriginalSize[0]
