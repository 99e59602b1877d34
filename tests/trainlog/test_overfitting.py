"""Overfitting: curves that fall beyond their noise, and those that do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.trainlog.overfitting import MIN_SCORES, find_overfitting
from oiyolo.trainlog.scores import CheckpointScore

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

X = np.arange(30) / 29
RISE = 0.75 * (1 - np.exp(-6 * X))
FALL = RISE - np.maximum(0, X - 0.4) * 0.2
TRAIN = 0.95 * (1 - np.exp(-6 * X))


def scores(valid: Values, train: Values, *, half_width: float = 0.03) -> list[CheckpointScore]:
    rows = zip(valid.tolist(), train.tolist(), strict=True)
    return [
        CheckpointScore(100 * i, v, t, (v - half_width, v + half_width))
        for i, (v, t) in enumerate(rows, 1)
    ]


def test_valid_that_falls_while_train_rises_is_overfitting() -> None:
    noise = np.random.default_rng(0).normal(0, 0.003, len(X))
    found = find_overfitting(scores(FALL + noise, TRAIN))
    assert found is not None
    assert 1300 <= found.since <= 1900
    assert found.valid_before == pytest.approx(0.69, abs=0.02)
    assert found.valid == pytest.approx(0.64, abs=0.02)
    assert found.train == pytest.approx(TRAIN[-3], abs=0.01)
    assert str(found).startswith(f"overfitting since iteration {found.since:,}: train 0.95, valid")


@pytest.mark.parametrize(
    ("valid", "train", "half_width"),
    [
        pytest.param(RISE, TRAIN, 0.03, id="rises and levels off"),
        pytest.param(FALL, TRAIN - (RISE - FALL), 0.03, id="train falls too"),
        pytest.param(FALL, TRAIN, 0.2, id="small valid split"),
        pytest.param(FALL, TRAIN, math.nan, id="no interval"),
        pytest.param(FALL, TRAIN * math.nan, 0.03, id="no train"),
        pytest.param(FALL[::5], TRAIN[::5], 0.03, id="few checkpoints"),
        pytest.param(np.append(RISE[:-2], [0.5, 0.5]), TRAIN, 0.03, id="two low scores"),
        pytest.param(np.append(FALL[:-1], 0.75), TRAIN, 0.03, id="recovered"),
        pytest.param(
            np.where((X > 0.26) & (X < 0.45), FALL - 0.3, FALL), TRAIN, 0.03,
            id="an earlier fall that was made up",
        ),
        pytest.param(np.full(30, 0.7), np.full(30, 0.9), 0.0, id="constant"),
    ],
)  # fmt: skip
def test_other_curves_are_not(valid: Values, train: Values, half_width: float) -> None:
    assert find_overfitting(scores(valid, train, half_width=half_width)) is None


def test_too_few_checkpoints_raise_no_alarm() -> None:
    steep = np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.2, 0.1, 0.05])
    train = np.full(MIN_SCORES, 0.9)
    assert find_overfitting([]) is None
    assert find_overfitting(scores(steep[1:], train[1:])) is None
    assert find_overfitting(scores(steep, train)) is not None


def test_noise_seldom_raises_an_alarm() -> None:
    """The runs level off; each is assessed after every checkpoint."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        shared = rng.normal(0, 0.01, len(X))
        valid, train = (y + shared + rng.normal(0, 0.01, len(X)) for y in (RISE, TRAIN))
        run = scores(valid, train)
        alarms += any(find_overfitting(run[:n]) for n in range(MIN_SCORES, len(run) + 1))
    assert alarms <= 2
