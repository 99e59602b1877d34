"""`oiyolo plan`: what it foretells, what it refuses, and what `status` makes of it afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pytest

import oiyolo
from oiyolo.networks.builders import build
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.project.ledger import Ledger
from oiyolo.sources import event_loop
from oiyolo.sources.mirror import MIRROR_MEAN_BYTES
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages.fetch import downloader, stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Shell, Site

    SetFree = Callable[[float], None]

LOTS = 1e13
MEAN = MIRROR_MEAN_BYTES["train"]
GIVEN = (
    *("--bandwidth-mb-s", "2", "--seconds-per-iteration", "1.5"),
    *("--price-per-hour", "1.20", "--currency", "EUR"),
)


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` gives."""

    total: int
    used: int
    free: int


@pytest.fixture
def set_free(monkeypatch: pytest.MonkeyPatch) -> SetFree:
    """Make every disk have so many bytes free."""

    def set_free(free_bytes: float) -> None:
        usage = Usage(int(LOTS), int(LOTS - free_bytes), int(free_bytes))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return set_free


@pytest.fixture
def project(make_project: Callable[..., Path], tmp_path: Path) -> Path:
    return make_project(at=tmp_path / "project")


@pytest.fixture(scope="module")
def fetched(make_project: Callable[..., Path]) -> Path:
    """A project whose images came; to be read, not to be changed."""
    folder = make_project()
    oiyolo.plan(folder, bandwidth_mb_s=2.0, seconds_per_iteration=1.5, price_per_hour=1.2)
    oiyolo.fetch(folder)
    return folder


def planned(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / "data" / "plan.json").read_text(encoding="utf-8"))
    return plan


def images_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "data" / "selection" / "images.csv")


# --- what it tells ---------------------------------------------------------------------------


def test_a_plan_selects_first_and_fetches_no_image(cli: Cli, project: Path) -> None:
    done = cli.ok("plan", *GIVEN, "--json", project=project)
    assert not (project / "data" / "images").exists()
    assert not (project / "runs").exists()
    assert done.json == planned(project)
    plan, images = done.json, images_of(project)
    count = len(images)
    assert (plan["classes"], plan["images"], plan["pending"]) == (["Boat"], count, count)
    summary = json.loads((project / "data/selection/selection.json").read_text(encoding="utf-8"))
    assert plan["boxes"] == summary["boxes"]
    assert plan["selection"] == summary["fingerprint"]
    assert plan["fits"] is True


def test_bytes_are_told_for_each_source_and_for_their_order(cli: Cli, project: Path) -> None:
    fetch = cli.ok("plan", "--json", project=project).json["fetch"]
    images = images_of(project)
    listed = pd.to_numeric(images["OriginalSize"], errors="coerce")
    originals = listed.fillna(listed.mean()).sum()
    assert list(fetch["sources"]) == ["mirror", "original"]
    assert fetch["sources"]["mirror"]["bytes"] == round(MEAN * len(images))
    assert "published totals" in fetch["sources"]["mirror"]["basis"]
    assert fetch["sources"]["original"]["bytes"] == pytest.approx(originals, abs=1)
    assert fetch["order"] == "mirror, then original"
    assert fetch["bytes"] == fetch["pending_bytes"] == fetch["sources"]["mirror"]["bytes"]


def test_originals_first_leave_a_share_to_the_mirror(cli: Cli, project: Path) -> None:
    words = ("--sources", "original", "--sources", "mirror", "--json")
    fetch = cli.ok("plan", *words, project=project).json["fetch"]
    of_originals, of_mirror = (fetch["sources"][name]["bytes"] for name in ("original", "mirror"))
    assert fetch["bytes"] == pytest.approx(0.92 * of_originals + 0.08 * of_mirror, abs=2)
    assert "8.0% of originals are expected to be gone" in fetch["basis"]
    assert fetch["images"] == len(images_of(project))


