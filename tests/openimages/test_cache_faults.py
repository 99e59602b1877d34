"""Downloads of large official files over an unreliable connection."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.net import download
from oiyolo.net.download import PartialDownload
from oiyolo.net.retry import HttpFailureError, RetryPolicy, StoppedError
from oiyolo.openimages import cache as cache_module
from oiyolo.openimages.cache import Cache, CachedFile, StreamedFile
from oiyolo.openimages.cache_entry import CacheEntry
from oiyolo.openimages.releases import OfficialFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oiyolo.core.errors import OiyoloError
    from tests.support.failing_site import FaultySite

BOXES = OfficialFile("v6/boxes.csv")
FAST_RETRIES = RetryPolicy(
    max_attempts=3, first_pause_s=0.005, connect_timeout_s=2.0, read_timeout_s=2.0
)
OTHER = random.Random(2).randbytes(310_000)
GET_SCRIPT = """
import sys
from pathlib import Path
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import OfficialFile
cache = Cache(Path(sys.argv[1]), sys.argv[2])
print(cache.get(OfficialFile("v6/boxes.csv")).version)
"""
STREAM_SCRIPT = """
import sys, time
from pathlib import Path
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import OfficialFile
cache = Cache(Path(sys.argv[1]), sys.argv[2])
try:
    for block in cache.open_stream(OfficialFile("v6/boxes.csv")).blocks(1 << 16):
        print(len(block), flush=True)
        time.sleep(float(sys.argv[3]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.fixture
def cache(tmp_path: Path, faulty_site: FaultySite) -> Iterator[Cache]:
    new_cache = Cache(tmp_path / "cache", faulty_site.url)
    new_cache._web.retry_policy = FAST_RETRIES
    with contextlib.closing(new_cache):
        yield new_cache


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch, faulty_site: FaultySite) -> OfficialFile:
    """Make the site the official one, with a known size and MD5 of its file."""
    monkeypatch.setattr(cache_module, "OFFICIAL_BASE_URL", faulty_site.url)
    content = faulty_site.settings.content
    return OfficialFile(BOXES.path, len(content), md5_of(content))


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts one of the scripts above in a process of its own."""
    processes = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "cache"), *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def google_md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def fetch(cache: Cache, official: OfficialFile, *, streamed: bool) -> bytes:
    if streamed:
        return b"".join(cache.open_stream(official).blocks(1 << 16))
    return cache.get(official).path.read_bytes()


def file_names(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.rglob("*") if path.is_file()}


def saved_metadata(cache: Cache) -> Any:
    return json.loads((cache.folder / "v6" / "boxes.csv.facts.json").read_text())


WHOLE = {"boxes.csv", "boxes.csv.facts.json", "boxes.csv.lock"}

SERVERS: dict[str, dict[str, Any]] = {
    "all headers": {},
    "no date": {"last_modified": ""},
    "no ETag": {"etag": ""},
    "a weak ETag": {"etag": 'W/"one"'},
    "a weak ETag alone": {"etag": 'W/"one"', "last_modified": ""},
    "neither": {"etag": "", "last_modified": ""},
    "no ranges": {"ranges": False},
    "no ranges, no ETag": {"ranges": False, "etag": ""},
    "no ranges, neither": {"ranges": False, "etag": "", "last_modified": ""},
}
RESUMABLE = {"all headers", "no date", "no ETag", "a weak ETag"}


@pytest.mark.parametrize("server_kind", SERVERS)
def test_an_interrupted_download_is_complete_and_resumed_if_the_server_supports_it(
    cache: Cache, faulty_site: FaultySite, server_kind: str
) -> None:
    vars(faulty_site.settings).update(SERVERS[server_kind], breaks=[100_000, 50_000])
    got = cache.get(BOXES)
    assert got.path.read_bytes() == faulty_site.settings.content
    assert got.version == md5_of(faulty_site.settings.content)
    assert file_names(cache) == WHOLE
    if server_kind in RESUMABLE:
        assert faulty_site.ranges == ["", "bytes=100000-", "bytes=150000-"]
        assert faulty_site.sent_bytes == len(faulty_site.settings.content)
        assert "if-range" in faulty_site.requests[1].headers


@pytest.mark.parametrize("server_kind", SERVERS)
def test_an_interrupted_stream_is_complete_and_resumed_if_the_server_supports_it(
    cache: Cache, faulty_site: FaultySite, server_kind: str
) -> None:
    vars(faulty_site.settings).update(SERVERS[server_kind], breaks=[100_000, 180_000])
    stream = cache.open_stream(BOXES)
    assert stream.where == f"{faulty_site.url}/v6/boxes.csv"
    assert b"".join(stream.blocks(40_000)) == faulty_site.settings.content
    assert stream.version == md5_of(faulty_site.settings.content)
    assert file_names(cache) == {"boxes.csv.facts.json", "boxes.csv.lock"}
    if server_kind in RESUMABLE:
        assert faulty_site.ranges == ["", "bytes=100000-", "bytes=280000-"]
        assert faulty_site.sent_bytes == len(faulty_site.settings.content)


def test_a_download_that_another_process_left_is_resumed(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    assert isinstance(caught.value.__cause__, HttpFailureError)
    assert caught.value.__cause__.attempts == 3
    assert file_names(cache) == {
        "boxes.csv.unfinished",
        "boxes.csv.unfinished.json",
        "boxes.csv.lock",
    }
    assert not cache.has(BOXES)
    assert cache.missing_bytes(BOXES) == 200_000
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as again:
        got = again.get(BOXES)
    assert got.path.read_bytes() == faulty_site.settings.content
    assert faulty_site.ranges[-1] == "bytes=100000-"
    assert file_names(cache) == WHOLE
    assert faulty_site.sent_bytes == len(faulty_site.settings.content)


def test_a_download_survives_many_interruptions_while_it_makes_progress(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.content = random.Random(3).randbytes(13_000_000)
    faulty_site.settings.breaks = [1_100_000] * 10
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert len(faulty_site.requests) == 11
    assert cache.bandwidth_bytes_s()


def test_interruptions_without_progress_end_a_download(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.ranges = False
    faulty_site.settings.breaks = [100_000] * 50
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    assert isinstance(caught.value.__cause__, HttpFailureError)
    assert caught.value.__cause__.attempts == 3
    assert len(faulty_site.requests) == 3


@pytest.mark.parametrize("server_kind", ["all headers", "no ETag", "neither", "no ranges"])
def test_a_download_restarts_if_the_version_changed_meanwhile(
    cache: Cache, faulty_site: FaultySite, server_kind: str
) -> None:
    vars(faulty_site.settings).update(SERVERS[server_kind], breaks=[100_000, 0, 0])
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    vars(faulty_site.settings).update(content=OTHER)
    if faulty_site.settings.etag:
        faulty_site.settings.etag = '"two"'
    elif faulty_site.settings.last_modified:
        faulty_site.settings.last_modified = "Thu, 22 Oct 2015 07:28:00 GMT"
    got = cache.get(BOXES)
    assert got.path.read_bytes() == OTHER
    assert got.version == md5_of(OTHER)
    assert file_names(cache) == WHOLE


@pytest.mark.parametrize("server_kind", SERVERS)
@pytest.mark.parametrize("length", [310_000, 300_000, 90_000])
def test_a_change_of_version_during_a_stream_is_an_error(
    cache: Cache, faulty_site: FaultySite, server_kind: str, length: int
) -> None:
    settings = faulty_site.settings
    # After the first 256 kB, which are passed on together.
    vars(settings).update(SERVERS[server_kind], breaks=[290_000], stall_after_bytes=270_000)
    blocks = cache.open_stream(BOXES).blocks(16_384)
    before = settings.content
    changed = {"content": OTHER[:length], "etag": settings.etag and '"two"'}
    changed["last_modified"] = settings.last_modified and "Thu, 22 Oct 2015 07:28:00 GMT"
    received = next(blocks)
    vars(settings).update(changed, stall_after_bytes=None)
    faulty_site.resume.set()
    with pytest.raises(UnavailableError) as caught:
        b"".join(blocks)
    assert caught.value.where == f"{faulty_site.url}/v6/boxes.csv"
    assert before.startswith(received)
    assert file_names(cache) == set()


def _head(status: str, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    "response",
    [
        _head("206 Part", Content_Range="bytes 0-299999/300000", Content_Length=300_000) + b"abc",
        _head("206 Part", Content_Range="bytes 99999-299999/300000", Content_Length=3) + b"abc",
        _head("206 Part", Content_Range="bytes 100000-299999/300001", Content_Length=3) + b"abc",
        _head("206 Part", Content_Length=3) + b"abc",
        _head("206 Part", Content_Range="bytes 100000-299999/300000", ETag='"two"') + b"abc",
        _head("416 Range", Content_Length=0),
        _head("416 Range", Content_Range="bytes */300000", Content_Length=0),
        _head("416 Range", Content_Range="bytes */7", Content_Length=0),
        _head("503 Busy", Content_Length=0),
        b"",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_unexpected_answer_to_a_range_request_does_no_harm(
    cache: Cache, faulty_site: FaultySite, response: bytes, *, streamed: bool
) -> None:
    faulty_site.settings.breaks = [100_000]
    faulty_site.settings.responses = [None, response]
    assert fetch(cache, BOXES, streamed=streamed) == faulty_site.settings.content


def test_a_complete_but_unfinished_download_is_not_repeated(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    (cache.folder / "v6" / "boxes.csv.unfinished").write_bytes(faulty_site.settings.content)
    assert cache.get(BOXES).version == md5_of(faulty_site.settings.content)
    assert faulty_site.statuses[-1] == 416
    assert faulty_site.sent_bytes == 100_000
    assert file_names(cache) == WHOLE


@pytest.mark.parametrize("damage", ["longer", "no metadata", "nonsense", "of another URL"])
def test_an_unusable_unfinished_download_restarts(
    cache: Cache, faulty_site: FaultySite, damage: str
) -> None:
    faulty_site.settings.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    metadata_path = part.with_name(part.name + ".json")
    if damage == "longer":
        part.write_bytes(faulty_site.settings.content + b"x")
    elif damage == "no metadata":
        metadata_path.unlink()
    elif damage == "nonsense":
        metadata_path.write_text('{"url": "x", "version": [1]}')
    else:
        metadata_path.write_text(metadata_path.read_text().replace("/v6/", "/v5/"))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert faulty_site.ranges[-1] == ""
    assert file_names(cache) == WHOLE


@pytest.mark.parametrize("md5_source", ["release table", "server"])
def test_a_resumed_download_with_a_wrong_md5_is_repeated_once_from_scratch(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, md5_source: str
) -> None:
    faulty_site.settings.breaks = [100_000, 0, 0]
    requested = official
    if md5_source == "server":
        faulty_site.settings.md5 = google_md5(faulty_site.settings.content)
        requested = BOXES
    with pytest.raises(UnavailableError):
        cache.get(requested)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    part.write_bytes(b"?" * 100_000)
    assert cache.get(requested).path.read_bytes() == faulty_site.settings.content
    assert faulty_site.ranges[-2:] == ["bytes=100000-", ""]
    assert file_names(cache) == WHOLE


@pytest.mark.parametrize("streamed", [False, True])
def test_a_file_with_a_wrong_md5_is_rejected(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, *, streamed: bool
) -> None:
    faulty_site.settings.content = bytes(reversed(faulty_site.settings.content))
    with pytest.raises(InputFormError) as caught:
        fetch(cache, official, streamed=streamed)
    assert caught.value.exit_code == 3
    assert official.md5 in caught.value.expected
    assert md5_of(faulty_site.settings.content) in caught.value.found
    assert file_names(cache) <= {"boxes.csv.lock"}


@pytest.mark.parametrize("length", [299_999, 300_001])
def test_a_file_of_a_wrong_size_is_rejected_before_the_download(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, length: int
) -> None:
    faulty_site.settings.content = OTHER[:length]
    faulty_site.settings.pause_s = 0.05
    with pytest.raises(InputFormError) as caught:
        cache.get(official)
    assert str(length) in caught.value.found
    assert faulty_site.sent_bytes < 300_000
    assert file_names(cache) == {"boxes.csv.lock"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("length", [299_999, 300_001])
def test_without_a_content_length_the_official_size_is_checked(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, length: int, *, streamed: bool
) -> None:
    faulty_site.settings.content = OTHER[:length]
    faulty_site.settings.length = faulty_site.settings.ranges = False
    with pytest.raises((InputFormError, UnavailableError)):
        fetch(cache, official, streamed=streamed)
    assert "boxes.csv" not in file_names(cache)


@pytest.mark.parametrize("streamed", [False, True])
def test_bytes_after_the_content_length_are_ignored(
    cache: Cache, faulty_site: FaultySite, *, streamed: bool
) -> None:
    faulty_site.settings.extra = b"more" * 1000
    assert fetch(cache, BOXES, streamed=streamed) == faulty_site.settings.content


def test_content_that_contradicts_the_servers_md5_is_an_error(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.md5 = google_md5(OTHER)
    for streamed in (False, True):
        with pytest.raises(UnavailableError) as caught:
            fetch(cache, BOXES, streamed=streamed)
        assert md5_of(OTHER) in str(caught.value)
    assert "boxes.csv" not in file_names(cache)


@pytest.mark.parametrize("kills", [(0,), (1_000_000,), (5_000_000,), (1_000_000, 3_000_000)])
def test_a_download_is_resumed_by_another_process_after_a_kill(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None],
    start_process: Callable[..., subprocess.Popen[str]], kills: tuple[int, ...],
) -> None:  # fmt: skip
    faulty_site.settings.content = random.Random(4).randbytes(6_000_000)
    faulty_site.settings.pause_s = 0.0005
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    for kill_at in kills:
        process = start_process(GET_SCRIPT, faulty_site.url)
        wait_until(
            lambda at=kill_at: (  # type: ignore[misc]
                bool(faulty_site.requests) and (part.stat().st_size if part.is_file() else 0) >= at
            )
        )
        process.kill()
        process.wait()
        partial_bytes = part.stat().st_size if part.is_file() else 0
        assert partial_bytes >= kill_at
    faulty_site.settings.pause_s = 0.0
    ended = start_process(GET_SCRIPT, faulty_site.url)
    out, err = ended.communicate(timeout=60)
    assert (out.strip(), err) == (md5_of(faulty_site.settings.content), "")
    assert (cache.folder / BOXES.path).read_bytes() == faulty_site.settings.content
    assert file_names(cache) == WHOLE | {"bandwidth.json"} or file_names(cache) == WHOLE
    assert faulty_site.ranges[-1] == (f"bytes={partial_bytes}-" if partial_bytes else "")


def test_two_processes_download_a_file_once(
    cache: Cache, faulty_site: FaultySite, start_process: Callable[..., subprocess.Popen[str]]
) -> None:
    faulty_site.settings.pause_s = 0.01
    pair = [start_process(GET_SCRIPT, faulty_site.url) for _ in range(2)]
    outs = [process.communicate(timeout=60) for process in pair]
    assert outs == [(md5_of(faulty_site.settings.content) + "\n", "")] * 2
    assert sorted(faulty_site.statuses) == [200, 304]
    assert file_names(cache) == WHOLE


@pytest.mark.parametrize("consumer_s", [0, 20])
def test_ctrl_c_ends_a_stream_at_once(
    cache: Cache, faulty_site: FaultySite, start_process: Callable[..., subprocess.Popen[str]],
    consumer_s: int,
) -> None:  # fmt: skip
    """The server is silent for longer than the test waits, or the consumer is busy."""
    faulty_site.settings.content = bytes(40_000_000)
    faulty_site.settings.stall_after_bytes = 1_000_000 if consumer_s == 0 else None
    process = start_process(STREAM_SCRIPT, faulty_site.url, consumer_s)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert out.endswith("interrupted\n")
    assert err == ""
    assert file_names(cache) == set()


def test_ctrl_c_ends_a_download_at_once_and_keeps_the_received_part(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None],
    start_process: Callable[..., subprocess.Popen[str]],
) -> None:  # fmt: skip
    faulty_site.settings.content = random.Random(5).randbytes(3_000_000)
    faulty_site.settings.stall_after_bytes = 1 << 20
    process = start_process(GET_SCRIPT, faulty_site.url)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    wait_until(lambda: part.is_file() and part.stat().st_size > 500_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert err.strip().endswith("KeyboardInterrupt")
    partial_bytes = part.stat().st_size
    faulty_site.settings.stall_after_bytes = None
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert faulty_site.ranges == ["", f"bytes={partial_bytes}-"]


def test_partly_written_files_of_other_entries_are_kept(cache: Cache) -> None:
    folder = cache.folder / "v6"
    folder.mkdir(parents=True)
    mine, others = folder / ".boxes.csv.1-1.part", folder / ".labels.csv.1-1.part"
    for part in (mine, others):
        part.write_bytes(b"half")
    cache.get(BOXES)
    assert (mine.exists(), others.exists()) == (False, True)


def test_a_stop_event_ends_a_waiting_stream(cache: Cache, faulty_site: FaultySite) -> None:
    faulty_site.settings.content = bytes(2_000_000)
    faulty_site.settings.stall_after_bytes = 1_000_000
    blocks = cache.open_stream(BOXES).blocks(50_000)
    next(blocks)
    threading.Timer(0.1, cache._web.stop.set).start()
    with pytest.raises(StoppedError):
        list(blocks)
    assert not [thread for thread in threading.enumerate() if thread.name == "stream"]


def test_an_abandoned_stream_leaves_no_thread_and_no_metadata(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.content = bytes(30_000_000)
    blocks = cache.open_stream(BOXES).blocks(1 << 16)
    assert next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    running = {thread.name for thread in threading.enumerate()}
    assert not running & {"stream", "digest"}
    assert file_names(cache) == set()


def test_a_stream_buffers_a_limited_amount_ahead_of_its_consumer(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    faulty_site.settings.content = bytes(60_000_000)
    stream = cache.open_stream(BOXES)
    assert isinstance(stream, StreamedFile)
    blocks = stream.blocks(1 << 16)
    received = len(next(blocks))
    queued = stream._stream._items
    wait_until(queued.full)
    assert faulty_site.sent_bytes < 50_000_000
    received += sum(len(block) for block in blocks)
    assert received == 60_000_000


def test_a_stream_saves_metadata_so_that_a_later_run_notices_a_change(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    assert cache.current_version(BOXES) == ""
    assert faulty_site.requests == []
    stream = cache.open_stream(BOXES)
    list(stream.blocks(1 << 20))
    assert not cache.has(BOXES)
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as later:
        assert (
            later.current_version(BOXES) == stream.version == md5_of(faulty_site.settings.content)
        )
        vars(faulty_site.settings).update(content=OTHER, etag='"two"', pause_s=0.01)
        assert later.current_version(BOXES) == ""
        faulty_site.settings.md5 = google_md5(OTHER)
        assert later.current_version(BOXES) == md5_of(OTHER)
    assert faulty_site.statuses == [200, 304, 200, 200]
    assert faulty_site.requests[-1].sent_bytes < len(OTHER)


def test_metadata_alone_does_not_count_as_a_copy(cache: Cache, faulty_site: FaultySite) -> None:
    list(cache.open_stream(BOXES).blocks(1 << 20))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert faulty_site.statuses == [200, 200]
    assert cache.has(BOXES)


def test_a_copy_is_streamed_until_there_is_a_newer_version(
    cache: Cache, faulty_site: FaultySite
) -> None:
    cache.get(BOXES)
    copy = cache.open_stream(BOXES)
    assert isinstance(copy, CachedFile)
    assert b"".join(copy.blocks(1000)) == faulty_site.settings.content
    assert faulty_site.statuses == [200, 304]
    vars(faulty_site.settings).update(content=OTHER, etag='"two"')
    newer = cache.open_stream(BOXES)
    assert isinstance(newer, StreamedFile)
    assert cache.has(BOXES)
    assert b"".join(newer.blocks(1000)) == OTHER
    assert not cache.has(BOXES)
    assert cache.current_version(BOXES) == md5_of(OTHER)
    # Another process may be about to read the copy, so it is deleted by a later stream.
    assert md5_of(copy.path.read_bytes()) == copy.version
    list(cache.open_stream(BOXES).blocks(1000))
    assert copy.path.is_file()
    os.utime(copy.path.with_name("boxes.csv.streamed.json"), (1, 1))
    list(cache.open_stream(BOXES).blocks(1000))
    assert not copy.path.exists()
    assert saved_metadata(cache)["md5"] == cache.current_version(BOXES) == md5_of(OTHER)


def test_a_copy_older_than_a_streamed_version_is_replaced_and_not_removed(
    cache: Cache, faulty_site: FaultySite
) -> None:
    copy = cache.get(BOXES)
    vars(faulty_site.settings).update(content=OTHER, etag='"two"')
    list(cache.open_stream(BOXES).blocks(1000))
    assert copy.path.is_file()
    newer = cache.get(BOXES)
    assert (newer.path.read_bytes(), newer.version) == (OTHER, md5_of(OTHER))
    assert file_names(cache) == WHOLE
    assert faulty_site.statuses == [200, 200, 200, 200]


def test_offline_the_streamed_version_is_known_and_a_copy_is_streamed(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    version = cache.get(BOXES).version
    list(cache.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))
    faulty_site.settings.responses = [b""] * 100
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as later:
        later._web.retry_policy = FAST_RETRIES
        assert later.current_version(OfficialFile("v6/labels.csv")) == version
        assert isinstance(later.open_stream(BOXES), CachedFile)
        with pytest.raises(UnavailableError):
            list(later.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))


@pytest.mark.parametrize(("status", "error"), [(404, InputFormError), (500, UnavailableError)])
def test_a_stream_of_a_missing_file_raises_an_error(
    cache: Cache, faulty_site: FaultySite, status: int, error: type[OiyoloError]
) -> None:
    faulty_site.settings.responses = [_head(f"{status} No", Content_Length=0)] * 3
    with pytest.raises(error) as caught:
        list(cache.open_stream(BOXES).blocks(1 << 20))
    assert str(status) in caught.value.found


def test_checked_rows_are_remembered_until_the_file_changes(
    cache: Cache, faulty_site: FaultySite
) -> None:
    got = cache.get(BOXES)
    assert not got.rows_checked
    cache.mark_checked(got)
    assert cache.get(BOXES).rows_checked
    assert cache.open_stream(BOXES).rows_checked
    vars(faulty_site.settings).update(content=OTHER, etag='"two"')
    newer = cache.get(BOXES)
    assert not newer.rows_checked
    cache.mark_checked(got)  # a copy of the previous version
    assert not cache.get(BOXES).rows_checked


_Usage = namedtuple("_Usage", "total used free")  # noqa: PYI024  (as shutil has it)


@pytest.mark.parametrize(("free", "fits"), [(599_999, False), (600_000, True)])
def test_a_file_that_does_not_fit_is_rejected_before_the_download(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch, free: int, *, fits: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(1, 1, free))
    if fits:
        assert cache.get(BOXES).path.is_file()
        return
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    assert caught.value.exit_code == 4
    assert "boxes.csv" in caught.value.what
    assert "600.0 kB" in caught.value.expected
    assert "--stream" in caught.value.remedy
    assert "boxes.csv" not in file_names(cache)
    assert b"".join(cache.open_stream(BOXES).blocks(1 << 20)) == faulty_site.settings.content


@pytest.mark.parametrize("kept_before", [False, True])
def test_an_endless_download_ends_at_the_reserve_and_leaves_nothing(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch, *, kept_before: bool
) -> None:
    before = cache.get(BOXES).path.read_bytes() if kept_before else b""
    vars(faulty_site.settings).update(
        content=OTHER, etag="", last_modified="", length=False, repeats=50
    )
    free_bytes, reserve_bytes = 3_000_000, 1_000_000
    written: list[Path] = []  # what has no end is sent until 15 MB, in case nothing stops it

    def disk_usage(folder: Path) -> _Usage:
        written[:] = folder.rglob("boxes.csv.unfinished")
        return _Usage(1, 1, free_bytes - sum(path.stat().st_size for path in written))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(download, "_RESERVED_BYTES", reserve_bytes)
    monkeypatch.setattr(download, "_RESERVE_CHECK_BYTES", 100_000)
    with pytest.raises(UnavailableError) as caught:
        cache.get(BOXES)
    assert caught.value.exit_code == 4
    assert written  # the file had grown until then
    sent_bytes = faulty_site.sent_bytes - len(before)
    assert sent_bytes > free_bytes - reserve_bytes
    assert "boxes.csv" in caught.value.what
    kept = {path.name: path.read_bytes() for path in cache.folder.rglob("boxes.csv*")}
    assert not {"boxes.csv.unfinished", "boxes.csv.unfinished.json"} & kept.keys()
    assert kept.get("boxes.csv", b"") == before


def test_a_resumed_download_needs_space_only_for_the_rest(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_site.settings.breaks = [200_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(1, 1, 200_000))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content


def test_a_disk_that_fills_during_a_download_keeps_the_received_part(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oiyolo.net import download  # noqa: PLC0415  (the module to patch)

    def full(_: object, __: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    faulty_site.settings.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    with monkeypatch.context() as patch:
        patch.setattr(download.FileTransfer, "_deliver", full)
        with pytest.raises(UnavailableError) as caught:
            cache.get(BOXES)
    assert "boxes.csv" in caught.value.what
    assert isinstance(caught.value.__cause__, OSError)
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert faulty_site.ranges[-1] == "bytes=100000-"


def test_large_downloads_are_measured(cache: Cache, faulty_site: FaultySite) -> None:
    assert cache.bandwidth_bytes_s() is None
    cache.get(BOXES)
    assert cache.bandwidth_bytes_s() is None
    vars(faulty_site.settings).update(content=bytes(6_000_000), etag='"two"')
    cache.get(BOXES)
    first = cache.bandwidth_bytes_s()
    assert first is not None
    assert first > 1e5
    (cache.folder / "bandwidth.json").unlink()
    list(cache.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))
    assert cache.bandwidth_bytes_s()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"bytes": 1, "seconds": 0}',
        '{"bytes": "a"}',
        f'{{"bytes": 1{400 * "0"}, "seconds": 1}}',
    ],
)
def test_a_damaged_measurement_is_ignored(cache: Cache, text: str) -> None:
    cache.folder.mkdir(parents=True)
    (cache.folder / "bandwidth.json").write_text(text)
    assert cache.bandwidth_bytes_s() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 1}', '{"size_bytes": "x"}', "\0"])
def test_damaged_metadata_is_ignored(cache: Cache, faulty_site: FaultySite, text: str) -> None:
    path = cache.get(BOXES).path
    path.with_name("boxes.csv.facts.json").write_text(text)
    assert not cache.has(BOXES)
    assert cache.current_version(BOXES) == ""
    assert cache.get(BOXES).version == md5_of(faulty_site.settings.content)
    assert faulty_site.statuses == [200, 200]


# --- A server without 304, and several processes ------------------------------------------------


def test_a_server_that_ignores_conditions_does_not_send_the_same_version_again(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.settings.conditions = False
    path = cache.get(BOXES).path
    before = path.stat().st_ino
    for _ in range(2):
        assert cache.get(BOXES).version == md5_of(faulty_site.settings.content)
    assert path.stat().st_ino == before
    assert len(faulty_site.requests) == 3
    vars(faulty_site.settings).update(content=OTHER, etag='"two"')
    assert cache.get(BOXES).path.read_bytes() == OTHER


def test_a_file_of_a_server_without_validators_is_downloaded_at_most_once_a_minute(
    cache: Cache, faulty_site: FaultySite
) -> None:
    vars(faulty_site.settings).update(etag="", last_modified="")
    path = cache.get(BOXES).path
    assert cache.get(BOXES).path.read_bytes() == faulty_site.settings.content
    assert len(faulty_site.requests) == 1
    faulty_site.settings.content = OTHER
    os.utime(path.with_name("boxes.csv.facts.json"), (1, 1))
    assert cache.get(BOXES).path.read_bytes() == OTHER
    assert len(faulty_site.requests) == 2


def test_processes_that_start_together_download_a_file_once(
    faulty_site: FaultySite, start_process: Callable[..., subprocess.Popen[str]]
) -> None:
    vars(faulty_site.settings).update(etag="", last_modified="", pause_s=0.005)
    processes = [start_process(GET_SCRIPT, faulty_site.url) for _ in range(4)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.strip() == md5_of(faulty_site.settings.content)
    assert len(faulty_site.requests) == 1


def test_a_file_that_others_may_read_is_replaced_and_never_missing(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.get(BOXES).path
    removed = []
    unlink = type(path).unlink

    def watch(self: Path, *, missing_ok: bool = False) -> None:
        removed.append(self)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(type(path), "unlink", watch)
    vars(faulty_site.settings).update(content=OTHER, etag='"two"')
    assert cache.get(BOXES).path.read_bytes() == OTHER
    assert path not in removed


@pytest.mark.parametrize("step", ["finish", "save_metadata"])
def test_a_kill_while_a_file_gets_its_name_costs_no_second_download(
    *, tmp_path: Path, cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:  # fmt: skip
    content = faulty_site.settings.content
    cache.get(BOXES)
    new = content[::-1]  # of the same size, so that only its record tells the versions apart
    vars(faulty_site.settings).update(content=new, etag='"two"')
    owner: Any = PartialDownload if step == "finish" else CacheEntry
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            cache.get(BOXES)
    assert not cache.has(BOXES)
    requests = len(faulty_site.requests)
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as again:
        got = again.get(BOXES)
    assert got.path.read_bytes() == new
    assert got.version == md5_of(new)
    assert faulty_site.statuses[requests:] == [304]
    assert file_names(cache) == WHOLE
