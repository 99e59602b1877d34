"""The cache of official files: downloads, revalidation, and use without the site."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.demo_data.server import ResponseOverride, serve
from oiyolo.net.retry import HttpFailureError, RetryPolicy
from oiyolo.openimages import cache as cache_module
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


def open_cache(folder: Path, base_url: str) -> Cache:
    cache = Cache(folder / "cache", base_url)
    cache._web.retry_policy = RetryPolicy(max_attempts=2, first_pause_s=0.01)
    return cache


def base_url_of(server: Server) -> str:
    return f"{server.base_url}/openimages"


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_an_unchanged_file_is_not_downloaded_again(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    versions = []
    for _ in range(2):
        cache = open_cache(tmp_path, base_url_of(server) + "/")
        cached = cache.get(BOXES)
        cache.close()
        assert cached.path.read_bytes() == upstream.read_bytes()
        assert cached.url == f"{base_url_of(server)}/v6/boxes.csv"
        versions.append(cached.version)
    assert [request.status for request in server.requests] == [200, 304]
    assert versions == [server.etag_of(upstream)] * 2
    assert file_names(tmp_path / "cache") == {"boxes.csv", "boxes.csv.facts.json", "boxes.csv.lock"}


def test_a_file_that_changed_on_the_server_is_downloaded_again(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    cache = open_cache(tmp_path, base_url_of(server))
    before = cache.get(BOXES)
    upstream.write_bytes(b"a,b\n3,4\n")
    after = cache.get(BOXES)
    cache.close()
    assert after.path == before.path
    assert after.path.read_bytes() == b"a,b\n3,4\n"
    assert after.version != before.version
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize("damage", ["truncated", "deleted", "no metadata"])
def test_a_damaged_copy_is_downloaded_again(
    tmp_path: Path, server: Server, upstream: Path, damage: str
) -> None:
    cache = open_cache(tmp_path, base_url_of(server))
    path = cache.get(BOXES).path
    if damage == "truncated":
        os.truncate(path, 100)
    elif damage == "deleted":
        path.unlink()
    else:
        path.with_name("boxes.csv.facts.json").unlink()
    assert cache.get(BOXES).path.read_bytes() == upstream.read_bytes()
    cache.close()
    assert [request.status for request in server.requests] == [200, 200]


def test_partly_written_files_of_a_killed_run_are_removed(tmp_path: Path, server: Server) -> None:
    cache = open_cache(tmp_path, base_url_of(server))
    folder = cache.get(BOXES).path.parent
    (folder / ".boxes.csv.1-1.part").write_bytes(b"half")
    cache.get(BOXES)
    cache.close()
    assert not any(name.endswith(".part") for name in file_names(folder))


def test_cached_copies_are_used_with_one_warning_if_the_site_is_unreachable(
    tmp_path: Path, upstream: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    other = OfficialFile("v6/labels.csv")
    (upstream.parent / "labels.csv").write_bytes(b"x")
    with serve(tmp_path / "site") as server:
        url = base_url_of(server)
        cache = open_cache(tmp_path, url)
        versions = [cache.get(file).version for file in (BOXES, other)]
        cache.close()
    caplog.clear()
    cache = open_cache(tmp_path, url)
    reopened = [cache.get(file) for file in (BOXES, other)]
    cache.close()
    assert [cached.version for cached in reopened] == versions
    assert reopened[0].path.read_bytes() == upstream.read_bytes()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"{url}/v6/boxes.csv" in warnings[0]
    assert "Using copies that were cached earlier" in warnings[0]


def test_a_failed_download_without_a_copy_names_the_url_and_the_attempts(
    tmp_path: Path,
) -> None:
    cache = open_cache(tmp_path, UNREACHABLE)
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    cache.close()
    assert caught.value.exit_code == 4
    assert caught.value.where == f"{UNREACHABLE}/v6/boxes.csv"
    assert isinstance(caught.value.__cause__, HttpFailureError)
    assert caught.value.__cause__.attempts == 2
    assert file_names(tmp_path / "cache") == {"boxes.csv.lock"}


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(404, InputFormError), (410, InputFormError), (500, UnavailableError)],
)
def test_an_error_status_leaves_no_file(
    tmp_path: Path, server: Server, status: int, error_type: type[OiyoloError]
) -> None:
    server.overrides["/openimages/v6/boxes.csv"] = ResponseOverride(status)
    cache = open_cache(tmp_path, base_url_of(server))
    with pytest.raises(error_type) as caught:
        cache.get(BOXES)
    cache.close()
    assert str(status) in caught.value.found
    assert file_names(tmp_path / "cache") == {"boxes.csv.lock"}


@pytest.mark.parametrize(
    ("size_bytes", "md5", "fits"),
    [(0, "", True), (8000, "", True), (7999, "", False), (8000, "0" * 32, False),
     (0, "right", True)],
)  # fmt: skip
def test_size_and_md5_are_checked_at_the_official_url(
    *, tmp_path: Path, server: Server, upstream: Path, monkeypatch: pytest.MonkeyPatch,
    size_bytes: int, md5: str, fits: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(cache_module, "OFFICIAL_BASE_URL", base_url_of(server))
    md5 = server.etag_of(upstream) if md5 == "right" else md5
    cache = open_cache(tmp_path, base_url_of(server))
    official = OfficialFile(BOXES.path, size_bytes, md5)
    if fits:
        assert cache.get(official).path.is_file()
    else:
        with pytest.raises(InputFormError) as caught:
            cache.get(official)
        assert str(size_bytes) in caught.value.expected
        assert file_names(tmp_path / "cache") == {"boxes.csv.lock"}
    cache.close()


def test_credentials_are_sent_but_not_stored(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    url = base_url_of(server).replace("://", "://me:secret@")
    cache = open_cache(tmp_path, url)
    cached = cache.get(BOXES)
    cache.mark_checked(cached)
    cache.close()
    assert cached.path.read_bytes() == upstream.read_bytes()
    assert cache.folder == Cache(tmp_path / "cache", base_url_of(server)).folder
    assert not any(b"secret" in p.read_bytes() for p in cache.folder.rglob("*") if p.is_file())
    again = open_cache(tmp_path, url)
    assert again.get(BOXES).rows_checked
    again.close()


def test_a_cache_that_an_older_version_named_after_credentials_is_still_used(
    tmp_path: Path, server: Server, upstream: Path
) -> None:
    plain = base_url_of(server)
    url = plain.replace("://", "://me:secret@")
    cache = open_cache(tmp_path, plain)
    cache.get(BOXES)
    cache.close()
    address = urlsplit(url)
    older = tmp_path / "cache/openimages" / address.netloc.replace(":", "_") / "openimages"
    older.parent.mkdir()
    cache.folder.rename(older)
    metadata = older / "v6" / "boxes.csv.facts.json"
    metadata.write_text(metadata.read_text().replace(plain, url))
    now = open_cache(tmp_path, url)
    assert now.get(BOXES).path.read_bytes() == upstream.read_bytes()
    now.close()
    assert [request.status for request in server.requests] == [200, 304]
    assert not older.exists()
    assert "secret" not in (now.folder / "v6" / "boxes.csv.facts.json").read_text()


def test_files_of_different_base_urls_are_kept_apart(tmp_path: Path) -> None:
    folders = {
        Cache(tmp_path, url).folder
        for url in ("http://a", "http://b", "http://a/x", "http://a:81", "http://a/x/y/")
    }
    assert len(folders) == 5
    assert all(folder.is_relative_to(tmp_path / "openimages") for folder in folders)
