"""`oiyolo plan`: its forecasts, its errors, and the comparison with the outcome in `status`."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pytest

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.core.units import format_bytes
from oiyolo.darknet.gpus import Gpu
from oiyolo.networks.builders import build
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.project.ledger import Ledger
from oiyolo.sources import event_loop, web
from oiyolo.sources.web import MIRROR_MEAN_BYTES
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages.fetch import downloader, stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Shell, Site

    SetFree = Callable[[float], None]

LARGE_DISK_BYTES = 1e13
MEAN = MIRROR_MEAN_BYTES["train"]
GIVEN = (
    *("--bandwidth-mb-s", "2", "--seconds-per-iteration", "1.5"),
    *("--price-per-hour", "1.20", "--currency", "EUR"),
)


class Usage(NamedTuple):
    """The result of ``shutil.disk_usage``."""

    total: int
    used: int
    free: int


@pytest.fixture
def set_free(monkeypatch: pytest.MonkeyPatch) -> SetFree:
    """Return a function that sets the free space of every disk."""

    def set_free(free_bytes: float) -> None:
        usage = Usage(int(LARGE_DISK_BYTES), int(LARGE_DISK_BYTES - free_bytes), int(free_bytes))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return set_free


@pytest.fixture
def project(make_project: Callable[..., Path], tmp_path: Path) -> Path:
    return make_project(at=tmp_path / "project")


@pytest.fixture(scope="module")
def fetched(make_project: Callable[..., Path]) -> Path:
    """A project with fetched images; tests must not change it."""
    folder = make_project()
    oiyolo.plan(folder, bandwidth_mb_s=2.0, seconds_per_iteration=1.5, price_per_hour=1.2)
    oiyolo.fetch(folder)
    return folder


def planned(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / "data" / "plan.json").read_text(encoding="utf-8"))
    return plan


def images_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "data" / "selection" / "images.csv")


# --- forecasts -------------------------------------------------------------------------------


def test_a_plan_selects_first_and_downloads_no_images(cli: Cli, project: Path) -> None:
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


def test_a_plan_has_the_bytes_of_each_source_and_of_their_order(cli: Cli, project: Path) -> None:
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


def test_missing_originals_are_fetched_from_the_mirror(cli: Cli, project: Path) -> None:
    words = ("--sources", "original", "--sources", "mirror", "--json")
    fetch = cli.ok("plan", *words, project=project).json["fetch"]
    of_originals, of_mirror = (fetch["sources"][name]["bytes"] for name in ("original", "mirror"))
    assert fetch["bytes"] == pytest.approx(0.92 * of_originals + 0.08 * of_mirror, abs=2)
    assert "8.0% of originals are expected to be missing" in fetch["basis"]
    assert fetch["images"] == len(images_of(project))


def test_images_in_a_folder_source_need_no_network(
    cli: Cli, make_project: Callable[..., Path], fetched: Path, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for path in sorted((fetched / "data" / "images").glob("*.jpg"))[:5]:
        shutil.copy(path, local)
    (local / "0000000000000000.jpg").write_bytes(b"not selected")
    folder = make_project(sources=[str(local), "mirror"])
    fetch = cli.ok("plan", "--json", project=folder).json["fetch"]
    assert fetch["sources"][str(local)]["images"] == 5
    assert fetch["sources"][str(local)]["bytes"] == 0
    assert fetch["bytes"] == round(MEAN * (len(images_of(folder)) - 5))
    assert fetch["images"] == len(images_of(folder))
    assert f"if all from {local}" in cli.ok("plan", project=folder).out


def test_duration_and_cost_follow_from_the_users_estimates(cli: Cli, project: Path) -> None:
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
    out = cli.ok("plan", *GIVEN, project=project).out
    assert "at 2.0 MB/s, as given" in out
    assert "1.5 s per iteration, as given" in out
    assert "cost at 1.20 EUR per hour" in out


def test_an_unknown_duration_comes_with_the_option_that_sets_it(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Gpu(0, "Other GPU", 1 << 30, 1 << 30, "9.9", "1.0")
    monkeypatch.setattr("oiyolo.darknet.gpus.gpus", lambda: [other])
    done = cli.ok("plan", "--price-per-hour", "2", project=project)
    assert "set it with --bandwidth-mb-s" in done.out
    assert "set it with --seconds-per-iteration" in " ".join(done.out.split())
    assert "total     ?" in done.out
    plan = planned(project)
    assert (plan["fetch"]["seconds"], plan["training"]["seconds"]) == (None, None)
    assert plan["money"]["total"] is None


def test_before_the_first_run_hours_and_money_are_estimated(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.darknet.gpus.gpus", list)
    words = ("--bandwidth-mb-s", "2", "--price-per-hour", "1", "--network", "yolov3", "--json")
    plans = {
        name: cli.ok("plan", *words, *option, project=project).json
        for name, option in (("CPU", ()), ("T4", ("--gpu-name", "Tesla T4")))
    }
    assert plans["CPU"]["training"]["seconds"] > plans["T4"]["training"]["seconds"] > 0
    assert plans["T4"]["money"]["total"] > plans["T4"]["money"]["training"] > 0
    done = cli("plan", *words, "--gpu-name", "Voodoo 2", project=project)
    assert done.code == 2
    assert done.json["found"] == "'Voodoo 2'"


def test_a_plan_fits_a_terminal_of_80_columns(cli: Cli, project: Path) -> None:
    out = cli.ok("plan", "--sources", "original", "--sources", "mirror", project=project).out
    assert max(len(line) for line in out.splitlines() if str(project) not in line) <= 80


def test_the_training_forecast_uses_the_network_and_the_share_of_training_images(
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
    file_bytes = expected_weight_bytes(build("yolov3", class_count=1, size_wh=(416, 416)))
    # pjreddie's nine early checkpoints, backup, final, and the best
    assert weights == "weights, up to 12 files"
    assert parts[weights] == pytest.approx(12 * file_bytes, rel=0.001)
    assert parts["pretrained darknet53.conv.74"] == 248_007_048
    assert parts["prepared images"] == pytest.approx(59_000 * plan["images"], rel=0.01)


def test_plan_creates_a_project_as_fetch_does(cli: Cli, site: Site, tmp_path: Path) -> None:
    urls = ("--base-url", site.urls["base_url"], "--mirror-url", site.urls["mirror_url"])
    cli.ok("plan", "--class", "boat", "--network", "demo", *urls, project=tmp_path)
    assert 'classes = ["boat"]' in (tmp_path / "oiyolo.toml").read_text(encoding="utf-8")
    assert planned(tmp_path)["classes"] == ["Boat"]


# --- the official files ----------------------------------------------------------------------


def test_a_dry_run_lists_the_official_files_to_download_and_changes_nothing(
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


def test_official_files_must_fit_on_the_disk_unless_streamed(
    cli: Cli, tmp_path: Path, set_free: SetFree
) -> None:
    set_free(3.4e9)
    words = ("plan", "--dry-run", "--class", "Boat", "--cache", str(tmp_path / "cache"))
    done = cli(*words, "--json", project=tmp_path)
    assert done.code == 4
    assert done.json["where"].startswith(str(tmp_path / "cache"))
    assert done.json["found"] == format_bytes(3.4e9)
    assert "--stream" in done.json["remedy"]
    assert "without keeping them" in cli.ok(*words, "--stream", project=tmp_path).out


def test_cached_official_files_are_not_downloaded_again(cli: Cli, project: Path) -> None:
    cli.ok("plan", project=project)
    assert cli.ok("plan", "--dry-run", "--json", project=project).json["official_files"] == []


# --- disk space ------------------------------------------------------------------------------


def needed_bytes(folder: Path) -> float:
    return float(sum(disk["needed_bytes"] for disk in planned(folder)["disks"]))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_run_that_does_not_fit_is_refused_before_the_first_download(
    cli: Cli, project: Path, set_free: SetFree, command: str
) -> None:
    cli.ok("plan", project=project)
    needed = needed_bytes(project)
    assert needed > 200e6  # includes the space that must stay free
    (project / "data" / "plan.json").unlink()
    set_free(needed * 0.99)
    done = cli(command, "--json", project=project)
    assert done.code == 4
    assert done.json["where"] == str(project)
    assert re.search(r"MB free \(images [\d.]+ [kM]B, .*, and a margin\)", done.json["expected"])
    assert not re.search(r" 0 B", done.json["expected"])  # empty parts are not listed
    assert done.json["found"] == format_bytes(int(needed * 0.99))
    assert not (project / "data" / "images").exists()
    assert planned(project)["fits"] is False
    set_free(needed * 1.01)
    cli.ok("plan", project=project)


def test_a_run_may_fit_without_keeping_originals(
    cli: Cli, project: Path, set_free: SetFree
) -> None:
    cli.ok("plan", "--fit", "none", project=project)
    needed = needed_bytes(project)
    cli.ok("plan", "--fit", "none", "--no-keep-originals", project=project)
    assert needed_bytes(project) < needed
    set_free((needed + needed_bytes(project)) / 2)
    assert cli("plan", "--fit", "none", project=project).code == 4
    cli.ok("plan", "--fit", "none", "--no-keep-originals", project=project)


def test_files_that_exist_already_need_no_space(cli: Cli, fetched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    plan = cli.ok("plan", "--json", project=folder).json
    parts = plan["disks"][0]["parts"]
    assert plan["pending"] == 0
    assert parts["images"] == 0
    assert parts["prepared images"] > 0
    assert plan["fetch"]["pending_bytes"] == 0
    assert plan["fetch"]["pending_seconds"] == 0


# --- measurements ----------------------------------------------------------------------------


def test_after_a_fetch_the_measured_image_size_and_bandwidth_are_used(
    cli: Cli, fetched: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    stats = json.loads((folder / "data" / "fetch.json").read_text(encoding="utf-8"))
    fetch = cli.ok("plan", "--json", project=folder).json["fetch"]
    assert fetch["bandwidth_bytes_s"] == pytest.approx(
        stats["network_bytes"] / stats["seconds"], rel=1e-6
    )
    assert "measured on this project's images" in fetch["bandwidth_from"]
    assert fetch["bytes"] == stats["network_bytes"]
    with Ledger(folder / "data" / "ledger.sqlite", read_only=True) as ledger:
        sizes, sources = ledger.column("bytes"), ledger.column("source")
    mirror_sizes = [int(str(sizes[i])) for i, source in sources.items() if source == "mirror"]
    assert "the images fetched so far" in fetch["sources"]["mirror"]["basis"]
    per_image = fetch["sources"]["mirror"]["bytes"] / fetch["sources"]["mirror"]["images"]
    assert per_image == pytest.approx(sum(mirror_sizes) / len(mirror_sizes), rel=1e-3)
    user_set = cli.ok("plan", "--bandwidth-mb-s", "5", "--json", project=folder).json
    assert user_set["fetch"]["bandwidth_bytes_s"] == 5e6


def test_before_a_fetch_the_bandwidth_of_an_official_file_is_used(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.openimages.cache.Cache.bandwidth_bytes_s", lambda _: 7e6)
    fetch = cli.ok("plan", "--json", project=project).json["fetch"]
    assert fetch["bandwidth_bytes_s"] == 7e6
    assert "official file" in fetch["bandwidth_from"]


def make_run(project: Path, *, seconds: list[float], **record: object) -> None:
    """Write a run's files as a training does, for the project's own network."""
    training = oiyolo.plan(project).as_dict()["training"]
    assert isinstance(training, dict)
    folder = project / "runs" / "tiny-001"
    (folder / "weights").mkdir(parents=True)
    cfg = next((project.parent).rglob("tiny.cfg"), None)
    text = (cfg or Path(oiyolo.open_project(project).config.train.network)).read_text()
    (folder / "network.cfg").write_text(text.replace("filters=12", "filters=18"))
    defaults = {
        "network": "tiny",
        "max_batches": 30,
        "state": "interrupted",
        "began_at": "2026",
        "darknet": {"fork": "pjreddie"},
    }
    (folder / "run.json").write_text(json.dumps({**defaults, **record}))
    lines = [
        f"{n}: 1.000000, 1.000000 avg, 0.001000 rate, {s:.6f} seconds, {n * 4} images\n"
        for n, s in enumerate(seconds, start=1)
    ]
    (folder / "train_log.txt").write_text("".join(lines))


def test_the_rate_of_an_earlier_run_of_the_same_network_is_used(cli: Cli, project: Path) -> None:
    make_run(project, seconds=[9.0, 0.5, 0.5, 0.7])
    training = cli.ok("plan", "--json", project=project).json["training"]
    assert training["seconds_per_iteration"] == pytest.approx(0.6)
    assert training["rate_from"] == "the median of tiny-001"
    for words in (("--size", "64x64"), ("--gpu-name", "T4")):
        other = cli.ok("plan", *words, "--json", project=project).json["training"]
        assert "tiny-001" not in other["rate_from"]


def test_a_finished_run_needs_nothing_more(cli: Cli, fetched: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fetched, tmp_path / "copy")
    oiyolo.split(folder)
    before = cli.ok("plan", "--json", project=folder).json["disks"][0]["parts"]
    assert before["log"] > 0
    make_run(folder, seconds=[0.5] * 30, state="finished")
    after = cli.ok("plan", "--json", project=folder).json
    assert after["disks"][0]["needed_bytes"] == 0
    assert after["training"]["images"] < after["images"]


# --- planned against actual ------------------------------------------------------------------


def test_status_has_no_comparison_without_a_plan(cli: Cli, project: Path) -> None:
    cli.ok("select", project=project)
    assert set(cli.ok("status", "--json", project=project).json) == {
        "selected", "states", "excluded", "runs",
    }  # fmt: skip
    assert "planned" not in cli.ok("status", project=project).out


def test_status_shows_planned_against_actual(cli: Cli, fetched: Path) -> None:
    status = cli.ok("status", "--json", project=fetched).json
    plan, stats = status["plan"], fetch_stage.read_stats(oiyolo.open_project(fetched))
    paths = list((fetched / "data" / "images").glob("*.jpg"))
    assert plan["of_this_selection"] is True
    assert plan["images"] == {"planned": len(images_of(fetched)), "actual": len(paths)}
    assert plan["bytes"]["actual"] == sum(path.stat().st_size for path in paths)
    assert plan["bytes"]["planned"] == planned(fetched)["fetch"]["bytes"]
    assert plan["fetch_seconds"]["actual"] == stats.seconds > 0
    assert plan["disk_bytes"]["actual"] > plan["bytes"]["actual"]
    assert plan["iterations"] == {"planned": 30, "actual": None}
    assert plan["training_seconds"] == {"planned": 45.0, "actual": None}
    assert plan["money"]["actual"] == pytest.approx(stats.seconds / 3600 * 1.2)
    out = cli.ok("status", project=fetched).out
    assert "planned" in out
    assert "actual" in out


def test_status_compares_the_training_too(cli: Cli, project: Path) -> None:
    make_run(project, seconds=[0.5, 0.25])
    cli.ok("plan", *GIVEN, project=project)
    plan = cli.ok("status", "--json", project=project).json["plan"]
    assert plan["iterations"] == {"planned": 30, "actual": 2}
    assert plan["training_seconds"]["actual"] == 0.75
    assert plan["money"]["actual"] == pytest.approx(0.75 / 3600 * 1.2)
    assert plan["currency"] == "EUR"


def test_status_notes_a_plan_for_a_different_selection(cli: Cli, project: Path) -> None:
    cli.ok("plan", project=project)
    cli.ok("select", "--limit", "10", project=project)
    assert cli.ok("status", "--json", project=project).json["plan"]["of_this_selection"] is False
    assert "for a different selection" in cli.ok("status", project=project).out


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"fetch": null}', "null"])
def test_a_damaged_plan_is_named_and_written_again(cli: Cli, project: Path, content: str) -> None:
    cli.ok("select", project=project)
    (project / "data" / "plan.json").write_text(content)
    shown = cli("status", "--json", project=project)
    assert shown.code == 3
    assert "plan" not in shown.json
    assert [Path(error["where"]).name for error in shown.json["damaged"]] == ["plan.json"]
    cli.ok("plan", project=project)
    assert "plan" in cli.ok("status", "--json", project=project).json


def test_run_keeps_the_users_plan_and_writes_one_if_there_is_none(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.operations.run._STAGES", {"select": oiyolo.select})
    monkeypatch.setattr("oiyolo.operations.run._FINAL_RESULTS", ())
    cli.ok("run", project=project)
    assert planned(project)["money"] is None
    cli.ok("plan", *GIVEN, project=project)
    cli.ok("run", project=project)
    assert planned(project)["money"]["currency"] == "EUR"
    cli.ok("run", "--limit", "10", project=project)
    assert planned(project)["images"] == 10


@pytest.mark.slow
@pytest.mark.darknet
def test_after_a_complete_run_status_has_all_actual_values(
    cli: Cli, project: Path, darknet: Path
) -> None:
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


# --- totals of interrupted fetches -----------------------------------------------------------


def test_totals_include_interrupted_fetches(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = oiyolo.open_project(project)
    assert fetch_stage.read_stats(opened) == fetch_stage.FetchStats()
    add = downloader.Tally.add

    def add_a_few(tally: downloader.Tally, outcome: Any) -> None:
        add(tally, outcome)
        if tally.new == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloader.Tally, "add", add_a_few)
        with pytest.raises(KeyboardInterrupt):
            oiyolo.fetch(project)
    first = fetch_stage.read_stats(opened)
    assert first.images == 7
    assert first.size_bytes == first.network_bytes > 0
    oiyolo.fetch(project)
    both = fetch_stage.read_stats(opened)
    assert both.images >= len(list((project / "data" / "images").glob("*.jpg")))
    assert both.seconds > first.seconds
    before = (project / "data" / "fetch.json").stat().st_mtime_ns
    oiyolo.fetch(project)
    assert (project / "data" / "fetch.json").stat().st_mtime_ns == before


def test_totals_are_written_while_a_fetch_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(downloader, "RECORD_EVERY_S", 0.0)
    monkeypatch.setattr(event_loop, "_BATCH_S", 0.0)
    written = []
    write = stats.StatsWriter.write

    def write_and_read(writer: stats.StatsWriter) -> None:
        write(writer)
        written.append(fetch_stage.read_stats(oiyolo.open_project(project)).images)

    monkeypatch.setattr(stats.StatsWriter, "write", write_and_read)
    requested = []
    get = web.Mirror.get

    async def get_after_the_last_write(source: web.Mirror, *arguments: Any) -> Any:
        """Let one image in at a time, so that a busy machine cannot gather many in one write."""
        requested.append(arguments)
        place = len(requested)
        for _ in range(500):
            if len(written) >= place - 1:
                break
            await asyncio.sleep(0.001)
        return await get(source, *arguments)

    monkeypatch.setattr(web.Mirror, "get", get_after_the_last_write)
    done = oiyolo.fetch(project, jobs=1)
    assert isinstance(done, fetch_stage.Fetched)
    assert written == sorted(written)
    assert len(written) > 10
    assert written[-1] == done.new


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seconds": "x", "images": 1}', "null"])
def test_a_damaged_file_of_totals_counts_as_zero(project: Path, content: str) -> None:
    (project / "data").mkdir()
    (project / "data" / "fetch.json").write_text(content)
    assert fetch_stage.read_stats(oiyolo.open_project(project)) == fetch_stage.FetchStats()


@pytest.mark.parametrize("awaited", [".lock", "selection", "ledger.sqlite", "plan.json"])
def test_after_a_kill_the_next_plan_succeeds(
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
    plan = cli.ok("plan", "--json", project=project).json
    assert plan == planned(project)
    assert (plan["images"], plan["pending"]) == (len(images_of(project)),) * 2


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--bandwidth-mb-s", "0"], 2, "--bandwidth-mb-s"),
        (["--bandwidth-mb-s", "nan"], 2, "--bandwidth-mb-s"),
        (["--bandwidth-mb-s", "fast"], 2, "fast"),
        (["--seconds-per-iteration", "-1"], 2, "--seconds-per-iteration"),
        (["--price-per-hour", "-1"], 2, "--price-per-hour"),
        (["--currency", "EUR"], 2, "--price-per-hour"),
        (["--network", "yolov9"], 2, "yolov9"),
        (["--network", "./none.cfg"], 2, "none.cfg"),
        (["--class", "Bota"], 2, "Boat"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
def test_bad_options_are_refused(
    cli: Cli, project: Path, words: list[str], code: int, message: str
) -> None:
    done = cli("plan", *words, project=project)
    assert (done.code, message in done.err) == (code, True), done.err
    assert not (project / "data" / "plan.json").exists()


@pytest.mark.parametrize("name", ["bandwidth_mb_s", "seconds_per_iteration"])
@pytest.mark.parametrize("value", [0.0, -2.5, float("inf"), float("nan"), True, "fast"])
def test_estimates_that_are_not_positive_numbers_are_refused(
    project: Path, name: str, value: Any
) -> None:
    with pytest.raises(UsageError) as caught:
        oiyolo.plan(project, **{name: value})
    assert caught.value.found == repr(value)


def test_a_machine_may_be_free(cli: Cli, project: Path) -> None:
    words = (*GIVEN, "--price-per-hour", "0", "--json")
    assert cli.ok("plan", *words, project=project).json["money"]["total"] == 0


def test_a_broken_network_file_exits_3(cli: Cli, project: Path) -> None:
    (project / "own.cfg").write_text("<<<<<<< HEAD\n[net]\n")
    done = cli("plan", "--network", "./own.cfg", project=project)
    assert done.code == 3
    assert "own.cfg" in done.err


def test_plan_fails_at_once_while_another_run_changes_the_dataset(cli: Cli, project: Path) -> None:
    with oiyolo.open_project(project).data_lock("fetch"):
        assert cli("plan", project=project).code == 6
        cli.ok("plan", "--dry-run", project=project)


def test_plan_needs_a_project(cli: Cli, tmp_path: Path) -> None:
    done = cli("plan", project=tmp_path)
    assert done.code == 2
    assert str(tmp_path) in done.err
