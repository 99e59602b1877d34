"""The scores of a run's checkpoints: validation against training over iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.charts.canvas import COLOURS, ChartSheet
from oiyolo.trainlog.overfitting import find_overfitting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.trainlog.scores import CheckpointScore

_NAME: Final = "checkpoints"
_MAX_DOTS: Final = 60


def draw_scores(scores: Sequence[CheckpointScore], ax: Axes) -> None:
    """Draw mAP@0.5 of valid and train, and the interval of valid as a band.

    Args:
        scores: At least one score, by iteration.
        ax: The axes.
    """
    x = np.array([score.iteration for score in scores], dtype=np.float64)
    valid = np.array([score.valid_map50 for score in scores])
    train = np.array([score.train_map50 for score in scores])
    low, high = np.array([score.valid_map50_interval for score in scores], dtype=np.float64).T
    blue = COLOURS["blue"]
    dots: dict[str, Any] = {"marker": "o" if len(scores) <= _MAX_DOTS else "", "clip_on": False}
    ax.plot(x, valid, color=blue, lw=2.2, ms=5, label="valid mAP", **dots)
    label = "95 % interval of valid"
    if len(x) > 1 and np.isfinite(low).any():
        ax.fill_between(x, low, high, color=blue, alpha=0.15, lw=0, label=label)
    elif np.isfinite(low).any():
        ax.vlines(x, low, high, color=blue, alpha=0.4, lw=3, label=label)
    if np.isfinite(train).any():
        ax.plot(x, train, color=COLOURS["orange"], ls="--", lw=1.8, ms=4, label="train mAP", **dots)
    canvas.set_iteration_axis(ax, x[0], x[-1])
    canvas.set_fraction_axis(ax, "mAP@0.5")


def mark_best(best: CheckpointScore, ax: Axes) -> None:
    """Mark the checkpoint with the best weights."""
    ax.plot(
        [best.iteration],
        [best.valid_map50],
        color=COLOURS["vermilion"],
        ls="",
        marker="*",
        ms=13,
        zorder=5,
        label=f"best: valid mAP {best.valid_map50:.3f} at {best.iteration:,}",
        clip_on=False,
    )


def mark_overfitting(scores: Sequence[CheckpointScore], ax: Axes) -> None:
    """Draw a line where overfitting begins, if it does."""
    if overfitting := find_overfitting(scores):
        label = f"overfitting since {overfitting.since:,}"
        ax.axvline(overfitting.since, color=COLOURS["black"], lw=1.2, ls=(0, (5, 3)), label=label)


def save_checkpoints(
    scores: Sequence[CheckpointScore],
    best: CheckpointScore,
    folder: Path,
    *,
    title: str,
    summary: str,
) -> Path:
    """Save ``checkpoints.png`` and ``checkpoints.svg``; return the path of the PNG.

    Args:
        scores: The scores of the checkpoints, by iteration.
        best: The one that was chosen.
        folder: Folder for the chart, created if it is missing.
        title: Title of the chart.
        summary: Text below the title.
    """
    sheet = ChartSheet(title, [summary], [["one"]])
    ax = canvas.style_axes(sheet.panels["one"], "")
    draw_scores(scores, ax)
    mark_best(best, ax)
    mark_overfitting(scores, ax)
    sheet.legend()
    return canvas.save(sheet.figure, folder, _NAME)[0]
