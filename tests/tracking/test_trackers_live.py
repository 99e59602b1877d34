"""A training that is killed and resumed is one run in MLflow, Weights & Biases and TensorBoard.

MLflow is a real server; Weights & Biases writes its offline files, which are read back.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

for library in ("mlflow", "wandb", "tensorboard", "sqlalchemy", "flask"):
    pytest.importorskip(library, reason=f"{library} is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli, Shell

    Wait = Callable[[Callable[[], bool]], None]

pytestmark = [
    *(pytest.mark.slow, pytest.mark.darknet),
    *(pytest.mark.timeout(900), pytest.mark.usefixtures("darknet")),
]
ITERATIONS = 600
START_S = 240.0
"""The server imports for 10 s, many times as long on a machine with much else to do."""
TRACKERS = ("tensorboard", "mlflow", "wandb")


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of an MLflow server; Weights & Biases is offline."""
    log_path = tmp_path / "server.log"
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    stores += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *words, *stores],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def address() -> list[str]:
        return re.findall(r"running on (http://127\.0\.0\.1:\d+)", log_path.read_text())

    try:
        end_s = time.monotonic() + START_S
        while not address() and server.poll() is None and time.monotonic() < end_s:
            time.sleep(0.1)
        assert address(), log_path.read_text()
        assert server.poll() is None, log_path.read_text()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address()[0])
        monkeypatch.setenv("WANDB_MODE", "offline")
        yield address()[0]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def darknet_in(run: Path) -> int:
    """Return the process of the darknet that trains a run."""
    (found,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cwd")
        if is_folder(path, run) and "detector" in (path.parent / "cmdline").read_text()
    ]
    return found


def is_folder(link: Path, folder: Path) -> bool:
    try:
        return link.readlink() == folder
    except OSError:  # it has ended, or belongs to another user
        return False


def status_of(run: Path, tracker: str) -> dict[str, Any]:
    path = run / "tracking" / f"{tracker}.json"
    return json.loads(path.read_text()) if path.exists() else {"sent": 0, "problem": ""}


def history_in(run: Path) -> list[dict[str, Any]]:
    """Return the history of the offline runs of Weights & Biases, in order."""
    from oiyolo.tracking.wandb import _history_in  # noqa: PLC0415  (an extra)

    paths = sorted(run.glob("tracking/wandb/offline-run-*/*.wandb"))
    return [
        {"".join(i.nested_key) or i.key: json.loads(i.value_json) for i in step.item}
        for path in paths
        for step in _history_in(path)
    ]


def check_mlflow(uri: str, project: Path, run: Path) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(project.name)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("tiny-001", "FINISHED")
    assert found.info.run_id == status_of(run, "mlflow")["run_id"]
    assert found.data.params["classes"] == "Boat"
    assert found.data.params["max_batches"] == str(ITERATIONS)
    history = client.get_metric_history(found.info.run_id, "avg_loss")
    assert sorted(metric.step for metric in history) == list(range(1, ITERATIONS + 1))
    assert found.data.metrics["test_map50"] >= 0
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"network.cfg", "panels", "weights", "evaluation.json"} <= names
    weights = [file.path for file in client.list_artifacts(found.info.run_id, "weights")]
    assert weights == ["weights/network_final.weights"]


def check_wandb(run: Path) -> None:
    rows = history_in(run)
    steps = [row["_step"] for row in rows]
    assert steps == list(range(len(rows)))
    iterations = Counter(row["iteration"] for row in rows if "avg_loss" in row)
    assert iterations == dict.fromkeys(range(1, ITERATIONS + 1), 1)
    assert any("test_map50" in row for row in rows)
    assert len({path.name for path in run.glob("tracking/wandb/*/*.wandb")}) == 1


def check_tensorboard(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by its imports
        from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
            EventAccumulator,
        )
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
    reader.Reload()
    steps = [scalar.step for scalar in reader.Scalars("avg_loss")]
    assert steps == list(range(1, ITERATIONS + 1))
    assert [scalar.step for scalar in reader.Scalars("test_map50")] == [ITERATIONS]


def test_a_killed_and_resumed_training_is_one_run(
    make_project: Callable[..., Path],
    cli: Cli,
    shell: Shell,
    mlflow_uri: str,
    wait_until: Wait,
) -> None:
    project = make_project(
        train=0.6,
        valid=0.2,
        test=0.2,
        max_batches=ITERATIONS,
        log_to=TRACKERS,
    )
    cli.ok("fetch", project=project)
    cli.ok("split", project=project)
    run = project / "runs" / "tiny-001"
    training = shell.start("train", "--project", project)
    wait_until(
        lambda: training.poll() is not None or bool([*run.glob("weights/kept/last-*.weights")])
    )
    os.kill(darknet_in(run), signal.SIGSTOP)  # until the trackers have caught up
    wait_until(lambda: all(status_of(run, name)["sent"] for name in ("mlflow", "wandb")))
    os.kill(training.pid, signal.SIGKILL)
    shell.end_of(training)
    done = cli.ok("train", project=project)
    assert "resuming tiny-001" in done.err
    cli.ok("evaluate", project=project)
    assert [status_of(run, name)["problem"] for name in TRACKERS] == ["", "", ""]
    check_mlflow(mlflow_uri, project, run)
    check_wandb(run)
    check_tensorboard(run)
