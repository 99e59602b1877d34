"""Sources and stores of images: complete, verified files, or the reason why there is none."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.net.client_pool import HttpClientPool
from oiyolo.net.retry import RetryPolicy
from oiyolo.net.workers import WorkerThreads
from oiyolo.sources.event_loop import fetch_images
from oiyolo.sources.folder import Folder
from oiyolo.sources.image import ImageRequest, NotFetchedError
from oiyolo.sources.registry import ThreadedSource, make_sources
from oiyolo.sources.store import FolderStore
from oiyolo.sources.web import Mirror, Original, removal_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oiyolo.sources.event_loop import Outcome
    from oiyolo.sources.image import BlockingSource, FetchedImage, Source

PLACEHOLDER = "/images/en-us/photo_unavailable.png"


def jpeg(colour: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (colour, 60, 30)).save(file, "JPEG")
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32)).save(file, "PNG")
    return file.getvalue()


PHOTO = jpeg()
OTHER = jpeg(200)
CHANGED = PHOTO[:20] + bytes([PHOTO[20] ^ 1]) + PHOTO[21:]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Response(NamedTuple):
    """A prepared response of the server."""

    body: bytes = b""
    status: int = 200
    etag: str = ""
    location: str = ""
    length: int | None = None


class Site(ThreadingHTTPServer):
    """A server with prepared responses.

    Attributes:
        url: URL of the server.
        responses: Response by path; 404 for all others.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.responses: dict[str, Response] = {}
        self.requested_paths: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""

    def do_GET(self) -> None:
        self.server.requested_paths.append(self.path)
        response = self.server.responses.get(self.path, Response(status=404))
        self.send_response(response.status)
        if response.etag:
            self.send_header("ETag", response.etag)
        if response.location:
            self.send_header("Location", response.location)
        self.send_header("Content-Length", str(response.length or len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)


A_ID, B_ID, C_ID = (letter * 16 for letter in "abc")


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Synchronous:
    """A source on the web that is called without an event loop; each call has its own client."""

    def __init__(self, make: Callable[[HttpClientPool], Source]) -> None:
        self.name = "synchronous"
        self._make = make

    def check(self) -> None:
        pass

    def get(self, request: ImageRequest) -> FetchedImage:
        async def fetch() -> FetchedImage:
            threads = WorkerThreads(1, "names")
            web = client_pool(threads)
            try:
                return (await self._make(web).get(request))()
            finally:
                await web.close()
                threads.close()

        return asyncio.run(fetch())


def client_pool(threads: WorkerThreads) -> HttpClientPool:
    return HttpClientPool(
        threads, retry_policy=RetryPolicy(max_attempts=2, first_pause_s=0.005, read_timeout_s=1.0)
    )


def mirror(url: str) -> Synchronous:
    return Synchronous(lambda web: Mirror(web, url))


ORIGINAL = Synchronous(Original)


def image_request(
    url: str = "", content: bytes = PHOTO, image_id: str = A_ID, size: int | None = -1
) -> ImageRequest:
    listed_md5 = base64.b64encode(bytes.fromhex(md5(content))).decode()
    return ImageRequest(image_id, "train", url, len(content) if size == -1 else size, listed_md5)


def failure_of(source: BlockingSource, request: ImageRequest) -> NotFetchedError:
    with pytest.raises(NotFetchedError) as caught:
        source.get(request)
    return caught.value


@pytest.mark.parametrize(
    "etag", ["", f'"{md5(PHOTO)}"', '"0123456789abcdef0123456789abcdef-3"', 'W/"abc"']
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_mirror_returns_a_copy_whose_md5_matches_its_etag(
    site: Site, etag: str, slash: str
) -> None:
    site.responses[f"/bucket/train/{A_ID}.jpg"] = Response(PHOTO, etag=etag)
    fetched = mirror(f"{site.url}/bucket{slash}").get(image_request())
    assert fetched.content == PHOTO
    assert fetched.md5 == md5(PHOTO)
    assert fetched.attempts == 1


@pytest.mark.parametrize(
    ("response", "reason", "transient", "attempts"),
    [
        (Response(status=404), "HTTP 404", False, 1),
        (Response(status=403), "HTTP 403", False, 1),
        (Response(status=503), "HTTP 503", True, 2),
        (Response(PHOTO, etag=f'"{md5(OTHER)}"'), "wrong MD5", True, 1),
        (Response(PHOTO[:-30]), "truncated JPEG", False, 1),
        (Response(PHOTO[:-30], length=len(PHOTO)), "interrupted", True, 2),
        (Response(b"<html>sorry</html>"), "not a JPEG", False, 1),
        (Response(png()), "not a JPEG", False, 1),
        (Response(b""), "empty", False, 1),
    ],
)
def test_the_mirror_says_why_it_has_no_usable_copy(
    site: Site, response: Response, reason: str, attempts: int, *, transient: bool
) -> None:
    site.responses[f"/train/{A_ID}.jpg"] = response
    failure = failure_of(mirror(site.url), image_request())
    assert (failure.reason, failure.transient, failure.reached) == (reason, transient, True)
    assert failure.attempts == attempts
    assert f"{site.url}/train/{A_ID}.jpg" in failure.detail


def test_an_unreachable_mirror_is_a_transient_failure() -> None:
    failure = failure_of(mirror("http://127.0.0.1:1"), image_request())
    assert (failure.reached, failure.transient, failure.attempts) == (False, True, 2)


@pytest.mark.parametrize("size", [len(PHOTO), None])
def test_the_original_is_the_file_of_the_listed_size_and_md5(site: Site, size: int | None) -> None:
    site.responses["/photo.jpg"] = Response(PHOTO)
    site.responses["/old.jpg"] = Response(status=301, location=f"{site.url}/photo.jpg")
    for path in ("/photo.jpg", "/old.jpg"):
        assert ORIGINAL.get(image_request(site.url + path, size=size)).content == PHOTO


@pytest.mark.parametrize(
    ("response", "request_", "reason"),
    [
        (Response(CHANGED), image_request(), "OriginalMD5 mismatch"),
        (Response(OTHER), image_request(size=None), "OriginalMD5 mismatch"),
        (Response(PHOTO + b"\0"), image_request(), "OriginalSize mismatch"),
        (Response(PHOTO[:-1]), image_request(), "OriginalSize mismatch"),
        (Response(PHOTO[:-30]), image_request(size=None), "OriginalMD5 mismatch"),
        (Response(png()), image_request(), "OriginalSize mismatch"),
        (Response(b""), image_request(content=b"", size=None), "empty"),
        (Response(status=302, location=PLACEHOLDER), image_request(), "removed by its author"),
        (Response(status=404), image_request(), "HTTP 404"),
        (Response(status=410), image_request(), "HTTP 410"),
    ],
)
def test_a_file_that_is_not_the_listed_original_is_rejected(
    site: Site, response: Response, request_: ImageRequest, reason: str
) -> None:
    site.responses["/photo.jpg"] = response
    site.responses[PLACEHOLDER] = Response(png())
    url = f"{site.url}/photo.jpg"
    request_ = ImageRequest(request_.image_id, request_.subset, url, request_.original_size_bytes,
                        request_.original_md5)  # fmt: skip
    failure = failure_of(ORIGINAL, request_)
    assert failure.reason == reason
    assert not failure.transient
    assert url in failure.detail


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no URL"),
        ("ftp://a/b.jpg", "not http(s)"),
        ("http://[::1/a.jpg", "unusable URL"),
    ],
)
def test_an_original_without_a_usable_url_is_rejected(url: str, reason: str) -> None:
    assert failure_of(ORIGINAL, image_request(url)).reason == reason


