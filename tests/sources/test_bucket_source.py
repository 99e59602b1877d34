"""A bucket as a source of images, named by their ImageIDs or by their URLs."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import OiyoloError
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.gcs import BucketClient
from oiyolo.net.retry import RetryPolicy
from oiyolo.sources.bucket import Bucket, transfer_name
from oiyolo.sources.image import ImageRequest, NoImagesError, NotFetchedError
from oiyolo.stages.fetch import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = RetryPolicy(max_attempts=2, first_pause_s=0.01, connect_timeout_s=1.0, read_timeout_s=2.0)
URL = "https://c1.staticflickr.com/5/4129/10_o.jpg"
BY_ID, BY_URL = "boats/0a.jpg", "boats/c1.staticflickr.com/5/4129/10_o.jpg"


def jpeg(colour: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (colour, 60, 30)).save(file, "JPEG")
    return file.getvalue()


PHOTO, OTHER = jpeg(), jpeg(200)


def request(url: str = URL, image_id: str = "0a") -> ImageRequest:
    digest = hashlib.md5(PHOTO, usedforsecurity=False).digest()
    return ImageRequest(image_id, "train", url, len(PHOTO), base64.b64encode(digest).decode())


def source_of(bucket_name: str) -> Bucket:
    url = f"gs://{bucket_name}/boats"
    return Bucket(url, BucketClient(parse_bucket_url(url), retry_policy=QUICK))


@pytest.mark.parametrize(
    ("objects", "content"),
    [
        ({BY_ID: OTHER}, OTHER),
        ({BY_URL: PHOTO}, PHOTO),
        ({BY_ID: OTHER, BY_URL: PHOTO}, OTHER),
        ({BY_ID: OTHER[:-30], BY_URL: PHOTO}, PHOTO),
    ],
    ids=["by its id", "by its url", "both", "one of them broken"],
)
def test_an_image_is_found_by_its_id_or_its_url(
    objects: dict[str, bytes], content: bytes, emulator: Any
) -> None:
    assert source_of(emulator.make_bucket(objects).name).get(request()).content == content


@pytest.mark.parametrize(
    ("objects", "url", "reason"),
    [
        ({}, URL, "HTTP 404"),
        ({}, "", "HTTP 404"),
        ({}, "https://[broken", "HTTP 404"),
        ({BY_ID: b""}, URL, "empty"),
        ({BY_ID: PHOTO[:-30]}, URL, "truncated JPEG"),
        ({BY_ID: b"<html>"}, URL, "not a JPEG"),
        ({BY_URL: PHOTO + b"\0"}, URL, "OriginalSize mismatch"),
        ({BY_URL: PHOTO[:20] + bytes([PHOTO[20] ^ 1]) + PHOTO[21:]}, URL,
         "OriginalMD5 mismatch"),
    ],
    ids=["missing", "no url", "bad url", "empty", "cut", "html", "size", "md5"],
)  # fmt: skip
def test_a_missing_or_damaged_image_is_rejected_with_its_reason(
    objects: dict[str, bytes], url: str, reason: str, emulator: Any
) -> None:
    source = source_of(emulator.make_bucket(objects).name)
    with pytest.raises(NotFetchedError) as raised:
        source.get(request(url))
    assert (raised.value.reason, raised.value.transient) == (reason, False)
    assert "0a.jpg" in raised.value.detail


def test_a_wrong_checksum_is_a_transient_failure(faulty_bucket: Any) -> None:
    faulty_bucket.responses[BY_ID] = [(200, PHOTO, {"x-goog-hash": "crc32c=AAAAAA=="})]
    with pytest.raises(NotFetchedError) as raised:
        source_of("photos").get(request())
    assert (raised.value.reason, raised.value.transient) == ("wrong checksum", True)


def test_the_naming_scheme_of_the_last_image_is_tried_first(
    faulty_bucket: Any, crc32c: Callable[[bytes], str]
) -> None:
    faulty_bucket.responses[BY_URL] = [(200, PHOTO, {"x-goog-hash": crc32c(PHOTO)})]
    source = source_of("photos")

    for image_id in ("0a", "0b", "0c"):
        source.get(request(image_id=image_id))

    assert faulty_bucket.requested_names == [BY_ID, BY_URL, BY_URL, BY_URL]


@pytest.mark.parametrize("status", [401, 403])
def test_a_user_without_read_permission_gets_the_status_as_the_reason(
    status: int, faulty_bucket: Any
) -> None:
    faulty_bucket.responses |= {name: [(status, b"no access", {})] for name in ("", BY_ID, BY_URL)}
    with pytest.raises(NotFetchedError) as raised:
        source_of("photos").get(request())
    assert raised.value.reason == f"HTTP {status}"


@pytest.mark.usefixtures("emulator")
def test_a_missing_bucket_stops_the_fetch_rather_than_excluding_every_image() -> None:
    with pytest.raises(NoImagesError, match="no such bucket"):
        source_of("nowhere").check()


def test_an_empty_folder_of_a_bucket_is_no_source(emulator: Any) -> None:
    name = emulator.make_bucket({"boats/0a.jpg": PHOTO}).name
    Bucket(f"gs://{name}/boats").check()
    with pytest.raises(NoImagesError):
        Bucket(f"gs://{name}/boat").check()


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
def test_a_url_is_named_as_storage_transfer_names_it(url: str, name: str) -> None:
    assert transfer_name(url) == name


def test_a_project_is_fetched_from_a_public_bucket_without_credentials(
    make_project: Callable[..., Path], site: Any, emulator: Any
) -> None:
    first = make_project(limit=12)
    oiyolo.fetch(first)
    images = {p.name: p.read_bytes() for p in (first / "data" / "images").iterdir()}
    name = emulator.make_bucket({f"boats/{n}": image for n, image in images.items()}).name
    served = len(site.server.requests)

    second = make_project(limit=12, sources=[f"gs://{name}/boats"], tolerance=0.9)
    result = oiyolo.fetch(second)

    fetched = {p.name: p.read_bytes() for p in (second / "data" / "images").iterdir()}
    assert fetched == images
    assert isinstance(result, Fetched)
    assert result.by_source == {f"gs://{name}/boats": len(images)}
    assert not [s for s in site.server.requests[served:] if s.path.endswith(".jpg")]


def test_a_fetch_from_a_missing_bucket_fails_at_once(
    make_project: Callable[..., Path], emulator: Any
) -> None:
    project = make_project(limit=5, sources=["gs://nowhere/boats"])
    with pytest.raises(OiyoloError, match="no such bucket") as raised:
        oiyolo.fetch(project)
    assert raised.value.exit_code == 4
    assert emulator.url not in str(raised.value)
    with oiyolo.open_project(project).ledger(read_only=True) as ledger:
        assert not ledger.counts().excluded
