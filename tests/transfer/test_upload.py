"""Uploads and downloads of many files: only what differs, whole or absent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net import gcs
from oiyolo.net.buckets import BucketFolder, FileFacts
from oiyolo.net.retry import RetryPolicy
from oiyolo.transfer.download import receive_files
from oiyolo.transfer.threads import THREADS, for_each
from oiyolo.transfer.upload import Transferred, upload_files
from tests.support.bucket_emulator import checksum

if TYPE_CHECKING:
    from pathlib import Path

QUICK = RetryPolicy(max_attempts=2, first_pause_s=0.01, connect_timeout_s=1.0, read_timeout_s=1.0)


def write(folder: Path, **contents: bytes) -> dict[str, Path]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {f"x/{name}": folder / name for name in contents}


def test_only_files_that_differ_are_sent(emulator: Any, tmp_path: Path) -> None:
    bucket = emulator.make_bucket({"runs/other": b"theirs"})
    folder = BucketFolder(bucket.name, "runs")
    files = write(tmp_path, a=b"one", b=b"two", empty=b"")

    assert upload_files(files, folder) == Transferred(3, 6, 0)
    assert upload_files(files, folder) == Transferred(0, 0, 3)
    write(tmp_path, b=b"2nd")  # the same size
    assert upload_files(files, folder) == Transferred(1, 3, 2)
    stored = {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs()}
    assert stored == {
        "runs/other": b"theirs",
        "runs/x/a": b"one",
        "runs/x/b": b"2nd",
        "runs/x/empty": b"",
    }


def test_a_user_who_may_not_list_sends_every_file(
    emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = emulator.make_bucket({"x/a": b"one"})
    monkeypatch.setattr(gcs.BucketClient, "has_objects", lambda _: None)

    sent = upload_files(write(tmp_path, a=b"one"), BucketFolder(bucket.name))
    assert sent == Transferred(1, 3, 0)


def test_files_are_received_whole_or_not_at_all(emulator: Any, tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"x" * 3_000_000, "c/empty": b""}
    bucket = emulator.make_bucket(contents)
    client = gcs.BucketClient(BucketFolder(bucket.name), retry_policy=QUICK)
    facts = dict(client.list_objects())
    paths = {name: tmp_path / name for name in contents}

    receive_files(client, paths, facts, what="test")
    assert {name: path.read_bytes() for name, path in paths.items()} == contents

    wrong = {"a": FileFacts(3, checksum(b"two").partition("=")[2])}
    for expected in (wrong, {"a": FileFacts(2, wrong["a"].crc32c)}, {"a": FileFacts(4, "")}):
        client = gcs.BucketClient(BucketFolder(bucket.name), retry_policy=QUICK)
        with pytest.raises(UnavailableError):
            receive_files(client, {"a": tmp_path / "new"}, expected, what="test")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_download_continues_where_it_broke_off(faulty_bucket: Any, tmp_path: Path) -> None:
    content, sent = bytes(range(256)) * 128, 16_384
    ending = f"bytes {sent}-{len(content) - 1}/{len(content)}"
    faulty_bucket.responses["a"] = [
        (200, content[:sent], {"Content-Length": str(len(content)), "Connection": "close"}),
        (206, content[sent:], {"Content-Range": ending}),
    ]
    client = gcs.BucketClient(BucketFolder("photos"), retry_policy=QUICK)
    facts = FileFacts(len(content), checksum(content).partition("=")[2])

    client.receive_file("a", tmp_path / "a", facts, NO_PROGRESS)
    assert (tmp_path / "a").read_bytes() == content


def test_a_file_that_changes_during_the_upload_is_an_error(emulator: Any, tmp_path: Path) -> None:
    bucket = emulator.make_bucket()
    client = gcs.BucketClient(BucketFolder(bucket.name), retry_policy=QUICK)
    path = tmp_path / "a"
    path.write_bytes(b"one")
    facts = gcs.facts_of(path)

    for changed in (b"two", b"longer"):
        path.write_bytes(changed)
        with pytest.raises(UnavailableError) as caught:
            client.send_file(path, "a", facts, NO_PROGRESS)
        assert caught.value.where == str(path)


def test_a_missing_file_or_bucket_is_named(emulator: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        upload_files({"a": tmp_path / "gone"}, BucketFolder("nowhere"))
    assert caught.value.where == str(tmp_path / "gone")
    with pytest.raises(UsageError) as caught:
        upload_files(write(tmp_path, a=b""), BucketFolder("nowhere"))
    assert emulator.url not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_missing_permissions_are_named(status: int, faulty_bucket: Any, tmp_path: Path) -> None:
    faulty_bucket.responses[""] = [(status, b"no", {})]
    with pytest.raises(UnavailableError) as caught:
        upload_files(write(tmp_path, a=b""), BucketFolder("photos"))
    assert "roles/storage" in caught.value.remedy or "gcloud" in caught.value.remedy


def test_the_first_error_ends_the_work() -> None:
    stop, done = threading.Event(), list[int]()

    def act(number: int) -> None:
        if number == THREADS:
            raise ValueError(number)
        done.append(number)

    with pytest.raises(ValueError, match=str(THREADS)):
        for_each(range(10_000_000), act, stop)
    assert stop.is_set()
    assert len(done) < 10_000_000
