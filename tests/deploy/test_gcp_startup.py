"""deploy/gcp/startup.sh: what a VM does at each boot, and when its training has ended."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.deploy.conftest import DEPLOY, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Metadata

SCRIPT = DEPLOY / "gcp" / "startup.sh"
GROUP = "projects/7/{where}/instanceGroupManagers/boats"
RESIZE = "gcloud compute instance-groups managed resize boats --size=0"
STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
case "${0##*/} $*" in
"gcloud storage cp gs:"*) cp "$ARCHIVE" "$4" ;;
"systemctl is-system-running") echo "$SYSTEM_STATE" ;;
"id oiyolo" | "gcloud storage cp - "*) exit 1 ;;
esac
"""
"""Takes the place of commands that change the machine or the cloud."""
MAKE_VENV = """#!/bin/sh
mkdir -p "$1/bin"
ln -s "$STAND_IN" "$1/bin/python"
"""


@dataclass(frozen=True)
class Vm:
    """A VM whose root is a folder."""

    root: Path
    calls_path: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", str(SCRIPT), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        return self.calls_path.read_text().splitlines() if self.calls_path.exists() else []


@pytest.fixture
def vm(tmp_path: Path, metadata: Metadata) -> Vm:
    metadata.attributes |= {
        "oiyolo-source": "gs://b/oiyolo.tar.gz",
        "oiyolo-bucket": "gs://b/boats",
    }
    source = tmp_path / "src"
    shutil.copytree(DEPLOY, source / "deploy")
    (source / "tools").mkdir()
    (source / "tools" / "make-venv").write_text(MAKE_VENV)
    (source / "tools" / "make-venv").chmod(0o755)
    with tarfile.open(tmp_path / "oiyolo.tar.gz", "w:gz") as archive:
        archive.add(source, "src")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("gcloud", "systemctl", "journalctl", "useradd", "id", "stand-in"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "DESTDIR": str(tmp_path / "root"),
        "CALLS": str(tmp_path / "calls"),
        "ARCHIVE": str(tmp_path / "oiyolo.tar.gz"),
        "STAND_IN": str(commands / "stand-in"),
        "SYSTEM_STATE": "running",
    }
    return Vm(tmp_path / "root", tmp_path / "calls", environment)


def test_the_first_boot_installs_and_later_ones_only_start(vm: Vm, metadata: Metadata) -> None:
    metadata.attributes["oiyolo-extras"] = "[torch]"
    done = vm.run()
    assert done.returncode == 0, done.stderr
    home = vm.root / "opt" / "oiyolo"
    assert vm.calls() == [
        f"gcloud storage cp gs://b/oiyolo.tar.gz {home}/oiyolo.tar.gz",
        f"python -m pip install --quiet {home}/src[torch]",
        "id oiyolo",
        "useradd --system --no-create-home oiyolo",
        "systemctl daemon-reload",
        "systemctl start --no-block oiyolo.service",
    ]
    vm.calls_path.unlink()
    metadata.attributes["oiyolo-bucket"] = "gs://b/ships"
    assert vm.run().returncode == 0
    assert "systemctl start --no-block oiyolo.service" in vm.calls()
    assert not [call for call in vm.calls() if call.startswith(("gcloud", "python"))]
    assert "gs://b/ships" in (vm.root / "etc/systemd/system/oiyolo.service").read_text()


def test_the_service_is_valid_and_runs_files_that_exist(vm: Vm) -> None:
    vm.run()
    unit = vm.root / "etc" / "systemd" / "system" / "oiyolo.service"
    commands = re.findall(r"^Exec\w+=\+?(.+)$", unit.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        program, script, *_ = command.split()
        assert os.access(program, os.X_OK)
        assert (ROOT / script[script.index("deploy/") :]).is_file()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze, which verifies the unit")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    # Other units of this machine may have faults of their own.
    assert "oiyolo" not in verified.stderr


def test_an_interrupted_installation_is_repeated(vm: Vm) -> None:
    environment = {"ARCHIVE": "/nowhere"}
    assert vm.run(**environment).returncode != 0
    assert vm.calls()[-1].startswith("gcloud storage cp")
    assert vm.run().returncode == 0
    assert vm.calls()[-1] == "systemctl start --no-block oiyolo.service"


@pytest.mark.parametrize("value", ["", "boats", "gs://b/boats\nExecStartPre=/bin/true"])
def test_a_missing_bucket_is_an_error(vm: Vm, metadata: Metadata, value: str) -> None:
    metadata.attributes["oiyolo-bucket"] = value
    done = vm.run()
    assert done.returncode == 2
    assert "oiyolo-bucket" in done.stderr
    assert not [call for call in vm.calls() if call.startswith("systemctl")]


@pytest.mark.parametrize(
    ("created_by", "call"),
    [
        (None, "systemctl poweroff"),
        ("someone@example.org", "systemctl poweroff"),
        (
            GROUP.format(where="zones/us-central1-a"),
            f"{RESIZE} --zone=us-central1-a --project=7",
        ),
        (
            GROUP.format(where="regions/us-central1"),
            f"{RESIZE} --region=us-central1 --project=7",
        ),
    ],
)
@pytest.mark.parametrize("status", ["0", "5", "KILL"])
def test_the_costs_end_with_the_training_whatever_ended_it(
    vm: Vm, metadata: Metadata, created_by: str | None, call: str, status: str
) -> None:
    if created_by is not None:
        metadata.attributes["created-by"] = created_by
    assert vm.run("finish", EXIT_STATUS=status).returncode == 0
    first, *logged, last = vm.calls()
    assert (first, last) == ("systemctl is-system-running", call)
    [copied] = [call for call in logged if call.startswith("gcloud")]  # it fails here
    assert copied.startswith("gcloud storage cp - gs://b/boats/logs/")


@pytest.mark.parametrize(("status", "state"), [("130", "running"), ("KILL", "stopping")])
def test_an_interrupted_training_leaves_the_vm_as_it_is(vm: Vm, status: str, state: str) -> None:
    assert vm.run("finish", EXIT_STATUS=status, SYSTEM_STATE=state).returncode == 0
    assert set(vm.calls()) <= {"systemctl is-system-running"}


def test_an_unknown_argument_is_an_error(vm: Vm) -> None:
    assert vm.run("start").returncode == 2
