"""The files in deploy/, checked by the tools of their own kinds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.conftest import DEPLOY, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = sorted(path for pattern in ("*.sh", "*.sbatch") for path in DEPLOY.rglob(pattern))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = DEPLOY / "Dockerfile"
TASK = DEPLOY / "skypilot.yaml"
OLDEST_KUBERNETES = "1.33"
PARSE_TASK = """
import json, sys, sky
task = sky.Task.from_yaml_config(json.load(sys.stdin), env_overrides=[("BUCKET", "gs://b/boats")])
[resources] = task.resources
print(json.dumps([str(resources.cloud), resources.use_spot, resources.accelerators, task.envs]))
"""


def _tool(name: str) -> str:
    """Return the path of a tool that the environment of the tests has."""
    path = Path(sys.executable).with_name(name)
    found = str(path) if path.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}; pip install --group test installs it")
    return found


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _objects() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def _containers() -> Iterator[dict[str, Any]]:
    for item in _objects():
        if item["kind"] == "Job":
            pod = item["spec"]["template"]["spec"]
            yield from [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid(path: Path) -> None:
    _run("bash", "-n", str(path))
    _run(_tool("shellcheck"), "--external-sources", str(path))


def test_the_scripts_of_the_skypilot_task_are_valid() -> None:
    task = yaml.safe_load(TASK.read_text())
    for step in ("setup", "run"):
        script = f"#!/bin/bash\nexport BUCKET=gs://b/boats\n{task[step]}"
        # SC1091: the sourced file is checked on its own.
        _run(_tool("shellcheck"), "--exclude=SC1091", "-", text=script)
        for name in re.findall(r"\b(?:tools|deploy)/[\w./-]+", script):
            assert (ROOT / name).is_file()


def test_the_dockerfile_is_valid() -> None:
    _run(_tool("hadolint"), str(DOCKERFILE))


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, ""])
def test_kubernetes_accepts_the_manifests(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="no schemas of Kubernetes")
    items = list(_objects())
    assert {item["kind"] for item in items} == {"Job", "PersistentVolumeClaim"}
    for item in items:
        validate.validate(item, version or validate.latest_version(), strict=True)


def test_the_manifests_fit_each_other_and_the_images() -> None:
    claims = {
        item["metadata"]["name"] for item in _objects() if item["kind"] == "PersistentVolumeClaim"
    }
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE.read_text(), re.MULTILINE))
    users = set(re.findall(r"^USER (\d+)$", DOCKERFILE.read_text(), re.MULTILINE))
    assert targets == {"cpu", "cuda"}
    assert {c["image"].rpartition(":")[2] for c in _containers()} == targets
    for item in _objects():
        if item["kind"] == "Job":
            pod = item["spec"]["template"]["spec"]
            assert {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]} == claims
            assert {str(pod["securityContext"]["fsGroup"])} == users
    gpus = [c["name"] for c in _containers() if "nvidia.com/gpu" in c["resources"]["limits"]]
    assert gpus == ["train"]


def test_skypilot_accepts_the_task() -> None:
    sky = shutil.which("sky")
    if sky is None:
        pytest.skip("no SkyPilot on PATH (in an environment of its own: pip install skypilot[gcp])")
    task = json.dumps(yaml.safe_load(TASK.read_text()))
    python = str(Path(sky).resolve().with_name("python"))
    parsed = json.loads(_run(python, "-c", PARSE_TASK, text=task))
    assert parsed[:3] == ["GCP", True, {"L4": 1}]
    assert parsed[3]["BUCKET"] == "gs://b/boats"
