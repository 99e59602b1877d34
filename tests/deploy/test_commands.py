"""The commands of the files in deploy/, run as a cluster or a build would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.conftest import DEPLOY, ROOT
from tests.support.command_line import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli

RECORD = '#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORDED"\n'


def _job(name: str) -> Any:
    *_, job = yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())
    return job["spec"]


def _container(name: str) -> Any:
    [container] = _job(name)["template"]["spec"]["containers"]
    return container


def _at(project: Path, words: list[str]) -> list[str]:
    return [word.replace("/project/boats", str(project)) for word in words]


def test_the_kubernetes_jobs_make_a_complete_dataset(
    make_project: Callable[..., Path], cli: Cli
) -> None:
    fetch = _job("fetch")
    container = _container("fetch")
    [shards] = [env["value"] for env in container["env"] if env["name"] == "SHARDS"]
    assert int(shards) == fetch["completions"]
    project = make_project(limit=20)
    cli.ok(*_at(project, _container("select")["args"]))
    for index in range(2):
        environment = {"$(JOB_COMPLETION_INDEX)": str(index), "$(SHARDS)": "2"}
        words = container["args"]
        for name, value in environment.items():
            words = [word.replace(name, value) for word in words]
        cli.ok(*_at(project, words))
    [dataset] = _job("train")["template"]["spec"]["initContainers"]
    assert dataset["command"] == ["sh", "-c"]
    for command in dataset["args"][0].split(" && "):
        program, *words = command.split()
        assert program == "oiyolo"
        cli.ok(*_at(project, words))
    status = cli.ok("status", "--json", project=project).json
    assert status["states"]["pending"] == 0
    assert status["states"]["train"] > 0
    cli.ok(*_at(project, _container("train")["args"]), "--dry-run")


def test_the_last_slurm_task_fetches_the_last_shard(
    make_project: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    script = DEPLOY / "slurm" / "fetch.sbatch"
    [(first, last)] = re.findall(
        r"^#SBATCH --array=(\d+)-(\d+)%\d+$", script.read_text(), re.MULTILINE
    )
    project = make_project()
    cli.ok("select", project=project)
    command = tmp_path / "bin" / "oiyolo"
    command.parent.mkdir()
    command.write_text(RECORD)
    command.chmod(0o755)
    for task in (first, last):
        environment = {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "RECORDED": str(tmp_path / "words"),
            "PROJECT": str(project),
            "SLURM_ARRAY_TASK_ID": task,
        }
        subprocess.run(["bash", str(script)], env=environment, check=True)
        words = (tmp_path / "words").read_text().splitlines()
        assert words[-1] == f"{task}/{int(last) + 1}"
        cli.ok(*words)
    del environment["PROJECT"]
    assert subprocess.run(["bash", str(script)], env=environment, check=False).returncode != 0


def test_the_skypilot_task_starts_the_script_that_resumes(tmp_path: Path) -> None:
    task = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    python = tmp_path / "oiyolo" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORD)
    python.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "RECORDED": str(tmp_path / "words"),
        "BUCKET": "gs://b/boats",
    }
    subprocess.run(["bash", "-c", task["run"]], env=environment, cwd=ROOT, check=True)
    words = (tmp_path / "words").read_text().splitlines()
    assert words == [
        "deploy/train_from_bucket.py",
        "gs://b/boats",
        "--project",
        f"{tmp_path}/project",
    ]


@pytest.mark.slow
def test_the_context_of_the_images_is_enough_to_install_oiyolo(tmp_path: Path) -> None:
    """Run the Dockerfile's steps that install, in a virtual environment, on the context alone."""
    source, home = tmp_path / "source", tmp_path / "oiyolo"
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    kept = [pattern.removeprefix("!") for pattern in ignored if pattern.startswith("!")]
    source.mkdir()
    for name in kept:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    steps = re.findall(
        r"(?:RUN |&& )(python3 -m venv \S+|\S+ -m pip install .+)",
        (DEPLOY / "Dockerfile").read_text().partition("AS cuda")[0],
    )
    assert len(steps) == 2
    environment = dict(os.environ)
    for step in steps:
        command = step.replace("/opt/source", str(source)).replace("/opt/oiyolo", str(home))
        command = command.replace("python3 ", f"{sys.executable} ").replace(
            "install ", "install --no-deps "
        )
        done = subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False
        )
        if "hatchling" in done.stderr and "No matching distribution" in done.stderr:
            pytest.skip("no package index, from which pip gets the build backend")
        assert done.returncode == 0, done.stderr
    # The dependencies are those of the environment of the tests.
    environment["PYTHONPATH"] = sysconfig.get_path("purelib")
    environment["OIYOLO_DARKNET_EXECUTABLE"] = "/nowhere"
    doctor = subprocess.run(
        [home / "bin" / "oiyolo", "doctor", "--offline", "--json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    checks = json.loads(doctor.stdout)
    assert checks["exit_code"] == doctor.returncode == 5


def _documented_commands() -> Iterator[list[str]]:
    page = (ROOT / "docs" / "gcp-vm.md").read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r" && |='exec |'(?=cd )", line.partition(" # ")[0]):
                words = command.replace("'", "").split()
                program = next((w for w in words[:2] if w.rpartition("/")[2] == "oiyolo"), None)
                if program is not None:
                    yield words[words.index(program) + 1 :]


def test_the_page_uses_commands_and_options_that_exist() -> None:
    commands = list(_documented_commands())
    assert {"init", "fetch", "split", "train", "push", "pull", "doctor"} <= {c[0] for c in commands}
    for words in commands:
        parse(words)
