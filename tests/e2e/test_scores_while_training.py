"""New weights are scored while a real darknet trains, and nothing of that survives a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Shell

    Wait = Callable[[Callable[[], bool]], None]

ITERATIONS = 260


def scoring_processes(project: Path) -> list[int]:
    """Return the processes that score weights of a project."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if str(project).encode() in words and any(b"evaluate.background" in w for w in words):
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def project(make_project: Callable[..., Path], cli: Cli, darknet: Path) -> Path:
    folder = make_project(
        map="own", max_batches=ITERATIONS, valid=0.3, train=0.6, executable=str(darknet)
    )
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    return folder


@pytest.mark.darknet
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_that_ends_takes_the_scoring_process_along_and_resumes(
    project: Path, cli: Cli, shell: Shell, wait_until: Wait, number: signal.Signals
) -> None:
    run = project / "runs" / "tiny-001"
    training = shell.start("train", "--project", project)
    wait_until(lambda: training.poll() is not None or bool(scoring_processes(project)))
    assert training.poll() is None, shell.end_of(training)
    os.kill(training.pid, number)
    shell.end_of(training)
    wait_until(lambda: not scoring_processes(project))
    done = cli.ok("train", "--json", project=project)
    assert "cannot score" not in done.err
    scores = json.loads((run / "checkpoint_scores.json").read_text())
    assert scores["valid_images"] > 0
    by_iteration: dict[int, Any] = {row["iteration"]: row for row in scores["checkpoints"]}
    assert ITERATIONS in by_iteration
    assert all(0 <= row["valid_map50"] <= 1 for row in by_iteration.values())
    (best,) = (run / "weights" / "kept").glob("best-*.weights")
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["best"]["iteration"] in by_iteration
    assert done.json["best_weights"] == str(best)
    assert not list(run.rglob("scoring-*"))
    assert not list(run.rglob("*.part"))