def test_a_folder_returns_its_complete_files_and_says_why_others_are_unusable(
    tmp_path: Path,
) -> None:
    (tmp_path / f"{A_ID}.jpg").write_bytes(PHOTO)
    (tmp_path / f"{B_ID}.jpg").write_bytes(PHOTO[:-20])
    folder = Folder(tmp_path)
    assert folder.get(image_request()).content == PHOTO
    assert failure_of(folder, image_request(image_id=B_ID)).reason == "truncated JPEG"
    missing = failure_of(folder, image_request(image_id=C_ID))
    assert missing.reason == "not in the folder"
    assert str(tmp_path / f"{C_ID}.jpg") in missing.detail


def test_sources_come_in_the_configured_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for blocking in ("folder.Folder", "bucket.Bucket"):
        monkeypatch.setattr(f"oiyolo.sources.{blocking}.check", lambda _: None)
    names = ("./photos", "mirror", "gs://bucket/prefix", "/elsewhere", "original", "thumbnail")
    threads = WorkerThreads(1, "x")
    web = HttpClientPool(threads)
    sources = make_sources(names, mirror_url="http://m", base=tmp_path, web=web, threads=threads)
    assert [source.name for source in sources] == [
        *(str(tmp_path / "photos"), "mirror", "gs://bucket/prefix", "/elsewhere"),
        *("original", "thumbnail"),
    ]


