"""A bucket as a source of images: by their ids, or by the addresses that they came from."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import OiyoloError, UsageError
from oiyolo.net.buckets import bucket_place
from oiyolo.net.gcs import BucketClient
from oiyolo.net.retry import Patience
from oiyolo.sources.bucket import Bucket, name_of_address
from oiyolo.sources.image import NotFetchedError, WantedImage
from oiyolo.stages.fetch import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = Patience(attempts=2, first_pause_s=0.01, connect_s=1.0, read_s=2.0)
URL = "https://c1.staticflickr.com/5/4129/10_o.jpg"
BY_ID, BY_ADDRESS = "boats/0a.jpg", "boats/c1.staticflickr.com/5/4129/10_o.jpg"


def jpeg(colour: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (colour, 60, 30)).save(file, "JPEG")
    return file.getvalue()


PHOTO, OTHER = jpeg(), jpeg(200)


def wanted(url: str = URL, image_id: str = "0a") -> WantedImage:
    digest = hashlib.md5(PHOTO, usedforsecurity=False).digest()
    return WantedImage(image_id, "train", url, len(PHOTO), base64.b64encode(digest).decode())


def source_of(bucket_name: str) -> Bucket:
    place = f"gs://{bucket_name}/boats"
    return Bucket(place, BucketClient(bucket_place(place), patience=QUICK))


@pytest.mark.parametrize(
    ("objects", "content"),
    [
        ({BY_ID: OTHER}, OTHER),
        ({BY_ADDRESS: PHOTO}, PHOTO),
        ({BY_ID: OTHER, BY_ADDRESS: PHOTO}, OTHER),
        ({BY_ID: OTHER[:-30], BY_ADDRESS: PHOTO}, PHOTO),
    ],
    ids=["by its id", "by its address", "both", "one of them broken"],
)
def test_an_image_is_found_by_its_id_or_its_address(
    objects: dict[str, bytes], content: bytes, emulator: Any
) -> None:
    assert source_of(emulator.make_bucket(objects).name).get(wanted()).content == content


@pytest.mark.parametrize(
    ("objects", "url", "reason"),
    [
        ({}, URL, "HTTP 404"),
        ({}, "", "HTTP 404"),
        ({}, "https://[broken", "HTTP 404"),
        ({BY_ID: b""}, URL, "empty"),
        ({BY_ID: PHOTO[:-30]}, URL, "truncated JPEG"),
        ({BY_ID: b"<html>"}, URL, "not a JPEG"),
        ({BY_ADDRESS: PHOTO + b"\0"}, URL, "another size than listed"),
        ({BY_ADDRESS: PHOTO[:20] + bytes([PHOTO[20] ^ 1]) + PHOTO[21:]}, URL,
         "another MD5 than listed"),
    ],
    ids=["missing", "no address", "bad address", "empty", "cut", "html", "size", "md5"],
)  # fmt: skip
def test_what_is_not_whole_is_refused_with_its_reason(
    objects: dict[str, bytes], url: str, reason: str, emulator: Any
) -> None:
    source = source_of(emulator.make_bucket(objects).name)
    with pytest.raises(NotFetchedError) as raised:
        source.get(wanted(url))
    assert (raised.value.reason, raised.value.transient) == (reason, False)
    assert "0a.jpg" in raised.value.detail


def test_a_checksum_that_is_wrong_is_no_image_and_may_pass(faults: Any) -> None:
    faults.answers[BY_ID] = [(200, PHOTO, {"x-goog-hash": "crc32c=AAAAAA=="})]
    with pytest.raises(NotFetchedError) as raised:
        source_of("photos").get(wanted())
    assert (raised.value.reason, raised.value.transient) == ("wrong checksum", True)


def test_what_named_the_last_image_is_asked_for_first(
    faults: Any, crc32c: Callable[[bytes], str]
) -> None:
    faults.answers[BY_ADDRESS] = [(200, PHOTO, {"x-goog-hash": crc32c(PHOTO)})]
    source = source_of("photos")

    for image_id in ("0a", "0b", "0c"):
        source.get(wanted(image_id=image_id))

    assert faults.asked == ["", BY_ID, BY_ADDRESS, BY_ADDRESS, BY_ADDRESS]


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_read_is_told_so(status: int, faults: Any) -> None:
    faults.answers |= {name: [(status, b"no access", {})] for name in ("", BY_ID, BY_ADDRESS)}
    with pytest.raises(NotFetchedError) as raised:
        source_of("photos").get(wanted())
    assert raised.value.reason == f"HTTP {status}"


@pytest.mark.usefixtures("emulator")
def test_a_bucket_that_is_not_there_stops_the_fetch_rather_than_excluding_all() -> None:
    source = source_of("nowhere")
    for _ in range(2):
        with pytest.raises(UsageError, match="no such bucket"):
            source.get(wanted())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "c1.staticflickr.com/5/4129/10_o.jpg"),
        ("http://127.0.0.1:8080/a/b%20c.jpg?x=1#y", "127.0.0.1/a/b%20c.jpg"),
        ("http://me:secret@host/a.jpg", "host/a.jpg"),
        ("", ""),
        ("https://host", ""),
        ("https://[broken", ""),
    ],
)
def test_an_address_is_named_as_storage_transfer_names_it(url: str, name: str) -> None:
    assert name_of_address(url) == name


def test_a_project_is_fetched_from_a_public_bucket_by_anybody(
    make_project: Callable[..., Path], site: Any, emulator: Any
) -> None:
    first = make_project(limit=12)
    oiyolo.fetch(first)
    images = {p.name: p.read_bytes() for p in (first / "data" / "images").iterdir()}
    name = emulator.make_bucket({f"boats/{n}": image for n, image in images.items()}).name
    asked = len(site.server.served)

    second = make_project(limit=12, sources=[f"gs://{name}/boats"], tolerance=0.9)
    done = oiyolo.fetch(second)

    fetched = {p.name: p.read_bytes() for p in (second / "data" / "images").iterdir()}
    assert fetched == images
    assert isinstance(done, Fetched)
    assert done.by_source == {f"gs://{name}/boats": len(images)}
    assert not [s for s in site.server.served[asked:] if s.path.endswith(".jpg")]


def test_a_project_with_a_wrong_bucket_ends_at_once(
    make_project: Callable[..., Path], emulator: Any
) -> None:
    project = make_project(limit=5, sources=["gs://nowhere/boats"])
    with pytest.raises(OiyoloError, match="no such bucket") as raised:
        oiyolo.fetch(project)
    assert raised.value.exit_code == 2
    assert emulator.url not in str(raised.value)
    with oiyolo.open_project(project).ledger(read_only=True) as ledger:
        assert not ledger.counts().excluded
