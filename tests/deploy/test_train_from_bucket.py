"""deploy/train_from_bucket.py: a machine vanishes, and the next one resumes from the bucket."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.net.buckets import FileFacts
from oiyolo.net.gcs import BucketClient
from tests.deploy.conftest import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.bucket_emulator import Emulator

SCRIPT = DEPLOY / "train_from_bucket.py"


def _start(url: str, project: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), url, "--project", str(project)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _restore(backups: str, project: Path) -> Any:
    return runpy.run_path(str(SCRIPT))["restore_runs"](backups, project)


def test_restores_the_missing_runs_and_nothing_outside_of_them(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_evil_names(client: BucketClient) -> Iterator[tuple[str, FileFacts]]:
        """Yield names, too, that the emulator cannot store."""
        yield from listed(client)
        for name in ("../evil.txt", "tiny-004/../evil.txt", "tiny-004/..", ".hidden/evil.txt"):
            yield name, FileFacts(4, "AAAAAA==")

    listed = BucketClient.list_objects
    monkeypatch.setattr(BucketClient, "list_objects", with_evil_names)
    bucket = emulator.make_bucket(
        {
            "boats/backups/tiny-001/run.json": b"theirs",
            "boats/backups/tiny-002/run.json": b"{}",
            "boats/backups/tiny-002/network.backup": b"weights",
            "boats/backups/tiny-002/deeper/network.backup": b"no file of a run",
            "boats/backups/stray.txt": b"no file of a run",
            "boats/backups-of-others/tiny-003/run.json": b"{}",
        }
    )
    project = tmp_path / "a" / "project"
    (project / "runs" / "tiny-001").mkdir(parents=True)
    (project / "runs" / ".tiny-002.incoming" / "half").mkdir(parents=True)
    backups = f"gs://{bucket.name}/boats/backups"
    assert _restore(backups, project) == ["tiny-002"]
    files = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*.*")}
    assert files == {
        "a/project/runs/tiny-002/run.json": b"{}",
        "a/project/runs/tiny-002/weights/network.backup": b"weights",
    }
    assert _restore(backups, project) == []
    with pytest.raises(UsageError):
        _restore("boats", project)


def test_a_project_that_was_not_pushed_is_an_error(emulator: Emulator, tmp_path: Path) -> None:
    process = _start(f"gs://{emulator.make_bucket().name}/boats", tmp_path / "project")
    assert "not pushed" in process.communicate()[1]
    assert process.returncode == UsageError.exit_code


@pytest.mark.darknet
@pytest.mark.slow
def test_a_new_machine_resumes_and_pushes_the_detector(
    *,
    emulator: Emulator,
    make_project: Callable[..., Path],
    tmp_path: Path,
    darknet: Path,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    url = f"gs://{emulator.make_bucket().name}/boats"
    project = make_project(max_batches=260, executable=str(darknet))
    oiyolo.fetch(project)
    oiyolo.split(project)
    oiyolo.push(url, project)

    vm = tmp_path / "vm"
    log = vm / "runs" / "tiny-001" / "train_log.txt"
    process = _start(url, vm)
    reached = re.compile(r"^ ?13\d: ", re.MULTILINE)
    wait_until(
        lambda: (
            process.poll() is not None or (log.is_file() and bool(reached.search(log.read_text())))
        )
    )
    os.kill(process.pid, signal.SIGTERM)
    err = process.communicate()[1]
    assert process.returncode == 130, err
    shutil.rmtree(vm)  # the disk is lost with the machine

    process = _start(url, vm)
    err = process.communicate()[1]
    assert process.returncode == 0, err
    record = json.loads((vm / "runs" / "tiny-001" / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["resumed_at_iteration"] >= 100

    laptop = tmp_path / "laptop"
    oiyolo.pull(url, laptop)
    run = laptop / "runs" / "tiny-001"
    assert (run / "weights" / "network_final.weights").is_file()
    assert json.loads((run / "evaluation.json").read_text())["map50"] is not None
    assert "tiny-001" in (run / "report.html").read_text()
