"""Official files: fetched once, asked after, served from here when the site is away."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.demo_data.server import Answer, serve
from oiyolo.net.client import Patience
from oiyolo.openimages import cache as module
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import OfficialFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.core.errors import OiyoloError
    from oiyolo.demo_data.server import Server

BOXES = OfficialFile("v6/boxes.csv", 7, "00000000000000000000000000000000")
UNREACHABLE = "http://127.0.0.1:1/openimages"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    path = tmp_path / "site" / "openimages" / BOXES.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a,b\n1,2\n" * 1000)
    return path


@pytest.fixture
def server(tmp_path: Path, upstream: Path) -> Iterator[Server]:
    assert upstream.is_file()
    with serve(tmp_path / "site") as served:
        yield served


def opened(folder: Path, base_url: str) -> Cache:
    cache = Cache(folder / "cache", base_url)
    cache._web.patience = Patience(attempts=2, first_pause_s=0.01)
    return cache


def site(server: Server) -> str:
    return f"{server.base_url}/openimages"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_second_time_nothing_is_transferred(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    versions = []
    for _ in range(2):
        cache = opened(tmp_path, site(server) + "/")
        got = cache.get(BOXES)
        cache.close()
        assert got.path.read_bytes() == upstream.read_bytes()
        assert got.url == f"{site(server)}/v6/boxes.csv"
        versions.append(got.version)
    assert [request.status for request in server.served] == [200, 304]
    assert versions == [server.etag_of(upstream)] * 2
    assert names(tmp_path / "cache") == {"boxes.csv", "boxes.csv.facts.json", "boxes.csv.lock"}


def test_what_changed_upstream_is_noticed_and_fetched(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    cache = opened(tmp_path, site(server))
    before = cache.get(BOXES)
    upstream.write_bytes(b"a,b\n3,4\n")
    after = cache.get(BOXES)
    cache.close()
    assert after.path == before.path
    assert after.path.read_bytes() == b"a,b\n3,4\n"
    assert after.version != before.version
    assert [request.status for request in server.served] == [200, 200]


@pytest.mark.parametrize("damage", ["truncated", "gone", "no facts"])
def test_a_damaged_copy_is_fetched_again(
    tmp_path: Path, server: Server, upstream: Path, damage: str
) -> None:
    cache = opened(tmp_path, site(server))
    path = cache.get(BOXES).path
    if damage == "truncated":
        os.truncate(path, 100)
    elif damage == "gone":
        path.unlink()
    else:
        path.with_name("boxes.csv.facts.json").unlink()
    assert cache.get(BOXES).path.read_bytes() == upstream.read_bytes()
    cache.close()
    assert [request.status for request in server.served] == [200, 200]


def test_what_a_killed_run_left_is_removed(tmp_path: Path, server: Server) -> None:
    cache = opened(tmp_path, site(server))
    folder = cache.get(BOXES).path.parent
    (folder / ".boxes.csv.1-1.part").write_bytes(b"half")
    cache.get(BOXES)
    cache.close()
    assert not any(name.endswith(".part") for name in names(folder))


def test_when_the_site_is_away_the_copy_serves_with_one_warning(
    tmp_path: Path, upstream: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    other = OfficialFile("v6/labels.csv")
    (upstream.parent / "labels.csv").write_bytes(b"x")
    with serve(tmp_path / "site") as server:
        address = site(server)
        cache = opened(tmp_path, address)
        versions = [cache.get(file).version for file in (BOXES, other)]
        cache.close()
    caplog.clear()
    cache = opened(tmp_path, address)
    again = [cache.get(file) for file in (BOXES, other)]
    cache.close()
    assert [got.version for got in again] == versions
    assert again[0].path.read_bytes() == upstream.read_bytes()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"{address}/v6/boxes.csv" in warnings[0]
    assert "Copies of an earlier run serve" in warnings[0]


def test_what_is_not_here_and_cannot_be_fetched_names_address_and_attempts(
    tmp_path: Path,
) -> None:
    cache = opened(tmp_path, UNREACHABLE)
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    cache.close()
    assert caught.value.exit_code == 4
    assert caught.value.where == f"{UNREACHABLE}/v6/boxes.csv"
    assert "attempts: 2" in str(caught.value)
    assert names(tmp_path / "cache") == {"boxes.csv.lock"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, InputFormError), (410, InputFormError), (500, UnavailableError)],
)
def test_what_the_site_does_not_give_leaves_nothing(
    tmp_path: Path, server: Server, status: int, error: type[OiyoloError]
) -> None:
    server.answers["/openimages/v6/boxes.csv"] = Answer(status)
    cache = opened(tmp_path, site(server))
    with pytest.raises(error, match=f"HTTP {status}"):
        cache.get(BOXES)
    cache.close()
    assert names(tmp_path / "cache") == {"boxes.csv.lock"}


@pytest.mark.parametrize(
    ("size_bytes", "md5", "fits"),
    [(0, "", True), (8000, "", True), (7999, "", False), (8000, "0" * 32, False),
     (0, "right", True)],
)  # fmt: skip
def test_at_the_official_address_size_and_md5_are_checked(
    *, tmp_path: Path, server: Server, upstream: Path, monkeypatch: pytest.MonkeyPatch,
    size_bytes: int, md5: str, fits: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "OFFICIAL_BASE_URL", site(server))
    md5 = server.etag_of(upstream) if md5 == "right" else md5
    cache = opened(tmp_path, site(server))
    official = OfficialFile(BOXES.path, size_bytes, md5)
    if fits:
        assert cache.get(official).path.is_file()
    else:
        with pytest.raises(InputFormError, match="not the official file"):
            cache.get(official)
        assert names(tmp_path / "cache") == {"boxes.csv.lock"}
    cache.close()


def test_files_of_different_addresses_do_not_meet(tmp_path: Path) -> None:
    folders = {
        Cache(tmp_path, url).folder
        for url in ("http://a", "http://b", "http://a/x", "http://a:81", "http://a/x/y/")
    }
    assert len(folders) == 5
    assert all(folder.is_relative_to(tmp_path / "openimages") for folder in folders)
