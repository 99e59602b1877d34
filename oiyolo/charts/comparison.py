"""A chart that compares training runs: smoothed loss, IOU and mAP, one colour per run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.charts.canvas import ChartSheet
from oiyolo.charts.training import require_lineage
from oiyolo.trainlog.lineage import format_number
from oiyolo.trainlog.scores import score_facts
from oiyolo.trainlog.smoothing import downsample, smooth_curve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

COMPARISON_PX: Final = (1200, 900)
_PANEL_TITLES: Final = {"loss": "smoothed loss", "iou": "smoothed IOU"}
_MAX_LISTED_RUNS: Final = 6
_MAX_NAME_CHARS: Final = 40


def save_comparison(logs: Mapping[str, TrainLog], folder: Path) -> list[Path]:
    """Save ``comparison.png`` and ``comparison.svg``.

    Args:
        logs: Training logs by name.
        folder: Folder for the charts, created if it is missing.

    Returns:
        The path of the PNG.

    Raises:
        InputFormError: A log has no iteration lines.
    """
    lineages = {name: require_lineage(log) for name, log in logs.items()}
    lineages = dict(zip(_labels(lineages), lineages.values(), strict=True))
    return [canvas.save(_sheet(lineages).figure, folder, "comparison")[0]]


def _labels(names: Iterable[str]) -> list[str]:
    """Return unique labels, with long names shortened in the middle to leave room for curves."""
    labels: list[str] = []
    for name in names:
        half = (_MAX_NAME_CHARS - 1) // 2
        short = name if len(name) <= _MAX_NAME_CHARS else f"{name[:half]}…{name[-half:]}"
        repeats = sum(label == short or label.startswith(f"{short} (") for label in labels)
        labels.append(f"{short} ({repeats + 1})" if repeats else short)
    return labels


def _sheet(runs: Mapping[str, Lineage]) -> ChartSheet:
    has_map = any(lineage.has_map for lineage in runs.values())
    subtitles = [f"{name}: {_run_summary(lineage)}" for name, lineage in runs.items()]
    if len(runs) > _MAX_LISTED_RUNS:
        subtitles[_MAX_LISTED_RUNS:] = [f"and {len(runs) - _MAX_LISTED_RUNS} more"]
    sheet = ChartSheet(
        "comparison of training runs",
        subtitles,
        [["loss", "loss"], ["iou", "map" if has_map else "iou"]],
        heights=(1.3, 1.0),
        size_px=COMPARISON_PX,
    )
    first = min(lineage.column("iteration")[0] for lineage in runs.values())
    last = max(lineage.column("iteration")[-1] for lineage in runs.values())
    for name, ax in sheet.panels.items():
        canvas.style_axes(ax, _map_title(runs) if name == "map" else _PANEL_TITLES[name])
        canvas.set_iteration_axis(ax, first, last)
    canvas.set_value_axis(sheet.panels["loss"], _draw(sheet, runs, "loss"), "loss")
    sheet.panels["loss"].set_xlabel("")
    canvas.set_fraction_axis(sheet.panels["iou"], "")
    if not len(_draw(sheet, runs, "iou")):
        canvas.show_message(sheet.panels["iou"], "No IOU in these logs.")
    if has_map:
        canvas.set_fraction_axis(sheet.panels["map"], "")
        _draw_maps(sheet.panels["map"], runs)
    sheet.legend()
    return sheet


def _draw(sheet: ChartSheet, runs: Mapping[str, Lineage], column: str) -> canvas.Values:
    """Draw the smoothed curve of a column for each run; return all y values."""
    drawn = []
    for (name, lineage), style in zip(runs.items(), canvas.line_styles(len(runs)), strict=True):
        x, y, _ = smooth_curve(lineage.column("iteration"), lineage.column(column))
        dots = "o" if len(x) == 1 else ""
        colour, dashes = style
        sheet.panels[column].plot(x, y, color=colour, ls=dashes, lw=2.0, label=name, marker=dots)
        drawn.append(y)
    return np.concatenate(drawn)


def _map_title(runs: Mapping[str, Lineage]) -> str:
    """Return what the mAP panel shows, which can be darknet's mAP for some runs only."""
    has_scores = [bool(lineage.scores) for lineage in runs.values() if lineage.has_map]
    if all(has_scores):
        return "valid mAP"
    return "valid mAP (darknet's of runs without scores)" if any(has_scores) else "mAP"


def _draw_maps(ax: Axes, runs: Mapping[str, Lineage]) -> None:
    """Draw the scores of each run on valid or, if it has none, the mAP that darknet measured."""
    for lineage, (colour, dashes) in zip(runs.values(), canvas.line_styles(len(runs)), strict=True):
        points = lineage.maps[["iteration", "map"]].to_numpy(float)
        if lineage.scores:
            points = np.array([score[:2] for score in lineage.scores], dtype=np.float64)
        x, y = points.T
        if len(x):
            x, y = downsample(x, y)
            ax.plot(x, y, color=colour, ls=dashes, lw=1.8, marker="o", ms=5, clip_on=False)


def _run_summary(lineage: Lineage) -> str:
    last = lineage.table.iloc[-1]
    text = f"iteration {last['iteration']:,.0f} · average loss {format_number(last['avg_loss'])}"
    iou = smooth_curve(lineage.column("iteration"), lineage.column("iou"))[1]
    if len(iou):
        text += f" · IOU {iou[-1]:.3f}"
    facts = score_facts(lineage.scores) or lineage.map_facts
    return text if facts is None else f"{text} · {facts}"
