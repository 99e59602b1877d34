"""Which of the existing runs a training resumes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from oiyolo.networks.builders import build
from oiyolo.project import config
from oiyolo.project.project import Project
from oiyolo.stages.train.inputs import find_same_run
from oiyolo.training.plan import identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.run import Run


@pytest.fixture
def cfg() -> Cfg:
    return build("demo", class_count=1, size_wh=(96, 96))


def find_run(folder: Path, cfg: Cfg, before: dict[str, Any] | None, cfg_text: str) -> Run | None:
    """Return the run of a network if a run with the recipe ``before`` exists and it matches."""
    run = folder / "runs" / "demo-001"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"made_from": before}))
    (run / "network.cfg").write_text(cfg_text)
    project = Project(folder, config.load(folder / config.FILE_NAME, {}, {}))
    plan = cast("Any", SimpleNamespace(identity=identity_of(cfg), cfg=cfg))
    return find_same_run(project, plan, {"dataset": "d", "network": plan.identity, "weights": "ff"})


@pytest.mark.parametrize(
    ("before", "is_found"),
    [
        ({"dataset": "d", "weights": "ff", "network": "as now"}, True),
        # Runs of older versions: another fingerprint of the network, weights with their path.
        ({"dataset": "d", "weights": "ff", "network": "of the text"}, True),
        ({"dataset": "d", "weights": {"path": "/a", "sha256": "ff"}, "network": "of it"}, True),
        ({"dataset": "d", "weights": {"path": "/a", "sha256": "00"}, "network": "of it"}, False),
        ({"dataset": "other", "weights": "ff", "network": "of the text"}, False),
        ({"dataset": "d", "weights": "00", "network": "of the text"}, False),
        ({"weights": "ff", "network": "of the text"}, False),
        (None, False),
    ],
)
def test_a_run_of_an_older_version_is_resumed(
    tmp_path: Path, cfg: Cfg, before: dict[str, Any] | None, *, is_found: bool
) -> None:
    if before and before["network"] == "as now":
        before = {**before, "network": identity_of(cfg)}
    text = "# as an older version wrote it\n" + cfg.render()
    assert (find_run(tmp_path, cfg, before, text) is not None) == is_found


@pytest.mark.parametrize("cfg_text", ["<<<<<<<", ""])
def test_an_older_run_without_its_network_is_not_resumed(
    tmp_path: Path, cfg: Cfg, cfg_text: str
) -> None:
    before = {"dataset": "d", "weights": "ff", "network": "of the text"}
    assert find_run(tmp_path, cfg, before, cfg_text) is None


def test_an_older_run_with_another_schedule_is_not_resumed(tmp_path: Path, cfg: Cfg) -> None:
    before = {"dataset": "d", "weights": "ff", "network": "of the text"}
    other = cfg.copy()
    other.net.set("max_batches", 77)
    assert find_run(tmp_path, cfg, before, other.render()) is None
