"""The contents of ``metrics.json``: the figures of a run."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.trainlog.lineage import build_lineage
from oiyolo.trainlog.loading import measure_loading
from oiyolo.trainlog.scores import score_facts
from oiyolo.trainlog.smoothing import smooth_curve
from oiyolo.trainlog.verdict import assess

if TYPE_CHECKING:
    import pandas as pd

    from oiyolo.trainlog.lineage import Lineage, Values
    from oiyolo.trainlog.scores import CheckpointScore
    from oiyolo.trainlog.tables import TrainLog

_LAST_FIELDS: Final = (
    *("iteration", "loss", "avg_loss", "rate", "seconds", "images", "hours_left"),
    *("images_per_s", "iou", "map", "valid_map50", "train_map50"),
    "valid_loss",
)
_INTEGER_FIELDS: Final = frozenset({"iteration", "images", "run", "line"})


def build_metrics(log: TrainLog, *, name: str, max_batches: int | None = None) -> dict[str, Any]:
    """Return the figures of a run as JSON-compatible values, ``None`` in place of NaN.

    Args:
        log: A training log.
        name: Name of the run.
        max_batches: Number of iterations that it is planned to have, if it is known.

    Returns:
        name, verdict, loading, last, best, saved, resumed, rate_steps, map_points,
        checkpoint_scores, events, summary and complaints; see ``docs/files.md``.
    """
    lineage = build_lineage(log, max_batches=max_batches)
    loading = measure_loading(log)
    values = {
        "name": name,
        "verdict": assess(lineage).as_dict(),
        "loading": None if loading is None else loading.as_dict(),
        "last": _latest_values(lineage),
        "best": _best_values(lineage),
        "saved": list(lineage.saved_iterations),
        "resumed": list(lineage.resumed_iterations),
        "rate_steps": [step._asdict() for step in lineage.rate_steps],
        "map_points": _rows(log.maps),
        "checkpoint_scores": [_score_values(score) for score in log.scores],
        "events": _rows(log.events),
        "summary": {**asdict(log.summary), "text": str(log.summary)},
        "complaints": log.complaints(),
    }
    return {key: to_strict_json(value) for key, value in values.items()}


def to_strict_json(value: object) -> Any:  # noqa: ANN401  (JSON)
    """Return a value as strict JSON: null for NaN and infinity, lists, built-in numbers."""
    if isinstance(value, dict):
        return {str(key): to_strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_strict_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _latest_values(lineage: Lineage) -> dict[str, Any] | None:
    """Return the figures of the latest iteration, with the last mAP and scores so far."""
    if not len(lineage):
        return None
    row = lineage.table.iloc[-1]
    latest = lineage.log.latest
    hours_left = math.nan if latest is None else latest.hours_left
    row_values = {**{str(key): row[key] for key in lineage.table.columns}, "hours_left": hours_left}
    if facts := lineage.map_facts:
        row_values["map"] = facts.last
    if scores := score_facts(lineage.scores):
        row_values["valid_map50"] = scores.last.valid_map50
        row_values["train_map50"] = scores.last.train_map50
    if len(measured := lineage.valid_losses):
        row_values["valid_loss"] = measured["loss"].iloc[-1]
    values = {key: row_values[key] for key in (*_LAST_FIELDS, *lineage.layers)}
    values |= {key: int(values[key]) for key in _INTEGER_FIELDS & set(values)}
    for key, column in (("loss_smoothed", "loss"), ("iou_smoothed", "iou")):
        curve = _smoothed(lineage, column)[1]
        values[key] = float(curve[-1]) if len(curve) else None
    return values


def _best_values(lineage: Lineage) -> dict[str, Any]:
    """Return the lowest average and smoothed loss, the highest smoothed IOU, mAP and score."""
    average = lineage.column("avg_loss")
    facts, scores = lineage.map_facts, score_facts(lineage.scores)
    return {
        "avg_loss": _extremum(lineage.column("iteration"), average, lowest=True),
        "loss_smoothed": _extremum(*_smoothed(lineage, "loss"), lowest=True),
        "iou_smoothed": _extremum(*_smoothed(lineage, "iou")),
        "valid_loss": _extremum(*lineage.valid_loss_curve, lowest=True),
        "map": None if facts is None else {"value": facts.best, "iteration": facts.best_iteration},
        "valid_map50": None if scores is None else _best_score(scores.best),
    }


def _best_score(best: CheckpointScore) -> dict[str, Any]:
    return {"value": best.valid_map50, "iteration": best.iteration}


def _score_values(score: CheckpointScore) -> dict[str, Any]:
    values = score._asdict()
    if not all(map(math.isfinite, score.valid_map50_interval)):
        values["valid_map50_interval"] = None
    return values


def _smoothed(lineage: Lineage, column: str) -> tuple[Values, Values]:
    x, y, _ = smooth_curve(lineage.column("iteration"), lineage.column(column))
    return x, y


def _extremum(x: Values, y: Values, *, lowest: bool = False) -> dict[str, Any] | None:
    finite = np.flatnonzero(np.isfinite(y))
    if not len(finite):
        return None
    index = finite[np.argmin(y[finite]) if lowest else np.argmax(y[finite])]
    return {"value": float(y[index]), "iteration": int(x[index])}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): row[key] for key in row} for row in table.to_dict("records")]
