"""Random kills: a command that is killed at any moment and repeated leaves no trace of the kill.

Each round restores a small project to what it was before one command, kills the command (and
sometimes its repetition) with SIGKILL at a random moment, runs it again, and checks the project
against one in which the command ran without interruption.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import oiyolo
from oiyolo.core.files import PART_SUFFIX
from oiyolo.demo_data.server import serve
from oiyolo.demo_data.writer import write_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS: Final = (
    *("select", "plan", "fetch", "prepare", "split"),
    *("train", "plot", "evaluate", "report", "refresh"),
)
"""The commands in the order in which they are run without interruption."""
_SCENES: Final = 30
_SECOND_KILL: Final = 0.3
_WAIT_S: Final = 60.0
_EXACT: Final = (
    *("data/images/*.jpg", "data/dataset/obj/*", "data/dataset/*.txt", "data/dataset/*.csv"),
    *("data/dataset/obj.names", "data/selection/*.csv", "data/selection/*.tsv"),
)
"""Files that must be byte-identical to those of a project that was not interrupted."""


@dataclass
class Round:
    """One round.

    Attributes:
        command: The command that was killed.
        kills: Number of times it was killed.
        after_s: When it was killed last, in seconds after its start.
        problems: What is wrong after the command was repeated; empty if nothing is.
    """

    command: str
    kills: int
    after_s: float
    problems: list[str]


class Chaos:
    """A small project, with a copy of it from before each command.

    Args:
        folder: An empty folder for all files.
        base_url: URL of ``folder``/site, which is served.
        darknet: A real darknet.
        network: A network that trains in a second or two.
        seed: Seed of the choice of commands and moments.
    """

    def __init__(
        self, folder: Path, base_url: str, *, darknet: Path, network: Path, seed: int
    ) -> None:
        self._folder, self._project = folder, folder / "project"
        self._rng = random.Random(seed)
        self._seconds: dict[str, float] = {}
        self._digests: dict[str, dict[str, str]] = {}
        mirror = write_mirror(folder / "site", base_url=base_url, seed=1, scenes=_SCENES)
        oiyolo.init(
            self._project,
            classes=["Boat"],
            base_url=mirror.openimages_url,
            mirror_url=mirror.images_url,
            cache="cache",  # in the project's folder, so that it is restored and checked, too
            tolerance=0.3,
            size=(32, 32),
            network=str(network),
            max_batches=30,
            executable=str(darknet),
            look=False,
        )
        for command in COMMANDS:
            if command == "refresh":  # it has most to do where nothing has been fetched yet
                self._copy(self._saved("fetch"), self._project)
            self._copy(self._project, self._saved(command))
            started_s = time.monotonic()
            if problems := self._run(command) + self._problems():
                raise AssertionError(f"{command} without a kill: {problems}")
            self._seconds[command] = time.monotonic() - started_s
            self._digests[command] = self._exact_digests()

    def rounds(self, count: int, commands: Sequence[str] = COMMANDS) -> Iterator[Round]:
        """Yield the results of a number of rounds, each command equally often."""
        for number in range(count):
            yield self._round(commands[number % len(commands)])

    def _round(self, command: str) -> Round:
        self._copy(self._saved(command), self._project)
        kills, after_s = 0, 0.0
        while not kills or (kills == 1 and self._rng.random() < _SECOND_KILL):
            after_s = self._rng.uniform(0.1, 1.0) * self._seconds[command]
            process = self._start(command)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            process.kill()
            process.communicate()
            kills += 1
        problems = self._run(command)
        problems += self._differences(command) + self._problems()
        return Round(command, kills, after_s, problems)

    def _start(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "oiyolo", command, "-q", "--project", str(self._project)],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _run(self, command: str) -> list[str]:
        process = self._start(command)
        output, _ = process.communicate(timeout=_WAIT_S)
        return [] if not process.returncode else [f"exit code {process.returncode}: {output}"]

    def _differences(self, command: str) -> list[str]:
        digests, expected = self._exact_digests(), self._digests[command]
        names = sorted(digests.keys() | expected.keys())
        return [f"differs: {name}" for name in names if digests.get(name) != expected.get(name)]

    def _problems(self) -> list[str]:
        problems = [
            f"left over: {path.relative_to(self._project)}"
            for path in self._project.rglob(f"*{PART_SUFFIX}")
        ]
        problems += [f"process {pid} is still running" for pid in self._processes()]
        if (self._project / "data" / "ledger.sqlite").is_file():
            problems += self._ledger_problems()
        return problems

    def _ledger_problems(self) -> list[str]:
        """Return the differences between the ledger's counts, its images, and the files."""
        data = self._project / "data"
        with contextlib.closing(sqlite3.connect(data / "ledger.sqlite")) as db:
            images = db.execute("SELECT image_id, state FROM images WHERE selected = 1").fetchall()
            counted = db.execute(
                "SELECT state, stage, reason, COUNT(*) FROM images WHERE selected = 1 "
                "GROUP BY state, stage, reason"
            ).fetchall()
            sums = db.execute("SELECT * FROM sums WHERE images != 0").fetchall()
        problems = [] if sorted(sums) == sorted(counted) else ["the ledger's sums do not add up"]
        summary = data / "selection" / "selection.json"
        if summary.is_file() and json.loads(summary.read_text())["images"] != len(images):
            problems.append("the ledger and the selection have different numbers of images")
        with_original = {i for i, state in images if state not in {"pending", "excluded"}}
        prepared = {i for i, state in images if state in {"prepared", "train", "valid", "test"}}
        objects = data / "dataset" / "obj"
        for name, ids, found in (
            ("images", with_original, {path.stem for path in (data / "images").glob("*.jpg")}),
            ("prepared images", prepared, {path.stem for path in objects.glob("*.jpg")}),
            ("labels", prepared, {path.stem for path in objects.glob("*.txt")}),
        ):
            if ids - found:
                problems.append(f"{name} missing: {sorted(ids - found)}")
            excluded = {i for i, state in images if state == "excluded"}
            if orphans := found - ids - (excluded if name == "images" else set()):
                problems.append(f"{name} without a record: {sorted(orphans)}")
        return problems

    def _exact_digests(self) -> dict[str, str]:
        return {
            str(path.relative_to(self._project)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in _EXACT
            for path in self._project.glob(pattern)
        }

    def _processes(self) -> list[int]:
        """Return the processes that still work in the project; a killed one's child ends soon."""
        end_s = time.monotonic() + _WAIT_S
        while (processes := _processes_in(self._project)) and time.monotonic() < end_s:
            time.sleep(0.02)
        return processes

    def _saved(self, command: str) -> Path:
        return self._folder / f"before-{command}"

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)


def _processes_in(folder: Path) -> list[int]:
    """Return the processes whose working folder is below a folder."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(folder):
                    processes.append(int(entry.name))
    return processes


@contextlib.contextmanager
def chaos(folder: Path, *, darknet: Path, network: Path, seed: int) -> Iterator[Chaos]:
    """Yield a project for random kills, with its own site."""
    os.environ["OIYOLO_DARKNET_SOURCE_URL"] = ""
    (folder / "site").mkdir(parents=True)
    with serve(folder / "site") as server:
        write_mirror(folder / "site", base_url=server.base_url, seed=1, scenes=_SCENES)
        server.load_overrides()
        yield Chaos(folder, server.base_url, darknet=darknet, network=network, seed=seed)
