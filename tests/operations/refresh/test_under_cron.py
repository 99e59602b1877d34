"""The installed program in the environment of cron, against a mirror that changes between runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.demo_data.server import serve
from oiyolo.operations.refresh import schedule
from tests.support.changing_mirror import ChangingMirror, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Site

CRON_WAIT_S = 90
"""Time within which cron starts a job that is due every minute, and the job ends."""
JOBS = Path("/etc/cron.d")

Bare = subprocess.CompletedProcess[str]


def refresh_like_cron(folder: Path, *variables: str, closed: str = "<&-") -> Bare:
    """Run the command that --print-cron names, with stdin closed and nearly no environment."""
    command = schedule.command_of(folder, {}, retrain=False)
    command.remove("--quiet")
    bare = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", *variables, *command]
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *bare],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )


@pytest.fixture
def mirror(own_site: Site) -> ChangingMirror:
    return ChangingMirror(own_site)


@pytest.fixture
def folder(make_project: Callable[..., Path], mirror: ChangingMirror, tmp_path: Path) -> Path:
    options: dict[str, Any] = {"cache": str(tmp_path / "cache"), "max_loss": 0.5}
    return make_project(tmp_path / "my boats, 100%", **mirror.site.urls, **options)


def draw_preview(folder: Path) -> None:
    path = folder / "oiyolo.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("look = false", "look = true"), encoding="utf-8")


def splits_of(folder: Path) -> dict[str, str]:
    table = (folder / "data" / "dataset" / "split.csv").read_text(encoding="utf-8").splitlines()
    return {line.split(",")[0]: line.split(",")[1] for line in table[1:]}


class Totals:
    """Adds up what successive refreshes report, and checks that no image moves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images = self._boxes = 0
        self._splits: dict[str, str] = {}

    def add(self, done: Bare) -> dict[str, int]:
        assert (done.returncode, done.stderr) == (0, "")
        line = numbers(done.stdout)
        self._images += line["images"] - line["withdrawn"] - line["left_out"]
        self._boxes += line["boxes"]
        splits = splits_of(self._folder)
        assert len(splits) == self._images
        assert self._boxes == len(self._labels())
        assert line["moved"] == 0
        assert all(self._splits.get(i, split) == split for i, split in splits.items())
        self._splits |= splits
        return line

    def _labels(self) -> list[str]:
        labels = (self._folder / "data" / "dataset" / "obj").glob("*.txt")
        return [line for path in labels for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_totals_add_up_and_no_image_moves_while_the_mirror_changes(
    folder: Path, mirror: ChangingMirror
) -> None:
    totals, fine, site = Totals(folder), sorted(mirror.site.fates["fine"]), mirror.site
    mirror.hidden = set(fine[::4])
    mirror.publish()
    draw_preview(folder)  # which needs a folder of the user
    assert totals.add(refresh_like_cron(folder, "HOME=/proc/nowhere"))["images"] > 20
    mirror.hidden = set()
    mirror.publish()
    assert totals.add(refresh_like_cron(folder))["images"] > 5
    mirror.hidden = set(sorted(splits_of(folder))[:3])
    mirror.publish()
    assert totals.add(refresh_like_cron(folder))["withdrawn"] == 3

    mirror.hidden = set()
    mirror.moved = set(sorted(splits_of(folder))[:4])
    mirror.publish()
    site.server.shutdown()
    site.server.server_close()
    down = refresh_like_cron(folder)
    assert (down.returncode, down.stdout, down.stderr.count("\n")) == (4, "", 1)
    with serve(site.mirror.folder, site.server.server_port) as server:
        server.load_overrides()
        back = totals.add(refresh_like_cron(folder))
        assert (back["images"], back["changed"]) == (3, 4)
        assert totals.add(refresh_like_cron(folder))["current"]
        unheard = refresh_like_cron(folder, closed="<&- >&- 2>&-")
        assert (unheard.returncode, unheard.stdout) == (0, "")
    assert not list(folder.rglob("*.part"))


@contextlib.contextmanager
def cron_daemon() -> Iterator[None]:
    """Run Debian's cron until the block ends, unless one is running already."""
    with subprocess.Popen(["cron", "-f"], stderr=subprocess.DEVNULL) as daemon:
        try:
            yield
        finally:
            daemon.terminate()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cron") is None, reason="no cron (Debian: apt-get install cron)")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can add a job to /etc/cron.d")
def test_the_printed_line_works_when_cron_runs_it(folder: Path) -> None:
    draw_preview(folder)
    line = str(oiyolo.refresh(folder, print_cron=True))
    assert sys.prefix in line
    when, command = line.split("  ", 1)
    assert when == "15 3 * * *"
    job = JOBS / f"oiyolo-test-{os.getpid()}"
    log = folder / "data" / "refresh.log"
    job.write_text(f"* * * * * root {command}\n", encoding="utf-8")
    try:
        with cron_daemon():
            end_s = time.monotonic() + CRON_WAIT_S
            while not log.exists():
                assert time.monotonic() < end_s, "cron did not run the refresh in time"
                time.sleep(0.5)
    finally:
        job.unlink()
    text = log.read_text(encoding="utf-8")
    assert text.count("\n") == 1, text
    counted = numbers(text.partition(": ")[2])
    assert counted["images"] == len(splits_of(folder)) > 20