@pytest.mark.parametrize(
    ("url", "is_removed"),
    [
        ("https://s.yimg.com/pw/images/en-us/photo_unavailable_l.png", True),
        ("https://S.YIMG.com/x.jpg", True),
        ("https://combo.staticflickr.com/a/photo_unavailable.png", True),
        ("https://notyimg.com/a.jpg", False),
        ("https://live.staticflickr.com/1/2_o.jpg?n=photo_unavailable", False),
    ],
)
def test_a_redirect_to_the_placeholder_is_recognized_by_its_host_or_name(
    url: str, *, is_removed: bool
) -> None:
    assert (removal_reason(url) == "removed by its author") == is_removed


def fetch(
    requests: list[ImageRequest],
    sources: Callable[[HttpClientPool, WorkerThreads], list[Source]],
    folder: Path,
) -> dict[str, Outcome]:
    store, storing, blocking = (
        FolderStore(folder),
        WorkerThreads(2, "store"),
        WorkerThreads(2, "block"),
    )
    web = client_pool(blocking)
    outcome_by_id = {}
    source_list = sources(web, blocking)
    for outcomes in fetch_images(
        requests, source_list, store, threads=storing, max_in_flight=8, close=web.close
    ):
        store.finish([outcome.image_id for outcome in outcomes if outcome.source])
        outcome_by_id.update({outcome.image_id: outcome for outcome in outcomes})
    blocking.close()
    return outcome_by_id


def test_many_images_are_fetched_from_the_first_source_that_has_them(
    site: Site, tmp_path: Path
) -> None:
    ids = [f"{n:016}" for n in range(30)]
    for number, image_id in enumerate(ids):
        if number % 3:
            site.responses[f"/train/{image_id}.jpg"] = Response(PHOTO)
        site.responses[f"/{image_id}"] = Response(OTHER if number % 5 else b"<html>")
    requests = [image_request(f"{site.url}/{i}", OTHER, image_id=i) for i in ids]
    outcome_by_id = fetch(
        requests, lambda web, _: [Mirror(web, site.url), Original(web)], tmp_path / "images"
    )
    assert set(outcome_by_id) == set(ids)
    for number, image_id in enumerate(ids):
        outcome, path = outcome_by_id[image_id], tmp_path / "images" / f"{image_id}.jpg"
        if number % 3:
            assert (outcome.source, outcome.attempts, outcome.md5) == ("mirror", 1, md5(PHOTO))
            assert path.read_bytes() == PHOTO
        elif number % 5:
            assert (outcome.source, outcome.attempts) == ("original", 2)
            assert "not from mirror" in outcome.message
            assert path.read_bytes() == OTHER
        else:
            assert outcome.source is None
            assert outcome.reason == "mirror: HTTP 404, original: OriginalSize mismatch"
            assert (outcome.attempts, outcome.transient, outcome.reached) == (2, False, True)
            assert not path.exists()
    assert all(path.suffix == ".jpg" for path in (tmp_path / "images").iterdir())


