"""The Google Cloud Storage client: complete objects, clear failures, bounded waits."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net import gcs, google_api
from oiyolo.net.buckets import BucketFolder, parse_bucket_url
from oiyolo.net.retry import HttpFailureError, RetryPolicy, StoppedError
from tests.support.pauses import RecordedPauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = RetryPolicy(max_attempts=2, first_pause_s=0.01, connect_timeout_s=1.0, read_timeout_s=1.0)
BUCKET = BucketFolder("photos", "boats")
CONTENT = b"\xff\xd8 a photograph"


def client_of(bucket: Any, prefix: str = "") -> gcs.BucketClient:
    return gcs.BucketClient(BucketFolder(bucket.name, prefix), retry_policy=QUICK)


def read(client: gcs.BucketClient, name: str, **limits: float) -> tuple[bytes, int]:
    return client.read(
        name, limit_bytes=int(limits.get("limit_bytes", 1 << 20)),
        deadline_s=limits.get("deadline_s", 5.0),
    )  # fmt: skip


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Storage at a port that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield url


def test_an_object_is_read_completely(emulator: Any) -> None:
    large = os.urandom(3 << 20)
    bucket = emulator.make_bucket({"boats/a.jpg": CONTENT, "boats/b.jpg": large, "boats/c": b""})
    client = client_of(bucket, "boats")

    assert read(client, "a.jpg") == (CONTENT, 1)
    assert read(client, "b.jpg", limit_bytes=4 << 20) == (large, 1)
    assert read(client, "c") == (b"", 1)


def test_the_listed_names_are_relative_to_the_folder(emulator: Any) -> None:
    names = ("boats/a.jpg", "boats/x/b.jpg", "boatswain.jpg", "c.jpg")
    client = client_of(emulator.make_bucket(dict.fromkeys(names, b".")), "boats")

    assert list(client.list_names()) == ["a.jpg", "x/b.jpg"]
    assert list(client.list_names(limit=1)) == ["a.jpg"]
    assert client.has_objects()


def test_the_error_for_a_missing_bucket_says_how_to_create_it(
    emulator: Any, tmp_path: Path
) -> None:
    client = gcs.BucketClient(parse_bucket_url("gs://nowhere"))
    file = tmp_path / "yolo.weights"
    file.write_bytes(b"1")
    for call in (
        client.has_objects,
        lambda: list(client.list_names()),
        lambda: client.send_file(file, "a", gcs.facts_of(file), NO_PROGRESS),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert "buckets create gs://nowhere" in caught.value.remedy
    assert emulator.url not in str(google_api.identity())


def test_threads_share_a_client(emulator: Any) -> None:
    objects = {f"{n}.jpg": os.urandom(2000) for n in range(60)}
    client = client_of(emulator.make_bucket(objects))

    with ThreadPoolExecutor(12) as pool:
        contents = list(pool.map(lambda name: read(client, name)[0], objects))

    assert contents == list(objects.values())
    client.close()


@pytest.mark.parametrize("failures", [1, 9])
def test_the_upload_of_a_large_file_resumes_after_a_failed_chunk(
    failures: int, faulty_bucket: Any, tmp_path: Path
) -> None:
    file = tmp_path / "yolo.weights"
    file.write_bytes(os.urandom(20 << 20))
    faulty_bucket.chunk_failures = failures
    client = gcs.BucketClient(BUCKET, retry_policy=QUICK)

    if failures < QUICK.max_attempts:
        client.send_file(file, "yolo.weights", gcs.facts_of(file), NO_PROGRESS)
        assert faulty_bucket.uploaded == file.read_bytes()
        return
    with pytest.raises(UnavailableError) as raised:
        client.send_file(file, "yolo.weights", gcs.facts_of(file), NO_PROGRESS)
    assert "HTTP 503" in raised.value.found
    assert "SECRET" not in str(raised.value)
    assert faulty_bucket.chunk_failures == failures - QUICK.max_attempts


@pytest.mark.parametrize(
    ("responses", "reason", "transient", "requests"),
    [
        ([(404, b"No such object", {})], "HTTP 404", False, 1),
        ([(403, b"no access", {})], "HTTP 403", False, 1),
        ([(401, b"who are you", {})], "HTTP 401", False, 1),
        ([(503, b"", {})], "HTTP 503", True, 2),
        ([(429, b"", {"Retry-After": "0"})], "HTTP 429", True, 2),
        ([(200, CONTENT, {"x-goog-hash": "crc32c=AAAAAA=="})], "wrong checksum", True, 2),
        ([(200, CONTENT, {"Content-Length": "9999"})], "connection failed", True, 2),
    ],
    ids=["missing", "forbidden", "unknown", "busy", "too-often", "checksum", "short"],
)
def test_a_failure_has_its_reason_and_transient_ones_are_retried(
    responses: list[Any], reason: str, transient: bool, requests: int, faulty_bucket: Any
) -> None:
    faulty_bucket.responses["boats/a"] = responses
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, retry_policy=QUICK), "a")
    assert (raised.value.reason, raised.value.transient) == (reason, transient)
    assert raised.value.attempts == faulty_bucket.requested_names.count("boats/a") == requests


@pytest.mark.parametrize("failure", [(503, b"", {}), (200, CONTENT, {"Content-Length": "9999"})])
def test_a_read_succeeds_after_a_transient_failure(
    failure: Any, faulty_bucket: Any, crc32c: Callable[[bytes], str]
) -> None:
    faulty_bucket.responses["boats/a"] = [failure, (200, CONTENT, {"x-goog-hash": crc32c(CONTENT)})]

    assert read(gcs.BucketClient(BUCKET, retry_policy=QUICK), "a") == (CONTENT, 2)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"limit_bytes": 10}, "too large"), ({"deadline_s": -1.0}, "too slow")],
)
def test_a_read_that_exceeds_its_limits_is_cut_off(
    limits: dict[str, float], reason: str, faulty_bucket: Any
) -> None:
    faulty_bucket.responses["boats/a"] = [(200, CONTENT, {})]
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, retry_policy=QUICK), "a", **limits)
    assert raised.value.reason == reason


@pytest.mark.usefixtures("unreachable")
def test_an_unreachable_server_fails_after_the_attempts_of_the_policy(tmp_path: Path) -> None:
    stop = RecordedPauses()
    policy = RetryPolicy(max_attempts=3, first_pause_s=600.0, connect_timeout_s=1.0)
    client = gcs.BucketClient(BUCKET, retry_policy=policy, stop=stop)
    file = tmp_path / "a"
    file.write_bytes(b"1")

    with pytest.raises(HttpFailureError) as raised:
        read(client, "a")
    for call in (
        lambda: list(client.list_names()),
        lambda: client.send_file(file, "a", gcs.facts_of(file), NO_PROGRESS),
        lambda: client.put(b"1", "a", content_type="text/plain"),
    ):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert caught.value.where == str(BUCKET)

    assert raised.value.transient
    assert not raised.value.reached
    assert len(stop.pauses_s) == 4 * 2


@pytest.mark.usefixtures("unreachable")
def test_the_stop_event_ends_a_pause() -> None:
    stop = RecordedPauses(stops_in_pause=True)
    retry_policy = RetryPolicy(max_attempts=3, first_pause_s=600.0, connect_timeout_s=1.0)
    client = gcs.BucketClient(BUCKET, retry_policy=retry_policy, stop=stop)

    with pytest.raises(StoppedError):
        read(client, "a")
    assert len(stop.pauses_s) == 1


def test_a_user_without_the_permission_to_list_is_told_to_log_in(faulty_bucket: Any) -> None:
    faulty_bucket.responses[""] = [(403, b'{"error": {"message": "me@x.y has no access"}}', {})]
    client = gcs.BucketClient(BUCKET, retry_policy=QUICK)

    assert client.has_objects() is None
    with pytest.raises(UnavailableError) as caught:
        list(client.list_names())
    assert "gcloud auth application-default login" in caught.value.remedy
    assert "me@x.y has no access" in caught.value.found


def test_the_key_of_an_upload_is_not_in_the_error(faulty_bucket: Any) -> None:
    faulty_bucket.responses["boats/a"] = [
        (418, b"no upload to http://x/y?upload_id=SECRET&x=1", {})
    ]
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, retry_policy=QUICK), "a")
    assert "SECRET" not in str(raised.value)
    assert "418" in str(raised.value)


def test_unreadable_credentials_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(UsageError) as caught:
        google_api.identity()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.what


def test_a_user_without_credentials_is_anonymous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert google_api.identity().is_anonymous
