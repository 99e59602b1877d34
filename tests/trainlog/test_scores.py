"""The scores of a run's checkpoints: read, joined to the log, and part of figures and verdict."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.trainlog.lineage import build_lineage
from oiyolo.trainlog.metrics_json import build_metrics
from oiyolo.trainlog.parse import parse_log
from oiyolo.trainlog.scores import CheckpointScore, read_scores
from oiyolo.trainlog.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
FINAL = "Saving weights to weights/network_final.weights\n"
NONE = (math.nan, math.nan)


def lines(numbers: Sequence[int], *, loss: float = 1.0) -> str:
    return "".join(
        f"{i}: {loss:f}, {loss:f} avg, 0.001 rate, 0.5 seconds, {i * 8} images\n" for i in numbers
    )


def score(iteration: int, valid: float, train: float = 0.9, half: float = 0.02) -> CheckpointScore:
    return CheckpointScore(iteration, valid, train, (valid - half, valid + half))


OVERFITTING = [
    score(10 * i, min(0.1 * i, 0.75, 1.2 - 0.03 * i), min(0.95, 0.1 * i)) for i in range(1, 21)
]


def entry(iteration: int, **values: object) -> dict[str, object]:
    scores = {"valid_map50": 0.5, "train_map50": 0.6, "valid_map50_interval": [0.4, 0.6]}
    return {"iteration": iteration, "path": "x", "sha256": "x", "seconds": 1.0, **scores, **values}


def test_scores_are_read_by_iteration(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_scores.json"
    assert read_scores(path) == ()
    unknown = entry(100, train_map50=None, valid_map50_interval=None, valid_map50=1)
    content = {"valid_images": 3, "made_from": {}, "checkpoints": [entry(200), unknown]}
    path.write_text(json.dumps(content), encoding="utf-8")
    first, second = read_scores(path)
    assert (first.iteration, first.valid_map50) == (100, 1)
    assert all(map(math.isnan, (first.train_map50, *first.valid_map50_interval)))
    assert second == CheckpointScore(200, 0.5, 0.6, (0.4, 0.6))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"checkpoints": [{}]}',
        json.dumps({"checkpoints": [entry(1, valid_map50_interval=[0.1])]}),
        json.dumps({"checkpoints": [entry(1, valid_map50=None)]}),
    ],
)
def test_damaged_scores_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "checkpoint_scores.json"
    path.write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="oiyolo"):
        assert read_scores(path) == ()
    assert str(path) in caplog.text


def test_metrics_have_the_scores_of_their_iterations() -> None:
    log = parse_log(lines([1, 2, 3, 5, 7]))
    columns = ["valid_map50", "train_map50"]
    assert log.metrics().columns.tolist()[-4:] == ["map", *columns, "valid_loss"]
    assert log.metrics()[columns].isna().all(axis=None)
    # Iteration 6 was not printed, and 9 is not in the log (yet).
    scored = log.with_scores([score(2, 0.2), score(6, 0.6, math.nan), score(9, 0.9)]).metrics()
    expected = [[np.nan, np.nan], [0.2, 0.9], [np.nan] * 2, [0.6, np.nan], [np.nan] * 2]
    np.testing.assert_array_equal(scored[columns], expected)
    assert not log.scores


def test_figures_have_the_last_and_the_best_scores() -> None:
    log = parse_log(lines(range(1, 41))).with_scores(
        [score(10, 0.5), score(20, 0.7), CheckpointScore(30, 0.6, math.nan, NONE)]
    )
    figures = build_metrics(log, name="x")
    assert (figures["last"]["valid_map50"], figures["last"]["train_map50"]) == (0.6, None)
    assert figures["best"]["valid_map50"] == {"value": 0.7, "iteration": 20}
    assert figures["checkpoint_scores"][2] == {
        "iteration": 30, "valid_map50": 0.6, "train_map50": None, "valid_map50_interval": None,
    }  # fmt: skip
    said = figures["verdict"]
    assert "valid mAP 0.600 (best weights: iteration 20 with valid mAP 0.700)" in said["sentence"]
    assert said["figures"]["best_valid_map50_iteration"] == 20
    assert "train_map50" not in said["figures"]


def test_scores_of_replaced_iterations_do_not_count() -> None:
    text = START + lines(range(1, 101)) + START + lines(range(51, 71))
    lineage = build_lineage(parse_log(text).with_scores([score(60, 0.5), score(90, 0.8)]))
    assert [each.iteration for each in lineage.scores] == [60]
    assert verdict(lineage.log).figures["best_valid_map50"] == 0.5


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(lines(range(1, 201)), "overfitting", id="flat loss"),
        pytest.param(lines(range(1, 201)) + FINAL, "finished", id="finished"),
        pytest.param(lines(range(1, 190)) + lines(range(190, 201), loss=math.nan), "nan", id="nan"),
        pytest.param(
            lines(range(1, 180)) + lines(range(180, 201), loss=50), "diverging", id="diverging"
        ),
    ],
)
def test_the_place_of_overfitting_among_the_verdicts(text: str, kind: str) -> None:
    result = verdict(parse_log(text).with_scores(OVERFITTING))
    assert result.kind == kind
    says_so = "overfitting since iteration 150" in result.sentence
    assert says_so == (kind in {"overfitting", "finished"})
    assert "best weights: iteration 150 with valid mAP 0.750" in result.sentence
    assert result.figures["overfitting_since"] == 150
    assert result.figures["valid_map50_before"] == 0.75
    assert result.figures["train_map50_after"] == 0.95
