"""A command that is killed at any moment and repeated has the same result as without the kill."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.conftest import Cli, Shell, Site

    Digests = Callable[[Path], dict[str, str]]
    Wait = Callable[[Callable[[], bool]], None]

JOBS = 2
PAUSE_S = 0.02
ITERATIONS = 500
SLOW_TO_PREPARE: dict[str, object] = {"jobs": 1, "size": (640, 640)}


@pytest.fixture
def slow_site(own_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site that responds slowly for each image."""
    file_of = own_site.server.file_of

    def slowly(url_path: str) -> Path | None:
        if url_path.endswith(".jpg"):
            time.sleep(PAUSE_S)
        return file_of(url_path)

    monkeypatch.setattr(own_site.server, "file_of", slowly)
    return own_site


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)


def count_of(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


def wait_for_files(
    wait_until: Wait, process: subprocess.Popen[str], folder: Path, pattern: str, count: int
) -> None:
    """Wait until ``count`` files match the pattern, or the process has ended."""
    wait_until(lambda: process.poll() is not None or count_of(folder, pattern) >= count)


def status_of(cli: Cli, folder: Path) -> dict[str, Any]:
    return cli.ok("status", "--json", project=folder).json


def lists_of(folder: Path) -> dict[str, list[str]]:
    """Return the file names in each list, without the folders, which differ between projects."""
    return {
        name: [
            line.split("/")[-1]
            for line in (folder / "data" / "dataset" / f"{name}.txt").read_text().splitlines()
        ]
        for name in ("train", "valid", "test")
    }


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is below a folder."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwd = (entry / "cwd").readlink()
            except OSError:
                continue
            if cwd.is_relative_to(folder):
                processes.append(int(entry.name))
    return processes


def iterations_in(run: Path) -> list[int]:
    """Return the iterations in a run's log, in order."""
    path = run / "train_log.txt"
    if not path.is_file():
        return []
    lines = re.findall(rb"^ ?(\d+): .* images(?:, .*)?$", path.read_bytes(), re.MULTILINE)
    return [int(number) for number in lines]


# --- kill -9 ---------------------------------------------------------------------------------


def check_fetch(
    cli: Cli, digests: Digests, make_project: Callable[..., Path], site: Site, folder: Path
) -> None:
    reference = make_project(**site.urls, jobs=16)
    cli.ok("fetch", project=reference)
    assert digests(folder / "data" / "images") == digests(reference / "data" / "images")
    tables = [digests(f / "data" / "selection") for f in (folder, reference)]
    assert tables[0] == tables[1]
    assert status_of(cli, folder) == status_of(cli, reference)
    assert not list(folder.rglob("*.part"))


def test_a_killed_fetch_is_resumed(
    cli: Cli,
    shell: Shell,
    *,
    digests: Digests,
    make_project: Callable[..., Path],
    slow_site: Site,
    wait_until: Wait,
) -> None:
    folder = make_project(**slow_site.urls, jobs=JOBS)
    images = folder / "data" / "images"
    for count in (5, 25):
        victim = shell.start("fetch", "--project", folder)
        wait_for_files(wait_until, victim, images, "*.jpg", count)
        kill(victim)
        assert victim.returncode == -signal.SIGKILL
        assert count_of(images, "*.jpg") < 45
    states = status_of(cli, folder)["states"]
    # An image is recorded before it gets its name.
    assert states["fetched"] >= count_of(images, "*.jpg") > 0
    before = len(slow_site.server.requests)
    done = shell("fetch", "--project", folder)
    assert done.code == 0, done.err
    # Images that exist are not requested again.
    mirrored = [r for r in slow_site.server.requests[before:] if "/open-images-dataset/" in r.path]
    assert states["pending"] <= len(mirrored) <= states["pending"] + JOBS
    check_fetch(cli, digests, make_project, slow_site, folder)


def test_a_killed_prepare_is_resumed(
    cli: Cli, shell: Shell, digests: Digests, make_project: Callable[..., Path], wait_until: Wait
) -> None:
    folder, reference = make_project(**SLOW_TO_PREPARE), make_project(**SLOW_TO_PREPARE)
    for project in (folder, reference):
        cli.ok("fetch", project=project)
    objects = folder / "data" / "dataset" / "obj"
    killed = 0
    for count in (3, 20):
        victim = shell.start("prepare", "--project", folder)
        file_count = count_of(objects, "*.jpg")
        wait_for_files(wait_until, victim, objects, "*.jpg", max(file_count, count))
        kill(victim)
        killed += victim.returncode == -signal.SIGKILL
        # A file with its final name is complete.
        for path in objects.glob("*.jpg"):
            assert path.read_bytes()[-2:] == b"\xff\xd9"
            assert path.with_suffix(".txt").is_file()
    assert killed == 2
    assert not (folder / "data" / "dataset" / "boxes.csv").exists()
    assert shell("prepare", "--project", folder).code == 0
    cli.ok("prepare", project=reference)
    for project in (folder, reference):
        cli.ok("split", project=project)
    assert digests(objects) == digests(reference / "data" / "dataset" / "obj")
    for name in ("boxes.csv", "split.csv"):
        texts = [(f / "data" / "dataset" / name).read_bytes() for f in (folder, reference)]
        assert texts[0] == texts[1]
    assert lists_of(folder) == lists_of(reference)
    assert status_of(cli, folder) == status_of(cli, reference)


def check_training(folder: Path, *, lost_at_save: int = 0) -> None:
    """Check that there is one finished run whose log has every iteration in a complete line.

    Args:
        folder: The project.
        lost_at_save: Number of iterations that the log may lack before weights were saved. A kill
            just after that loses the lines that were not read yet.
    """
    runs = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    assert [path.name for path in runs] == ["tiny-001"]
    record = json.loads((runs[0] / "run.json").read_text())
    assert record["state"] == "finished"
    iterations = set(iterations_in(runs[0]))
    saves = [*range(100, ITERATIONS, 100), ITERATIONS]
    may_lack = {save - n for save in saves for n in range(lost_at_save)}
    assert iterations <= set(range(1, ITERATIONS + 1)) <= iterations | may_lack
    lines = (runs[0] / "train_log.txt").read_text().splitlines()
    assert sum(" avg" in line for line in lines) == len(iterations_in(runs[0]))
    weights = (runs[0] / "weights" / "network_final.weights").read_bytes()
    assert int.from_bytes(weights[12:20], "little") == ITERATIONS * 4


OTHERS = tuple(filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep)))


