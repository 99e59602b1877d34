"""Large official files over a line that breaks: nothing is lost, mixed up or left hanging."""

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
from oiyolo.net.client import Patience, StoppedError
from oiyolo.openimages import cache as module
from oiyolo.openimages.cache import Cache, CachedFile, StreamedFile
from oiyolo.openimages.releases import OfficialFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.failing_site import FaultySite

BOXES = OfficialFile("v6/boxes.csv")
QUICK = Patience(attempts=3, first_pause_s=0.005, connect_s=2.0, read_s=2.0)
OTHER = random.Random(2).randbytes(310_000)
GET = """
import sys
from pathlib import Path
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import OfficialFile
cache = Cache(Path(sys.argv[1]), sys.argv[2])
print(cache.get(OfficialFile("v6/boxes.csv")).version)
"""
STREAM = """
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
    made = Cache(tmp_path / "cache", faulty_site.url)
    made._web.patience = QUICK
    with contextlib.closing(made):
        yield made


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch, faulty_site: FaultySite) -> OfficialFile:
    """The site is the official one, and its file's size and MD5 are known."""
    monkeypatch.setattr(module, "OFFICIAL_BASE_URL", faulty_site.url)
    content = faulty_site.ways.content
    return OfficialFile(BOXES.path, len(content), md5_of(content))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script of the above in a process of its own."""
    processes = []

    def start(script: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "cache"), *map(str, words)]
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


def names(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.rglob("*") if path.is_file()}


def kept(cache: Cache) -> Any:
    return json.loads((cache.folder / "v6" / "boxes.csv.facts.json").read_text())


WHOLE = {"boxes.csv", "boxes.csv.facts.json", "boxes.csv.lock"}

WAYS: dict[str, dict[str, Any]] = {
    "all is told": {},
    "no date": {"last_modified": ""},
    "no ETag": {"etag": ""},
    "a weak ETag": {"etag": 'W/"one"'},
    "a weak ETag alone": {"etag": 'W/"one"', "last_modified": ""},
    "neither": {"etag": "", "last_modified": ""},
    "no ranges": {"ranges": False},
    "no ranges, no ETag": {"ranges": False, "etag": ""},
    "no ranges, neither": {"ranges": False, "etag": "", "last_modified": ""},
}
RESUMABLE = {"all is told", "no date", "no ETag", "a weak ETag"}


@pytest.mark.parametrize("way", WAYS)
def test_after_breaks_a_file_is_whole_and_resumed_where_the_server_can(
    cache: Cache, faulty_site: FaultySite, way: str
) -> None:
    vars(faulty_site.ways).update(WAYS[way], breaks=[100_000, 50_000])
    got = cache.get(BOXES)
    assert got.path.read_bytes() == faulty_site.ways.content
    assert got.version == md5_of(faulty_site.ways.content)
    assert names(cache) == WHOLE
    if way in RESUMABLE:
        assert faulty_site.ranges == ["", "bytes=100000-", "bytes=150000-"]
        assert faulty_site.sent_bytes == len(faulty_site.ways.content)
        assert "if-range" in faulty_site.asked[1].headers


@pytest.mark.parametrize("way", WAYS)
def test_after_breaks_a_stream_is_whole_and_resumed_where_the_server_can(
    cache: Cache, faulty_site: FaultySite, way: str
) -> None:
    vars(faulty_site.ways).update(WAYS[way], breaks=[100_000, 180_000])
    stream = cache.open_stream(BOXES)
    assert stream.where == f"{faulty_site.url}/v6/boxes.csv"
    assert b"".join(stream.blocks(40_000)) == faulty_site.ways.content
    assert stream.version == md5_of(faulty_site.ways.content)
    assert names(cache) == {"boxes.csv.facts.json", "boxes.csv.lock"}
    if way in RESUMABLE:
        assert faulty_site.ranges == ["", "bytes=100000-", "bytes=280000-"]
        assert faulty_site.sent_bytes == len(faulty_site.ways.content)


def test_what_another_process_left_is_gone_on_with(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.ways.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError, match=r"attempts: 3"):
        cache.get(BOXES)
    assert names(cache) == {"boxes.csv.unfinished", "boxes.csv.unfinished.json", "boxes.csv.lock"}
    assert not cache.has(BOXES)
    assert cache.missing_bytes(BOXES) == 200_000
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as again:
        got = again.get(BOXES)
    assert got.path.read_bytes() == faulty_site.ways.content
    assert faulty_site.ranges[-1] == "bytes=100000-"
    assert names(cache) == WHOLE
    assert faulty_site.sent_bytes == len(faulty_site.ways.content)


def test_many_breaks_do_not_end_it_while_it_comes_on(cache: Cache, faulty_site: FaultySite) -> None:
    faulty_site.ways.content = random.Random(3).randbytes(13_000_000)
    faulty_site.ways.breaks = [1_100_000] * 10
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content
    assert len(faulty_site.asked) == 11
    assert cache.bandwidth_bytes_s()


def test_breaks_without_progress_end_it(cache: Cache, faulty_site: FaultySite) -> None:
    faulty_site.ways.ranges = False
    faulty_site.ways.breaks = [100_000] * 50
    with pytest.raises(UnavailableError, match=r"attempts: 3"):
        cache.get(BOXES)
    assert len(faulty_site.asked) == 3


@pytest.mark.parametrize("way", ["all is told", "no ETag", "neither", "no ranges"])
def test_another_version_meanwhile_is_begun_anew(
    cache: Cache, faulty_site: FaultySite, way: str
) -> None:
    vars(faulty_site.ways).update(WAYS[way], breaks=[100_000, 0, 0])
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    vars(faulty_site.ways).update(content=OTHER)
    if faulty_site.ways.etag:
        faulty_site.ways.etag = '"two"'
    elif faulty_site.ways.last_modified:
        faulty_site.ways.last_modified = "Thu, 22 Oct 2015 07:28:00 GMT"
    got = cache.get(BOXES)
    assert got.path.read_bytes() == OTHER
    assert got.version == md5_of(OTHER)
    assert names(cache) == WHOLE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [310_000, 300_000, 90_000])
def test_another_version_in_the_middle_of_a_stream_is_an_error(
    cache: Cache, faulty_site: FaultySite, way: str, length: int
) -> None:
    ways = faulty_site.ways
    # Behind the first 256 kB, which are given on together.
    vars(ways).update(WAYS[way], breaks=[290_000], hold_bytes=270_000)
    blocks = cache.open_stream(BOXES).blocks(16_384)
    before = ways.content
    changed = {"content": OTHER[:length], "etag": ways.etag and '"two"'}
    changed["last_modified"] = ways.last_modified and "Thu, 22 Oct 2015 07:28:00 GMT"
    came = next(blocks)
    vars(ways).update(changed, hold_bytes=None)
    faulty_site.go_on.set()
    with pytest.raises(UnavailableError, match="changed while it was being read"):
        b"".join(blocks)
    assert before.startswith(came)
    assert names(cache) == set()


def _head(status: str, **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    "strange",
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
def test_a_strange_answer_to_a_range_spoils_nothing(
    cache: Cache, faulty_site: FaultySite, strange: bytes, *, streamed: bool
) -> None:
    faulty_site.ways.breaks = [100_000]
    faulty_site.ways.answers = [None, strange]
    assert fetch(cache, BOXES, streamed=streamed) == faulty_site.ways.content


def test_what_lacks_only_its_name_is_not_fetched_again(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.ways.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    (cache.folder / "v6" / "boxes.csv.unfinished").write_bytes(faulty_site.ways.content)
    assert cache.get(BOXES).version == md5_of(faulty_site.ways.content)
    assert faulty_site.statuses[-1] == 416
    assert faulty_site.sent_bytes == 100_000
    assert names(cache) == WHOLE


@pytest.mark.parametrize("damage", ["longer", "no facts", "nonsense", "of another address"])
def test_an_unfinished_file_of_no_use_is_begun_anew(
    cache: Cache, faulty_site: FaultySite, damage: str
) -> None:
    faulty_site.ways.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    facts = part.with_name(part.name + ".json")
    if damage == "longer":
        part.write_bytes(faulty_site.ways.content + b"x")
    elif damage == "no facts":
        facts.unlink()
    elif damage == "nonsense":
        facts.write_text('{"url": "x", "version": [1]}')
    else:
        facts.write_text(facts.read_text().replace("/v6/", "/v5/"))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content
    assert faulty_site.ranges[-1] == ""
    assert names(cache) == WHOLE


@pytest.mark.parametrize("told", ["in the table", "by the server"])
def test_halves_that_do_not_fit_are_fetched_anew_once(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, told: str
) -> None:
    faulty_site.ways.breaks = [100_000, 0, 0]
    wanted = official
    if told == "by the server":
        faulty_site.ways.md5 = google_md5(faulty_site.ways.content)
        wanted = BOXES
    with pytest.raises(UnavailableError):
        cache.get(wanted)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    part.write_bytes(b"?" * 100_000)
    assert cache.get(wanted).path.read_bytes() == faulty_site.ways.content
    assert faulty_site.ranges[-2:] == ["bytes=100000-", ""]
    assert names(cache) == WHOLE


@pytest.mark.parametrize("streamed", [False, True])
def test_a_wrong_md5_is_not_the_official_file(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, *, streamed: bool
) -> None:
    faulty_site.ways.content = bytes(reversed(faulty_site.ways.content))
    with pytest.raises(InputFormError, match="not the official file") as caught:
        fetch(cache, official, streamed=streamed)
    assert caught.value.exit_code == 3
    assert names(cache) <= {"boxes.csv.lock"}


@pytest.mark.parametrize("length", [299_999, 300_001])
def test_a_wrong_size_is_refused_before_it_is_fetched(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, length: int
) -> None:
    faulty_site.ways.content = OTHER[:length]
    faulty_site.ways.pause_s = 0.05
    with pytest.raises(InputFormError, match="not the official file"):
        cache.get(official)
    assert faulty_site.sent_bytes < 300_000
    assert names(cache) == {"boxes.csv.lock"}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("length", [299_999, 300_001])
def test_without_a_told_length_the_table_knows_it(
    cache: Cache, faulty_site: FaultySite, official: OfficialFile, length: int, *, streamed: bool
) -> None:
    faulty_site.ways.content = OTHER[:length]
    faulty_site.ways.length = faulty_site.ways.ranges = False
    with pytest.raises((InputFormError, UnavailableError)):
        fetch(cache, official, streamed=streamed)
    assert "boxes.csv" not in names(cache)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_follows_the_told_length_is_not_taken(
    cache: Cache, faulty_site: FaultySite, *, streamed: bool
) -> None:
    faulty_site.ways.extra = b"more" * 1000
    assert fetch(cache, BOXES, streamed=streamed) == faulty_site.ways.content


def test_damage_that_the_server_gives_away_is_mended_or_told(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.ways.md5 = google_md5(OTHER)
    with pytest.raises(UnavailableError, match="damaged"):
        cache.get(BOXES)
    with pytest.raises(UnavailableError, match="damaged"):
        list(cache.open_stream(BOXES).blocks(1 << 16))
    assert "boxes.csv" not in names(cache)


@pytest.mark.parametrize("kills", [(0,), (1_000_000,), (5_000_000,), (1_000_000, 3_000_000)])
def test_after_kills_another_process_goes_on(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None],
    started: Callable[..., subprocess.Popen[str]], kills: tuple[int, ...],
) -> None:  # fmt: skip
    faulty_site.ways.content = random.Random(4).randbytes(6_000_000)
    faulty_site.ways.pause_s = 0.0005
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    for kill_at in kills:
        process = started(GET, faulty_site.url)
        wait_until(
            lambda at=kill_at: (  # type: ignore[misc]
                bool(faulty_site.asked) and (part.stat().st_size if part.is_file() else 0) >= at
            )
        )
        process.kill()
        process.wait()
        held = part.stat().st_size if part.is_file() else 0
        assert held >= kill_at
    faulty_site.ways.pause_s = 0.0
    ended = started(GET, faulty_site.url)
    out, err = ended.communicate(timeout=60)
    assert (out.strip(), err) == (md5_of(faulty_site.ways.content), "")
    assert (cache.folder / BOXES.path).read_bytes() == faulty_site.ways.content
    assert names(cache) == WHOLE | {"bandwidth.json"} or names(cache) == WHOLE
    assert faulty_site.ranges[-1] == (f"bytes={held}-" if held else "")


def test_two_processes_fetch_one_file_once(
    cache: Cache, faulty_site: FaultySite, started: Callable[..., subprocess.Popen[str]]
) -> None:
    faulty_site.ways.pause_s = 0.01
    pair = [started(GET, faulty_site.url) for _ in range(2)]
    outs = [process.communicate(timeout=60) for process in pair]
    assert outs == [(md5_of(faulty_site.ways.content) + "\n", "")] * 2
    assert sorted(faulty_site.statuses) == [200, 304]
    assert names(cache) == WHOLE


@pytest.mark.parametrize("consumer_s", [0, 20])
def test_ctrl_c_ends_a_stream_at_once(
    cache: Cache, faulty_site: FaultySite, started: Callable[..., subprocess.Popen[str]],
    consumer_s: int,
) -> None:  # fmt: skip
    """The server is silent for longer than the test is patient, or the consumer is at work."""
    faulty_site.ways.content = bytes(40_000_000)
    faulty_site.ways.hold_bytes = 1_000_000 if consumer_s == 0 else None
    process = started(STREAM, faulty_site.url, consumer_s)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert out.endswith("interrupted\n")
    assert err == ""
    assert names(cache) == set()


def test_ctrl_c_ends_a_download_at_once_and_keeps_what_came(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None],
    started: Callable[..., subprocess.Popen[str]],
) -> None:  # fmt: skip
    faulty_site.ways.content = random.Random(5).randbytes(3_000_000)
    faulty_site.ways.hold_bytes = 1 << 20
    process = started(GET, faulty_site.url)
    part = cache.folder / "v6" / "boxes.csv.unfinished"
    wait_until(lambda: part.is_file() and part.stat().st_size > 500_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert err.strip().endswith("KeyboardInterrupt")
    held = part.stat().st_size
    faulty_site.ways.hold_bytes = None
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content
    assert faulty_site.ranges == ["", f"bytes={held}-"]


def test_what_others_are_writing_beside_it_is_left_alone(cache: Cache) -> None:
    folder = cache.folder / "v6"
    folder.mkdir(parents=True)
    mine, others = folder / ".boxes.csv.1-1.part", folder / ".labels.csv.1-1.part"
    for part in (mine, others):
        part.write_bytes(b"half")
    cache.get(BOXES)
    assert (mine.exists(), others.exists()) == (False, True)


def test_a_stop_event_ends_a_stream_that_waits(cache: Cache, faulty_site: FaultySite) -> None:
    faulty_site.ways.content = bytes(2_000_000)
    faulty_site.ways.hold_bytes = 1_000_000
    blocks = cache.open_stream(BOXES).blocks(50_000)
    next(blocks)
    threading.Timer(0.1, cache._web.stop.set).start()
    with pytest.raises(StoppedError):
        list(blocks)
    assert not [thread for thread in threading.enumerate() if thread.name == "stream"]


def test_a_stream_that_is_given_up_leaves_no_thread_and_no_facts(
    cache: Cache, faulty_site: FaultySite
) -> None:
    faulty_site.ways.content = bytes(30_000_000)
    blocks = cache.open_stream(BOXES).blocks(1 << 16)
    assert next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    running = {thread.name for thread in threading.enumerate()}
    assert not running & {"stream", "digest"}
    assert names(cache) == set()


def test_a_stream_runs_ahead_of_its_consumer_only_so_far(
    cache: Cache, faulty_site: FaultySite, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    faulty_site.ways.content = bytes(60_000_000)
    stream = cache.open_stream(BOXES)
    assert isinstance(stream, StreamedFile)
    blocks = stream.blocks(1 << 16)
    came = len(next(blocks))
    queued = stream._stream._sink.blocks
    wait_until(queued.full)
    assert faulty_site.sent_bytes < 50_000_000
    came += sum(len(block) for block in blocks)
    assert came == 60_000_000


def test_a_stream_keeps_facts_by_which_a_later_run_sees_a_change(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    assert cache.version_now(BOXES) == ""
    assert faulty_site.asked == []
    stream = cache.open_stream(BOXES)
    list(stream.blocks(1 << 20))
    assert not cache.has(BOXES)
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as later:
        assert later.version_now(BOXES) == stream.version == md5_of(faulty_site.ways.content)
        vars(faulty_site.ways).update(content=OTHER, etag='"two"', pause_s=0.01)
        assert later.version_now(BOXES) == ""
        faulty_site.ways.md5 = google_md5(OTHER)
        assert later.version_now(BOXES) == md5_of(OTHER)
    assert faulty_site.statuses == [200, 304, 200, 200]
    assert faulty_site.asked[-1].sent_bytes < len(OTHER)


def test_facts_alone_are_no_copy(cache: Cache, faulty_site: FaultySite) -> None:
    list(cache.open_stream(BOXES).blocks(1 << 20))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content
    assert faulty_site.statuses == [200, 200]
    assert cache.has(BOXES)


def test_a_copy_serves_a_stream_until_there_is_a_newer_one(
    cache: Cache, faulty_site: FaultySite
) -> None:
    cache.get(BOXES)
    copy = cache.open_stream(BOXES)
    assert isinstance(copy, CachedFile)
    assert b"".join(copy.blocks(1000)) == faulty_site.ways.content
    assert faulty_site.statuses == [200, 304]
    vars(faulty_site.ways).update(content=OTHER, etag='"two"')
    newer = cache.open_stream(BOXES)
    assert isinstance(newer, StreamedFile)
    assert cache.has(BOXES)
    assert b"".join(newer.blocks(1000)) == OTHER
    assert not cache.has(BOXES)
    assert kept(cache)["md5"] == md5_of(OTHER)


def test_offline_what_was_streamed_is_known_and_a_copy_streams(
    tmp_path: Path, cache: Cache, faulty_site: FaultySite
) -> None:
    version = cache.get(BOXES).version
    list(cache.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))
    faulty_site.ways.answers = [b""] * 100
    with contextlib.closing(Cache(tmp_path / "cache", faulty_site.url)) as later:
        later._web.patience = QUICK
        assert later.version_now(OfficialFile("v6/labels.csv")) == version
        assert isinstance(later.open_stream(BOXES), CachedFile)
        with pytest.raises(UnavailableError):
            list(later.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))


@pytest.mark.parametrize(("status", "error"), [(404, InputFormError), (500, UnavailableError)])
def test_a_stream_of_what_is_not_there_says_so(
    cache: Cache, faulty_site: FaultySite, status: int, error: type[Exception]
) -> None:
    faulty_site.ways.answers = [_head(f"{status} No", Content_Length=0)] * 3
    with pytest.raises(error, match=f"HTTP {status}"):
        list(cache.open_stream(BOXES).blocks(1 << 20))


def test_that_rows_were_checked_is_remembered_until_there_are_others(
    cache: Cache, faulty_site: FaultySite
) -> None:
    got = cache.get(BOXES)
    assert not got.rows_checked
    cache.mark_checked(got)
    assert cache.get(BOXES).rows_checked
    assert cache.open_stream(BOXES).rows_checked
    vars(faulty_site.ways).update(content=OTHER, etag='"two"')
    newer = cache.get(BOXES)
    assert not newer.rows_checked
    cache.mark_checked(got)  # of the version before
    assert not cache.get(BOXES).rows_checked


_Usage = namedtuple("_Usage", "total used free")  # noqa: PYI024  (as shutil has it)


@pytest.mark.parametrize(("free", "fits"), [(599_999, False), (600_000, True)])
def test_what_does_not_fit_is_refused_before_it_comes(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch, free: int, *, fits: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(1, 1, free))
    if fits:
        assert cache.get(BOXES).path.is_file()
        return
    with pytest.raises(UnavailableError, match="does not fit") as caught:
        cache.get(BOXES)
    assert caught.value.exit_code == 4
    assert "300,000 bytes" in caught.value.expected
    assert "599,999" in caught.value.found
    assert "--stream" in caught.value.remedy
    assert "boxes.csv" not in names(cache)
    assert b"".join(cache.open_stream(BOXES).blocks(1 << 20)) == faulty_site.ways.content


def test_of_what_is_here_in_part_only_the_rest_must_fit(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_site.ways.breaks = [200_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(1, 1, 200_000))
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content


def test_a_disk_that_fills_meanwhile_keeps_what_came(
    cache: Cache, faulty_site: FaultySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oiyolo.net import download  # noqa: PLC0415  (the module that is changed here)

    def full(_: object, __: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    faulty_site.ways.breaks = [100_000, 0, 0]
    with pytest.raises(UnavailableError):
        cache.get(BOXES)
    with monkeypatch.context() as patch:
        patch.setattr(download.FileSink, "write", full)
        with pytest.raises(UnavailableError, match="does not fit"):
            cache.get(BOXES)
    assert cache.get(BOXES).path.read_bytes() == faulty_site.ways.content
    assert faulty_site.ranges[-1] == "bytes=100000-"


def test_large_downloads_are_measured(cache: Cache, faulty_site: FaultySite) -> None:
    assert cache.bandwidth_bytes_s() is None
    cache.get(BOXES)
    assert cache.bandwidth_bytes_s() is None
    vars(faulty_site.ways).update(content=bytes(6_000_000), etag='"two"')
    cache.get(BOXES)
    first = cache.bandwidth_bytes_s()
    assert first is not None
    assert first > 1e5
    (cache.folder / "bandwidth.json").unlink()
    list(cache.open_stream(OfficialFile("v6/labels.csv")).blocks(1 << 20))
    assert cache.bandwidth_bytes_s()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bytes": 1, "seconds": 0}', '{"bytes": "a"}'])
def test_a_strange_measurement_is_none(cache: Cache, text: str) -> None:
    cache.folder.mkdir(parents=True)
    (cache.folder / "bandwidth.json").write_text(text)
    assert cache.bandwidth_bytes_s() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 1}', '{"size_bytes": "x"}', "\0"])
def test_strange_facts_are_none(cache: Cache, faulty_site: FaultySite, text: str) -> None:
    path = cache.get(BOXES).path
    path.with_name("boxes.csv.facts.json").write_text(text)
    assert not cache.has(BOXES)
    assert cache.version_now(BOXES) == ""
    assert cache.get(BOXES).version == md5_of(faulty_site.ways.content)
    assert faulty_site.statuses == [200, 200]