def test_what_a_folder_has_needs_no_network(
    cli: Cli, make_project: Callable[..., Path], fetched: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    for path in sorted((fetched / "data" / "images").glob("*.jpg"))[:5]:
        shutil.copy(path, held)
    (held / "0000000000000000.jpg").write_bytes(b"of another selection")
    folder = make_project(sources=[str(held), "mirror"])
    fetch = cli.ok("plan", "--json", project=folder).json["fetch"]
    assert fetch["sources"][str(held)]["images"] == 5
    assert fetch["sources"][str(held)]["bytes"] == 0
    assert fetch["bytes"] == round(MEAN * (len(images_of(folder)) - 5))
    assert fetch["images"] == len(images_of(folder))
    assert f"if all came from {held}" in cli.ok("plan", project=folder).out


def test_time_and_money_follow_from_what_is_given(cli: Cli, project: Path) -> None:
    plan = cli.ok("plan", *GIVEN, "--json", project=project).json
    fetch_s, train_s = plan["fetch"]["bytes"] / 2e6, 30 * 1.5
    assert plan["fetch"]["seconds"] == pytest.approx(fetch_s, rel=1e-6)
    assert plan["training"]["iterations"] == 30
    assert plan["training"]["seconds"] == train_s
    assert plan["money"] == {
        "price_per_hour": 1.2,
        "currency": "EUR",
        "fetch": pytest.approx(fetch_s / 3600 * 1.2, rel=1e-6),
        "training": pytest.approx(train_s / 3600 * 1.2),
        "total": pytest.approx((fetch_s + train_s) / 3600 * 1.2, rel=1e-6),
    }
    told = cli.ok("plan", *GIVEN, project=project).out
    assert "at 2.0 MB a second, as given" in told
    assert "1.5 s an iteration, as given" in told
    assert "to pay, at 1.20 EUR an hour" in told


def test_what_is_unknown_is_said_to_be_with_how_to_give_it(cli: Cli, project: Path) -> None:
    done = cli.ok("plan", "--price-per-hour", "2", project=project)
    assert "--bandwidth-mb-s gives one" in done.out
    assert "--seconds-per-iteration gives it" in done.out
    assert "together  ?" in done.out
    plan = planned(project)
    assert (plan["fetch"]["seconds"], plan["training"]["seconds"]) == (None, None)
    assert plan["money"]["total"] is None


def test_the_training_is_that_of_the_network_and_the_share_that_trains(
    cli: Cli, project: Path
) -> None:
    words = ("--network", "yolov3", "--max-batches", "auto", "--size", "416x416", "--json")
    plan = cli.ok("plan", *words, project=project).json
    assert plan["training"]["network"] == "yolov3"
    assert plan["training"]["size"] == [416, 416]
    assert plan["training"]["images"] == round(0.8 * plan["images"])
    assert plan["training"]["iterations"] == 6000
    parts = {name: size for disk in plan["disks"] for name, size in disk["parts"].items()}
    (weights,) = (name for name in parts if name.startswith("weights"))
    one = expected_weight_bytes(build("yolov3", class_count=1, size_wh=(416, 416)))
    assert weights == "weights, up to 11 files"  # pjreddie's nine small numbers, backup, final
    assert parts[weights] == pytest.approx(11 * one, rel=0.001)
    assert parts["pretrained darknet53.conv.74"] == 248_007_048
    assert parts["prepared images"] == pytest.approx(59_000 * plan["images"], rel=0.01)


def test_a_plan_begins_a_project_as_fetch_does(cli: Cli, site: Site, tmp_path: Path) -> None:
    urls = ("--base-url", site.urls["base_url"], "--mirror-url", site.urls["mirror_url"])
    cli.ok("plan", "--class", "boat", "--network", "demo", *urls, project=tmp_path)
    assert 'classes = ["boat"]' in (tmp_path / "oiyolo.toml").read_text(encoding="utf-8")
    assert planned(tmp_path)["classes"] == ["Boat"]


# --- the official files ----------------------------------------------------------------------


def test_a_dry_run_tells_what_selecting_would_fetch_and_changes_nothing(
    cli: Cli, tmp_path: Path, set_free: SetFree
) -> None:
    set_free(4.2e9)
    words = ("plan", "--dry-run", "--class", "Boat", "--cache", str(tmp_path / "cache"))
    done = cli.ok(*words, project=tmp_path)
    assert "plan would fetch 5 official files (3.27 GB and 2 of unknown size)" in done.out
    assert "4.20 GB free" in done.out
    facts = cli.ok(*words, "--json", project=tmp_path).json
    assert facts["official_bytes"] == 2_258_447_590 + 638_407_721 + 376_764_810
    assert list(tmp_path.iterdir()) == []


def test_official_files_that_cannot_fit_are_refused_but_for_a_stream(
    cli: Cli, tmp_path: Path, set_free: SetFree
) -> None:
    set_free(3.4e9)
    words = ("plan", "--dry-run", "--class", "Boat", "--cache", str(tmp_path / "cache"))
    done = cli(*words, project=tmp_path)
    assert done.code == 4
    assert "official files do not fit" in done.err
    assert "3.40 GB" in done.err
    assert "--stream" in done.err
    assert "keeping none of them" in cli.ok(*words, "--stream", project=tmp_path).out


def test_what_is_in_the_cache_is_not_fetched_again(cli: Cli, project: Path) -> None:
    cli.ok("plan", project=project)
    assert cli.ok("plan", "--dry-run", "--json", project=project).json["official_files"] == []


# --- what does not fit -----------------------------------------------------------------------


def needed_bytes(folder: Path) -> float:
    return float(sum(disk["needed_bytes"] for disk in planned(folder)["disks"]))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_run_that_cannot_fit_is_refused_before_the_first_image(
    cli: Cli, project: Path, set_free: SetFree, command: str
) -> None:
    cli.ok("plan", project=project)
    needed = needed_bytes(project)
    assert needed > 200e6  # what must stay free is part of it
    (project / "data" / "plan.json").unlink()
    set_free(needed * 0.99)
    done = cli(command, "--json", project=project)
    assert done.code == 4
    assert done.json["error"] == "this run does not fit on the disk"
    assert "images" in done.json["expected"]
    assert done.json["found"].endswith("MB")
    assert "--limit" in done.json["remedy"]
    assert not (project / "data" / "images").exists()
    assert planned(project)["fits"] is False
    set_free(needed * 1.01)
    cli.ok("plan", project=project)


def test_without_originals_it_may_fit(cli: Cli, project: Path, set_free: SetFree) -> None:
    cli.ok("plan", "--fit", "none", project=project)
    needed = needed_bytes(project)
    cli.ok("plan", "--fit", "none", "--no-keep-originals", project=project)
    assert needed_bytes(project) < needed
    set_free((needed + needed_bytes(project)) / 2)
    assert cli("plan", "--fit", "none", project=project).code == 4
    cli.ok("plan", "--fit", "none", "--no-keep-originals", project=project)


def test_what_is_here_already_needs_no_room(cli: Cli, fetched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    plan = cli.ok("plan", "--json", project=folder).json
    parts = plan["disks"][0]["parts"]
    assert plan["pending"] == 0
    assert parts["images"] == 0
    assert parts["prepared images"] > 0
    assert plan["fetch"]["pending_bytes"] == 0
    assert plan["fetch"]["pending_seconds"] == 0


# --- what was measured -----------------------------------------------------------------------


def test_after_a_fetch_its_own_mean_and_bandwidth_count(
    cli: Cli, fetched: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    effort = json.loads((folder / "data" / "fetch.json").read_text(encoding="utf-8"))
    fetch = cli.ok("plan", "--json", project=folder).json["fetch"]
    assert fetch["bandwidth_bytes_s"] == pytest.approx(
        effort["network_bytes"] / effort["seconds"], rel=1e-6
    )
    assert "as images came here before" in fetch["bandwidth_from"]
    assert fetch["bytes"] == effort["network_bytes"]
    with Ledger(folder / "data" / "ledger.sqlite", read_only=True) as ledger:
        sizes, sources = ledger.facts("bytes"), ledger.facts("source")
    own = [int(str(sizes[i])) for i, source in sources.items() if source == "mirror"]
    assert "what came so far" in fetch["sources"]["mirror"]["basis"]
    per_image = fetch["sources"]["mirror"]["bytes"] / fetch["sources"]["mirror"]["images"]
    assert per_image == pytest.approx(sum(own) / len(own), rel=1e-3)
    given = cli.ok("plan", "--bandwidth-mb-s", "5", "--json", project=folder).json
    assert given["fetch"]["bandwidth_bytes_s"] == 5e6


def test_before_a_fetch_the_rate_of_an_official_file_counts(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.openimages.cache.Cache.bandwidth_bytes_s", lambda _: 7e6)
    fetch = cli.ok("plan", "--json", project=project).json["fetch"]
    assert fetch["bandwidth_bytes_s"] == 7e6
    assert "official file" in fetch["bandwidth_from"]


def make_run(project: Path, *, seconds: list[float], **record: object) -> None:
    """Make a run as a training leaves it, of the project's own network."""
    course = oiyolo.plan(project).as_dict()["training"]
    assert isinstance(course, dict)
    folder = project / "runs" / "tiny-001"
    (folder / "weights").mkdir(parents=True)
    cfg = next((project.parent).rglob("tiny.cfg"), None)
    text = (cfg or Path(oiyolo.open_project(project).config.train.network)).read_text()
    (folder / "network.cfg").write_text(text.replace("filters=12", "filters=18"))
    usual = {"network": "tiny", "max_batches": 30, "state": "interrupted", "began_at": "2026"}
    (folder / "run.json").write_text(json.dumps({**usual, **record}))
    lines = [
        f"{n}: 1.000000, 1.000000 avg, 0.001000 rate, {s:.6f} seconds, {n * 4} images\n"
        for n, s in enumerate(seconds, start=1)
    ]
    (folder / "train_log.txt").write_text("".join(lines))


def test_the_rate_of_an_earlier_run_of_this_network_counts(cli: Cli, project: Path) -> None:
    make_run(project, seconds=[9.0, 0.5, 0.5, 0.7])
    training = cli.ok("plan", "--json", project=project).json["training"]
    assert training["seconds_per_iteration"] == pytest.approx(0.6)
    assert training["rate_from"] == "the median of tiny-001"
    other = cli.ok("plan", "--size", "64x64", "--json", project=project).json["training"]
    assert other["seconds_per_iteration"] is None


def test_a_finished_run_needs_nothing_more(cli: Cli, fetched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    oiyolo.split(folder)
    before = cli.ok("plan", "--json", project=folder).json["disks"][0]["parts"]
    assert before["log"] > 0
    make_run(folder, seconds=[0.5] * 30, state="finished", seconds_in_all=15.0)
    after = cli.ok("plan", "--json", project=folder).json
    assert after["disks"][0]["needed_bytes"] == 0
    assert after["training"]["images"] < after["images"]


# --- planned against actual ------------------------------------------------------------------


def test_status_without_a_plan_has_none(cli: Cli, project: Path) -> None:
    cli.ok("select", project=project)
    assert set(cli.ok("status", "--json", project=project).json) == {
        "selected", "states", "excluded", "runs",
    }  # fmt: skip
    assert "planned" not in cli.ok("status", project=project).out


def test_status_shows_planned_against_actual(cli: Cli, fetched: Path) -> None:
    status = cli.ok("status", "--json", project=fetched).json
    plan, effort = status["plan"], fetch_stage.effort(oiyolo.open_project(fetched))
    came = list((fetched / "data" / "images").glob("*.jpg"))
    assert plan["of_this_selection"] is True
    assert plan["images"] == {"planned": len(images_of(fetched)), "actual": len(came)}
    assert plan["bytes"]["actual"] == sum(path.stat().st_size for path in came)
    assert plan["bytes"]["planned"] == planned(fetched)["fetch"]["bytes"]
    assert plan["fetch_seconds"]["actual"] == effort.seconds > 0
    assert plan["disk_bytes"]["actual"] > plan["bytes"]["actual"]
    assert plan["iterations"] == {"planned": 30, "actual": None}
    assert plan["training_seconds"] == {"planned": 45.0, "actual": None}
    assert plan["money"]["actual"] == pytest.approx(effort.seconds / 3600 * 1.2)
    told = cli.ok("status", project=fetched).out
    assert "planned" in told
    assert "actual" in told


def test_status_tells_of_the_training_too(cli: Cli, project: Path) -> None:
    make_run(project, seconds=[0.5, 0.25])
    cli.ok("plan", *GIVEN, project=project)
    plan = cli.ok("status", "--json", project=project).json["plan"]
    assert plan["iterations"] == {"planned": 30, "actual": 2}
    assert plan["training_seconds"]["actual"] == 0.75
    assert plan["money"]["actual"] == pytest.approx(0.75 / 3600 * 1.2)
    assert plan["currency"] == "EUR"


def test_status_says_when_the_plan_is_of_another_selection(cli: Cli, project: Path) -> None:
    cli.ok("plan", project=project)
    cli.ok("select", "--limit", "10", project=project)
    assert cli.ok("status", "--json", project=project).json["plan"]["of_this_selection"] is False
    assert "of another selection" in cli.ok("status", project=project).out


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"fetch": null}', "null"])
def test_a_damaged_plan_is_no_plan(cli: Cli, project: Path, content: str) -> None:
    cli.ok("select", project=project)
    (project / "data" / "plan.json").write_text(content)
    assert "plan" not in cli.ok("status", "--json", project=project).json
    cli.ok("plan", project=project)
    assert "plan" in cli.ok("status", "--json", project=project).json


def test_a_run_keeps_the_users_plan_and_makes_one_where_there_is_none(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.operations.run._STAGES", {"select": oiyolo.select})
    monkeypatch.setattr("oiyolo.operations.run._SHOWN_AT_THE_END", ())
    cli.ok("run", project=project)
    assert planned(project)["money"] is None
    cli.ok("plan", *GIVEN, project=project)
    cli.ok("run", project=project)
    assert planned(project)["money"]["currency"] == "EUR"
    cli.ok("run", "--limit", "10", project=project)
    assert planned(project)["images"] == 10


@pytest.mark.darknet
def test_after_a_whole_run_status_has_all_of_it(cli: Cli, project: Path, darknet: Path) -> None:
    cli.ok("plan", *GIVEN, project=project)
    cli.ok("run", "--executable", darknet, project=project)
    plan = cli.ok("status", "--json", project=project).json["plan"]
    assert plan["iterations"] == {"planned": 30, "actual": 30}
    assert plan["training_seconds"]["actual"] > 0
    assert plan["money"]["actual"] > 0
    again = cli.ok("plan", "--json", project=project).json
    assert again["disks"][0]["needed_bytes"] == 0
    assert again["training"]["rate_from"] == "the median of tiny-001"
    assert again["fetch"]["pending_bytes"] == 0


# --- efforts that were cut short -------------------------------------------------------------


def test_the_effort_of_an_interrupted_fetch_is_kept_and_added_to(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = oiyolo.open_project(project)
    assert fetch_stage.effort(opened) == fetch_stage.Effort()
    add = downloader.Tally.add

    def add_a_few(tally: downloader.Tally, outcome: Any) -> None:
        add(tally, outcome)
        if tally.new == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloader.Tally, "add", add_a_few)
        with pytest.raises(KeyboardInterrupt):
            oiyolo.fetch(project)
    first = fetch_stage.effort(opened)
    assert first.images == 7
    assert first.size_bytes == first.network_bytes > 0
    oiyolo.fetch(project)
    both = fetch_stage.effort(opened)
    assert both.images >= len(list((project / "data" / "images").glob("*.jpg")))
    assert both.seconds > first.seconds
    before = (project / "data" / "fetch.json").stat().st_mtime_ns
    oiyolo.fetch(project)
    assert (project / "data" / "fetch.json").stat().st_mtime_ns == before


def test_a_killed_fetch_loses_only_what_it_did_since_it_last_wrote(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "NOTE_EVERY_S", 0.0)
    monkeypatch.setattr(downloader, "RECORD_EVERY_S", 0.0)
    monkeypatch.setattr(event_loop, "_GATHERED_FOR_S", 0.0)
    noted = []
    note = stats.Notes.note

    def note_and_look(notes: stats.Notes) -> None:
        note(notes)
        noted.append(fetch_stage.effort(oiyolo.open_project(project)).images)

    monkeypatch.setattr(stats.Notes, "note", note_and_look)
    done = oiyolo.fetch(project, jobs=1)
    assert isinstance(done, fetch_stage.Fetched)
    assert noted == sorted(noted)
    assert len(noted) > 10
    assert noted[-1] == done.new


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seconds": "x", "images": 1}', "null"])
def test_a_damaged_effort_is_none(project: Path, content: str) -> None:
    (project / "data").mkdir()
    (project / "data" / "fetch.json").write_text(content)
    assert fetch_stage.effort(oiyolo.open_project(project)) == fetch_stage.Effort()


@pytest.mark.parametrize("awaited", [".lock", "selection", "ledger.sqlite", "plan.json"])
def test_a_plan_that_was_killed_is_made_the_next_time(
    cli: Cli,
    shell: Shell,
    wait_until: Callable[[Callable[[], bool]], None],
    project: Path,
    awaited: str,
) -> None:
    process = shell.start("plan", "--project", project)
    path = project / "data" / awaited
    wait_until(lambda: path.exists() or process.poll() is not None)
    process.kill()
    process.wait()
    kept = project / "data" / "plan.json"
    assert not kept.exists() or planned(project)["images"] > 0
    told = cli.ok("plan", "--json", project=project).json
    assert told == planned(project)
    assert (told["images"], told["pending"]) == (len(images_of(project)),) * 2


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--bandwidth-mb-s", "0"], 2, "--bandwidth-mb-s"),
        (["--bandwidth-mb-s", "nan"], 2, "--bandwidth-mb-s"),
        (["--bandwidth-mb-s", "fast"], 2, "fast"),
        (["--seconds-per-iteration", "-1"], 2, "--seconds-per-iteration"),
        (["--price-per-hour", "-1"], 2, "--price-per-hour"),
        (["--currency", "EUR"], 2, "no price"),
        (["--network", "yolov9"], 2, "yolov9"),
        (["--network", "./none.cfg"], 2, "none.cfg"),
        (["--class", "Bota"], 2, "Nearest are Boat"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_bad_options_are_refused(
    cli: Cli, project: Path, words: list[str], code: int, told: str
) -> None:
    done = cli("plan", *words, project=project)
    assert (done.code, told in done.err) == (code, True), done.err
    assert not (project / "data" / "plan.json").exists()


def test_a_broken_network_file_exits_3(cli: Cli, project: Path) -> None:
    (project / "own.cfg").write_text("<<<<<<< HEAD\n[net]\n")
    done = cli("plan", "--network", "./own.cfg", project=project)
    assert done.code == 3
    assert "own.cfg" in done.err


def test_a_plan_waits_for_nobody_who_changes_the_dataset(cli: Cli, project: Path) -> None:
    with oiyolo.open_project(project).data_lock("fetch"):
        assert cli("plan", project=project).code == 6
        cli.ok("plan", "--dry-run", project=project)


def test_no_project_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("plan", project=tmp_path)
    assert done.code == 2
    assert "no oiyolo.toml" in done.err
