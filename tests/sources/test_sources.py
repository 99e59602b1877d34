"""Where images come from: a whole, verified file, or the reason why not."""

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
from oiyolo.net.client_pool import ManyWeb
from oiyolo.net.retry import Patience
from oiyolo.net.workers import Threads
from oiyolo.sources.blocking import InThreads
from oiyolo.sources.event_loop import fetch_images
from oiyolo.sources.folder import Folder
from oiyolo.sources.image import NotFetchedError, WantedImage
from oiyolo.sources.mirror import Mirror
from oiyolo.sources.original import Original
from oiyolo.sources.registry import sources_of
from oiyolo.sources.store import FolderStore
from oiyolo.sources.web import placeholder

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


class Said(NamedTuple):
    """What the server answers."""

    body: bytes = b""
    status: int = 200
    etag: str = ""
    location: str = ""
    length: int | None = None


class Site(ThreadingHTTPServer):
    """Answers by path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.says: dict[str, Said] = {}
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        said = self.server.says.get(self.path, Said(status=404))
        self.send_response(said.status)
        if said.etag:
            self.send_header("ETag", said.etag)
        if said.location:
            self.send_header("Location", said.location)
        self.send_header("Content-Length", str(said.length or len(said.body)))
        self.end_headers()
        self.wfile.write(said.body)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


class OneByOne:
    """A source on the web, asked outside any event loop; each call has a web of its own."""

    def __init__(self, make: Callable[[ManyWeb], Source]) -> None:
        self.name = "one by one"
        self._make = make

    def get(self, wanted: WantedImage) -> FetchedImage:
        async def ask() -> FetchedImage:
            threads = Threads(1, "names")
            web = web_in(threads)
            try:
                return (await self._make(web).get(wanted))()
            finally:
                await web.close()
                threads.close()

        return asyncio.run(ask())


def web_in(threads: Threads) -> ManyWeb:
    return ManyWeb(threads, patience=Patience(attempts=2, first_pause_s=0.005, read_s=1.0))


def mirror(url: str) -> OneByOne:
    return OneByOne(lambda web: Mirror(web, url))


ORIGINAL = OneByOne(Original)


def wanted(
    url: str = "", content: bytes = PHOTO, image_id: str = "0a", size: int | None = -1
) -> WantedImage:
    listed = base64.b64encode(bytes.fromhex(md5(content))).decode()
    return WantedImage(image_id, "train", url, len(content) if size == -1 else size, listed)


def refused(source: BlockingSource, image: WantedImage) -> NotFetchedError:
    with pytest.raises(NotFetchedError) as caught:
        source.get(image)
    return caught.value


@pytest.mark.parametrize(
    "etag", ["", f'"{md5(PHOTO)}"', '"0123456789abcdef0123456789abcdef-3"', 'W/"abc"']
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_mirror_gives_a_copy_whose_md5_is_its_etag_where_that_is_one(
    site: Site, etag: str, slash: str
) -> None:
    site.says["/bucket/train/0a.jpg"] = Said(PHOTO, etag=etag)
    fetched = mirror(f"{site.url}/bucket{slash}").get(wanted())
    assert fetched.content == PHOTO
    assert fetched.md5 == md5(PHOTO)
    assert fetched.attempts == 1


@pytest.mark.parametrize(
    ("said", "reason", "transient", "attempts"),
    [
        (Said(status=404), "HTTP 404", False, 1),
        (Said(status=403), "HTTP 403", False, 1),
        (Said(status=503), "HTTP 503", True, 2),
        (Said(PHOTO, etag=f'"{md5(OTHER)}"'), "wrong MD5", True, 1),
        (Said(PHOTO[:-30]), "truncated JPEG", False, 1),
        (Said(PHOTO[:-30], length=len(PHOTO)), "broken off", True, 2),
        (Said(b"<html>sorry</html>"), "not a JPEG", False, 1),
        (Said(png()), "not a JPEG", False, 1),
        (Said(b""), "empty", False, 1),
    ],
)
def test_the_mirror_says_why_it_has_none(
    site: Site, said: Said, reason: str, attempts: int, *, transient: bool
) -> None:
    site.says["/train/0a.jpg"] = said
    failure = refused(mirror(site.url), wanted())
    assert (failure.reason, failure.transient, failure.reached) == (reason, transient, True)
    assert failure.attempts == attempts
    assert f"{site.url}/train/0a.jpg" in failure.detail


def test_a_mirror_that_cannot_be_reached_says_so() -> None:
    failure = refused(mirror("http://127.0.0.1:1"), wanted())
    assert (failure.reached, failure.transient, failure.attempts) == (False, True, 2)


@pytest.mark.parametrize("size", [len(PHOTO), None])
def test_the_original_is_the_file_of_the_listed_size_and_md5(site: Site, size: int | None) -> None:
    site.says["/photo.jpg"] = Said(PHOTO)
    site.says["/old.jpg"] = Said(status=301, location=f"{site.url}/photo.jpg")
    for path in ("/photo.jpg", "/old.jpg"):
        assert ORIGINAL.get(wanted(site.url + path, size=size)).content == PHOTO


@pytest.mark.parametrize(
    ("said", "image", "reason"),
    [
        (Said(CHANGED), wanted(), "another MD5 than listed"),
        (Said(OTHER), wanted(size=None), "another MD5 than listed"),
        (Said(PHOTO + b"\0"), wanted(), "another size than listed"),
        (Said(PHOTO[:-1]), wanted(), "another size than listed"),
        (Said(PHOTO[:-30]), wanted(size=None), "another MD5 than listed"),
        (Said(png()), wanted(), "another size than listed"),
        (Said(b""), wanted(content=b"", size=None), "empty"),
        (Said(status=302, location=PLACEHOLDER), wanted(), "removed by its author"),
        (Said(status=404), wanted(), "HTTP 404"),
        (Said(status=410), wanted(), "HTTP 410"),
    ],
)
def test_the_original_is_refused_when_it_is_another_file(
    site: Site, said: Said, image: WantedImage, reason: str
) -> None:
    site.says["/photo.jpg"] = said
    site.says[PLACEHOLDER] = Said(png())
    url = f"{site.url}/photo.jpg"
    image = WantedImage(image.image_id, image.subset, url, image.original_size_bytes,
                        image.original_md5)  # fmt: skip
    failure = refused(ORIGINAL, image)
    assert failure.reason == reason
    assert not failure.transient
    assert url in failure.detail


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no address"),
        ("ftp://a/b.jpg", "not http(s)"),
        ("http://[::1/a.jpg", "unusable address"),
    ],
)
def test_an_original_without_a_usable_address_is_refused(url: str, reason: str) -> None:
    assert refused(ORIGINAL, wanted(url)).reason == reason


def test_a_folder_gives_its_files_and_says_what_is_wrong_with_others(tmp_path: Path) -> None:
    (tmp_path / "0a.jpg").write_bytes(PHOTO)
    (tmp_path / "0b.jpg").write_bytes(PHOTO[:-20])
    folder = Folder(tmp_path)
    assert folder.get(wanted()).content == PHOTO
    assert refused(folder, wanted(image_id="0b")).reason == "truncated JPEG"
    absent = refused(folder, wanted(image_id="0c"))
    assert absent.reason == "not in the folder"
    assert str(tmp_path / "0c.jpg") in absent.detail


def test_sources_come_in_the_configured_order(tmp_path: Path) -> None:
    names = ("./photos", "mirror", "gs://bucket/prefix", "/elsewhere", "original", "thumbnail")
    threads = Threads(1, "x")
    web = ManyWeb(threads)
    made = sources_of(names, mirror_url="http://m", base=tmp_path, web=web, threads=threads)
    assert [source.name for source in made] == [
        *(str(tmp_path / "photos"), "mirror", "gs://bucket/prefix", "/elsewhere"),
        *("original", "thumbnail"),
    ]


@pytest.mark.parametrize(
    ("url", "dead"),
    [
        ("https://s.yimg.com/pw/images/en-us/photo_unavailable_l.png", True),
        ("https://S.YIMG.com/x.jpg", True),
        ("https://combo.staticflickr.com/a/photo_unavailable.png", True),
        ("https://notyimg.com/a.jpg", False),
        ("https://live.staticflickr.com/1/2_o.jpg?n=photo_unavailable", False),
    ],
)
def test_a_redirect_to_the_placeholder_is_known_by_its_host_and_name(
    url: str, *, dead: bool
) -> None:
    assert (placeholder(url) == "removed by its author") == dead


def fetched(
    images: list[WantedImage],
    sources: Callable[[ManyWeb, Threads], list[Source]],
    folder: Path,
) -> dict[str, Outcome]:
    store, threads, asking = FolderStore(folder), Threads(2, "keep"), Threads(2, "ask")
    web = web_in(asking)
    done = {}
    some = sources(web, asking)
    for outcomes in fetch_images(images, some, store, threads=threads, in_work=8, close=web.close):
        store.finish([outcome.image_id for outcome in outcomes if outcome.source])
        done.update({outcome.image_id: outcome for outcome in outcomes})
    asking.close()
    return done


def test_many_images_are_fetched_from_the_first_source_that_has_them(
    site: Site, tmp_path: Path
) -> None:
    ids = [f"{n:02}" for n in range(30)]
    for place, image_id in enumerate(ids):
        if place % 3:
            site.says[f"/train/{image_id}.jpg"] = Said(PHOTO)
        site.says[f"/{image_id}"] = Said(OTHER if place % 5 else b"<html>")
    images = [wanted(f"{site.url}/{i}", OTHER, image_id=i) for i in ids]
    done = fetched(
        images, lambda web, _: [Mirror(web, site.url), Original(web)], tmp_path / "images"
    )
    assert set(done) == set(ids)
    for place, image_id in enumerate(ids):
        outcome, path = done[image_id], tmp_path / "images" / f"{image_id}.jpg"
        if place % 3:
            assert (outcome.source, outcome.attempts, outcome.md5) == ("mirror", 1, md5(PHOTO))
            assert path.read_bytes() == PHOTO
        elif place % 5:
            assert (outcome.source, outcome.attempts) == ("original", 2)
            assert "not from mirror" in outcome.told
            assert path.read_bytes() == OTHER
        else:
            assert outcome.source is None
            assert outcome.reason == "mirror: HTTP 404, original: another size than listed"
            assert (outcome.attempts, outcome.transient, outcome.reached) == (2, False, True)
            assert not path.exists()
    assert all(path.suffix == ".jpg" for path in (tmp_path / "images").iterdir())


def folders(folder: Path) -> Callable[[ManyWeb, Threads], list[Source]]:
    return lambda _, threads: [InThreads(Folder(folder), threads)]


def test_no_images_are_no_outcomes(tmp_path: Path) -> None:
    assert fetched([], folders(tmp_path), tmp_path / "images") == {}


def test_when_no_source_answers_the_outcome_says_that_it_may_pass(tmp_path: Path) -> None:
    done = fetched([wanted()], lambda web, _: [Mirror(web, "http://127.0.0.1:1")], tmp_path)
    assert not done["0a"].reached
    assert done["0a"].transient


def test_what_was_not_asked_says_nothing_of_the_network(tmp_path: Path) -> None:
    done = fetched([wanted()], lambda web, _: [Original(web)], tmp_path)
    assert (done["0a"].reached, done["0a"].attempts) == (True, 0)


def test_a_mistake_in_a_thread_is_raised_where_the_outcomes_are_taken(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def get(self, wanted: WantedImage) -> Any:
            raise ZeroDivisionError(wanted.image_id)

    with pytest.raises(ZeroDivisionError):
        fetched([wanted()], lambda _, threads: [InThreads(Broken(), threads)], tmp_path)


def test_who_stops_taking_outcomes_stops_the_threads(tmp_path: Path) -> None:
    (tmp_path / "0a.jpg").write_bytes(PHOTO)
    images = [wanted()] * 2000
    before = threading.active_count()
    threads = Threads(3, "x")
    store = FolderStore(tmp_path / "images")
    source = InThreads(Folder(tmp_path), threads)
    outcomes = fetch_images(images, [source], store, threads=threads, in_work=5)
    first = next(some for some in outcomes if some)
    assert first[0].source == str(tmp_path)
    outcomes.close()
    assert threading.active_count() <= before


# --- where they are kept ---------------------------------------------------------------------


def test_a_file_gets_its_name_when_it_is_finished_and_not_before(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "images")
    for image_id in ("0a", "0b", "0c"):
        store.put(image_id, PHOTO)
    assert not list((tmp_path / "images").glob("*.jpg"))
    store.finish(["0a"])
    store.drop(["0b", "0x"])
    recorded = {"0c": len(PHOTO)}
    assert FolderStore(tmp_path / "images").recover(recorded.get) == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()} == {
        "0a.jpg": PHOTO,
        "0c.jpg": PHOTO,
    }


def test_what_is_unfinished_and_recorded_otherwise_is_dropped(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("0a", PHOTO[:100])
    store.put("0b", PHOTO)
    assert store.recover({"0a": len(PHOTO)}.get) == 0
    assert not list(tmp_path.iterdir())


def test_stores_with_other_marks_leave_each_others_files_alone(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path, "one"), FolderStore(tmp_path, "other")
    one.put("0a", PHOTO)
    assert other.recover(lambda _: None) == 0
    one.finish(["0a"])
    assert (tmp_path / "0a.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize("name", ["../0a", "a/b", "", ".", "..", "a.b", "a\0b", "é", "a" * 65])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    store = FolderStore(tmp_path / "images")
    with pytest.raises(InputFormError, match="no ImageID"):
        store.put(name, PHOTO)
    assert [path.name for path in tmp_path.rglob("*")] == ["images"]
