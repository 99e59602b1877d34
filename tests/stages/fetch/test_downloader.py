"""The downloader: requests to sites, stopping, disk space and kills."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import itertools
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
from oiyolo.net.client_pool import HttpClientPool
from oiyolo.net.retry import HttpFailureError, RetryPolicy
from oiyolo.net.workers import WorkerThreads
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.store import FolderStore
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages.fetch import downloader
from tests.stages.fetch.conftest import Answer, ImageRow, make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from oiyolo.net.client_pool import Body
    from oiyolo.project.project import Project
    from oiyolo.sources.image import ImageRequest
    from tests.stages.fetch.conftest import ScriptedSite

PHOTO = make_image(3)
LIMIT_BYTES = 1_000_000
IDS = [f"{number:016x}" for number in range(1, 61)]
SECRET = "s3cr3t"  # noqa: S105  (not a real secret)


def with_client(
    use: Callable[[HttpClientPool], Coroutine[Any, Any, Any]],
    retry_policy: RetryPolicy | None = None,
    **options: Any,
) -> Any:
    """Run a coroutine function with a client pool, in a new event loop."""

    async def run() -> Any:
        threads = WorkerThreads(2, "names")
        policy = retry_policy or RetryPolicy(max_attempts=3, first_pause_s=0.01)
        web = HttpClientPool(threads, retry_policy=policy, **options)
        try:
            return await use(web)
        finally:
            await web.close()
            threads.close()

    return asyncio.run(run())


def get(url: str, retry_policy: RetryPolicy | None = None, **options: Any) -> Body:
    body: Body = with_client(
        lambda web: web.get(url, limit_bytes=LIMIT_BYTES), retry_policy, **options
    )
    return body


def get_failure(
    url: str, retry_policy: RetryPolicy | None = None, **options: Any
) -> HttpFailureError:
    with pytest.raises(HttpFailureError) as caught:
        get(url, retry_policy, **options)
    return caught.value


def test_at_most_five_redirects_are_followed(scripted_site: ScriptedSite) -> None:
    for step in range(7):
        scripted_site.answers[f"/{step}"] = Answer(
            status="302 Found", headers={"Location": f"/{step + 1}"}
        )
    scripted_site.answers["/7"] = Answer(PHOTO)
    body = get(f"{scripted_site.url}/2")
    assert (body.content, body.attempts) == (PHOTO, 1)
    assert get_failure(f"{scripted_site.url}/1").reason == "too many redirects"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_redirects_to_other_schemes_are_rejected(
    scripted_site: ScriptedSite, location: str
) -> None:
    scripted_site.answers["/x"] = Answer(status="302 Found", headers={"Location": location})
    assert get_failure(f"{scripted_site.url}/x").reason == "not http(s)"


def test_a_redirect_without_a_location_is_a_permanent_failure(scripted_site: ScriptedSite) -> None:
    scripted_site.answers["/x"] = Answer(status="302 Found")
    failure = get_failure(f"{scripted_site.url}/x")
    assert (failure.reason, failure.transient) == ("HTTP 302", False)


@pytest.mark.parametrize(
    "path", ["/train/a%20b.jpg", "/a%2Fb.jpg", "/%C3%A9.jpg", "/x.jpg?a=1&b=%2F"]
)
def test_an_escaped_url_is_requested_unchanged(scripted_site: ScriptedSite, path: str) -> None:
    scripted_site.answers[path] = Answer(PHOTO)
    assert get(scripted_site.url + path).content == PHOTO


def test_an_unknown_host_is_a_transient_failure() -> None:
    failure = get_failure("http://nowhere.invalid/x.jpg", RetryPolicy(max_attempts=1))
    assert (failure.reason, failure.transient, failure.reached) == (
        *("connection failed", True), False,
    )  # fmt: skip


@pytest.mark.parametrize("url", ["http://[::1/a", "ftp://a/b.jpg", "a.jpg", "http:///x", ""])
def test_an_invalid_url_is_a_permanent_failure(url: str) -> None:
    failure = get_failure(url)
    assert not failure.transient
    assert failure.attempts == 1


def test_retry_after_applies_to_the_whole_site(scripted_site: ScriptedSite) -> None:
    busy = Answer(status="429 Too Many Requests", headers={"Retry-After": "1"})
    scripted_site.answers["/busy"] = Answer(PHOTO, first=[busy])
    scripted_site.answers["/other"] = Answer(PHOTO)
    requested_s: list[float] = []

    async def ask(web: HttpClientPool) -> None:
        started_s = time.monotonic()

        async def later() -> None:
            await asyncio.sleep(0.3)
            await web.get(f"{scripted_site.url}/other", limit_bytes=LIMIT_BYTES)
            requested_s.append(time.monotonic() - started_s)

        await asyncio.gather(web.get(f"{scripted_site.url}/busy", limit_bytes=LIMIT_BYTES), later())

    with_client(ask)
    assert requested_s[0] >= 0.95
    assert scripted_site.requests["/busy"] == 2


def test_every_transient_failure_pauses_as_the_policy_says(scripted_site: ScriptedSite) -> None:
    asked = Answer(status="500 No", headers={"Retry-After": "7"})
    scripted_site.answers["/x"] = Answer(PHOTO, first=[asked, Answer(status="500 No")])
    pauses_s: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)

    assert get(f"{scripted_site.url}/x", RetryPolicy(), sleep=sleep).attempts == 3
    assert pauses_s[0] == 7.0
    assert 0.5 <= pauses_s[1] <= 1.0


def test_a_retry_after_that_is_too_long_fails_all_requests_to_the_site(
    scripted_site: ScriptedSite,
) -> None:
    tomorrow = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)
    text = tomorrow.strftime("%a, %d %b %Y %H:%M:%S GMT")
    scripted_site.answers["/x"] = Answer(status="503 Busy", headers={"Retry-After": text})

    async def ask(web: HttpClientPool) -> list[HttpFailureError]:
        failures = []
        for path in ("/x", "/y"):
            with pytest.raises(HttpFailureError) as caught:
                await web.get(scripted_site.url + path, limit_bytes=LIMIT_BYTES)
            failures.append(caught.value)
        return failures

    failures = with_client(ask)
    assert [failure.reason for failure in failures] == ["Retry-After too long"] * 2
    assert all(failure.transient for failure in failures)
    assert scripted_site.requests == {"/x": 1}


def test_jobs_limits_concurrent_requests(scripted_site: ScriptedSite) -> None:
    paths = [f"/{number}" for number in range(40)]
    scripted_site.answers = {path: Answer(PHOTO, pause_s=0.01) for path in paths}

    async def ask(web: HttpClientPool) -> None:
        await asyncio.gather(
            *(web.get(scripted_site.url + path, limit_bytes=LIMIT_BYTES) for path in paths)
        )

    with_client(ask, jobs=5)
    assert scripted_site.max_active == 5


def test_flickrs_hosts_share_one_rate_limit(
    scripted_site: ScriptedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scripted site acts as a proxy for Flickr's hosts.
    monkeypatch.setenv("http_proxy", scripted_site.url)
    monkeypatch.setenv("no_proxy", "")
    urls = [f"http://c{n % 9}.staticflickr.com/{n}.jpg" for n in range(16)]
    scripted_site.answers = {url: Answer(PHOTO, pause_s=0.02) for url in urls}

    async def ask(web: HttpClientPool) -> float:
        started_s = time.monotonic()
        await asyncio.gather(*(web.get(url, limit_bytes=LIMIT_BYTES) for url in urls))
        return time.monotonic() - started_s

    assert with_client(ask, jobs=32, flickr_per_second=20.0) >= 15 / 20
    assert scripted_site.max_active <= 4


def test_the_environments_proxy_is_used_except_for_no_proxy(
    scripted_site: ScriptedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@127.0.0.1:{scripted_site.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    scripted_site.answers["http://far.invalid/x.jpg"] = Answer(PHOTO)
    scripted_site.answers["/x.jpg"] = Answer(PHOTO)
    assert get("http://far.invalid/x.jpg").content == PHOTO
    assert b"Proxy-Authorization: Basic " in scripted_site.headers["http://far.invalid/x.jpg"]
    assert get(f"{scripted_site.url}/x.jpg").content == PHOTO


@pytest.mark.parametrize(
    "answer", [Answer(PHOTO), Answer(status="404 Not Found"), Answer(PHOTO, reset=9)]
)
def test_credentials_are_sent_to_the_site_and_stored_nowhere(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
) -> None:
    url = scripted_site.url.replace("://", f"://user:{SECRET}@")
    scripted_site.answers[f"/train/{IDS[0]}.jpg"] = answer
    project = make_selected_project([ImageRow(IDS[0])], mirror_url=url, sources=["mirror"])
    shown: object
    try:
        shown = fetch_stage.run(project)
    except UnavailableError as error:  # the site has no image
        shown = error
    assert b"Authorization: Basic " in scripted_site.headers[f"/train/{IDS[0]}.jpg"]
    assert SECRET not in str(shown) + caplog.text
    for path in project.data_folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


# --- stopping --------------------------------------------------------------------------------

FETCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore it
from oiyolo import open_project
from oiyolo.stages import fetch
print("started", flush=True)
fetch.run(open_project(sys.argv[1]))
"""


