"""Copying images into a bucket, by the store itself and by the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.retry import StoppedError
from oiyolo.project.ledger import PENDING
from oiyolo.project.project import open_project
from oiyolo.sources.bucket_store import BucketStore
from oiyolo.stages.fetch.downloader import Tally, download_images
from oiyolo.stages.fetch.pending import pending_images
from oiyolo.stages.select import load_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from oiyolo.sources.event_loop import Outcome
    from tests.conftest import Cli, Site


def objects_of(bucket: Any) -> dict[str, str]:
    """Return the MD5 of each object by name."""
    return {
        blob.name: hashlib.md5(blob.download_as_bytes(), usedforsecurity=False).hexdigest()
        for blob in bucket.list_blobs()
    }


def images_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in (folder / "data" / "images").iterdir()
    }


@pytest.mark.parametrize("prefix", ["", "boats/2026"])
def test_stored_images_are_complete_and_listed_later(emulator: Any, prefix: str) -> None:
    bucket = emulator.make_bucket()
    store = BucketStore(parse_bucket_url(f"gs://{bucket.name}/{prefix}"))
    folder = f"{prefix}/" if prefix else ""
    ids = ["00000000000000aa", "00000000000000ab", "00000000000000ac", "01000000000000aa"]
    assert store.existing_ids(ids) == set()
    assert store.existing_ids([]) == set()
    for image_id in (*ids[:3], "02000000000000aa"):
        store.put(image_id, image_id.encode() * 1000)
    store.put("00000000000000aa", b"another")
    store.finish(["00000000000000aa"])
    store.drop(["00000000000000ab"])
    names = [f"{folder}{image_id}.jpg" for image_id in (*ids[:3], "02000000000000aa")]
    assert sorted(blob.name for blob in bucket.list_blobs()) == names
    assert {blob.content_type for blob in bucket.list_blobs()} == {"image/jpeg"}
    assert bucket.blob(names[0]).download_as_bytes() == b"another"
    assert bucket.blob(names[1]).download_as_bytes() == b"00000000000000ab" * 1000
    assert store.existing_ids(ids) == {"00000000000000aa", "00000000000000ab", "00000000000000ac"}
    assert store.existing_ids(ids[1:2]) == {"00000000000000ab"}
    store.close()


def test_an_invalid_image_id_is_rejected(emulator: Any) -> None:
    bucket = emulator.make_bucket()
    with pytest.raises(InputFormError):
        BucketStore(parse_bucket_url(f"gs://{bucket.name}")).put("../0a", b"")
    assert not list(bucket.list_blobs())


@pytest.mark.usefixtures("emulator")
def test_a_missing_bucket_is_an_error() -> None:
    store = BucketStore(parse_bucket_url("gs://nobody-has-this"))
    for call in (
        lambda: store.existing_ids(["00000000000000aa"]),
        lambda: store.put("00000000000000aa", b""),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.where == "gs://nobody-has-this"


def test_a_project_is_copied_into_a_bucket_without_using_the_disk(
    emulator: Any, cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(limit=20)
    cli.ok("select", project=folder)
    project = open_project(folder)
    bucket = emulator.make_bucket()
    outcomes: list[Outcome] = []
    with project.ledger(read_only=True) as ledger:
        images = list(pending_images(load_current(project), ledger.iter_ids(PENDING)))
    stop = threading.Event()
    store = BucketStore(parse_bucket_url(f"gs://{bucket.name}/boats"), stop)

    def copy() -> None:
        download_images(
            *(project, images),
            on_outcomes=outcomes.extend,
            progress=NO_PROGRESS,
            store=store,
            tally=Tally(),
            stop=stop,
        )

    copy()
    cli.ok("fetch", project=folder)
    expected = {f"boats/{name}": md5 for name, md5 in images_of(folder).items()}
    assert objects_of(bucket) == expected
    assert len([outcome for outcome in outcomes if outcome.source]) == len(expected)
    stop.set()
    with pytest.raises(StoppedError):
        copy()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "gs://photos"), "--to needs --cluster"),
        (("--to", "gs://photos", "--shard", "0/2"), "--shard and --to cannot be combined"),
        (("--to", "photos", "--cluster", "tcp://h:1"), "not a Cloud Storage URL"),
    ],
)
def test_options_that_exclude_each_other(
    cli: Cli, make_project: Callable[..., Path], words: tuple[str, ...], message: str
) -> None:
    failed = cli("fetch", *words, project=make_project(limit=5))
    assert failed.code == 2
    assert message in failed.err


def test_a_dry_run_names_the_bucket_and_contacts_no_server(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(limit=5)
    cli.ok("select", project=folder)
    words = ("--cluster", "tcp://nobody.invalid:8786", "--to", "gs://photos/boats")
    out = cli.ok("fetch", "--dry-run", *words, project=folder).out
    assert "from gs://photos/boats, mirror" in out
    assert "after copying them to gs://photos/boats in 1 shard on tcp://nobody.invalid:8786" in out


def request_counts(site: Site, names: Iterable[str]) -> dict[str, int]:
    """Return the number of requests to the mirror, by an image's object name in the bucket."""
    requests = Counter(
        f"boats/{request.path.rsplit('/', 1)[-1]}"
        for request in site.server.requests
        if "/open-images-dataset/" in request.path
    )
    return {name: requests[name] for name in names if requests[name]}


@pytest.fixture
def scheduler(emulator: Any) -> Iterator[str]:  # noqa: ARG001  (sets the workers' environment)
    """The address of a scheduler with two worker processes that use the emulator."""
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as dask_cluster:
        yield dask_cluster.scheduler_address


@pytest.mark.slow
def test_workers_copy_into_a_bucket_and_fetch_downloads_from_it(
    *,
    emulator: Any,
    scheduler: str,
    cli: Cli,
    make_project: Callable[..., Path],
    own_site: Site,
) -> None:
    folder = make_project(**own_site.urls, limit=40)
    bucket = emulator.make_bucket()
    destination = f"gs://{bucket.name}/boats"
    words = ("--cluster", scheduler, "--to", destination, "--shards", "5", "--json")
    done = cli.ok("fetch", *words, project=folder)
    expected = {f"boats/{name}": md5 for name, md5 in images_of(folder).items()}
    assert objects_of(bucket) == expected
    assert done.json["sources"] == {destination: len(expected)}
    assert f"{len(expected)} images" in done.err
    assert request_counts(own_site, expected) == dict.fromkeys(expected, 1)

    # Another project requests only what the bucket does not have.
    lost = sorted(expected)[7]
    bucket.blob(lost).delete()
    own_site.server.requests.clear()
    other = make_project(**own_site.urls, limit=40)
    cli.ok("fetch", *words, project=other)
    assert objects_of(bucket) == expected
    assert request_counts(own_site, expected) == {lost: 1}
    assert images_of(other) == images_of(folder)


@pytest.mark.slow
def test_a_bucket_that_workers_cannot_write_is_an_error(
    scheduler: str, cli: Cli, make_project: Callable[..., Path]
) -> None:
    words = ("--cluster", scheduler, "--to", "gs://nobody-has-this")
    failed = cli("fetch", *words, project=make_project(limit=5))
    assert failed.code == 2
    assert "there is no such bucket" in failed.err
