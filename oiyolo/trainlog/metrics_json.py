"""A training's numbers as JSON: what ``metrics.json`` holds."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.trainlog.lineage import lineage
from oiyolo.trainlog.smoothing import smooth_curve
from oiyolo.trainlog.verdict import judge

if TYPE_CHECKING:
    import pandas as pd

    from oiyolo.trainlog.lineage import Lineage, Values
    from oiyolo.trainlog.tables import TrainLog

_LAST: Final = (
    *("iteration", "loss", "avg_loss", "rate", "seconds", "images", "hours_left"),
    *("images_per_s", "iou", "map"),
)
_WHOLE: Final = frozenset({"iteration", "images", "run", "line"})


def digest(log: TrainLog, *, name: str) -> dict[str, Any]:
    """Give a log's numbers as JSON knows them; what is no number is ``None``.

    Args:
        log: A training log.
        name: What it is called.

    Returns:
        name, verdict, last, best, resumed, saved, rate_steps, map_points, events and summary; see
        ``docs/files.md``.
    """
    led = lineage(log)
    found = {
        "name": name,
        "verdict": judge(led).as_dict(),
        "last": _last(led),
        "best": _best(led),
        "saved": list(led.saved),
        "resumed": list(led.resumed),
        "rate_steps": [step._asdict() for step in led.rate_steps],
        "map_points": _rows(log.maps),
        "events": _rows(log.events),
        "summary": {**asdict(log.summary), "text": str(log.summary)},
        "complaints": log.complaints(),
    }
    return {key: strict(value) for key, value in found.items()}


def strict(value: object) -> Any:  # noqa: ANN401  (JSON is what it is)
    """Give a value as strict JSON has it: null for nan and infinity, lists, plain numbers."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _last(led: Lineage) -> dict[str, Any] | None:
    """Give the latest iteration's numbers, with the last mAP that was measured."""
    if not len(led):
        return None
    row = led.table.iloc[-1]
    latest = led.log.latest
    hours_left = math.nan if latest is None else latest.hours_left
    values = {**{str(key): row[key] for key in led.table.columns}, "hours_left": hours_left}
    if not led.maps.empty:
        values["map"] = led.maps["map"].iloc[-1]
    found = {key: values[key] for key in (*_LAST, *led.layers)}
    found |= {key: int(found[key]) for key in _WHOLE & set(found)}
    for key, column in (("loss_smoothed", "loss"), ("iou_smoothed", "iou")):
        curve = _smoothed(led, column)[1]
        found[key] = float(curve[-1]) if len(curve) else None
    return found


def _best(led: Lineage) -> dict[str, Any]:
    """Give the lowest average and smoothed loss, the highest smoothed IOU, and the highest mAP."""
    average = led.column("avg_loss")
    points = led.maps
    return {
        "avg_loss": _extreme(led.column("iteration"), average, lowest=True),
        "loss_smoothed": _extreme(*_smoothed(led, "loss"), lowest=True),
        "iou_smoothed": _extreme(*_smoothed(led, "iou")),
        "map": _extreme(points["iteration"].to_numpy(float), points["map"].to_numpy(float)),
    }


def _smoothed(led: Lineage, column: str) -> tuple[Values, Values]:
    x, y, _ = smooth_curve(led.column("iteration"), led.column(column))
    return x, y


def _extreme(x: Values, y: Values, *, lowest: bool = False) -> dict[str, Any] | None:
    known = np.flatnonzero(np.isfinite(y))
    if not len(known):
        return None
    at = known[np.argmin(y[known]) if lowest else np.argmax(y[known])]
    return {"value": float(y[at]), "iteration": int(x[at])}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): row[key] for key in row} for row in table.to_dict("records")]
