"""Trainings side by side: their smoothed loss, IOU and mAP, in one colour each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.charts.canvas import Sheet
from oiyolo.charts.training import lineage_or_complain
from oiyolo.trainlog.lineage import number_text
from oiyolo.trainlog.smoothing import smooth_curve, thinned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from oiyolo.charts.canvas import Axes, Line
    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

COMPARISON_PX: Final = (1200, 900)
_NAMED_MOST: Final = 6
_LONGEST_NAME: Final = 40


def save_comparison(logs: Mapping[str, TrainLog], folder: Path) -> list[Path]:
    """Save ``comparison.png`` and ``comparison.svg``.

    Args:
        logs: Training logs by what to call them.
        folder: Where the pictures go; made when it is missing.

    Returns:
        The path of the PNG.

    Raises:
        InputFormError: A log has no iteration lines.
    """
    led = {name: lineage_or_complain(log) for name, log in logs.items()}
    led = dict(zip(_labels(led), led.values(), strict=True))
    return [canvas.save(_sheet(led).figure, folder, "comparison")[0]]


def _labels(names: Iterable[str]) -> list[str]:
    """Shorten long names in their middle, and keep them apart: curves need room as well."""
    labels: list[str] = []
    for name in names:
        kept = (_LONGEST_NAME - 1) // 2
        short = name if len(name) <= _LONGEST_NAME else f"{name[:kept]}…{name[-kept:]}"
        again = sum(label == short or label.startswith(f"{short} (") for label in labels)
        labels.append(f"{short} ({again + 1})" if again else short)
    return labels


def _sheet(runs: Mapping[str, Lineage]) -> Sheet:
    has_map = any(not led.maps.empty for led in runs.values())
    told = [f"{name}: {_told(led)}" for name, led in list(runs.items())[:_NAMED_MOST]]
    if len(runs) > _NAMED_MOST:
        told.append(f"and {len(runs) - _NAMED_MOST} more")
    sheet = Sheet(
        "training runs compared",
        told,
        [["loss", "loss"], ["iou", "map" if has_map else "iou"]],
        heights=(1.3, 1.0),
        size_px=COMPARISON_PX,
    )
    for name, title in {"loss": "loss, smoothed", "iou": "IOU, smoothed", "map": "mAP"}.items():
        if name in sheet.panels:
            canvas.dressed(sheet.panels[name], title)
    losses = []
    last = max(led.column("iteration")[-1] for led in runs.values())
    for (name, led), line in zip(runs.items(), canvas.lines(len(runs)), strict=True):
        x = led.column("iteration")
        losses.append(_draw(sheet.panels["loss"], x, led.column("loss"), line, name))
        _draw(sheet.panels["iou"], x, led.column("iou"), line, name)
        if not led.maps.empty:
            at, of = (led.maps[column].to_numpy(float) for column in ("iteration", "map"))
            sheet.panels["map"].plot(
                *thinned(at, of),
                color=line.colour,
                ls=line.style,
                lw=1.8,
                marker="o",
                ms=5,
                clip_on=False,
            )
    canvas.scaled(sheet.panels["loss"], np.concatenate(losses), "loss")
    for name, ax in sheet.panels.items():
        canvas.across(ax, 0, last)
        if name != "loss":
            canvas.up_to_one(ax, "")
    if not any(np.isfinite(led.column("iou")).any() for led in runs.values()):
        canvas.say(sheet.panels["iou"], "No IOU in these logs.")
    sheet.panels["loss"].set_xlabel("")
    sheet.legend()
    return sheet


def _draw(ax: Axes, x: canvas.Values, y: canvas.Values, line: Line, name: str) -> canvas.Values:
    """Draw one smoothed curve; give its values."""
    smooth_x, smooth_y, _ = smooth_curve(x, y)
    ax.plot(
        smooth_x,
        smooth_y,
        color=line.colour,
        ls=line.style,
        lw=2.0,
        label=name,
        marker="o" if len(smooth_x) == 1 else "",
    )
    return smooth_y


def _told(led: Lineage) -> str:
    last = led.table.iloc[-1]
    words = f"iteration {last['iteration']:,.0f} · average loss {number_text(last['avg_loss'])}"
    iou = smooth_curve(led.column("iteration"), led.column("iou"))[1]
    if len(iou):
        words += f" · IOU {iou[-1]:.3f}"
    if not led.maps.empty:
        words += f" · mAP {led.maps['map'].iloc[-1]:.3f} (best {led.maps['map'].max():.3f})"
    return words
