"""Fine-tuning a small pretrained detector on real photographs, from its first layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

import oiyolo
from oiyolo.trainlog.parse import read_log
from tests.support.alpacas import serve_alpacas

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("torch", reason="the torch engine needs PyTorch")
pytestmark = pytest.mark.slow

ITERATIONS: Final = 100


def test_a_high_rate_after_a_short_burn_in_does_not_diverge(
    real: Path, tmp_path: Path, make_project: Callable[..., Path]
) -> None:
    # With both forks of darknet on a CPU, this diverges within the first hundred iterations.
    detector = real / "pretrained" / "yolo-fastest-1.1.cfg"
    if not detector.is_file():
        pytest.skip(f"no pretrained detector in {detector.parent}")
    with serve_alpacas(real / "alpaca", tmp_path) as options:
        project = make_project(
            **options,
            executable=None,
            size=(160, 160),
            network=str(detector),
            weights=str(detector.with_suffix(".weights")),
            batch=4,
            learning_rate=0.001,
            burn_in=30,
            max_batches=ITERATIONS,
            max_rollbacks=0,
            map="darknet",
            train_seed=1,
        )
        oiyolo.fetch(project)
        oiyolo.split(project)
    done = oiyolo.train(project, engine="torch")
    loss = read_log(done.run.log_path).iterations["loss"].to_numpy()
    assert len(loss) == ITERATIONS
    assert np.isfinite(loss).all()
    assert loss[30:].max() < loss[:10].mean()
    assert np.median(loss[-20:]) < 0.1 * np.median(loss[:10])
