"""Shards on a real Dask cluster of two worker processes, one of which may die."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net import cluster

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli, Shell, Site

    Digests = Callable[[Path], dict[str, str]]
    Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """A cluster that tests share and leave running."""
    with two_workers() as dask_cluster:
        yield dask_cluster


@pytest.fixture
def own_dask() -> Iterator[Any]:
    """A cluster whose workers a test may kill."""
    with two_workers() as dask_cluster:
        yield dask_cluster


@contextlib.contextmanager
def two_workers() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as dask_cluster:
        yield dask_cluster


def add(stop: threading.Event, one: int, other: int) -> int:
    """A task that ends at once."""
    assert not stop.is_set()
    return one + other


def wait_for_stop(stop: threading.Event, started: Path, ended: Path) -> None:
    """A task that runs until it is stopped."""
    started.touch()
    if stop.wait(30):
        ended.touch()


def fail(_: threading.Event) -> None:
    """A task that fails."""
    raise UnavailableError("the disk is nearly full", where="here")


def die(_: threading.Event) -> None:
    """A task that kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def do_nothing() -> None:
    """The caller's work while it waits."""


def run_tasks(dask: Any, work: Callable[..., Any], *tasks: tuple[Any, ...]) -> list[Any]:
    return list(
        cluster.run_tasks(dask.scheduler_address, work, tasks, tick_s=0.2, on_tick=do_nothing)
    )


@pytest.mark.parametrize("address", ["", "http://host:1", "tcp://host", "tcp://:8786", "tcp://h:x"])
def test_an_invalid_scheduler_address_is_an_error(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        cluster.check(address)
    assert repr(address) in caught.value.found


def test_the_error_without_dask_says_what_to_install(
    cli: Cli, make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project()
    monkeypatch.setitem(sys.modules, "distributed", None)
    failed = cli("fetch", "--cluster", "tcp://127.0.0.1:8786", project=folder)
    assert failed.code == 2
    assert "pip install 'oiyolo[cluster]'" in failed.err
    assert not (folder / "data").exists()


def test_an_unreachable_scheduler_exits_with_4(cli: Cli, make_project: Callable[..., Path]) -> None:
    folder = make_project()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        failed = cli("fetch", "--cluster", address, project=folder)
    assert failed.code == 4
    assert "no Dask scheduler responds" in failed.err
    assert cli.ok("status", project=folder).out.startswith("pending")


def test_a_dry_run_does_not_contact_the_cluster(
    cli: Cli, make_project: Callable[..., Path]
) -> None:
    folder = make_project()
    cli.ok("select", project=folder)
    out = cli.ok("fetch", "--cluster", "tcp://127.0.0.1:1", "--dry-run", project=folder).out
    assert "in 1 shard on tcp://127.0.0.1:1" in out


@pytest.mark.slow
def test_every_task_runs_once(dask: Any) -> None:
    results = run_tasks(dask, add, *((n, 1) for n in range(40)))
    assert sorted(results) == list(range(1, 41))
    assert run_tasks(dask, add) == []


@pytest.mark.slow
def test_a_tasks_error_is_raised_by_the_caller(dask: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        run_tasks(dask, fail, ())
    assert (caught.value.what, caught.value.where) == ("the disk is nearly full", "here")


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_given_up(own_dask: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        run_tasks(own_dask, die, ())
    assert type(caught.value.__cause__).__name__ == "KilledWorker"


@pytest.mark.slow
def test_workers_stop_when_the_caller_is_interrupted(
    dask: Any, tmp_path: Path, wait_until: Wait
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"

    def interrupt() -> None:
        if started.exists():
            raise KeyboardInterrupt

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(
            cluster.run_tasks(
                dask.scheduler_address,
                wait_for_stop,
                [(started, ended)],
                tick_s=0.1,
                on_tick=interrupt,
            )
        )
    wait_until(ended.exists)
    assert time.monotonic() - started_s < 25  # unstopped it would take 30


@pytest.mark.slow
def test_a_different_version_on_the_workers_is_an_error(
    dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "__version__", "9.9")
    with pytest.raises(UnavailableError) as caught:
        run_tasks(dask, add, (1, 1))
    assert "oiyolo 9.9" in caught.value.expected


@pytest.mark.slow
def test_nothing_is_lost_when_a_worker_dies(
    cli: Cli,
    shell: Shell,
    *,
    own_dask: Any,
    digests: Digests,
    make_project: Callable[..., Path],
    own_site: Site,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Wait,
) -> None:
    file_of = own_site.server.file_of

    def slowly(url_path: str) -> Path | None:
        if url_path.endswith(".jpg"):
            time.sleep(0.1)
        return file_of(url_path)

    monkeypatch.setattr(own_site.server, "file_of", slowly)
    folder = make_project(**own_site.urls, jobs=1)
    caller = shell.start(
        "fetch",
        "--json",
        "--shards",
        "6",
        "--cluster",
        own_dask.scheduler_address,
        "--project",
        folder,
    )
    images = folder / "data" / "images"
    wait_until(lambda: caller.poll() is not None or len(list(images.glob("*.jpg"))) >= 8)
    victim = next(iter(own_dask.workers.values())).pid
    os.kill(victim, signal.SIGKILL)
    done = shell.end_of(caller)
    assert done.code == 0, done.err
    paths = [r.path for r in own_site.server.requests if "/open-images-dataset/" in r.path]
    requests = Counter(paths)
    assert sum(requests.values()) - len(requests) <= 4  # in flight on the dead worker
    whole = make_project(**own_site.urls)
    cli.ok("fetch", project=whole)
    assert digests(images) == digests(whole / "data" / "images")
    assert cli.ok("status", "--json", project=folder).json == (
        cli.ok("status", "--json", project=whole).json
    )
    assert not list(folder.rglob("journal.jsonl"))
    assert not list(folder.rglob("*.part"))
    assert not list((folder / "data" / "shards").glob(".seen-*"))


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_folder_is_an_error(
    cli: Cli, dask: Any, make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from oiyolo.stages.fetch import cluster_fetch  # noqa: PLC0415  (patched only here)

    folder = make_project()
    elsewhere = folder.parent / "elsewhere" / ".seen"
    monkeypatch.setattr(cluster_fetch, "_probe_file", _ProbeElsewhere(elsewhere))
    failed = cli("fetch", "--cluster", dask.scheduler_address, project=folder)
    assert failed.code == 2
    assert "a worker does not see the project's folder" in failed.err


class _ProbeElsewhere:
    """A probe file that no worker can see."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, _: object) -> _ProbeElsewhere:
        return self

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *_: object) -> None:
        pass