@pytest.fixture
def start_fetch() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Return a function that starts a fetch in a separate process."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def image_rows(ids: Sequence[str] = IDS) -> list[ImageRow]:
    return [ImageRow(image_id) for image_id in ids]


def path_of(image_id: str) -> str:
    return f"/train/{image_id}.jpg"


def test_ctrl_c_stops_a_fetch_while_its_requests_hang(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    start_fetch: Callable[[Path], subprocess.Popen[str]],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    fetched, hanging = IDS[:10], IDS[10:]
    scripted_site.answers = {path_of(i): Answer(PHOTO) for i in fetched}
    scripted_site.answers |= {path_of(i): Answer(PHOTO, stall=True) for i in hanging}
    project = make_selected_project(
        image_rows(), mirror_url=scripted_site.url, sources=["mirror"], jobs=20
    )
    victim = start_fetch(project.folder)

    def recorded() -> list[str]:
        with project.ledger(read_only=True) as ledger:
            return ledger.ids("fetched")

    wait_until(lambda: scripted_site.active == 20 and recorded() == fetched)
    victim.send_signal(signal.SIGINT)
    _, err = victim.communicate(timeout=30)
    assert scripted_site.active == 20
    assert "KeyboardInterrupt" in err
    assert recorded() == fetched
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in fetched}


