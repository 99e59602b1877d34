"""Retraining with darknet, by a process that is killed, and again when the site has more images."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.demo_data.writer import write_mirror
from oiyolo.training.run import current_run, runs_in
from tests.conftest import SCENES, SEED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Shell, Site


@pytest.mark.slow
@pytest.mark.darknet
@pytest.mark.usefixtures("darknet")
def test_a_killed_retraining_is_continued_and_more_images_lead_to_another(
    own_site: Site,
    make_project: Callable[..., Path],
    shell: Shell,
    tmp_path: Path,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    folder = make_project(
        tmp_path / "project",
        **own_site.urls,
        cache=str(tmp_path / "cache"),
        train=0.4,
        valid=0.2,
        test=0.4,
        max_batches=400,
        retrain_from="last",
        max_loss=0.5,
    )
    oiyolo.refresh(folder)  # the killed process begins with the training
    runs = folder / "runs"
    killed = shell.start("refresh", "--retrain", "--project", folder)
    wait_until(lambda: any(run.has_weights for run in runs_in(runs)))
    os.killpg(killed.pid, signal.SIGKILL)
    shell.end_of(killed)
    assert current_run(runs) is None
    first = oiyolo.refresh(folder, retrain=True).retrained
    assert first is not None
    assert first.published
    (run,) = runs_in(runs)
    assert current_run(runs) == run
    assert [attempt["from_iteration"] > 0 for attempt in run.record["attempts"]] == [False, True]

    write_mirror(
        own_site.mirror.folder, base_url=own_site.server.base_url, seed=SEED, scenes=SCENES + 20
    )
    own_site.server.load_overrides()
    second = oiyolo.refresh(folder, retrain=True).retrained
    assert second is not None
    new = runs_in(runs)[-1]
    assert second.run == new.name != run.name
    assert new.record["weights"] == str(run.final_weights_path)
    assert new.record["attempts"][0]["from_iteration"] == 0
    assert second.published == (second.comparison["better"] == new.name)
    assert current_run(runs) == (new if second.published else run)
    again = oiyolo.refresh(folder, retrain=True)
    assert "\n" not in str(again)
    assert len(runs_in(runs)) == 2
