"""A project that is moved or copied between any two commands uses its own files only."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_standin import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli

    Digests = Callable[[Path], dict[str, str]]

ITERATIONS = 120
SAVED = 100
COMMANDS = (
    *("select", "fetch", "prepare", "split", "split --check", "train, which fails", "train"),
    *("plot", "evaluate", "report", "split --check", "status", "split"),
)


def move(project: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return project.rename(to)


def copy(project: Path, to: Path) -> Path:
    """Copy a project, and replace the original's images and labels by invalid ones."""
    shutil.copytree(project, to, symlinks=True)
    for path in (project / "data").rglob("*"):
        if path.parent.name in {"obj", "images"}:
            path.write_text("9 9 9 9 9\n")
    return to


class Journey:
    """A project that never stays where it is."""

    def __init__(self, folder: Path, project: Path, cli: Cli) -> None:
        self.folder, self.project, self.cli = folder, project, cli
        program = folder / "program"
        program.mkdir()
        self.stand_in = StandIn(program, project, cli)

    def run(self, command: str) -> None:
        if command == "train, which fails":
            self.stand_in.behave(final="none", until=SAVED + 10)
            assert self.train() == 5
        elif command == "train":
            self.stand_in.behave()
            assert self.train() == 0
            record = json.loads((self.project / "runs" / "tiny-001" / "run.json").read_text())
            assert record["resumed_at_iteration"] == SAVED
        elif command == "evaluate":
            self.stand_in.behave(detects=True)
            self.cli.ok(command, "--executable", self.stand_in.path, project=self.project)
        else:
            self.cli.ok(*command.split(), project=self.project)

    def train(self) -> int:
        words = ("train", "--executable", self.stand_in.path)
        code = self.cli(*words, project=self.project).code
        lists = [self.project / "runs" / "tiny-001" / f"{name}.txt" for name in ("train", "valid")]
        assert all(self.is_own(line) for path in lists for line in path.read_text().splitlines())
        return code

    def is_own(self, image: str) -> bool:
        """Return whether an image is in the project's present place, possibly through a link."""
        folder = self.folder / image.rpartition("/")[0]
        return folder.resolve() == self.project / "data" / "dataset" / "obj"

    @property
    def images_read(self) -> list[str]:
        path = self.stand_in.folder / "images.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [image for line in lines for image in json.loads(line)]


@pytest.mark.parametrize("leave", [move, copy])
def test_a_project_may_change_its_place_between_any_two_commands(
    make_project: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    cli: Cli,
    digests: Digests,
    leave: Callable[[Path, Path], Path],
) -> None:
    folder = tmp_path_factory.mktemp("place")  # words such as "images" matter in a path
    project = make_project(at=folder / "0", limit=12, max_batches=ITERATIONS)
    journey = Journey(folder, project, cli)
    for number, command in enumerate(COMMANDS, start=1):
        journey.run(command)
        assert all(map(journey.is_own, journey.images_read)), command
        before = journey.project
        # Every third place has a word in its path that darknet replaces.
        to = folder / ("images" if number % 3 == 0 else "plain") / str(number)
        journey.project = leave(before, to)
        if before.exists():
            damaged = digests(before)
            journey.cli.ok("status", project=journey.project)
            assert digests(before) == damaged
    names = ("train", "valid", "test")
    lists = [before / "data" / "dataset" / f"{name}.txt" for name in names if leave is copy]
    journey.project = before
    assert all(journey.is_own(line) for path in lists for line in path.read_text().splitlines())


def test_a_copy_refuses_its_own_damaged_label_and_not_the_originals(
    make_project: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, cli: Cli
) -> None:
    folder = tmp_path_factory.mktemp("place")
    project = make_project(at=folder / "0", limit=12, max_batches=ITERATIONS)
    cli.ok("fetch", project=project)
    cli.ok("split", project=project)
    journey = Journey(folder, project, cli)
    journey.stand_in.behave()
    twin = folder / "1"
    shutil.copytree(project, twin)
    image = (twin / "data" / "dataset" / "train.txt").read_text().split()[0].rpartition("/")[2]
    label = (twin / "data" / "dataset" / "obj" / image).with_suffix(".txt")
    label.write_text("9 0.5 0.5 0.2 0.2\n")
    for words in (("train", "--executable", journey.stand_in.path), ("split", "--check")):
        done = cli(*words, project=twin)
        assert done.code == 3
        assert "class 9 does not exist: the only id is 0" in done.err + done.out
    assert journey.images_read == []
    label.unlink()
    assert "place" in cli("split", "--check", project=twin).out
    cli.ok("split", project=twin)
    assert "place" not in cli.ok("split", "--check", project=twin).out
    journey.project = twin
    assert journey.train() == 0
    assert all(map(journey.is_own, journey.images_read))
