"""The door to Google Cloud Storage: whole objects, told failures, in time."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net import gcs
from oiyolo.net.buckets import BucketPlace, bucket_place
from oiyolo.net.download import HttpFailureError, StoppedError
from oiyolo.net.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = Patience(attempts=2, first_pause_s=0.01, connect_s=1.0, read_s=1.0)
BUCKET = BucketPlace("photos", "boats")
CONTENT = b"\xff\xd8 a photograph"


def client_of(bucket: Any, prefix: str = "") -> gcs.BucketClient:
    return gcs.BucketClient(BucketPlace(bucket.name, prefix), patience=QUICK)


def read(client: gcs.BucketClient, name: str, **limits: float) -> gcs.StoredObject:
    return client.read(
        name, limit_bytes=int(limits.get("limit_bytes", 1 << 20)),
        deadline_s=limits.get("deadline_s", 5.0),
    )  # fmt: skip


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield url


def test_an_object_comes_whole(emulator: Any) -> None:
    large = os.urandom(3 << 20)
    bucket = emulator.make_bucket({"boats/a.jpg": CONTENT, "boats/b.jpg": large, "boats/c": b""})
    client = client_of(bucket, "boats")

    assert read(client, "a.jpg").content == CONTENT
    assert read(client, "b.jpg", limit_bytes=4 << 20).content == large
    assert read(client, "c").content == b""


def test_names_are_those_below_the_prefix(emulator: Any) -> None:
    names = ("boats/a.jpg", "boats/x/b.jpg", "boatswain.jpg", "c.jpg")
    client = client_of(emulator.make_bucket(dict.fromkeys(names, b".")), "boats")

    assert list(client.names()) == ["a.jpg", "x/b.jpg"]
    assert list(client.names(most=1)) == ["a.jpg"]
    assert client.holds_anything()


def test_a_bucket_that_is_not_there_is_told_with_how_to_make_it(
    emulator: Any, tmp_path: Path
) -> None:
    client = gcs.BucketClient(bucket_place("gs://nowhere"))
    file = tmp_path / "yolo.weights"
    file.write_bytes(b"1")
    for ask in (
        client.holds_anything,
        lambda: list(client.names()),
        lambda: gcs.upload([file], "gs://nowhere/runs"),
    ):
        with pytest.raises(UsageError, match="buckets create gs://nowhere"):
            ask()
    assert emulator.url not in str(gcs.identity())


def test_threads_share_a_client(emulator: Any) -> None:
    objects = {f"{n}.jpg": os.urandom(2000) for n in range(60)}
    client = client_of(emulator.make_bucket(objects))

    with ThreadPoolExecutor(12) as pool:
        came = list(pool.map(lambda name: read(client, name).content, objects))

    assert came == list(objects.values())
    client.close()


def test_files_go_up_whole_and_once(emulator: Any, tmp_path: Path) -> None:
    small, large = tmp_path / "obj.names", tmp_path / "yolo.weights"
    small.write_bytes(b"Boat\n")
    large.write_bytes(os.urandom(20 << 20))  # in two parts
    bucket = emulator.make_bucket()
    place = f"gs://{bucket.name}/runs/1"

    gcs.upload([small, large], place)
    first = {blob.name: blob.generation for blob in bucket.list_blobs()}
    gcs.upload([small, large], place)
    second = {blob.name: blob.generation for blob in bucket.list_blobs()}

    assert bucket.blob("runs/1/obj.names").download_as_bytes() == b"Boat\n"
    assert bucket.blob("runs/1/yolo.weights").download_as_bytes() == large.read_bytes()
    assert first == second
    small.write_bytes(b"Ship\n")
    gcs.upload([small], place)
    assert bucket.blob("runs/1/obj.names").download_as_bytes() == b"Ship\n"


@pytest.mark.parametrize("failures", [1, 9])
def test_a_large_file_goes_on_after_a_part_that_failed(
    failures: int, faults: Any, tmp_path: Path
) -> None:
    file = tmp_path / "yolo.weights"
    file.write_bytes(os.urandom(20 << 20))
    faults.failures_of_second = failures

    if failures < QUICK.attempts:
        gcs.upload([file], str(BUCKET), patience=QUICK)
        assert faults.taken == file.read_bytes()
        return
    with pytest.raises(UnavailableError, match="HTTP 503") as raised:
        gcs.upload([file], str(BUCKET), patience=QUICK)
    assert "SECRET" not in str(raised.value)
    assert faults.failures_of_second == failures - QUICK.attempts


def test_a_file_that_is_not_there_is_no_upload(emulator: Any, tmp_path: Path) -> None:
    bucket = emulator.make_bucket()
    with pytest.raises(UsageError, match="no such file"):
        gcs.upload([tmp_path / "gone"], f"gs://{bucket.name}")


@pytest.mark.parametrize(
    ("answers", "reason", "transient", "asked"),
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
def test_failures_are_told_apart(
    answers: list[Any], reason: str, transient: bool, asked: int, faults: Any
) -> None:
    faults.answers["boats/a"] = answers
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, patience=QUICK), "a")
    assert (raised.value.reason, raised.value.transient) == (reason, transient)
    assert raised.value.attempts == faults.asked.count("boats/a") == asked


@pytest.mark.parametrize("before", [(503, b"", {}), (200, CONTENT, {"Content-Length": "9999"})])
def test_what_passes_is_tried_again(
    before: Any, faults: Any, crc32c: Callable[[bytes], str]
) -> None:
    faults.answers["boats/a"] = [before, (200, CONTENT, {"x-goog-hash": crc32c(CONTENT)})]

    came = read(gcs.BucketClient(BUCKET, patience=QUICK), "a")

    assert (came.content, came.attempts) == (CONTENT, 2)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"limit_bytes": 10}, "too large"), ({"deadline_s": -1.0}, "too slow")],
)
def test_what_is_too_much_is_cut_off(limits: dict[str, float], reason: str, faults: Any) -> None:
    faults.answers["boats/a"] = [(200, CONTENT, {})]
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, patience=QUICK), "a", **limits)
    assert raised.value.reason == reason


@pytest.mark.usefixtures("unheard")
def test_a_server_that_is_not_there_is_given_up_soon(tmp_path: Path) -> None:
    client = gcs.BucketClient(BUCKET, patience=QUICK)
    file = tmp_path / "a"
    file.write_bytes(b"1")
    began_s = time.monotonic()

    with pytest.raises(HttpFailureError) as raised:
        read(client, "a")
    with pytest.raises(UnavailableError, match="Check the network"):
        list(client.names())
    with pytest.raises(UnavailableError, match="cannot be written to"):
        gcs.upload([file], str(BUCKET), patience=QUICK)

    assert raised.value.transient
    assert not raised.value.reached
    assert time.monotonic() - began_s < 20


@pytest.mark.usefixtures("unheard")
def test_a_stop_ends_the_pauses() -> None:
    stop = threading.Event()
    patience = Patience(attempts=3, first_pause_s=600.0, connect_s=1.0)
    client = gcs.BucketClient(BUCKET, patience=patience, stop=stop)
    threading.Timer(0.2, stop.set).start()

    with pytest.raises(StoppedError):
        read(client, "a")


def test_only_some_may_list(faults: Any) -> None:
    faults.answers[""] = [(403, b'{"error": {"message": "me@x.y has no access"}}', {})]
    client = gcs.BucketClient(BUCKET, patience=QUICK)

    assert client.holds_anything() is None
    with pytest.raises(UnavailableError, match="gcloud auth application-default login"):
        list(client.names())


def test_the_key_of_an_upload_is_not_told(faults: Any) -> None:
    faults.answers["boats/a"] = [(418, b"no upload to http://x/y?upload_id=SECRET&x=1", {})]
    with pytest.raises(HttpFailureError) as raised:
        read(gcs.BucketClient(BUCKET, patience=QUICK), "a")
    assert "SECRET" not in str(raised.value)
    assert "418" in str(raised.value)


def test_credentials_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(UsageError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        gcs.identity()


def test_who_has_no_credentials_is_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert gcs.identity().is_anonymous
