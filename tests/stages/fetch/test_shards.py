"""Shards of a fetch: concurrent processes on one folder, kills, resumes and merges."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import locks
from oiyolo.project import journals
from oiyolo.project.journals import LOCK
from oiyolo.project.ledger import FETCHED
from oiyolo.project.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Shell, Site

    Digests = Callable[[Path], dict[str, str]]
    Wait = Callable[[Callable[[], bool]], None]

IN_FLIGHT = 8

KILLED_BEFORE_NAMING = """\
import os, signal, sys
import oiyolo
from oiyolo.sources.store import FolderStore

FolderStore.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
oiyolo.fetch(sys.argv[1], shard="0/1")
"""
"""A shard that dies after recording its first images and before renaming their files."""


@pytest.fixture
def slow_site(own_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site that delays each image."""
    file_of = own_site.server.file_of

    def slowly(url_path: str) -> Path | None:
        if url_path.endswith(".jpg"):
            time.sleep(0.05)
        return file_of(url_path)

    monkeypatch.setattr(own_site.server, "file_of", slowly)
    return own_site


def request_counts(site: Site) -> Counter[str]:
    """Return the number of requests to the mirror by image."""
    paths = [r.path for r in site.server.requests if "/open-images-dataset/" in r.path]
    return Counter(path.split("/")[-1].removesuffix(".jpg") for path in paths)


def status_of(cli: Cli, folder: Path) -> dict[str, Any]:
    return cli.ok("status", "--json", project=folder).json


def counts_of(cli: Cli, folder: Path) -> dict[str, Any]:
    status = status_of(cli, folder)
    return {name: status[name] for name in ("selected", "states", "excluded")}


def test_three_concurrent_shards_equal_one_fetch(
    cli: Cli,
    shell: Shell,
    *,
    digests: Digests,
    make_project: Callable[..., Path],
    own_site: Site,
) -> None:
    folder = make_project(**own_site.urls)
    selected = cli.ok("select", "--json", project=folder).json["images"]
    processes = [
        shell.start("fetch", "--json", "--shard", f"{i}/3", "--project", folder) for i in range(3)
    ]
    done = [shell.end_of(process).json for process in processes]
    assert sum(shard["images"] for shard in done) == selected
    requests = request_counts(own_site)
    assert set(requests.values()) == {1}
    before = status_of(cli, folder)
    assert (
        before["states"]["pending"] == selected
    )  # shards do not merge, as they do not hold the dataset lock
    assert before["shards"] == {"not_merged": 3, "images_not_merged": selected, "at_work": 0}
    assert "of 3 shards" in cli.ok("status", project=folder).out
    cli.ok("fetch", project=folder)
    assert request_counts(own_site) == requests
    whole = make_project(**own_site.urls)
    cli.ok("fetch", project=whole)
    assert counts_of(cli, folder) == counts_of(cli, whole)
    assert digests(folder / "data" / "images") == digests(whole / "data" / "images")
    assert not list(folder.rglob("journal.jsonl"))


def test_a_resumed_shard_repeats_only_images_in_flight(
    cli: Cli,
    shell: Shell,
    *,
    make_project: Callable[..., Path],
    slow_site: Site,
    wait_until: Wait,
) -> None:
    folder = make_project(**slow_site.urls, jobs=2)
    cli.ok("select", project=folder)
    images = folder / "data" / "images"
    for needed in (3, 9):
        victim = shell.start("fetch", "--shard", "0/2", "--project", folder)
        wait_until(lambda: victim.poll() is not None or len(list(images.glob("*.jpg"))) >= needed)  # noqa: B023  (waits here)
        victim.kill()
        victim.communicate(timeout=30)
        assert victim.returncode == -signal.SIGKILL
        assert status_of(cli, folder)["shards"]["at_work"] == 0
    done = shell("fetch", "--json", "--shard", "0/2", "--project", folder)
    assert done.code == 0, done.err
    requests = request_counts(slow_site)
    assert sum(requests.values()) - len(requests) <= 2 * IN_FLIGHT
    assert len(requests) == done.json["images"]
    assert not list(folder.rglob("*.part"))
    cli.ok("fetch", "--shard", "1/2", project=folder)
    cli.ok("fetch", project=folder)
    whole = make_project(**slow_site.urls)
    cli.ok("fetch", project=whole)
    assert counts_of(cli, folder) == counts_of(cli, whole)


@pytest.fixture
def selected(make_project: Callable[..., Path], cli: Cli) -> Path:
    folder = make_project()
    cli.ok("select", project=folder)
    return folder


@pytest.mark.parametrize("merged", [False, True])
def test_a_finished_shard_has_nothing_to_do(cli: Cli, selected: Path, *, merged: bool) -> None:
    first = cli.ok("fetch", "--shard", "1/2", "--json", project=selected).json
    if merged:
        with oiyolo.open_project(selected).data_lock("test"):
            pass
    again = cli.ok("fetch", "--shard", "1/2", "--json", project=selected).json
    assert first["fetched"] > 0
    assert (again["fetched"], again["failed"]) == (0, {})
    assert (again["images"], again["missing"]) == (first["images"], first["missing"])
    planned = cli.ok("fetch", "--shard", "1/2", "--dry-run", project=selected).out
    assert planned == "fetch: nothing to do\n"