def folders(folder: Path) -> Callable[[HttpClientPool, WorkerThreads], list[Source]]:
    return lambda _, threads: [ThreadedSource(Folder(folder), threads)]


def test_no_images_have_no_outcomes(tmp_path: Path) -> None:
    assert fetch([], folders(tmp_path), tmp_path / "images") == {}


def test_an_outcome_without_any_response_is_transient(tmp_path: Path) -> None:
    outcome_by_id = fetch(
        [image_request()], lambda web, _: [Mirror(web, "http://127.0.0.1:1")], tmp_path
    )
    assert not outcome_by_id[A_ID].reached
    assert outcome_by_id[A_ID].transient


def test_an_outcome_without_any_request_counts_as_reached(tmp_path: Path) -> None:
    outcome_by_id = fetch([image_request()], lambda web, _: [Original(web)], tmp_path)
    assert (outcome_by_id[A_ID].reached, outcome_by_id[A_ID].attempts) == (True, 0)


def test_an_exception_in_a_thread_is_raised_where_the_outcomes_are_taken(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def check(self) -> None:
            pass

        def get(self, request: ImageRequest) -> Any:
            raise ZeroDivisionError(request.image_id)

    with pytest.raises(ZeroDivisionError):
        fetch([image_request()], lambda _, threads: [ThreadedSource(Broken(), threads)], tmp_path)


def test_closing_the_outcomes_stops_the_threads(tmp_path: Path) -> None:
    (tmp_path / f"{A_ID}.jpg").write_bytes(PHOTO)
    requests = [image_request()] * 2000
    before = threading.active_count()
    threads = WorkerThreads(3, "x")
    store = FolderStore(tmp_path / "images")
    source = ThreadedSource(Folder(tmp_path), threads)
    outcomes = fetch_images(requests, [source], store, threads=threads, max_in_flight=5)
    first = next(batch for batch in outcomes if batch)
    assert first[0].source == str(tmp_path)
    outcomes.close()
    assert threading.active_count() <= before


# --- stores ----------------------------------------------------------------------------------


def test_a_file_gets_its_final_name_when_it_is_finished_and_not_before(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "images")
    for image_id in (A_ID, B_ID, C_ID):
        store.put(image_id, PHOTO)
    assert not list((tmp_path / "images").glob("*.jpg"))
    store.finish([A_ID])
    store.drop([B_ID, "f" * 16])
    recorded = {C_ID: len(PHOTO)}
    assert FolderStore(tmp_path / "images").recover(recorded.get) == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()} == {
        f"{A_ID}.jpg": PHOTO,
        f"{C_ID}.jpg": PHOTO,
    }


def test_an_unfinished_file_that_does_not_match_its_record_is_dropped(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(A_ID, PHOTO[:100])
    store.put(B_ID, PHOTO)
    assert store.recover({A_ID: len(PHOTO)}.get) == 0
    assert not list(tmp_path.iterdir())


def test_stores_with_different_tags_do_not_touch_each_others_files(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path, "one"), FolderStore(tmp_path, "other")
    one.put(A_ID, PHOTO)
    assert other.recover(lambda _: None) == 0
    one.finish([A_ID])
    assert (tmp_path / f"{A_ID}.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize(
    "name", ["../x/a", "a/b", "", ".", "..", "a.b", "a\0b", "é", "A" * 16, "a" * 17]
)
def test_no_image_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    store = FolderStore(tmp_path / "images")
    with pytest.raises(InputFormError, match="invalid ImageID"):
        store.put(name, PHOTO)
    assert [path.name for path in tmp_path.rglob("*")] == ["images"]
