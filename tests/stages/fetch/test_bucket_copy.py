"""Images copied into a bucket: by the store itself, and by the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net.buckets import bucket_place
from oiyolo.net.download import StoppedError
from oiyolo.project.ledger import PENDING
from oiyolo.project.project import open_project
from oiyolo.sources.bucket_store import BucketStore
from oiyolo.stages.fetch.downloader import fetch_many
from oiyolo.stages.fetch.pending import wanted_images
from oiyolo.stages.select import load_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from oiyolo.sources.event_loop import Outcome
    from tests.conftest import Cli, Site


def objects_of(bucket: Any) -> dict[str, str]:
    """Give the MD5 of each object by its name."""
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
def test_what_was_put_is_there_whole_and_known_the_next_time(emulator: Any, prefix: str) -> None:
    bucket = emulator.make_bucket()
    store = BucketStore(bucket_place(f"gs://{bucket.name}/{prefix}"))
    below = f"{prefix}/" if prefix else ""
    ids = ["00aa", "00ab", "00ac", "01aa"]
    assert store.here(ids) == set()
    assert store.here([]) == set()
    for image_id in (*ids[:3], "02aa"):
        store.put(image_id, image_id.encode() * 1000)
    store.put("00aa", b"another")
    store.finish(["00aa"])
    store.drop(["00ab"])
    names = [f"{below}{image_id}.jpg" for image_id in (*ids[:3], "02aa")]
    assert sorted(blob.name for blob in bucket.list_blobs()) == names
    assert {blob.content_type for blob in bucket.list_blobs()} == {"image/jpeg"}
    assert bucket.blob(names[0]).download_as_bytes() == b"another"
    assert bucket.blob(names[1]).download_as_bytes() == b"00ab" * 1000
    assert store.here(ids) == {"00aa", "00ab", "00ac"}
    assert store.here(ids[1:2]) == {"00ab"}
    store.close()


def test_what_is_no_id_is_not_put(emulator: Any) -> None:
    bucket = emulator.make_bucket()
    with pytest.raises(InputFormError, match="no ImageID"):
        BucketStore(bucket_place(f"gs://{bucket.name}")).put("../0a", b"")
    assert not list(bucket.list_blobs())


@pytest.mark.usefixtures("emulator")
def test_a_bucket_that_is_missing_is_told() -> None:
    store = BucketStore(bucket_place("gs://nobody-has-this"))
    with pytest.raises(UsageError, match="no such bucket"):
        store.here(["0a"])
    with pytest.raises(UsageError, match="no such bucket"):
        store.put("0a", b"")


def test_a_whole_project_goes_into_a_bucket_and_nothing_onto_the_disk(
    emulator: Any, cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(limit=20)
    cli.ok("select", project=folder)
    project = open_project(folder)
    bucket = emulator.make_bucket()
    outcomes: list[Outcome] = []
    with project.ledger(read_only=True) as ledger:
        wanted = list(wanted_images(load_current(project), ledger.each(PENDING)))
    stop = threading.Event()
    store = BucketStore(bucket_place(f"gs://{bucket.name}/boats"), stop)

    def copy() -> None:
        fetch_many(
            *(project, wanted),
            on_outcomes=outcomes.extend,
            told=NO_PROGRESS,
            store=store,
            stop=stop,
        )

    copy()
    cli.ok("fetch", project=folder)
    theirs = {f"boats/{name}": md5 for name, md5 in images_of(folder).items()}
    assert objects_of(bucket) == theirs
    assert len([outcome for outcome in outcomes if outcome.source]) == len(theirs)
    stop.set()
    with pytest.raises(StoppedError):
        copy()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "gs://photos"), "--to is of use with --cluster only"),
        (("--to", "gs://photos", "--shard", "0/2"), "--shard and --to do not go together"),
        (("--to", "photos", "--cluster", "tcp://h:1"), "not a place in a bucket"),
    ],
)
def test_options_that_do_not_go_together(
    cli: Cli, make_project: Callable[..., Path], words: tuple[str, ...], told: str
) -> None:
    failed = cli("fetch", *words, project=make_project(limit=5))
    assert failed.code == 2
    assert told in failed.err


def test_a_dry_run_tells_of_the_bucket_and_asks_nobody(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project(limit=5)
    cli.ok("select", project=folder)
    words = ("--cluster", "tcp://nobody.invalid:8786", "--to", "gs://photos/boats")
    told = cli.ok("fetch", "--dry-run", *words, project=folder).out
    assert "from gs://photos/boats, mirror" in told
    assert "copied to gs://photos/boats before, in 1 shard on tcp://nobody.invalid:8786" in told


def asked_for(site: Site, names: Iterable[str]) -> dict[str, int]:
    """Tell how often the mirror was asked for objects, each by its name in the bucket."""
    asked = Counter(
        f"boats/{request.path.rsplit('/', 1)[-1]}"
        for request in site.server.served
        if "/open-images-dataset/" in request.path
    )
    return {name: asked[name] for name in names if asked[name]}


@pytest.fixture
def scheduler(emulator: Any) -> Iterator[str]:  # noqa: ARG001  (its variable is handed on)
    """Two worker processes that know the emulator."""
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as started:
        yield started.scheduler_address


@pytest.mark.slow
def test_workers_copy_into_a_bucket_and_fetch_takes_from_there(
    *,
    emulator: Any,
    scheduler: str,
    cli: Cli,
    make_project: Callable[..., Path],
    own_site: Site,
) -> None:
    folder = make_project(**own_site.urls, limit=40)
    bucket = emulator.make_bucket()
    place = f"gs://{bucket.name}/boats"
    words = ("--cluster", scheduler, "--to", place, "--shards", "5", "--json")
    done = cli.ok("fetch", *words, project=folder)
    theirs = {f"boats/{name}": md5 for name, md5 in images_of(folder).items()}
    assert objects_of(bucket) == theirs
    assert done.json["sources"] == {place: len(theirs)}
    assert f"{len(theirs)} images" in done.err
    assert asked_for(own_site, theirs) == dict.fromkeys(theirs, 1)

    # What the bucket has is not asked for at the site again, also by another project.
    lost = sorted(theirs)[7]
    bucket.blob(lost).delete()
    own_site.server.served.clear()
    other = make_project(**own_site.urls, limit=40)
    cli.ok("fetch", *words, project=other)
    assert objects_of(bucket) == theirs
    assert asked_for(own_site, theirs) == {lost: 1}
    assert images_of(other) == images_of(folder)


@pytest.mark.slow
def test_workers_that_may_not_write_say_so(
    scheduler: str, cli: Cli, make_project: Callable[..., Path]
) -> None:
    words = ("--cluster", scheduler, "--to", "gs://nobody-has-this")
    failed = cli("fetch", *words, project=make_project(limit=5))
    assert failed.code == 2
    assert "there is no such bucket" in failed.err