def test_a_finished_shard_is_fetched_again_for_a_new_selection(cli: Cli, selected: Path) -> None:
    cli.ok("fetch", "--shard", "0/1", project=selected)
    options = selected / "oiyolo.toml"
    options.write_text(options.read_text().replace('["Boat"]', '["Boat", "Car"]'))
    failed = cli("fetch", "--shard", "0/1", project=selected)
    assert failed.code == 2
    assert "the selection is not up to date: found options changed" in failed.err
    assert "Run `oiyolo select` first" in failed.err
    cli.ok("select", project=selected)
    done = cli.ok("fetch", "--shard", "0/1", "--json", project=selected).json
    assert 0 < done["fetched"] < done["images"]


def test_a_shard_needs_a_selection(cli: Cli, make_project: Callable[..., Path]) -> None:
    folder = make_project()
    failed = cli("fetch", "--shard", "0/2", project=folder)
    assert failed.code == 2
    assert "Run `oiyolo select` first" in failed.err
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shard", "2/2"), "counted from 0"),
        (("--shard", "/2"), "variable is not set"),
        (("--shard", "0/2", "--retry", "all"), "--shard and --retry cannot be combined"),
        (("--shard", "0/2", "--cluster", "tcp://h:1"), "--shard and --cluster cannot be combined"),
        (("--shard", "0/2", "--transfer", "gs://bucket"), "--shard and --transfer cannot"),
        (("--shards", "3"), "--shards needs --cluster"),
    ],
)
def test_options_that_exclude_each_other_are_an_error(
    cli: Cli, selected: Path, words: tuple[str, ...], message: str
) -> None:
    failed = cli("fetch", *words, project=selected)
    assert failed.code == 2
    assert message in failed.err


def test_a_shard_is_locked_while_another_process_fetches_it(cli: Cli, selected: Path) -> None:
    folder = journals.shard_folder(selected / "data", Shard(0, 2).name)
    with locks.exclusive(folder / LOCK, what="the shard 0/2", operation="fetch"):
        failed = cli("fetch", "--shard", "0/2", project=selected)
        assert cli("fetch", "--shard", "1/2", project=selected).code == 0
    assert failed.code == 6
    assert "the shard 0/2 is in use by another process" in failed.err


def test_a_shard_does_not_wait_for_the_dataset_lock(cli: Cli, selected: Path) -> None:
    with oiyolo.open_project(selected).data_lock("test"):
        cli.ok("fetch", "--shard", "0/2", project=selected)


def test_a_dry_run_of_a_shard_changes_nothing(cli: Cli, selected: Path, digests: Digests) -> None:
    before = digests(selected / "data")
    plan = cli.ok("fetch", "--shard", "0/2", "--dry-run", "--json", project=selected).json
    assert plan["pending"] > 0
    after = digests(selected / "data")
    assert {n: d for n, d in after.items() if "ledger" not in n} == {
        n: d for n, d in before.items() if "ledger" not in n
    }


def test_the_tolerance_applies_to_each_shard(cli: Cli, make_project: Callable[..., Path]) -> None:
    folder = make_project(tolerance=0.0)
    cli.ok("select", project=folder)
    first = {i: cli("fetch", "--shard", f"{i}/26", project=folder) for i in range(26)}
    assert {done.code for done in first.values()} == {0, 4}
    error = next(done.err for done in first.values() if done.code == 4)
    assert "of shard" in error
    assert "could not be fetched" in error
    again = {i: cli("fetch", "--shard", f"{i}/26", project=folder).code for i in range(26)}
    assert again == {i: done.code for i, done in first.items()}


@pytest.mark.parametrize("command", ["shard", "fetch"])
def test_recorded_images_of_a_killed_shard_get_their_final_names(
    cli: Cli, make_project: Callable[..., Path], *, own_site: Site, command: str
) -> None:
    folder = make_project(**own_site.urls)
    cli.ok("select", project=folder)

    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_NAMING, folder], check=False)
    assert killed.returncode == -signal.SIGKILL
    requests = request_counts(own_site)
    images = folder / "data" / "images"
    entries = journals.read_entries(journals.shard_folder(folder / "data", Shard(0, 1).name))
    recorded = {image_id for image_id, entry in entries.items() if entry.state == FETCHED}
    assert recorded
    assert not list(images.glob("*.jpg"))
    if command == "shard":
        cli.ok("fetch", "--shard", "0/1", project=folder)
    cli.ok("fetch", project=folder)
    assert not list(images.glob(".*.part"))
    assert recorded <= {path.stem for path in images.glob("*.jpg")}
    assert not recorded & (request_counts(own_site) - requests).keys()


def test_a_command_that_changes_the_dataset_merges_shards_first(cli: Cli, selected: Path) -> None:
    for index in range(2):
        cli.ok("fetch", "--shard", f"{index}/2", project=selected)
    cli.ok("prepare", project=selected)
    status = status_of(cli, selected)
    assert status["states"]["pending"] == 0
    assert status["states"]["prepared"] > 0
    assert "shards" not in status


def test_why_shows_an_images_history_after_the_merge(cli: Cli, selected: Path) -> None:
    cli.ok("fetch", "--shard", "0/1", project=selected)
    cli.ok("fetch", project=selected)
    image = min((selected / "data" / "images").glob("*.jpg")).stem
    history = cli.ok("why", image, project=selected).out
    assert "fetch: fetched from mirror" in history


def test_a_new_ledger_merges_the_existing_journals(cli: Cli, selected: Path) -> None:
    cli.ok("fetch", "--shard", "0/1", project=selected)
    for path in (selected / "data").glob("ledger.sqlite*"):
        path.unlink()
    cli.ok("select", project=selected)
    cli.ok("fetch", project=selected)
    assert status_of(cli, selected)["states"]["fetched"] > 0
