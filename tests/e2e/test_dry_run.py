"""What a dry run says and what the same command then does agree."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core.results import Plan
from oiyolo.net.retry import RetryPolicy
from oiyolo.stages.fetch import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.conftest import Cli, Site


def lose_originals(folder: Path) -> None:
    for path in sorted((folder / "data" / "images").glob("*.jpg"))[:3]:
        path.unlink()


def lose_selection(folder: Path) -> None:
    (folder / "data" / "selection" / "images.csv").unlink()


def lose_ledger(folder: Path) -> None:
    (folder / "data" / "ledger.sqlite").unlink()


def split(folder: Path) -> None:
    oiyolo.split(folder)


def change_nothing(_: Path) -> None:
    pass


SITUATIONS: Mapping[str, Callable[[Path], None]] = {
    "up to date": change_nothing,
    "originals lost": lose_originals,
    "selection damaged": lose_selection,
    "ledger lost": lose_ledger,
    "split": split,
}
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "smaller": ("--limit", "5"),
    "larger": ("--limit", "30"),
    "filter": ("--min-box-area", "0.02"),
    "retry failed": ("--retry", "failed"),
    "retry all": ("--retry", "all"),
    "retry all of fewer": ("--retry", "all", "--limit", "5"),
    "unknown class": ("--class", "Bote"),
    "empty": ("--min-box-area", "0.9999"),
    "empty subset": ("--subset", "test", "--max-box-area", "0.000001"),
}


PAIRS = [
    *(("up to date", options) for options in OPTIONS),
    *((s, o) for s in SITUATIONS if s != "up to date" for o in ("none", "retry all")),
]


@pytest.fixture(scope="module")
def template(make_project: Callable[..., Path]) -> Path:
    folder = make_project(limit=20)
    oiyolo.fetch(folder)
    # Every table that an option needs is cached.
    oiyolo.select(make_project(subsets=["test"]))
    return folder


@pytest.mark.parametrize(("situation", "options"), PAIRS)
def test_fetch_does_what_its_dry_run_says(
    template: Path, tmp_path: Path, cli: Cli, situation: str, options: str
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    SITUATIONS[situation](folder)
    words = ("fetch", *OPTIONS[options], "--json")
    planned = cli(*words, "--dry-run", project=folder)
    again = cli(*words, "--dry-run", project=folder)
    done = cli(*words, project=folder)
    assert planned.out == again.out
    assert planned.code == done.code, (planned.err, done.err)
    if done.code:
        assert planned.json["error"] == done.json["error"]
        return
    tried = done.json["fetched"] + sum(done.json["failed"].values())
    assert planned.json["pending"] == tried
    assert bool(planned.json["would"]) == (
        tried > 0 or ": options changed" in done.err or "added" in done.err
    )
    assert cli.ok("fetch", "--dry-run", project=folder) is not None


@pytest.mark.parametrize(
    ("situation", "options"), [pair for pair in PAIRS if not pair[1].startswith("retry")]
)
def test_select_does_what_its_dry_run_says(
    template: Path, tmp_path: Path, cli: Cli, situation: str, options: str
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    SITUATIONS[situation](folder)
    words = ("select", *OPTIONS[options])
    planned = cli(*words, "--json", "--dry-run", project=folder)
    done = cli(*words, project=folder)
    assert planned.code == done.code
    if done.code == 0:
        would = planned.json["would"]
        assert bool(would) == ("added" in done.err)
        assert not would or would[0].partition(": ")[2] in done.err


def test_a_new_project_downloads_the_annotations_first(
    make_project: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_project(cache=str(tmp_path / "cache"))
    plan = oiyolo.fetch(folder, dry_run=True)
    assert isinstance(plan, Plan)
    assert len(plan.actions) == 2
    assert not list((tmp_path / "cache").rglob("*.csv"))
    done = oiyolo.fetch(folder)
    assert isinstance(done, Fetched)
    assert oiyolo.fetch(folder, dry_run=True).as_dict()["would"] == []


def test_refresh_does_what_its_dry_run_says(template: Path, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    assert cli.ok("refresh", "--dry-run", "--json", project=folder).json["would"]
    cli.ok("refresh", project=folder)
    assert not cli.ok("refresh", "--dry-run", "--json", project=folder).json["would"]
    assert "up to date" in cli.ok("refresh", project=folder).out


@pytest.mark.parametrize("words", [("--class", "Bote"), ("--min-box-area", "0.9999"), ()])
def test_run_begins_with_what_its_dry_run_says(
    template: Path, tmp_path: Path, cli: Cli, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    options = ("--executable", "/nowhere", *words)  # so it ends before the training
    planned = cli("run", *options, "--json", "--dry-run", project=folder)
    done = cli("run", *options, "--json", project=folder)
    if words:
        assert (planned.code, planned.json) == (done.code, done.json)
        return
    first, *_, last = planned.json["would"]
    assert first == oiyolo.prepare(template, dry_run=True).actions[0]
    assert "split, train" in last
    again = cli("run", *options, "--json", "--dry-run", project=folder)
    assert (again.code, again.json) == (done.code, done.json)  # darknet is missing


@pytest.mark.parametrize("stream", [False, True])
def test_an_unreachable_site_whose_files_are_not_cached_ends_a_dry_run_too(
    make_project: Callable[..., Path],
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stream: bool,
) -> None:
    monkeypatch.setattr("oiyolo.net.client.RetryPolicy", lambda: RetryPolicy(max_attempts=1))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        folder = make_project(base_url=url, cache=str(tmp_path / "cache"), stream=stream)
        planned = cli("fetch", "--dry-run", "--json", project=folder)
        done = cli("fetch", "--json", project=folder)
    assert planned.code == done.code == 4
    assert planned.json["error"] == done.json["error"]
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.csv"))


def test_a_site_without_the_files_ends_a_dry_run_too(
    make_project: Callable[..., Path], site: Site, tmp_path: Path, cli: Cli
) -> None:
    url = site.urls["base_url"] + "/typo"
    folder = make_project(base_url=url, cache=str(tmp_path / "cache"))
    planned = cli("run", "--dry-run", "--json", project=folder)
    done = cli("run", "--json", project=folder)
    assert planned.code == done.code == 3
    assert planned.json["error"] == done.json["error"]
