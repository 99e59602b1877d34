"""A stopped training leaves its weights in a bucket, and another machine resumes from them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli, Shell


@pytest.mark.darknet
@pytest.mark.slow
def test_another_machine_resumes_from_the_backup(
    *,
    emulator: Any,
    cli: Cli,
    shell: Shell,
    make_project: Callable[..., Path],
    darknet: Path,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    bucket = emulator.make_bucket()
    folder = make_project(
        max_batches=260, executable=str(darknet), backup_to=f"gs://{bucket.name}/runs"
    )
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    run = folder / "runs" / "tiny-001"
    log = run / "train_log.txt"
    training = shell.start("train", "--project", folder)
    wait_until(
        lambda: (
            training.poll() is not None
            or (
                log.is_file() and re.search(r"^ ?13\d: ", log.read_text(), re.MULTILINE) is not None
            )
        )
    )
    os.kill(training.pid, signal.SIGTERM)
    stopped = shell.end_of(training)
    assert stopped.code == 130, stopped.err
    backup = {blob.name.rpartition("/")[2]: blob for blob in bucket.list_blobs()}
    assert sorted(backup) == ["network.backup", "run.json", "train_log.txt"]
    assert backup["train_log.txt"].download_as_bytes() == log.read_bytes()

    shutil.rmtree(folder / "runs")
    (run / "weights").mkdir(parents=True)
    for name, blob in backup.items():
        blob.download_to_filename(run / ("weights" if name.startswith("network") else "") / name)
    resumed = cli.ok("train", project=folder)
    assert "resuming tiny-001 at iteration 1" in resumed.err
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["resumed_at_iteration"] >= 100
    names = {blob.name for blob in bucket.list_blobs()}
    assert "runs/tiny-001/network_final.weights" in names
