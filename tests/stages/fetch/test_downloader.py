"""The engine of a fetch: how sites are asked, and how it stops."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core.errors import UnavailableError
from oiyolo.net.client_pool import ManyWeb
from oiyolo.net.download import HttpFailureError
from oiyolo.net.retry import Patience
from oiyolo.net.workers import Threads
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.store import FolderStore
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages.fetch import downloader as many
from tests.stages.fetch.conftest import Listed, Way, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from oiyolo.net.client_pool import Body
    from oiyolo.project.project import Project
    from oiyolo.sources.image import WantedImage
    from tests.stages.fetch.conftest import Fates

PHOTO = picture(3)
LIMIT_BYTES = 1_000_000
IDS = [f"{number:016x}" for number in range(1, 61)]
SECRET = "s3cr3t"  # noqa: S105  (it opens nothing)


def asking(
    ask: Callable[[ManyWeb], Coroutine[Any, Any, Any]], patience: Patience | None = None, **how: Any
) -> Any:
    """Do something with a web, in an event loop."""

    async def run() -> Any:
        threads = Threads(2, "names")
        patient = patience or Patience(attempts=3, first_pause_s=0.01)
        web = ManyWeb(threads, patience=patient, **how)
        try:
            return await ask(web)
        finally:
            await web.close()
            threads.close()

    return asyncio.run(run())


def get(url: str, patience: Patience | None = None, **how: Any) -> Body:
    found: Body = asking(lambda web: web.get(url, limit_bytes=LIMIT_BYTES), patience, **how)
    return found


def failure_of(url: str, patience: Patience | None = None, **how: Any) -> HttpFailureError:
    with pytest.raises(HttpFailureError) as caught:
        get(url, patience, **how)
    return caught.value


def test_a_redirect_is_followed_five_times_and_not_more(fates: Fates) -> None:
    for step in range(7):
        fates.ways[f"/{step}"] = Way(status="302 Found", headers={"Location": f"/{step + 1}"})
    fates.ways["/7"] = Way(PHOTO)
    body = get(f"{fates.url}/2")
    assert (body.content, body.final_url, body.attempts) == (PHOTO, f"{fates.url}/7", 1)
    assert failure_of(f"{fates.url}/1").reason == "too many redirects"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_leads_only_to_the_web(fates: Fates, location: str) -> None:
    fates.ways["/x"] = Way(status="302 Found", headers={"Location": location})
    assert failure_of(f"{fates.url}/x").reason == "not http(s)"


def test_a_redirect_to_nowhere_is_a_failure_for_good(fates: Fates) -> None:
    fates.ways["/x"] = Way(status="302 Found")
    failure = failure_of(f"{fates.url}/x")
    assert (failure.reason, failure.transient) == ("HTTP 302", False)


@pytest.mark.parametrize(
    "path", ["/train/a%20b.jpg", "/a%2Fb.jpg", "/%C3%A9.jpg", "/x.jpg?a=1&b=%2F"]
)
def test_an_address_is_asked_for_as_it_stands(fates: Fates, path: str) -> None:
    fates.ways[path] = Way(PHOTO)
    assert get(fates.url + path).content == PHOTO


def test_names_that_no_host_has_are_a_failure_that_may_pass() -> None:
    failure = failure_of("http://nowhere.invalid/x.jpg", Patience(attempts=1))
    assert (failure.reason, failure.transient, failure.reached) == (
        *("connection failed", True), False,
    )  # fmt: skip


@pytest.mark.parametrize("url", ["http://[::1/a", "ftp://a/b.jpg", "a.jpg", "http:///x", ""])
def test_what_is_no_web_address_is_a_failure_for_good(url: str) -> None:
    failure = failure_of(url)
    assert not failure.transient
    assert failure.attempts == 1


def test_a_pause_that_is_asked_for_holds_for_all_of_the_site(fates: Fates) -> None:
    busy = Way(status="429 Too Many Requests", headers={"Retry-After": "1"})
    fates.ways["/busy"] = Way(PHOTO, first=[busy])
    fates.ways["/other"] = Way(PHOTO)
    asked_s: list[float] = []

    async def ask(web: ManyWeb) -> None:
        began_s = time.monotonic()

        async def later() -> None:
            await asyncio.sleep(0.3)
            await web.get(f"{fates.url}/other", limit_bytes=LIMIT_BYTES)
            asked_s.append(time.monotonic() - began_s)

        await asyncio.gather(web.get(f"{fates.url}/busy", limit_bytes=LIMIT_BYTES), later())

    asking(ask)
    assert asked_s[0] >= 0.95
    assert fates.asked["/busy"] == 2


def test_a_pause_that_is_too_long_is_not_waited_for_and_nobody_else_asks(fates: Fates) -> None:
    tomorrow = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)
    text = tomorrow.strftime("%a, %d %b %Y %H:%M:%S GMT")
    fates.ways["/x"] = Way(status="503 Busy", headers={"Retry-After": text})

    async def ask(web: ManyWeb) -> list[HttpFailureError]:
        failures = []
        for path in ("/x", "/y"):
            with pytest.raises(HttpFailureError) as caught:
                await web.get(fates.url + path, limit_bytes=LIMIT_BYTES)
            failures.append(caught.value)
        return failures

    failures = asking(ask)
    assert [failure.reason for failure in failures] == ["asked to come back later"] * 2
    assert all(failure.transient for failure in failures)
    assert fates.asked == {"/x": 1}


def test_there_are_no_more_requests_at_once_than_jobs(fates: Fates) -> None:
    paths = [f"/{number}" for number in range(40)]
    fates.ways = {path: Way(PHOTO, pause_s=0.01) for path in paths}

    async def ask(web: ManyWeb) -> None:
        await asyncio.gather(
            *(web.get(fates.url + path, limit_bytes=LIMIT_BYTES) for path in paths)
        )

    asking(ask, jobs=5)
    assert fates.at_once == 5


def test_all_of_flickr_is_one_site_and_asked_gently(
    fates: Fates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its hosts are found here, through a proxy that gives what it likes.
    monkeypatch.setenv("http_proxy", fates.url)
    monkeypatch.setenv("no_proxy", "")
    urls = [f"http://c{n % 9}.staticflickr.com/{n}.jpg" for n in range(16)]
    fates.ways = {url: Way(PHOTO, pause_s=0.02) for url in urls}

    async def ask(web: ManyWeb) -> float:
        began_s = time.monotonic()
        await asyncio.gather(*(web.get(url, limit_bytes=LIMIT_BYTES) for url in urls))
        return time.monotonic() - began_s

    assert asking(ask, jobs=32, flickr_per_second=20.0) >= 15 / 20
    assert fates.at_once <= 4


def test_the_environments_proxy_is_used_but_where_it_says_so(
    fates: Fates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:{fates.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fates.ways["http://far.invalid/x.jpg"] = Way(PHOTO)
    fates.ways["/x.jpg"] = Way(PHOTO)
    assert get("http://far.invalid/x.jpg").content == PHOTO
    assert b"Proxy-Authorization: Basic " in fates.headers["http://far.invalid/x.jpg"]
    assert get(f"{fates.url}/x.jpg").content == PHOTO


@pytest.mark.parametrize("way", [Way(PHOTO), Way(status="404 Not Found"), Way(PHOTO, reset=9)])
def test_credentials_reach_the_site_and_nothing_else(
    fates: Fates,
    make_selected: Callable[..., Project],
    caplog: pytest.LogCaptureFixture,
    way: Way,
) -> None:
    url = fates.url.replace("://", f"://user:{SECRET}@")
    fates.ways[f"/train/{IDS[0]}.jpg"] = way
    project = make_selected([Listed(IDS[0])], mirror_url=url, sources=["mirror"])
    done = fetch_stage.run(project)
    assert b"Authorization: Basic " in fates.headers[f"/train/{IDS[0]}.jpg"]
    assert SECRET not in str(done) + caplog.text
    for path in project.data_folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


# --- stopping --------------------------------------------------------------------------------

FETCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
from oiyolo import open_project
from oiyolo.stages import fetch
print("begun", flush=True)
fetch.run(open_project(sys.argv[1]))
"""


