"""Which of the runs on the disk a training goes on with."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from oiyolo.networks.builders import build
from oiyolo.stages.train.inputs import same_run
from oiyolo.training.plan import identity_of

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.run import Run


@pytest.fixture
def cfg() -> Cfg:
    return build("demo", class_count=1, size_wh=(96, 96))


def find(folder: Path, cfg: Cfg, before: dict[str, Any] | None, trained: str) -> Run | None:
    """Look for the run of a network where one that was made from ``before`` is on the disk."""
    run = folder / "demo-001"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"made_from": before}))
    (run / "network.cfg").write_text(trained)
    project = cast("Any", SimpleNamespace(runs_folder=folder))
    plan = cast("Any", SimpleNamespace(identity=identity_of(cfg), cfg=cfg))
    return same_run(project, plan, {"dataset": "d", "network": plan.identity, "weights": "ff"})


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ({"dataset": "d", "weights": "ff", "network": "as now"}, True),
        # Runs of earlier versions: another fingerprint of the network, weights with their path.
        ({"dataset": "d", "weights": "ff", "network": "of the text"}, True),
        ({"dataset": "d", "weights": {"path": "/a", "sha256": "ff"}, "network": "of it"}, True),
        ({"dataset": "d", "weights": {"path": "/a", "sha256": "00"}, "network": "of it"}, False),
        ({"dataset": "other", "weights": "ff", "network": "of the text"}, False),
        ({"dataset": "d", "weights": "00", "network": "of the text"}, False),
        ({"weights": "ff", "network": "of the text"}, False),
        (None, False),
    ],
)
def test_a_run_of_an_earlier_version_is_gone_on_with(
    tmp_path: Path, cfg: Cfg, before: dict[str, Any] | None, *, found: bool
) -> None:
    if before and before["network"] == "as now":
        before = {**before, "network": identity_of(cfg)}
    text = "# as it was written then\n" + cfg.render()
    assert (find(tmp_path, cfg, before, text) is not None) == found


@pytest.mark.parametrize("trained", ["<<<<<<<", ""])
def test_an_earlier_run_whose_network_is_gone_is_another(
    tmp_path: Path, cfg: Cfg, trained: str
) -> None:
    before = {"dataset": "d", "weights": "ff", "network": "of the text"}
    assert find(tmp_path, cfg, before, trained) is None


def test_an_earlier_run_of_another_schedule_is_another(tmp_path: Path, cfg: Cfg) -> None:
    before = {"dataset": "d", "weights": "ff", "network": "of the text"}
    other = cfg.copy()
    other.net.set("max_batches", 77)
    assert find(tmp_path, cfg, before, other.render()) is None
