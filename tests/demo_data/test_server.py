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
from oiyolo.demo_data.server import Answer, serve, serve_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.demo_data.server import Server
    from oiyolo.demo_data.writer import Mirror

CLASSES = "/openimages/v7/oidv7-class-descriptions-boxable.csv"


@pytest.fixture
def server(mirror: Mirror) -> Iterator[Server]:
    with serve(mirror.folder) as served:
        yield served


@pytest.fixture
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as kept:
        yield kept


def _ask(
    connection: http.client.HTTPConnection, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_files_come_whole_with_their_length_tag_and_date(
    connection: http.client.HTTPConnection, mirror: Mirror
) -> None:
    image = next((mirror.folder / "open-images-dataset" / "test").iterdir())
    status, headers, body = _ask(connection, f"/open-images-dataset/test/{image.name}")
    assert status == 200
    assert body == image.read_bytes()
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    assert headers["Last-Modified"].endswith("GMT")


def test_one_connection_serves_many_requests(
    connection: http.client.HTTPConnection, server: Server
) -> None:
    _ask(connection, CLASSES)
    kept = connection.sock
    for path in ("/nothing", CLASSES, "/openimages/", CLASSES):
        _ask(connection, path)
        assert connection.sock is kept
    assert [served.status for served in server.served] == [200, 404, 200, 404, 200]
    assert server.served[1].path == "/nothing"


def test_head_gives_the_head_alone(connection: http.client.HTTPConnection) -> None:
    status, headers, body = _ask(connection, CLASSES, method="HEAD")
    assert (status, body) == (200, b"")
    _, _, whole = _ask(connection, CLASSES)
    assert int(headers["Content-Length"]) == len(whole)
    assert _ask(connection, "/nothing", method="HEAD")[0] == 404
    assert _ask(connection, CLASSES)[0] == 200


def test_what_the_client_already_has_is_not_sent_again(
    connection: http.client.HTTPConnection,
) -> None:
    _, headers, _ = _ask(connection, CLASSES)
    for known in (
        {"If_None_Match": headers["ETag"]},
        {"If_None_Match": f'"other", W/{headers["ETag"]}'},
        {"If_Modified_Since": headers["Last-Modified"]},
    ):
        status, again, body = _ask(connection, CLASSES, **known)
        assert (status, body) == (304, b"")
        assert again["ETag"] == headers["ETag"]
    for other in (
        {"If_None_Match": '"other"', "If_Modified_Since": headers["Last-Modified"]},
        {"If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If_Modified_Since": "yesterday"},
    ):
        assert _ask(connection, CLASSES, **other)[0] == 200


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, None),
        ("bytes=5-99999999", 5, None),
        ("bytes=-7", -7, None),
    ],
)
def test_a_range_of_bytes(
    connection: http.client.HTTPConnection, asked: str, first: int, end: int | None
) -> None:
    _, _, whole = _ask(connection, CLASSES)
    status, headers, part = _ask(connection, CLASSES, Range=asked)
    assert status == 206
    assert part == whole[first:end]
    start = first if first >= 0 else len(whole) + first
    assert headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(whole)}"


def test_a_range_that_is_not_there_and_one_of_another_version(
    connection: http.client.HTTPConnection,
) -> None:
    _, headers, whole = _ask(connection, CLASSES)
    status, refused, _ = _ask(connection, CLASSES, Range=f"bytes={len(whole)}-")
    assert status == 416
    assert refused["Content-Range"] == f"bytes */{len(whole)}"
    assert _ask(connection, CLASSES, Range="bytes=5-", If_Range='"other"')[0] == 200
    assert _ask(connection, CLASSES, Range="bytes=5-", If_Range=headers["ETag"])[0] == 206
    assert _ask(connection, CLASSES, Range="lines=1-2")[2] == whole


def test_dead_links_answer_as_they_do_in_life(
    connection: http.client.HTTPConnection, mirror: Mirror
) -> None:
    images = pd.read_csv(
        mirror.folder / "openimages" / writer.IMAGE_FILES["train"], keep_default_na=False
    ).set_index("ImageID")

    def original(fate: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        (image_id,) = mirror.fates[fate]
        return _ask(connection, urlsplit(images.OriginalURL[image_id]).path)

    assert original("gone-404")[0] == 404
    assert original("gone-410")[0] == 410
    status, headers, _ = original("moved-to-placeholder")
    assert status == 302
    status, headers, body = _ask(connection, urlsplit(headers["Location"]).path)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    assert original("corrupt")[0] == 404
    alive = mirror.fates["original-only"][0]
    status, headers, body = _ask(connection, urlsplit(images.OriginalURL[alive]).path)
    assert (status, len(body)) == (200, images.OriginalSize[alive])
    assert _ask(connection, f"/open-images-dataset/train/{alive}.jpg")[0] == 404


def test_thumbnails_are_images(connection: http.client.HTTPConnection, mirror: Mirror) -> None:
    images = pd.read_csv(mirror.folder / "openimages" / writer.IMAGE_FILES["validation"])
    url = urlsplit(images.Thumbnail300KURL.dropna().iloc[0])
    status, headers, body = _ask(connection, f"{url.path}?{url.query}")
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
def test_nothing_but_the_public_folders_is_seen(
    connection: http.client.HTTPConnection, path: str
) -> None:
    assert _ask(connection, path)[0] == 404


def test_a_test_can_put_its_own_faults_in(
    server: Server, connection: http.client.HTTPConnection
) -> None:
    server.answers[CLASSES] = Answer(status=503)
    assert _ask(connection, CLASSES)[0] == 503
    del server.answers[CLASSES]
    assert _ask(connection, CLASSES)[0] == 200


def test_many_connections_at_once(server: Server) -> None:
    def one(_: int) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port)) as own:
            return _ask(own, CLASSES)[0]

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(one, range(96))) == {200}


def test_closing_ends_kept_connections_and_frees_the_port(mirror: Mirror) -> None:
    with serve(mirror.folder) as first:
        port = first.server_port
        kept = http.client.HTTPConnection("127.0.0.1", port)
        _ask(kept, CLASSES)
        assert kept.sock is not None
        kept.sock.settimeout(10)
    with contextlib.closing(kept):
        assert kept.sock.recv(1) == b""
        with serve(mirror.folder, port) as second:
            assert second.server_port == port


def test_a_served_mirror_keeps_its_port_unless_it_is_taken(tmp_path: Path) -> None:
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


def _check_originals(mirror: Mirror) -> None:
    images = pd.read_csv(mirror.folder / "openimages" / writer.IMAGE_FILES["test"])
    url = urlsplit(images.OriginalURL[0])
    assert f"http://{url.netloc}" == mirror.base_url
    with contextlib.closing(http.client.HTTPConnection(url.netloc)) as connection:
        assert len(_ask(connection, url.path)[2]) == images.OriginalSize[0]