@pytest.fixture
def run_apart() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Fetch in a process of its own."""
    begun: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def listed(ids: Sequence[str] = IDS) -> list[Listed]:
    return [Listed(image_id) for image_id in ids]


def path_of(image_id: str) -> str:
    return f"/train/{image_id}.jpg"


def test_ctrl_c_stops_a_fetch_that_hangs_within_two_seconds(
    fates: Fates,
    make_selected: Callable[..., Project],
    run_apart: Callable[[Path], subprocess.Popen[str]],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    came, hangs = IDS[:10], IDS[10:]
    fates.ways = {path_of(i): Way(PHOTO) for i in came}
    fates.ways |= {path_of(i): Way(PHOTO, stall=True) for i in hangs}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"], jobs=20)
    victim = run_apart(project.folder)

    def recorded() -> list[str]:
        with project.ledger(read_only=True) as ledger:
            return ledger.ids("fetched")

    wait_until(lambda: fates.under_way == 20 and recorded() == came)
    victim.send_signal(signal.SIGINT)
    asked_s = time.monotonic()
    _, err = victim.communicate(timeout=30)
    assert time.monotonic() - asked_s < 2.0
    assert "KeyboardInterrupt" in err
    assert recorded() == came
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in came}


def test_a_source_that_hangs_in_a_thread_holds_up_nothing(
    make_selected: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs:
        name = "gs://bucket"

        def get(self, wanted: WantedImage) -> FetchedImage:
            if wanted.image_id == IDS[0]:
                return FetchedImage(PHOTO)
            time.sleep(20.0)
            raise NotFetchedError("never", "never")

    monkeypatch.setattr("oiyolo.sources._blocking", lambda *_: Hangs())
    project = make_selected(listed(), sources=["gs://bucket"])
    seen: list[Any] = []

    def stop(outcomes: Sequence[Any]) -> None:
        seen.extend(outcomes)
        raise KeyboardInterrupt

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch_outcomes(project, stop)
    assert time.monotonic() - began_s < 2.5
    assert [outcome.image_id for outcome in seen] == [IDS[0]]
    assert list(project.images_folder.iterdir()) == []


def fetch_outcomes(project: Project, on_outcomes: Callable[[Sequence[Any]], None]) -> many.Tally:
    from oiyolo.core.progress import progress  # noqa: PLC0415
    from oiyolo.stages import select  # noqa: PLC0415
    from oiyolo.stages.fetch.pending import wanted_images  # noqa: PLC0415

    with project.ledger() as ledger, progress("x") as told:
        wanted = wanted_images(select.load_or_complain(project), ledger.each("pending"))
        return many.fetch_many(project, wanted, on_outcomes=on_outcomes, told=told)


def test_what_the_caller_could_not_record_is_not_kept(
    fates: Fates, make_selected: Callable[..., Project]
) -> None:
    fates.ways = {path_of(i): Way(PHOTO) for i in IDS}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"])

    def fail(_: Sequence[Any]) -> None:
        raise ZeroDivisionError

    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        fetch_outcomes(project, fail)
    assert list(project.images_folder.iterdir()) == []
    assert threading.active_count() <= threads + 1


def test_images_are_taken_as_they_are_needed(
    fates: Fates, make_selected: Callable[..., Project]
) -> None:
    ids = [f"{number:016x}" for number in range(1, 1501)]
    fates.ways = {path_of(i): Way(PHOTO) for i in ids}
    project = make_selected(listed(ids), mirror_url=fates.url, sources=["mirror"], jobs=8)
    done: list[str] = []
    most_ahead = 0

    def wanted() -> Iterator[WantedImage]:
        nonlocal most_ahead
        from oiyolo.sources.image import WantedImage  # noqa: PLC0415

        for place, image_id in enumerate(ids):
            most_ahead = max(most_ahead, place - len(done))
            yield WantedImage(image_id, "train", "", None, "")

    from oiyolo.core.progress import progress  # noqa: PLC0415

    with progress("x") as told:
        many.fetch_many(
            project,
            wanted(),
            on_outcomes=lambda some: done.extend(outcome.image_id for outcome in some),
            told=told,
        )
    assert sorted(done) == ids
    assert most_ahead < 600


# --- the disk --------------------------------------------------------------------------------


def test_a_disk_that_is_full_stops_the_fetch_and_keeps_what_came(
    fates: Fates, make_selected: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    fates.ways = {path_of(i): Way(PHOTO, pause_s=0.005) for i in IDS}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"], jobs=2)
    put = FolderStore.put
    kept: list[str] = []

    def put_some(store: Any, image_id: str, content: bytes) -> None:
        if len(kept) >= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(store, image_id, content)
        kept.append(image_id)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", put_some)
        with pytest.raises(UnavailableError, match="nearly full") as caught:
            fetch_stage.run(project)
    assert caught.value.exit_code == 4
    with project.ledger(read_only=True) as ledger:
        fetched = ledger.ids("fetched")
        assert sum(ledger.counts().states.values()) == len(IDS)
    assert 10 <= len(fetched) <= 20
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in fetched}
    assert fetch_stage.run(project).new == len(IDS) - len(fetched)


def test_images_that_cannot_fit_are_not_begun_with(
    fates: Fates, make_selected: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Listed(i, f"{fates.url}/{i}", bytes(2_000_000)) for i in IDS]
    project = make_selected(photos, sources=["original"])
    usage = shutil.disk_usage(project.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=250_000_000))
    with pytest.raises(UnavailableError, match="do not fit") as caught:
        fetch_stage.run(project)
    assert "320 MB free" in str(caught.value)
    assert not fates.asked


# --- kill -9 ---------------------------------------------------------------------------------


def killed_and_gone_on_with(
    fates: Fates,
    project: Project,
    start: Callable[[Path], subprocess.Popen[str]],
    pauses: list[float],
) -> int:
    """Kill a fetch after so many seconds each, then let it end; give how often it was killed."""
    killed = 0
    for pause_s in pauses:
        victim = start(project.folder)
        end_s = time.monotonic() + pause_s
        while victim.poll() is None and time.monotonic() < end_s:
            time.sleep(0.002)
        victim.kill()
        victim.communicate(timeout=30)
        killed += victim.returncode == -signal.SIGKILL
        for path in project.images_folder.glob("*.jpg"):
            assert path.read_bytes() == PHOTO
    done = start(project.folder)
    assert done.communicate(timeout=60)[1] == ""
    assert fates.asked.keys() == fates.ways.keys()
    return killed


JOBS = 4


def check_after_kills(fates: Fates, project: Project, ids: Sequence[str], killed: int) -> None:
    with project.ledger(read_only=True) as ledger:
        assert ledger.ids("fetched") == list(ids)
        assert all(ledger.row(i)["attempts"] == 1 for i in ids)  # type: ignore[index]
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in ids}
    # Under way, or come in the hundredths of a second before they are recorded.
    assert sum(fates.asked.values()) - len(ids) <= killed * 3 * JOBS
    assert max(fates.asked.values()) <= 1 + killed


def test_after_kills_no_image_is_fetched_twice_but_those_in_flight(
    fates: Fates,
    make_selected: Callable[..., Project],
    run_apart: Callable[[Path], subprocess.Popen[str]],
) -> None:
    fates.ways = {path_of(i): Way(PHOTO, pause_s=0.05) for i in IDS}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"], jobs=JOBS)
    killed = killed_and_gone_on_with(fates, project, run_apart, [0.7, 0.9])
    check_after_kills(fates, project, IDS, killed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_after_many_kills_at_random_moments(
    fates: Fates,
    make_selected: Callable[..., Project],
    run_apart: Callable[[Path], subprocess.Popen[str]],
    seed: int,
) -> None:
    import random  # noqa: PLC0415

    ids = [f"{number:016x}" for number in range(1, 601)]
    fates.ways = {path_of(i): Way(PHOTO, pause_s=0.05) for i in ids}
    project = make_selected(listed(ids), mirror_url=fates.url, sources=["mirror"], jobs=JOBS)
    rng = random.Random(seed)
    pauses = [rng.uniform(0.1, 1.5) for _ in range(20)]
    killed = killed_and_gone_on_with(fates, project, run_apart, pauses)
    assert killed >= 10
    check_after_kills(fates, project, ids, killed)


def test_images_that_were_recorded_but_lack_their_name_get_it(
    fates: Fates, make_selected: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    fates.ways = {path_of(i): Way(PHOTO) for i in IDS}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"])

    def killed(_: Any, image_ids: Sequence[str]) -> None:
        if image_ids:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_stage.run(project)
    with project.ledger(read_only=True) as ledger:
        recorded = ledger.ids("fetched")
    assert recorded
    done = fetch_stage.run(project)
    assert done.new == len(IDS) - len(recorded)
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in IDS}


def test_a_file_that_is_gone_is_fetched_again_and_nothing_else(
    fates: Fates, make_selected: Callable[..., Project]
) -> None:
    fates.ways = {path_of(i): Way(PHOTO) for i in IDS}
    project = make_selected(listed(), mirror_url=fates.url, sources=["mirror"])
    fetch_stage.run(project)
    for image_id in (IDS[0], IDS[30], IDS[-1]):
        (project.images_folder / f"{image_id}.jpg").unlink()
    (project.images_folder / "notes.txt").write_text("of the user")
    (project.images_folder / "zzzzzzzzzzzzzzzz.jpg").write_text("of the user")
    fates.asked.clear()
    assert fetch_stage.run(project).new == 3
    assert set(fates.asked) == {path_of(IDS[0]), path_of(IDS[30]), path_of(IDS[-1])}
    fates.asked.clear()
    done = oiyolo.open_project(project.folder)
    assert "nothing to do" in str(fetch_stage.run(done))
    assert not fates.asked
