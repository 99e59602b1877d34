"""plot from the command line: one training, several trainings, and a running one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

import oiyolo
from oiyolo.core import files, locks, progress
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.stages.plot import live
from oiyolo.stages.plot.compare import Compared
from oiyolo.stages.plot.outputs import Plotted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli, Shell

START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
# A background process of a shell ignores Ctrl-C; the command line treats both signals alike.
CTRL_C = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
FINAL = "Saving weights to weights/network_final.weights\n"
ENDED_PROCESS = 99_999_999  # above the largest process id of Linux, 4,194,304


def lines(first: int, last: int) -> str:
    return "".join(
        f"Region 4 Avg IOU: {min(0.9, i / 100):f}, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 0.5, "
        f".75R: 0.0,  count: 2\n"
        f"{i}: {100 / i:f}, {110 / i:f} avg, 0.001000 rate, 0.1 seconds, {i * 8} images\n"
        for i in range(first, last + 1)
    )


def make_run(project: Path, name: str, text: str | None, **record: object) -> Path:
    folder = project / "runs" / name
    folder.mkdir(parents=True)
    values = {"name": name, "state": "finished", "max_batches": 60, "began_at": name, **record}
    (folder / "run.json").write_text(json.dumps(values), encoding="utf-8")
    if text is not None:
        (folder / "train_log.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def drawn_charts() -> None:
    """Draw the charts completely, which takes seconds, rather than save only their text."""


@pytest.fixture(autouse=True)
def quick_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the text of figures instead of their pictures, unless a test wants ``drawn_charts``."""

    def save_text(figure: Figure, part: Path, **_: object) -> None:
        part.write_text("\n".join(text.get_text() for text in figure.texts), encoding="utf-8")

    if "drawn_charts" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", save_text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two runs and nothing else."""
    folder = tmp_path / "project"
    oiyolo.init(folder, classes=["Boat"])
    make_run(folder, "demo-001", START + lines(1, 60) + FINAL)
    make_run(folder, "demo-002", START + lines(1, 40))
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log outside any project."""
    path = tmp_path / "elsewhere" / "some_log.txt"
    path.parent.mkdir()
    path.write_text(START + lines(1, 50), encoding="utf-8")
    return path


@pytest.fixture
def immediate_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refresh and report as soon as the log has grown."""
    monkeypatch.setattr(progress, "PLAIN_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(live, "_REST_RATIO", 0.0)


def read_strict_json(path: Path) -> Any:
    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not valid JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- one training -------------------------------------------------------------------------------


@pytest.mark.usefixtures("drawn_charts")
def test_a_run_gets_charts_and_metrics(cli: Cli, project: Path) -> None:
    done = cli.ok("plot", "demo-001", "--json", project=project).json
    run = project / "runs" / "demo-001"
    names = ("loss", "iou", "overview")
    assert done["charts"] == [str(run / "charts" / f"{name}.png") for name in names]
    for name in names:
        assert (run / "charts" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (run / "charts" / f"{name}.svg").read_text(encoding="utf-8")
    assert done["verdict"]["kind"] == "finished"
    assert (done["last_iteration"], done["iou"]) == (60, 0.6)
    assert len(pd.read_csv(done["metrics"])) == 60
    numbers = read_strict_json(run / "metrics.json")
    assert numbers["verdict"] == done["verdict"]
    assert numbers["last"]["hours_left"] is None
    assert numbers["best"]["avg_loss"] == {"value": pytest.approx(110 / 60), "iteration": 60}
    assert [event["kind"] for event in numbers["events"]] == ["start", "saved"]
    assert numbers["summary"]["iterations"] == 60


def test_the_result_comes_before_the_statistics_of_the_log(cli: Cli, log: Path) -> None:
    done = cli.ok("plot", str(log))
    output = done.out.splitlines()
    assert output[0].startswith("some_log: ")
    assert str(log.parent / "some_log-charts") in output[1]
    assert f"{log.read_text(encoding='utf-8').count(chr(10))} lines" in output[-1]
    assert "not exist" not in done.err


def test_slow_loading_is_reported_with_its_remedy(cli: Cli, log: Path) -> None:
    slow = "Loaded: 0.900000 seconds\n"
    log.write_text("".join(slow + lines(n, n) for n in range(1, 41)), encoding="utf-8")
    loading = cli.ok("plot", str(log), "--json").json["loading"]
    assert loading["share"] == pytest.approx(0.9)
    assert loading["message"] in cli.ok("plot", str(log)).out
    log.write_text(lines(1, 40), encoding="utf-8")
    assert cli.ok("plot", str(log), "--json").json["loading"] is None


def test_a_flat_loss_is_judged_by_the_plan_of_the_run(cli: Cli, project: Path) -> None:
    flat = "".join(
        f"{n}: 4.0, 4.0 avg, 0.001 rate, 0.1 seconds, {n * 8} images\n" for n in range(1, 118)
    )
    for name, max_batches, kind in (("long-001", 3000, "early"), ("short-001", 200, "flat")):
        make_run(project, name, flat, max_batches=max_batches)
        assert cli.ok("plot", name, "--json", project=project).json["verdict"]["kind"] == kind


def test_a_run_is_chosen_by_default_name_option_or_folder(cli: Cli, project: Path) -> None:
    assert cli.ok("plot", "--json", project=project).json["name"] == "demo-002"
    for arguments in (["demo-001"], ["--run", "demo-001"]):
        assert cli.ok("plot", *arguments, "--json", project=project).json["name"] == "demo-001"
    folder = project / "runs" / "demo-001"
    assert cli.ok("plot", folder, "--json").json["name"] == "demo-001"  # from anywhere


def test_a_second_call_does_nothing_until_the_log_grows(
    cli: Cli, log: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    first = cli.ok("plot", log)
    before = digests(log.parent)
    times = {path: path.stat().st_mtime_ns for path in log.parent.rglob("*")}
    second = cli.ok("plot", log)
    assert "plot: up to date" in second.err
    assert second.out == first.out
    assert digests(log.parent) == before
    assert {path: path.stat().st_mtime_ns for path in log.parent.rglob("*")} == times
    (log.parent / "some_log-charts" / "iou.svg").unlink()
    assert "a chart or metrics file is missing" in cli.ok("plot", log).err
    assert digests(log.parent) == before
    with log.open("a", encoding="utf-8") as file:
        file.write(lines(51, 60))
    grown = cli.ok("plot", log)
    assert "the log changed" in grown.err
    assert "60 iterations" in grown.out


def write_scores(run: Path, *values: float) -> None:
    entries = [
        {"iteration": 10 * i, "path": "x", "sha256": "x", "seconds": 1.0, "valid_map50": value,
         "valid_map50_interval": [0.0, 1.0], "train_map50": 0.75}
        for i, value in enumerate(values, 1)
    ]  # fmt: skip
    content = {"valid_images": 9, "train_images": 9, "made_from": {}, "checkpoints": entries}
    files.write_json(run / "checkpoint_scores.json", content)


def test_scores_of_checkpoints_are_charted_once_they_exist(cli: Cli, project: Path) -> None:
    run = project / "runs" / "demo-001"
    cli.ok("plot", "demo-001", project=project)
    assert not (run / "charts" / "map.png").exists()
    write_scores(run, 0.25, 0.5)
    done = cli.ok("plot", "demo-001", "--json", project=project)
    assert "the scores changed" in done.err
    assert (done.json["valid_map50"], done.json["train_map50"]) == (0.5, 0.75)
    assert (run / "charts" / "map.png").is_file()
    table = pd.read_csv(run / "metrics.csv").set_index("iteration")
    assert table["valid_map50"].dropna().to_dict() == {10: 0.25, 20: 0.5}
    assert "up to date" in cli.ok("plot", "demo-001", project=project).err
    (run / "checkpoint_scores.json").write_text("{", encoding="utf-8")
    damaged = cli.ok("plot", "demo-001", project=project)
    assert "checkpoint_scores.json is damaged" in damaged.err
    assert not (run / "charts" / "map.png").exists()


def test_a_comparison_has_the_scores_of_each_run(cli: Cli, project: Path) -> None:
    write_scores(project / "runs" / "demo-001", 0.5, 0.25)
    done = cli.ok("plot", "demo-001", "demo-002", project=project)
    assert "best valid mAP" in done.out
    table = pd.read_csv(project / "runs" / "comparison-demo-001-and-demo-002" / "comparison.csv")
    first, second = table.to_dict("records")
    assert (first["valid_map50"], first["best_valid_map50_iteration"]) == (0.25, 10)
    assert pd.isna(second["valid_map50"])


@pytest.mark.usefixtures("immediate_refresh")
def test_following_draws_again_when_only_the_scores_change(
    cli: Cli,
    project: Path,
    background: Callable[[Callable[[], None]], None],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    run = project / "runs" / "demo-002"
    has_started = threading.Event()

    def score() -> None:
        with locks.exclusive(run / ".lock", what="the run", operation="train"):
            has_started.set()
            wait_until((run / "metrics.json").is_file)
            write_scores(run, 0.5)
            wait_until((run / "charts" / "map.png").is_file)

    background(score)
    has_started.wait()
    done = cli.ok("plot", "demo-002", "--follow", "--every-s", "0.05", "--json", project=project)
    assert done.json["valid_map50"] == 0.5
    assert any("· falling" in line and "valid mAP 0.500" in line for line in done.err.splitlines())
    assert "plot: up to date" in cli.ok("plot", "demo-002", project=project).err


def test_a_map_chart_of_an_earlier_log_is_removed(cli: Cli, log: Path) -> None:
    text = log.read_text(encoding="utf-8")
    log.write_text(text + " mean_average_precision (mAP@0.50) = 0.5\n", encoding="utf-8")
    charts = log.parent / "some_log-charts"
    cli.ok("plot", log)
    assert (charts / "map.svg").is_file()
    log.write_text(text, encoding="utf-8")
    cli.ok("plot", log)
    assert not list(charts.glob("map.*"))


def test_charts_of_a_read_only_folder_go_to_the_current_folder(
    cli: Cli, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root
    done = cli.ok("plot", log, "--json").json
    assert done["metrics"] == str(tmp_path / "some_log-metrics.csv")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["nowhere.txt"], "nowhere.txt"),
        (["no/such/log"], "no/such/log"),
        (["demo-009"], "demo-009"),
        (["demo-001", "--run", "demo-002"], "demo-002, demo-001"),
        (["--run", "empty-001"], "empty-001"),
        (["demo-001", "demo-002", "--follow"], "demo-001, demo-002"),
        (["--follow", "--every-s", "0"], "--every-s"),
        (["--follow", "--every-s", "1e400"], "--every-s"),
        (["--follow", "--idle-s", "nan"], "--idle-s"),
        (["--follow", "--idle-s", "9e9"], "--idle-s"),
        (["demo-001", "--tensorboard", "oiyolo.toml"], "oiyolo.toml"),
    ],
)
def test_wrong_arguments_are_usage_errors(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], value: str
) -> None:
    monkeypatch.chdir(project)
    make_run(project, "empty-001", None, began_at="0")
    done = cli("plot", *arguments)
    assert done.code == 2
    assert value in done.err
    assert not list(project.rglob("charts"))


def test_a_dry_run_writes_nothing(
    cli: Cli, project: Path, log: Path, digests: Callable[[Path], dict[str, str]]
) -> None:
    before = digests(project.parent)
    one = cli.ok("plot", "--dry-run", "--follow", "--tensorboard", "tb", project=project)
    assert "demo-002/charts, again each time the log grows" in one.out
    assert "event files to tb/demo-002" in one.out
    several = cli.ok("plot", "demo-001", log, "--dry-run", project=project)
    assert "runs/comparison-demo-001-and-some_log" in several.out
    assert digests(project.parent) == before


# --- several trainings --------------------------------------------------------------------------


def test_runs_and_logs_are_compared_in_the_project(cli: Cli, project: Path, log: Path) -> None:
    done = cli.ok("plot", "demo-001", "demo-002", log, project=project)
    folder = project / "runs" / "comparison-demo-001-and-demo-002-and-some_log"
    assert {path.name for path in folder.iterdir()} == {
        *(f"comparison.{ending}" for ending in ("png", "svg", "csv", "json")),
    }
    head, *rows = done.out.splitlines()
    assert head.split()[:2] == ["run", "iteration"]
    assert [row.split()[:2] for row in rows[:3]] == [
        ["demo-001", "60"], ["demo-002", "40"], ["some_log", "50"],
    ]  # fmt: skip
    assert "demo-001: finished at iteration 60" in done.out
    table = pd.read_csv(folder / "comparison.csv")
    assert table["avg_loss"].tolist() == pytest.approx([110 / 60, 110 / 40, 110 / 50], rel=1e-5)
    assert [row["run"] for row in read_strict_json(folder / "comparison.json")["runs"]] == [
        *("demo-001", "demo-002", "some_log"),
    ]
    assert cli.ok("plot", project=project).out.startswith("demo-002")  # a comparison is not a run


def test_logs_of_the_same_name_are_named_by_their_folders(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x", "b/x", "b/y"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "train_log.txt").write_text(START + lines(1, 40), encoding="utf-8")
    logs = [f"{name}/train_log.txt" for name in ("a/x", "b/x", "b/y")]
    done = cli.ok("plot", *logs, "--json", "--tensorboard", "tb").json
    names = ["a-x-train_log", "b-x-train_log", "y-train_log"]
    assert [row["run"] for row in done["runs"]] == names
    assert done["charts"] == [str(tmp_path / f"comparison-{'-and-'.join(names)}/comparison.png")]
    assert sorted(path.name for path in (tmp_path / "tb").iterdir()) == names
    again = cli.ok("plot", logs[0], logs[0], "--json").json
    assert len({row["run"] for row in again["runs"]}) == 2
    many = cli.ok("plot", *logs * 5, "--json").json
    assert len(many["runs"]) == 15
    assert len(os.path.basename(os.path.dirname(many["charts"][0]))) < 100  # noqa: PTH119, PTH120


def test_one_invalid_log_fails_a_comparison(cli: Cli, log: Path, tmp_path: Path) -> None:
    (tmp_path / "none.log").write_text("nothing\n", encoding="utf-8")
    done = cli("plot", log, tmp_path / "none.log")
    assert done.code == 3
    assert "none.log" in done.err


# --- a running training -------------------------------------------------------------------------


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run functions in threads alongside the test, and wait for them at the end."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("immediate_refresh")
def test_a_run_is_followed_until_its_training_ends(
    cli: Cli,
    project: Path,
    tmp_path: Path,
    background: Callable[[Callable[[], None]], None],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    run = make_run(project, "demo-003", None, state="running")
    has_started = threading.Event()
    overview = run / "charts" / "overview.png"
    overviews: list[bytes] = []

    def train() -> None:
        with (
            locks.exclusive(run / ".lock", what="the run", operation="train"),
            (run / "train_log.txt").open("w", encoding="utf-8") as file,
        ):
            has_started.set()
            for first in (1, 31):
                file.write((START if first == 1 else "") + lines(first, first + 29))
                file.flush()
                before = overviews[-1:]
                wait_until(lambda: overview.is_file() and [overview.read_bytes()] != before)  # noqa: B023  (called at once)
                overviews.append(overview.read_bytes())
            (run / "run.json").write_text(
                json.dumps({"state": "finished", "max_batches": 60}), encoding="utf-8"
            )
            file.write(lines(61, 61).rstrip("\n"))  # the newline never comes

    background(train)
    has_started.wait()
    done = cli.ok(
        *("plot", "--run", "demo-003", "--follow", "--every-s", "0.05", "--json"),
        *("--tensorboard", tmp_path / "tb"),
        project=project,
    )
    assert done.json["last_iteration"] == 61
    assert done.json["new_events"] == 61
    stderr_lines = done.err.splitlines()
    assert any("demo-003: iteration 30 of 60 · falling: loss" in line for line in stderr_lines)
    assert stderr_lines[-1].startswith("demo-003: iteration 61 of 60 · falling")
    assert stderr_lines[-1].endswith("· finished")
    assert "plot: up to date" in cli.ok("plot", "--run", "demo-003", project=project).err


@pytest.mark.usefixtures("immediate_refresh")
def test_a_log_is_followed_until_it_no_longer_grows(
    cli: Cli, log: Path, background: Callable[[Callable[[], None]], None]
) -> None:
    def grow() -> None:
        for first in range(51, 90, 10):
            time.sleep(0.05)
            with log.open("a", encoding="utf-8") as file:
                file.write(lines(first, first + 9))

    background(grow)
    done = cli.ok("plot", log, "--follow", "--every-s", "0.05", "--idle-s", "2", "--json").json
    assert done["last_iteration"] == 90
    assert len(pd.read_csv(done["metrics"])) == 90
    before = os.stat(done["charts"][0]).st_mtime_ns  # noqa: PTH116
    cli.ok("plot", log, "--follow", "--every-s", "0.05", "--idle-s", "0.1")
    assert "plot: up to date" in cli.ok("plot", log).err
    assert os.stat(done["charts"][0]).st_mtime_ns >= before  # noqa: PTH116


def test_following_a_log_without_iterations_is_an_error(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("layer     filters\n", encoding="utf-8")
    done = cli("plot", path, "--follow", "--idle-s", "0.2")
    assert done.code == 3
    assert str(path) in done.err


def test_ctrl_c_ends_following_with_the_latest_charts(
    shell: Shell, log: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    process = shell.start("plot", log, "--follow", "--json")
    numbers = log.parent / "some_log-metrics.json"
    wait_until(numbers.is_file)
    time.sleep(0.2)
    os.kill(process.pid, CTRL_C)
    done = shell.end_of(process)
    assert done.code == 0, done.err
    assert done.json["last_iteration"] == 50
    assert "Traceback" not in done.err
    assert "interrupted" not in done.err
    assert not list(log.parent.rglob("*.part"))


def test_ctrl_c_before_the_first_chart_is_an_interrupt(
    shell: Shell, log: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    log.write_text("nothing yet\n", encoding="utf-8")
    process = shell.start("plot", log, "--follow", "-v")
    wait_until(lambda: _is_sleeping(process))
    os.kill(process.pid, CTRL_C)
    assert shell.end_of(process).code == 130


def _is_sleeping(process: subprocess.Popen[str]) -> bool:
    """Return whether a process is sleeping, so that its imports are done."""
    with open(f"/proc/{process.pid}/wchan", encoding="utf-8") as file:  # noqa: PTH123  (not a regular file)
        wait_channel = file.read()
    return any(call in wait_channel for call in ("nanosleep", "poll_"))  # Python 3.10 polls


def test_a_terminal_shows_one_line_that_is_rewritten(log: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "oiyolo", "plot", str(log), "--follow", "--idle-s", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # the other end was closed
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    assert process.wait(60) == 0
    assert output.startswith(b"\r\x1b[Ksome_log: iteration 50")
    assert output.count(b"\n") == 1
    assert max(len(part) for part in output.decode().split("\r\x1b[K")) < 82


def test_two_writers_of_the_same_event_files_exclude_each_other(cli: Cli, log: Path) -> None:
    folder = log.parent / "tb" / "some_log"
    folder.mkdir(parents=True)
    with locks.exclusive(folder / ".lock", what="the folder of event files", operation="plot"):
        done = cli("plot", log, "--tensorboard", folder.parent)
    assert done.code == 6
    assert str(folder) in done.err


@pytest.mark.parametrize("arguments", [[], ["--follow"], ["--dry-run"]])
def test_event_files_without_the_library_are_a_usage_error(
    cli: Cli, log: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delitem(sys.modules, "oiyolo.tracking.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    done = cli("plot", log, "--tensorboard", log.parent / "tb", *arguments)
    assert done.code == 2
    assert "pip install 'oiyolo[tensorboard]'" in done.err
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    cli.ok("plot", log)


def test_partial_files_of_a_killed_run_are_removed(cli: Cli, project: Path, log: Path) -> None:
    run = project / "runs" / "demo-001"
    cli.ok("plot", "demo-001", project=project)
    names = ("charts/.loss.png", ".metrics.csv")
    abandoned = [run / f"{name}.{ENDED_PROCESS}-1.part" for name in names]
    in_use = run / f".metrics.json.{os.getppid()}-1.part"
    for path in (*abandoned, in_use):
        path.write_bytes(b"half")
    cli.ok("plot", "demo-001", project=project)
    assert not any(path.exists() for path in abandoned)
    assert in_use.exists()
    download = log.parent / "film.part"
    download.write_bytes(b"half")
    cli.ok("plot", log)
    assert download.exists()


# --- the library --------------------------------------------------------------------------------


def test_the_library_returns_result_objects(project: Path, log: Path) -> None:
    plotted = oiyolo.plot(project, run="demo-001")
    assert isinstance(plotted, Plotted)
    assert len(plotted.log) == 60
    assert plotted.verdict.startswith("finished")
    Image.new("RGB", (8, 8)).save(project / "runs/demo-001/charts/overview.png")
    assert plotted._repr_html_().count("<img") == 1
    compared = oiyolo.plot(project, log=["demo-001", log])
    assert isinstance(compared, Compared)
    Image.new("RGB", (8, 8)).save(compared.charts[0])
    assert compared._repr_html_().count("<img") == 1
    followed = oiyolo.plot(log=log, follow=True, every_s=0.05, idle_s=0.1)
    assert isinstance(followed, Plotted)
    assert followed.numbers["last"]["iteration"] == 50
    with pytest.raises(UsageError):
        oiyolo.plot(project, run="demo-009")
    log.write_text("", encoding="utf-8")
    with pytest.raises(InputFormError):
        oiyolo.plot(log=log)


@pytest.mark.slow
def test_a_notebook_cell_shows_the_overview(tmp_path: Path, log: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    source = f"import oiyolo\np = oiyolo.plot(log={str(log)!r}, follow=True, idle_s=0.2)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env=environment)
    shown = [o for o in notebook.cells[0].outputs if o.output_type == "display_data"]
    assert len(shown) == 1
    page = shown[0].data["text/html"]
    assert "some_log: iteration 50 · falling" in page
    assert page.count("<img") == 1