@pytest.mark.darknet
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("oiyolo", marks=pytest.mark.slow),
        pytest.param("darknet", marks=pytest.mark.slow),
        "both",
    ],
)
def test_a_killed_training_is_resumed(
    cli: Cli,
    shell: Shell,
    *,
    make_project: Callable[..., Path],
    darknet: Path,
    wait_until: Wait,
    target: str,
) -> None:
    folder = make_project(max_batches=ITERATIONS, executable=str(darknet))
    check_killed_trainings(cli, shell, folder, wait_until, target)


@pytest.mark.skipif(not OTHERS, reason="OIYOLO_TEST_DARKNETS names no other darknets")
@pytest.mark.parametrize("other", OTHERS)
def test_a_killed_training_with_another_darknet_is_resumed(
    cli: Cli, shell: Shell, *, make_project: Callable[..., Path], wait_until: Wait, other: str
) -> None:
    folder = make_project(max_batches=ITERATIONS, executable=other)
    check_killed_trainings(cli, shell, folder, wait_until, "both")


def check_killed_trainings(
    cli: Cli, shell: Shell, folder: Path, wait_until: Wait, target: str
) -> None:
    """Kill oiyolo, darknet or both, twice; then train to the end and check the result."""
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    run = folder / "runs" / "tiny-001"
    for count in (40, 230):
        victim = shell.start("train", "--project", folder)
        wait_until(lambda: victim.poll() is not None or (iterations_in(run) or [0])[-1] >= count)  # noqa: B023
        working = processes_in(run)
        assert working
        if target != "oiyolo":
            for process in working:
                os.kill(process, signal.SIGKILL)
        if target == "darknet":
            done = shell.end_of(victim)
            assert done.code == 5, done.err
            assert "signal SIGKILL" in done.err
        else:
            kill(victim)
            assert victim.returncode == -signal.SIGKILL
        # No darknet is left that could still write to the log.
        wait_until(lambda: not processes_in(run))
        assert max(iterations_in(run)) < ITERATIONS
    done = shell("train", "--project", folder)
    assert done.code == 0, done.err
    resumed = json.loads((run / "run.json").read_text())["resumed_at_iteration"]
    assert resumed >= 200
    assert resumed % 100 == 0
    assert "resuming tiny-001" in done.err
    check_training(folder)
    plotted = cli.ok("plot", "--json", project=folder).json
    metrics = pd.read_csv(plotted["metrics"])
    assert metrics["iteration"].tolist() == list(range(1, ITERATIONS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_fetch_killed_at_random_moments_is_resumed(
    cli: Cli,
    shell: Shell,
    digests: Digests,
    make_project: Callable[..., Path],
    slow_site: Site,
    *,
    seed: int,
) -> None:
    folder = make_project(**slow_site.urls, jobs=JOBS)
    kill_at_random_moments(shell, ["fetch", "--project", str(folder)], seed)
    check_fetch(cli, digests, make_project, slow_site, folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_split_killed_at_random_moments_is_resumed(
    cli: Cli, shell: Shell, digests: Digests, make_project: Callable[..., Path], *, seed: int
) -> None:
    folder, reference = make_project(**SLOW_TO_PREPARE), make_project(**SLOW_TO_PREPARE)
    for project in (folder, reference):
        cli.ok("fetch", project=project)
    kill_at_random_moments(shell, ["split", "--project", str(folder)], seed)
    cli.ok("split", project=reference)
    objects = [digests(f / "data" / "dataset" / "obj") for f in (folder, reference)]
    assert objects[0] == objects[1]
    assert lists_of(folder) == lists_of(reference)
    assert status_of(cli, folder) == status_of(cli, reference)


@pytest.mark.slow
@pytest.mark.darknet
@pytest.mark.parametrize("seed", range(3))
def test_a_training_killed_at_random_moments_is_resumed(
    cli: Cli, shell: Shell, make_project: Callable[..., Path], darknet: Path, *, seed: int
) -> None:
    folder = make_project(max_batches=ITERATIONS, executable=str(darknet))
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    kill_at_random_moments(shell, ["train", "--project", str(folder)], seed)
    check_training(folder, lost_at_save=20)
    assert not processes_in(folder)


def kill_at_random_moments(shell: Shell, words: list[str], seed: int) -> None:
    """Kill a command five times after random delays, then let it end."""
    rng = random.Random(seed)
    for _ in range(5):
        victim = shell.start(*words)
        end_s = time.monotonic() + rng.uniform(0.3, 4.0)
        while victim.poll() is None and time.monotonic() < end_s:
            time.sleep(0.01)
        kill(victim)
        assert victim.returncode in {0, -signal.SIGKILL}
    done = shell(*words)
    assert done.code == 0, done.err


# --- Ctrl-C and SIGTERM ----------------------------------------------------------------------


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def stop_signal(request: pytest.FixtureRequest) -> signal.Signals:
    """A signal that asks a program to terminate."""
    chosen: signal.Signals = request.param
    if chosen == signal.SIGINT and signal.getsignal(chosen) is signal.SIG_IGN:
        pytest.skip("SIGINT is ignored here, and children inherit that")
    return chosen


def test_an_interrupted_fetch_is_resumed(
    cli: Cli,
    shell: Shell,
    *,
    digests: Digests,
    make_project: Callable[..., Path],
    slow_site: Site,
    wait_until: Wait,
    stop_signal: signal.Signals,
) -> None:
    folder = make_project(**slow_site.urls, jobs=JOBS)
    images = folder / "data" / "images"
    victim = shell.start("fetch", "--project", folder)
    wait_for_files(wait_until, victim, images, "*.jpg", 10)
    os.kill(victim.pid, stop_signal)
    done = shell.end_of(victim)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert "interrupted" in done.err.splitlines()[-1]
    here = count_of(images, "*.jpg")
    assert here < 45
    # The ledger has all images that have arrived.
    assert status_of(cli, folder)["states"]["fetched"] == here
    assert not list(images.glob("*.part"))
    cli.ok("fetch", project=folder)
    check_fetch(cli, digests, make_project, slow_site, folder)


@pytest.mark.darknet
@pytest.mark.slow
def test_an_interrupted_training_is_resumed(
    cli: Cli,
    shell: Shell,
    *,
    make_project: Callable[..., Path],
    darknet: Path,
    wait_until: Wait,
    stop_signal: signal.Signals,
) -> None:
    folder = make_project(max_batches=ITERATIONS, executable=str(darknet))
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    run = folder / "runs" / "tiny-001"
    victim = shell.start("train", "--project", folder)
    wait_until(lambda: victim.poll() is not None or (iterations_in(run) or [0])[-1] >= 130)
    os.kill(victim.pid, stop_signal)
    done = shell.end_of(victim)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert not processes_in(run)
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    resumed = cli.ok("train", project=folder)
    assert "resuming tiny-001" in resumed.err
    assert json.loads((run / "run.json").read_text())["resumed_at_iteration"] >= 100
    check_training(folder)
