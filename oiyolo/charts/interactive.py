"""Charts that respond in a page: hover, zoom, and a legend that hides series.

Bokeh draws them. Its script is read from the installed package when a page is written, and becomes
part of the page. Where scripts do not run, and in print, a picture is shown in their place.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.charts.canvas import COLOURS
from oiyolo.core import files
from oiyolo.trainlog.smoothing import downsample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.charts.canvas import Values

_HEIGHT_PX: Final = 300
_MAX_POINTS: Final = 2_000
_POINTS_AS_MARKS: Final = 60
"""A series with at most this many points has a mark at each."""
_SMOOTHED: Final = 0.02
"""Share of the iterations over which the smoothed loss is averaged."""
_MIN_WINDOW: Final = 10
_LOG_RATIO: Final = 30
"""Ratio of the highest to the lowest value from which an axis is logarithmic."""
_LINE_COLOURS: Final = ("sky", "orange", "green", "purple", "vermilion", "blue")
"""Colours that are legible on a light and on a dark page."""


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        x, y: Its points, shape (n,) each.
        detail: Values that are shown next to ``y`` when the pointer is near, by their name.
    """

    name: str
    x: Values
    y: Values
    detail: tuple[str, Values] | None = None


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart for a page.

    Attributes:
        name: Its name, by which the page finds it.
        title: What it shows.
        axes: Labels of the horizontal and of the vertical axis.
        series: Its lines, at least one.
        picture: What is shown in its place without scripts; ``None`` if nothing is.
        is_fraction: Whether both or only the vertical axis range from 0 to 1.
        is_log: Whether the vertical axis is logarithmic.
    """

    name: str
    title: str
    axes: tuple[str, str]
    series: Sequence[Series]
    picture: Path | None = None
    is_fraction: bool = False
    is_log: bool = False


def training_charts(metrics_csv: Path, pictures: Path) -> list[Chart]:
    """Return the charts of a training: loss, IOU, mAP, validation loss and learning rate.

    Args:
        metrics_csv: ``metrics.csv`` of the run.
        pictures: Folder of the charts that ``plot`` drew.
    """
    columns = _read_columns(metrics_csv)
    iterations = columns.pop("iteration", np.empty(0))

    def line(name: str, column: str) -> Series | None:
        values = columns.get(column, np.empty(0))
        known = np.isfinite(values)
        return Series(name, iterations[known], values[known]) if known.any() else None

    def add(name: str, title: str, label: str, *lines: Series | None, **more: bool) -> None:
        found = [series for series in lines if series is not None]
        if found:
            path = pictures / f"{name}.png"
            picture = path if path.is_file() else None
            charts.append(Chart(name, title, ("iteration", label), found, picture, **more))

    charts: list[Chart] = []
    loss, valid_loss = line("each iteration", "loss"), line("validation", "valid_loss")
    spans = loss is not None and _spans_decades(loss.y)
    add("loss", "Loss", "loss", loss, *_smoothed(loss), valid_loss, is_log=spans)
    title = "IOU of predictions with their objects"
    add("iou", title, "mean IOU", line("all layers", "iou"), is_fraction=True)
    add(
        "map",
        "mAP while training",
        "mAP@0.5",
        line("validation images", "valid_map50"),
        line("sample of training images", "train_map50"),
        line("measured by darknet", "map"),
        is_fraction=True,
    )
    add("rate", "Learning rate", "learning rate", line("learning rate", "rate"))
    return charts


def precision_recall_chart(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Chart | None:
    """Return the chart of precision against recall of each class; ``None`` without curves.

    Args:
        curves: "score", "precision" and "recall" by class, as in ``evaluation.json``.
    """
    series = [
        Series(
            name,
            np.array(curve["recall"]),
            np.array(curve["precision"]),
            ("confidence", np.array(curve["score"])),
        )
        for name, curve in curves.items()
        if curve["score"]
    ]
    axes = ("recall", "precision")
    return Chart("pr", "Precision and recall", axes, series, is_fraction=True) if series else None


def joined(charts_by_run: Mapping[str, Sequence[Chart]]) -> list[Chart]:
    """Return charts that show the lines of several runs, named after them.

    Args:
        charts_by_run: The charts of each run; those of the same name are joined.
    """
    found: dict[str, Chart] = {}
    for run, charts in charts_by_run.items():
        for chart in charts:
            lines = [replace(series, name=f"{run}: {series.name}") for series in chart.series]
            before = found.get(chart.name)
            found[chart.name] = replace(
                chart,
                series=[*(before.series if before else ()), *lines],
                is_log=chart.is_log or (before is not None and before.is_log),
                picture=None,
            )
    return list(found.values())


def scripts(charts: Sequence[Chart]) -> list[str]:
    """Return the scripts of a page with charts, the library first; none without charts."""
    library = resources.files("bokeh").joinpath("server", "static", "js", "bokeh.min.js")
    drawing = resources.files(__package__).joinpath("assets", "charts.js")
    return [path.read_text(encoding="utf-8") for path in (library, drawing)] if charts else []


def to_json(charts: Sequence[Chart]) -> dict[str, Any]:
    """Return what the script draws, by the name of the chart."""
    from bokeh.embed import json_item  # noqa: PLC0415  (half a second, only for pages)

    items: dict[str, Any] = {}
    for chart in charts:
        target: Any = f"chart-{chart.name}"
        items[chart.name] = json_item(_figure(chart), target)
    return items


def _figure(chart: Chart) -> Any:  # noqa: ANN401  (bokeh's)
    from bokeh.models import BoxZoomTool, ColumnDataSource, HoverTool  # noqa: PLC0415  (as above)
    from bokeh.plotting import figure  # noqa: PLC0415

    zoom = BoxZoomTool(dimensions="auto")
    plot: Any = figure(
        height=_HEIGHT_PX,
        sizing_mode="stretch_width",
        x_axis_label=chart.axes[0],
        y_axis_label=chart.axes[1],
        y_axis_type="log" if chart.is_log else "auto",
        tools=["pan", "xwheel_zoom", zoom, "reset"],
        active_drag=zoom,
        active_scroll=None,
        toolbar_location="above",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
    )
    plot.toolbar.logo = None
    if chart.is_fraction:
        plot.y_range.update(start=-0.02, end=1.02)
    if chart.axes[0] == "iteration":
        plot.xaxis.formatter.use_scientific = False
    for number, series in enumerate(chart.series):
        x, y = downsample(series.x, series.y, _MAX_POINTS)
        data: dict[str, Any] = {"x": x, "y": y}
        tips = [(chart.axes[0], "@x{0,0}" if chart.axes[0] == "iteration" else "@x{0.000}")]
        tips.append((chart.axes[1], "@y{0.000000}" if chart.name == "rate" else "@y{0,0.000}"))
        if series.detail is not None:
            data["detail"] = series.detail[1]
            tips.append((series.detail[0], "@detail{0.00}"))
        source = ColumnDataSource(data)
        colour = COLOURS[_LINE_COLOURS[number % len(_LINE_COLOURS)]]
        style: dict[str, Any] = {"color": colour, "legend_label": series.name}
        line = plot.line("x", "y", source=source, line_width=2, **style)
        if len(x) <= _POINTS_AS_MARKS:
            plot.scatter("x", "y", source=source, size=6, **style)
        tips.insert(0, ("", series.name))
        plot.add_tools(HoverTool(renderers=[line], tooltips=tips, line_policy="nearest"))
    legend = plot.legend[0]
    legend.update(
        orientation="horizontal", click_policy="hide", background_fill_alpha=0,
        border_line_color=None, label_text_font_size="12px", padding=0, margin=0,
    )  # fmt: skip
    plot.add_layout(legend, "above")
    legend.visible = len(chart.series) > 1
    return plot


def _smoothed(loss: Series | None) -> list[Series]:
    """Return the moving average of a loss, if there are enough iterations."""
    window = 0 if loss is None else max(_MIN_WINDOW, round(len(loss.y) * _SMOOTHED))
    if loss is None or len(loss.y) <= window:
        return []
    sums = np.cumsum(np.concatenate([[0.0], loss.y]))
    return [
        Series(
            f"mean of {window:,}", loss.x[window - 1 :], (sums[window:] - sums[:-window]) / window
        )
    ]


def _spans_decades(values: Values) -> bool:
    lowest = float(values.min())
    return lowest > 0 and float(values.max()) > _LOG_RATIO * lowest


def _read_columns(path: Path) -> dict[str, Values]:
    """Return the columns of a table of numbers; a missing number is NaN."""
    if not path.is_file():
        return {}
    with files.open_text(path) as file:
        rows = csv.reader(file)
        names = next(rows, [])
        values = [[float(text) if text else math.nan for text in row] for row in rows]
    table = np.array(values, dtype=np.float64).reshape(-1, len(names))
    return {name: table[:, column] for column, name in enumerate(names)}