def test_a_blocking_source_that_hangs_does_not_delay_stopping(
    make_selected_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = threading.Event()
    ended: list[str] = []

    class Hangs:
        name = "gs://bucket"

        def check(self) -> None:
            pass

        def get(self, request: ImageRequest) -> FetchedImage:
            if request.image_id == IDS[0]:
                return FetchedImage(PHOTO)
            resume.wait(60.0)
            ended.append(request.image_id)
            raise NotFetchedError("never", "never")

    monkeypatch.setattr("oiyolo.sources.registry._blocking", lambda *_: Hangs())
    project = make_selected_project(image_rows(), sources=["gs://bucket"])
    recorded: list[Any] = []

    def stop(outcomes: Sequence[Any]) -> None:
        recorded.extend(outcomes)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_outcomes(project, stop)
    assert not ended
    resume.set()
    assert [outcome.image_id for outcome in recorded] == [IDS[0]]
    assert list(project.images_folder.iterdir()) == []


def fetch_outcomes(project: Project, on_outcomes: Callable[[Sequence[Any]], None]) -> None:
    from oiyolo.core.progress import progress  # noqa: PLC0415
    from oiyolo.stages import select  # noqa: PLC0415
    from oiyolo.stages.fetch.pending import pending_images  # noqa: PLC0415

    with project.ledger() as ledger, progress("x") as bar:
        downloader.download_images(
            project,
            pending_images(select.load(project), ledger.iter_ids("pending")),
            on_outcomes=on_outcomes,
            progress=bar,
            store=FolderStore(project.images_folder),
            tally=downloader.Tally(),
        )


def test_files_of_unrecorded_outcomes_are_discarded(
    scripted_site: ScriptedSite, make_selected_project: Callable[..., Project]
) -> None:
    scripted_site.answers = {path_of(i): Answer(PHOTO) for i in IDS}
    project = make_selected_project(image_rows(), mirror_url=scripted_site.url, sources=["mirror"])

    def fail(_: Sequence[Any]) -> None:
        raise ZeroDivisionError

    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        fetch_outcomes(project, fail)
    assert list(project.images_folder.iterdir()) == []
    assert threading.active_count() <= threads + 1


def test_images_are_consumed_lazily(
    scripted_site: ScriptedSite, make_selected_project: Callable[..., Project]
) -> None:
    ids = [f"{number:016x}" for number in range(1, 1501)]
    scripted_site.answers = {path_of(i): Answer(PHOTO) for i in ids}
    project = make_selected_project(
        image_rows(ids), mirror_url=scripted_site.url, sources=["mirror"], jobs=8
    )
    done: list[str] = []
    most_ahead = 0

    def images() -> Iterator[ImageRequest]:
        nonlocal most_ahead
        from oiyolo.sources.image import ImageRequest  # noqa: PLC0415

        for index, image_id in enumerate(ids):
            most_ahead = max(most_ahead, index - len(done))
            yield ImageRequest(image_id, "train", "", None, "")

    from oiyolo.core.progress import progress  # noqa: PLC0415

    with progress("x") as bar:
        downloader.download_images(
            project,
            images(),
            on_outcomes=lambda batch: done.extend(outcome.image_id for outcome in batch),
            progress=bar,
            store=FolderStore(project.images_folder),
            tally=downloader.Tally(),
        )
    assert sorted(done) == ids
    assert most_ahead < 600


# --- the disk --------------------------------------------------------------------------------


def test_a_full_disk_stops_the_fetch_and_keeps_the_fetched_images(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted_site.answers = {path_of(i): Answer(PHOTO, pause_s=0.005) for i in IDS}
    project = make_selected_project(
        image_rows(), mirror_url=scripted_site.url, sources=["mirror"], jobs=2
    )
    put = FolderStore.put
    numbers = itertools.count()  # two threads store at the same time

    def put_some(store: Any, image_id: str, content: bytes) -> None:
        if next(numbers) >= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(store, image_id, content)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", put_some)
        with pytest.raises(UnavailableError) as caught:
            fetch_stage.run(project)
    assert caught.value.exit_code == 4
    assert caught.value.where == str(project.images_folder)
    with project.ledger(read_only=True) as ledger:
        fetched = ledger.ids("fetched")
        assert sum(ledger.counts().states.values()) == len(IDS)
    assert 10 <= len(fetched) <= 20
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in fetched}
    assert fetch_stage.run(project).new == len(IDS) - len(fetched)


def test_a_fetch_that_does_not_fit_does_not_start(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = [ImageRow(i, f"{scripted_site.url}/{i}", bytes(2_000_000)) for i in IDS]
    project = make_selected_project(photos, sources=["original"])
    usage = shutil.disk_usage(project.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=250_000_000))
    with pytest.raises(UnavailableError) as caught:
        fetch_stage.run(project)
    assert caught.value.where == str(project.images_folder)
    assert "320.0 MB" in caught.value.expected
    assert "250.0 MB" in caught.value.found
    assert not scripted_site.requests


# --- kill -9 ---------------------------------------------------------------------------------


def kill_and_resume(
    scripted_site: ScriptedSite,
    project: Project,
    start: Callable[[Path], subprocess.Popen[str]],
    pauses: list[float],
) -> int:
    """Kill a fetch after each pause, then let one finish; return the number of kills."""
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
    assert scripted_site.requests.keys() == scripted_site.answers.keys()
    return killed


JOBS = 4


def check_after_kills(
    scripted_site: ScriptedSite, project: Project, ids: Sequence[str], killed: int
) -> None:
    with project.ledger(read_only=True) as ledger:
        assert ledger.ids("fetched") == list(ids)
        assert all(ledger.row(i)["attempts"] == 1 for i in ids)  # type: ignore[index]
    assert {path.name for path in project.images_folder.iterdir()} == {f"{i}.jpg" for i in ids}
    # In flight, or downloaded in the hundredths of a second before they are recorded.
    assert sum(scripted_site.requests.values()) - len(ids) <= killed * 3 * JOBS
    assert max(scripted_site.requests.values()) <= 1 + killed


def test_after_kills_only_images_in_flight_are_fetched_twice(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    start_fetch: Callable[[Path], subprocess.Popen[str]],
) -> None:
    scripted_site.answers = {path_of(i): Answer(PHOTO, pause_s=0.05) for i in IDS}
    project = make_selected_project(
        image_rows(), mirror_url=scripted_site.url, sources=["mirror"], jobs=JOBS
    )
    killed = kill_and_resume(scripted_site, project, start_fetch, [0.7, 0.9])
    check_after_kills(scripted_site, project, IDS, killed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_at_random_times_lose_nothing(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    start_fetch: Callable[[Path], subprocess.Popen[str]],
    seed: int,
) -> None:
    import random  # noqa: PLC0415

    ids = [f"{number:016x}" for number in range(1, 601)]
    scripted_site.answers = {path_of(i): Answer(PHOTO, pause_s=0.05) for i in ids}
    project = make_selected_project(
        image_rows(ids), mirror_url=scripted_site.url, sources=["mirror"], jobs=JOBS
    )
    rng = random.Random(seed)
    pauses = [rng.uniform(0.1, 1.5) for _ in range(20)]
    killed = kill_and_resume(scripted_site, project, start_fetch, pauses)
    assert killed >= 5  # a fast machine is done before the last ones
    check_after_kills(scripted_site, project, ids, killed)


def test_recorded_images_get_their_final_names_after_a_kill(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted_site.answers = {path_of(i): Answer(PHOTO) for i in IDS}
    project = make_selected_project(image_rows(), mirror_url=scripted_site.url, sources=["mirror"])

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


def test_only_missing_files_are_fetched_again(
    scripted_site: ScriptedSite, make_selected_project: Callable[..., Project]
) -> None:
    scripted_site.answers = {path_of(i): Answer(PHOTO) for i in IDS}
    project = make_selected_project(image_rows(), mirror_url=scripted_site.url, sources=["mirror"])
    fetch_stage.run(project)
    for image_id in (IDS[0], IDS[30], IDS[-1]):
        (project.images_folder / f"{image_id}.jpg").unlink()
    (project.images_folder / "notes.txt").write_text("the user's")
    (project.images_folder / "zzzzzzzzzzzzzzzz.jpg").write_text("the user's")
    scripted_site.requests.clear()
    assert fetch_stage.run(project).new == 3
    assert set(scripted_site.requests) == {path_of(IDS[0]), path_of(IDS[30]), path_of(IDS[-1])}
    scripted_site.requests.clear()
    reopened = oiyolo.open_project(project.folder)
    assert "nothing to do" in str(fetch_stage.run(reopened))
    assert not scripted_site.requests
