"""Projects in paths that darknet would change, and other darknets than the one on PATH."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

NAMES = (
    "with two  spaces",
    "ünïcode 帆船",
    "images",
    "raw/JPEGImages",
    "holiday.jpg",
    "it's $HOME & more;",
)
OTHERS = tuple(filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep)))
ITERATIONS = 30


def train_and_evaluate(cli: Cli, folder: Path) -> Path:
    """Run the stages from fetch to evaluate and return the run's folder; every label was found."""
    for stage in ("fetch", "split", "train"):
        cli.ok(stage, project=folder)
    scores = cli.ok("evaluate", "--json", project=folder).json
    assert scores["boxes"] > 0
    run = folder / "runs" / "tiny-001"
    log = (run / "train_log.txt").read_text(encoding="utf-8")
    assert "Couldn't open" not in log
    assert "Can't open label file" not in log
    counts = [int(count) for count in re.findall(r"count: (\d+)", log)]
    assert len(counts) >= ITERATIONS
    # Batches of four images with at least one boat in each, except for negatives.
    assert sum(counts) > 2 * ITERATIONS
    return run


@pytest.mark.darknet
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("/".join(NAMES), id="all"),
        *(pytest.param(name, id=str(n), marks=pytest.mark.slow) for n, name in enumerate(NAMES)),
    ],
)
def test_a_project_in_a_path_that_darknet_would_change_trains(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path, darknet: Path, name: str
) -> None:
    folder = tmp_path / name
    make_project(at=folder, executable=str(darknet), max_batches=ITERATIONS)
    run = train_and_evaluate(cli, folder)
    # Every line of the list is the path of a file, whatever the project's path contains.
    for path in (run / "train.txt").read_text(encoding="utf-8").splitlines():
        assert Path(path).is_file()
    label_paths = (folder / "data" / "dataset" / "obj").glob("*.txt")
    assert len(list(label_paths)) > 40


@pytest.mark.darknet
def test_a_moved_project_trains_on_its_own_images(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path, darknet: Path
) -> None:
    folder = make_project(at=tmp_path / "before", executable=str(darknet), limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    moved = folder.rename(tmp_path / "after")
    cli.ok("train", project=moved)
    (trained_on,) = moved.glob("runs/*/train.txt")
    assert all(line.startswith(f"{moved}/") for line in trained_on.read_text().splitlines())


@pytest.mark.skipif(not OTHERS, reason="OIYOLO_TEST_DARKNETS names no other darknets")
@pytest.mark.parametrize("executable", OTHERS)
@pytest.mark.parametrize("name", ["plain", "images"])
def test_another_darknet_trains_and_evaluates(
    cli: Cli, make_project: Callable[..., Path], tmp_path: Path, executable: str, name: str
) -> None:
    folder = make_project(
        at=tmp_path / name, executable=executable, max_batches=ITERATIONS, negatives=0.05
    )
    run = train_and_evaluate(cli, folder)
    plotted = cli.ok("plot", "--json", project=folder).json
    assert plotted["iterations"] == ITERATIONS
    assert plotted["iou"] is not None
    assert (run / "weights" / "network_final.weights").is_file()
    assert "nothing to do" in cli.ok("train", project=folder).out
