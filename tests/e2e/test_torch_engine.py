"""Training with PyTorch in a project, on a machine without darknet."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None, reason="the torch engine needs PyTorch"
    ),
    pytest.mark.slow,
]


def test_a_run_is_trained_without_darknet_and_the_same_seed_repeats_it(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_TRAIN_ENGINE", "auto")
    project = make_project(executable=None, train_seed=5)
    for stage in (oiyolo.select, oiyolo.fetch, oiyolo.prepare, oiyolo.split):
        stage(project)
    monkeypatch.setenv("PATH", "/nowhere")
    plan = oiyolo.train(project, dry_run=True)
    assert plan.facts["engine"] == "torch"
    trained = [oiyolo.train(project, again=True) for _ in range(2)]
    assert trained[0].run.name != trained[1].run.name
    assert [run.iterations for run in trained] == [30, 30]
    weights = [run.weights.read_bytes() for run in trained]
    assert weights[0] == weights[1]
    record = json.loads((trained[0].run.folder / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["darknet"]["engine"] == "torch"
    log = read_log(trained[0].run.folder / "train_log.txt")
    assert log.iterations["iteration"].tolist() == list(range(1, 31))
    assert not oiyolo.train(project).seconds  # nothing to do
