"""Charts of a training: loss, IOU and mean average precision over the iterations.

``plot_...`` functions draw on the axes they are given, or on a new figure's, and return them;
nothing is shown and nothing is saved but by ``save_charts``, ``save_comparison`` and ``save_png``.
"""

from __future__ import annotations

from oiyolo.charts.canvas import (
    COLOURS,
    DPI,
    FONT_PT,
    SERIES,
    SIZE_PX,
    new_figure,
    save_png,
    save_svg,
)
from oiyolo.charts.comparison import save_comparison
from oiyolo.charts.training import OVERVIEW_PX, plot_iou, plot_loss, plot_map, save_charts
from oiyolo.trainlog.smoothing import smoothed, smoothing_window

__all__ = [
    "COLOURS",
    "DPI",
    "FONT_PT",
    "OVERVIEW_PX",
    "SERIES",
    "SIZE_PX",
    "new_figure",
    "plot_iou",
    "plot_loss",
    "plot_map",
    "save_charts",
    "save_comparison",
    "save_png",
    "save_svg",
    "smoothed",
    "smoothing_window",
]
